# What is measured and who is told. The numbers come from the services' own lines (shared/google/src/telemetry/mod.rs has the
# table of their fields; tests/tests/dashboards.rs compares) and from what Google measures anyway.

resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alert_emails)

  display_name = "${var.prefix}: ${each.key}"
  type         = "email"
  labels       = { email_address = each.key }
  depends_on   = [time_sleep.apis]
}

locals {
  channels     = [for address in sort(tolist(toset(var.alert_emails))) : google_monitoring_notification_channel.email[address].id]
  service_logs = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=(${join(" OR ", [for service in values(google_cloud_run_v2_service.service) : "\"${service.name}\""])})"

  # Of each leg's line, the numbers that the dashboard reads.
  numbers = {
    splitter  = ["rows", "bad_rows"]
    generator = ["calls", "ambiguous_calls", "rejected", "wasted", "prompt_tokens", "output_tokens", "thought_tokens", "cached_tokens", "cost_microusd", "latency_sum_ms", "latency_p50_ms", "latency_p95_ms"]
    loader    = ["loaded", "failed", "unchanged", "superseded", "commit_ms"]
  }

  # One metric each. Of a distribution everything is read: its sum, its count, its shape.
  measured = merge(
    merge([for leg, fields in local.numbers : {
      for field in fields : "${leg}/${field}" => { where = "jsonPayload.leg=\"${leg}\"", field = field, label = "pipeline" }
    }]...),
    # The loader writes a line of its own for each reason that rows of a part failed for.
    { "loader/failed_by_reason" = { where = "jsonPayload.failedRows>0", field = "failed_rows", label = "reason" } },
  )
}

resource "google_logging_metric" "number" {
  for_each = local.measured

  name   = "${var.prefix}/${each.key}"
  filter = "${local.service_logs} AND ${each.value.where}"
  # Cloud Logging shows bad_rows as badRows.
  value_extractor  = "EXTRACT(jsonPayload.${join("", [for i, word in split("_", each.value.field) : i == 0 ? word : title(word)])})"
  label_extractors = { (each.value.label) = "EXTRACT(jsonPayload.${each.value.label})" }

  metric_descriptor {
    metric_kind  = "DELTA"
    value_type   = "DISTRIBUTION"
    unit         = endswith(each.value.field, "_ms") ? "ms" : "1"
    display_name = "${var.prefix} ${each.key}"
    labels {
      key        = each.value.label
      value_type = "STRING"
    }
  }

  bucket_options {
    # The shape is read of times only: 10 ms to 20 minutes, each bucket half as wide again.
    dynamic "exponential_buckets" {
      for_each = endswith(each.value.field, "_ms") ? [29] : []
      content {
        num_finite_buckets = exponential_buckets.value
        growth_factor      = 1.5
        scale              = 10
      }
    }
    dynamic "explicit_buckets" {
      for_each = endswith(each.value.field, "_ms") ? [] : [[1]]
      content {
        bounds = explicit_buckets.value
      }
    }
  }

  depends_on = [time_sleep.apis]
}

# Alerts look at Google's own metrics and at log lines, never at the metrics above: a policy on a metric of the same apply fails
# with "Cannot find metric(s)" for minutes (issue 11102 of the provider).

locals {
  # A line with the field `alert` is for a person. What it says → what to do.
  log_alerts = {
    run_failed = {
      title = "a run failed"
      text  = "The run was refused: its file, pipeline or query is wrong, or the file was replaced or removed. Rows that were loaded before that stay. Why: `SELECT run, pipeline, refused FROM Runs WHERE run = '…'` in the store, with the run of the line. Mend the file and drop it again."
    }
    systemic = {
      title = "stopped by a systemic error"
      text  = "A right, a quota, a table or the model itself is missing: no row failed, and the work goes on by itself within a minute of the mend. The line says what is missing. Often: the model's name or location, `aiplatform.endpoints.predict`, a table that `terraform apply` has not made yet."
    }
    corrupt = {
      title = "a stored object is corrupt"
      text  = "Somebody or something changed an object after it was written. If the answers are corrupt, their rows fail `answers_corrupt`: retry the run. If the shard is, the run cannot end: cancel it, and drop the file again. See in the audit logs who wrote there (`audit_logs = true`)."
    }
    bad_event = {
      title = "an event that cannot be read"
      text  = "It was acknowledged and left; a sweep finds whatever it was about. If there are many: does something other than Eventarc call the service?"
    }
    sweep = {
      title = "a sweep did not end"
      text  = "Storage, the store or the model did not answer; the next minute tries again. If it stays: the line says what failed."
    }
    panic = {
      title = "a panic"
      text  = "A fault in Tasuki. The work is taken up again by another instance or sweep. Please report file and line of the log entry: it holds no data."
    }
  }
}

