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
    # Plans and what goes with them outlive the dropped file, or it would be taken for a new one. pipelines/ stays for ever.
    state = {
      versions = false, soft_delete_days = 0
      expire = {
        "claims/"  = var.retention_days
        "ckpt/"    = var.retention_days
        "splits/"  = 2 * var.retention_days
        "plans/"   = 2 * var.retention_days
        "open/"    = 2 * var.retention_days
        "control/" = 2 * var.retention_days
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
