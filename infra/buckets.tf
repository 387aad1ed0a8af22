# Four buckets: one for each hop, and the state, which calls nobody.

locals {
  buckets = {
    # Versions: an overwritten file is a new run, and the run of the old one reads on in its own version.
    inbox = { versions = true, soft_delete_days = 0, expire = { "" = var.retention_days } }
    # Made again from the source if they were lost: not worth keeping twice.
    shards = { versions = false, soft_delete_days = 0, expire = { "" = var.retention_days } }
    # Paid for.
    answers = { versions = false, soft_delete_days = 7, expire = { "" = var.retention_days } }
    # A claim is overwritten every 30 s: versions and soft delete would keep, and bill, each of them.
    # Plans and what goes with them outlive the dropped file, or it would be taken for a new one. cache/ holds answers that were paid
    # for: an expired one is asked again. pipelines/ stays for ever.
    state = {
      versions = false, soft_delete_days = 0
      expire = {
        "claims/"  = var.retention_days
        "ckpt/"    = var.retention_days
        "splits/"  = 2 * var.retention_days
        "plans/"   = 2 * var.retention_days
        "open/"    = 2 * var.retention_days
        "control/" = 2 * var.retention_days
        "cache/"   = var.answer_cache_days
      }
    }
  }
}

resource "google_storage_bucket" "bucket" {
  for_each = local.buckets

  name                        = "${var.project_id}-${var.prefix}-${each.key}"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = !var.protect

  versioning {
    enabled = each.value.versions
  }
  soft_delete_policy {
    retention_duration_seconds = each.value.soft_delete_days * 86400
  }

  dynamic "encryption" {
    for_each = var.kms_key[*]
    content {
      default_kms_key_name = encryption.value
    }
  }

  dynamic "lifecycle_rule" {
    for_each = each.value.expire
    content {
      condition {
        age            = lifecycle_rule.value
        matches_prefix = compact([lifecycle_rule.key])
      }
      action {
        type = "Delete"
      }
    }
  }
  dynamic "lifecycle_rule" {
    for_each = each.value.versions ? [14] : [] # days: longer than a split takes
    content {
      condition {
        with_state                 = "ARCHIVED"
        days_since_noncurrent_time = lifecycle_rule.value
      }
      action {
        type = "Delete"
      }
    }
  }
  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }

  depends_on = [time_sleep.kms]
}

locals {
  storage_roles = {
    views   = "roles/storage.objectViewer"
    creates = "roles/storage.objectCreator" # cannot overwrite: what is handed on is written once
    uses    = "roles/storage.objectUser"    # overwrites and deletes
    lists   = local.custom_role["list"]
  }

  # Who does what where. Without prefixes: in the whole bucket.
  storage_access = [
    { who = "splitter", does = "views", bucket = "inbox", prefixes = [] },
    { who = "splitter", does = "creates", bucket = "shards", prefixes = [] },
    { who = "splitter", does = "views", bucket = "shards", prefixes = [] },
    { who = "splitter", does = "lists", bucket = "state", prefixes = [] },
    { who = "splitter", does = "creates", bucket = "state", prefixes = ["plans/", "open/"] },
    { who = "splitter", does = "views", bucket = "state", prefixes = ["plans/", "open/", "pipelines/", "control/"] },
    { who = "splitter", does = "uses", bucket = "state", prefixes = ["splits/"] },

    { who = "generator", does = "views", bucket = "shards", prefixes = [] },
    { who = "generator", does = "creates", bucket = "answers", prefixes = [] },
    { who = "generator", does = "views", bucket = "answers", prefixes = [] },
    { who = "generator", does = "lists", bucket = "state", prefixes = [] },
    # control/: it parks a run whose money is spent, and takes no marker of a person's away.
    { who = "generator", does = "creates", bucket = "state", prefixes = ["control/"] },
    { who = "generator", does = "views", bucket = "state", prefixes = ["plans/", "open/", "control/"] },
    # cache/: it replaces an answer that is none any more.
    { who = "generator", does = "uses", bucket = "state", prefixes = ["claims/", "ckpt/", "cache/"] },

    { who = "loader", does = "views", bucket = "shards", prefixes = [] },
    { who = "loader", does = "views", bucket = "answers", prefixes = [] },
    { who = "loader", does = "lists", bucket = "state", prefixes = [] },
    { who = "loader", does = "views", bucket = "state", prefixes = ["plans/", "control/"] },
    { who = "loader", does = "uses", bucket = "state", prefixes = ["open/"] },

    # More than the protocol's "creator on inbox" (9): whose run was refused mends the file and drops it again, and `tasuki run --again`
    # overwrites. The inbox has versions.
    { who = "operator", does = "uses", bucket = "inbox", prefixes = [] },
    { who = "operator", does = "views", bucket = "shards", prefixes = [] },
    { who = "operator", does = "views", bucket = "answers", prefixes = [] },
    { who = "operator", does = "views", bucket = "state", prefixes = [] },
    { who = "operator", does = "uses", bucket = "state", prefixes = ["control/"] },
  ]

  # One grant for each member: a service has one, the operators are many.
  storage_grants = merge([for access in local.storage_access : {
    for member in access.who == "operator" ? var.operators : [access.who] :
    join(" ", compact([member, access.does, access.bucket, join("+", access.prefixes)])) => merge(access, { member = member })
  }]...)
}

resource "google_storage_bucket_iam_member" "grant" {
  for_each = local.storage_grants

  bucket = google_storage_bucket.bucket[each.value.bucket].name
  role   = local.storage_roles[each.value.does]
  member = each.value.who == "operator" ? each.value.member : local.member[each.value.who]

  dynamic "condition" {
    for_each = length(each.value.prefixes) == 0 ? [] : [each.value.prefixes]
    content {
      title = "only ${join(" ", condition.value)}"
      expression = join(" || ", [for prefix in condition.value :
      "resource.name.startsWith(\"projects/_/buckets/${google_storage_bucket.bucket[each.value.bucket].name}/objects/${prefix}\")"])
    }
  }
}