resource "google_monitoring_alert_policy" "log" {
  for_each = local.log_alerts

  display_name          = "${var.prefix}: ${each.value.title}"
  combiner              = "OR"
  severity              = contains(["bad_event", "sweep"], each.key) ? "WARNING" : "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "a line says so"
    condition_matched_log {
      filter = "${local.service_logs} AND jsonPayload.alert=\"${each.key}\""
    }
  }
  alert_strategy {
    auto_close = "86400s"
    notification_rate_limit {
      period = "3600s"
    }
  }
  documentation {
    mime_type = "text/markdown"
    content   = each.value.text
  }

  depends_on = [time_sleep.apis]
}

resource "google_monitoring_alert_policy" "error" {
  display_name          = "${var.prefix}: an error that no other alert tells of"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  conditions {
    display_name = "a line of severity ERROR or above"
    condition_matched_log {
      # A 503 is how a service says "again later", and its request's log line is an error to Cloud Run.
      filter = "${local.service_logs} AND severity>=ERROR AND NOT jsonPayload.alert:* AND NOT log_id(\"run.googleapis.com/requests\")"
    }
  }
  alert_strategy {
    auto_close = "86400s"
    notification_rate_limit {
      period = "3600s"
    }
  }
  documentation {
    mime_type = "text/markdown"
    content   = "A service does not start (the line names each wrong setting), was killed for its memory, or its image cannot be fetched. `gcloud run services describe ${var.prefix}-… --region=${var.region}` shows the state of its last revision; the one before it goes on serving."
  }

  depends_on = [time_sleep.apis]
}

resource "google_monitoring_alert_policy" "dead_letters" {
  display_name          = "${var.prefix}: dead letters"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  conditions {
    display_name = "events lie in the dead letters"
    condition_threshold {
      filter          = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${google_pubsub_subscription.dead.name}\" AND metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"
      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }
  documentation {
    mime_type = "text/markdown"
    content   = "An event was refused ${var.delivery.max_delivery_attempts} times. The sweeps do its work without it, so nothing is lost; but find out why. Look: `gcloud pubsub subscriptions pull ${google_pubsub_subscription.dead.name} --limit=10` (an event names an object and holds no rows). When the reason is mended: the same with `--auto-ack` empties it."
  }

  depends_on = [time_sleep.apis]
}

resource "google_monitoring_alert_policy" "oldest_event" {
  display_name          = "${var.prefix}: events wait"
  combiner              = "OR"
  severity              = "WARNING"
  notification_channels = local.channels

  dynamic "conditions" {
    for_each = local.hops
    content {
      display_name = "the ${conditions.key}'s oldest event is ${local.event_hours} hours old"
      condition_threshold {
        filter          = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=\"${basename(local.eventarc_subscription[conditions.key])}\" AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
        comparison      = "COMPARISON_GT"
        threshold_value = local.event_hours * 3600
        duration        = "300s"
        aggregations {
          alignment_period   = "60s"
          per_series_aligner = "ALIGN_MAX"
        }
      }
    }
  }
  documentation {
    mime_type = "text/markdown"
    content   = "Either there is more work than the services do, or one of them does none. Is the dashboard's \"Rows a second\" above zero? Then wait, or raise `max_in_flight`. Is \"Busy replies\" high? Then the model has no more for you now. Else look for an error in the service's log."
  }

  depends_on = [time_sleep.apis]
}

locals {
  # A queue is not a loss: 10 million rows at 2,500 a second take an hour.
  event_hours = 2
  # Cloud Scheduler calls each service every minute.
  sweep_seconds = 600
}

resource "google_monitoring_alert_policy" "sweep_stopped" {
  display_name          = "${var.prefix}: no sweep"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  dynamic "conditions" {
    for_each = google_cloud_run_v2_service.service
    content {
      display_name = "the ${conditions.key} did not answer 2xx for ${local.sweep_seconds / 60} minutes"
      condition_absent {
        filter   = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=\"${conditions.value.name}\" AND metric.type=\"run.googleapis.com/request_count\" AND metric.labels.response_code_class=\"2xx\""
        duration = "${local.sweep_seconds}s"
        aggregations {
          alignment_period     = "60s"
          per_series_aligner   = "ALIGN_DELTA"
          cross_series_reducer = "REDUCE_SUM"
          group_by_fields      = ["resource.labels.service_name"]
        }
      }
    }
  }
  documentation {
    mime_type = "text/markdown"
    content   = "A sweep comes every minute and finds what lost events left behind. None came, or each was refused. `gcloud scheduler jobs list --location=${var.region}`: is the job enabled, and what was its last status? 403: the scheduler's account lost `roles/run.invoker` (apply again). 503: the service's log says why."
  }

  depends_on = [time_sleep.apis]
}
