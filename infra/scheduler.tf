# The clock: sweeps, so that a lost event only delays; and runs by the clock.

resource "google_cloud_scheduler_job" "sweep" {
  for_each = local.hops

  name             = "${var.prefix}-sweep-${each.key}"
  description      = "The ${each.key} looks for work whose event was lost."
  region           = var.region
  schedule         = "* * * * *"
  time_zone        = "Etc/UTC"
  attempt_deadline = "${var.delivery.ack_deadline_seconds}s" # a sweep works inside its request; the next one waits for it

  retry_config {
    retry_count = 0 # the next minute comes anyway
  }

  http_target {
    http_method = "POST"
    uri         = "${google_cloud_run_v2_service.service[each.key].uri}/sweep"
    oidc_token {
      service_account_email = local.email["scheduler"]
      audience              = google_cloud_run_v2_service.service[each.key].uri
    }
  }

  depends_on = [google_cloud_run_v2_service_iam_member.invoker]
}

locals {
  # Cloud Scheduler cannot write the time into a name, so each firing overwrites one object. A new generation is a new run, and the
  # run before it reads on in its version of the object.
  dropped = { for name, schedule in var.schedules : name => "${schedule.pipeline}/${name}.run.toml" }
}

# Creating and deleting, and on exactly the schedule's own object: nothing else in the inbox can be touched, and nothing read.
resource "google_storage_bucket_iam_member" "dropper" {
  for_each = local.dropped

  bucket = google_storage_bucket.bucket["inbox"].name
  role   = local.custom_role["drop"]
  member = local.member["dropper"]

  condition {
    title      = "only ${each.key}"
    expression = "resource.name == \"projects/_/buckets/${google_storage_bucket.bucket["inbox"].name}/objects/${each.value}\""
  }
}

resource "google_cloud_scheduler_job" "run" {
  for_each = var.schedules

  name             = "${var.prefix}-run-${each.key}"
  description      = "Starts a run of pipeline ${each.value.pipeline}."
  region           = var.region
  schedule         = each.value.cron
  time_zone        = each.value.time_zone
  attempt_deadline = "60s"

  # A repetition whose first attempt did arrive makes a second run of the same rows: one repetition for a passing fault, no more.
  retry_config {
    retry_count          = 1
    min_backoff_duration = "30s"
  }

  http_target {
    http_method = "POST"
    uri         = "https://storage.googleapis.com/upload/storage/v1/b/${google_storage_bucket.bucket["inbox"].name}/o?uploadType=media&name=${urlencode(local.dropped[each.key])}"
    headers     = { "Content-Type" = "application/toml" }
    body        = filebase64(each.value.run_file)
    oauth_token {
      service_account_email = local.email["dropper"]
      scope                 = "https://www.googleapis.com/auth/devstorage.read_write"
    }
  }

  lifecycle {
    precondition {
      condition     = contains(keys(local.pipelines), each.value.pipeline)
      error_message = "schedules: ${each.key} is for pipeline ${each.value.pipeline}, which is not deployed. There are: ${join(", ", keys(local.pipelines))}."
    }
  }

  depends_on = [google_storage_bucket_iam_member.dropper, google_storage_bucket_object.pipeline, google_eventarc_trigger.hop]
}
