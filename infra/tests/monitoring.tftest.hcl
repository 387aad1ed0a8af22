# What is measured, shown and told. Without Google, as in rules.tftest.hcl.

provider "google" {
  project      = "demo-project"
  region       = "europe-west4"
  access_token = "offline"
}
provider "google-beta" {
  project      = "demo-project"
  region       = "europe-west4"
  access_token = "offline"
}

variables {
  project_id = "demo-project"
}

override_resource {
  target = google_pubsub_topic.dead
  values = { id = "projects/demo-project/topics/tasuki-dead-letters" }
}
override_data {
  target = data.google_pubsub_subscription.delivery
  values = {
    ack_deadline_seconds       = 600
    message_retention_duration = "604800s"
    retry_policy               = [{ minimum_backoff = "10s", maximum_backoff = "600s" }]
    dead_letter_policy         = [{ dead_letter_topic = "projects/demo-project/topics/tasuki-dead-letters", max_delivery_attempts = 100 }]
    push_config                = [{ push_endpoint = "https://s.run.app/events?__GCP_CloudEventsMode=GCS_NOTIFICATION", attributes = {}, no_wrapper = [], oidc_token = [{ audience = "https://s.run.app", service_account_email = "tasuki-trigger@demo-project.iam.gserviceaccount.com" }] }]
  }
}

run "metrics_read_the_lines_as_cloud_logging_shows_them" {
  command = apply # the names of Eventarc's subscriptions are known only then

  variables {
    prefix = "my-relay"
  }

  assert {
    condition = (
      google_logging_metric.number["generator/latency_p95_ms"].value_extractor == "EXTRACT(jsonPayload.latencyP95Ms)" &&
      google_logging_metric.number["generator/cost_microusd"].value_extractor == "EXTRACT(jsonPayload.costMicrousd)" &&
      google_logging_metric.number["splitter/bad_rows"].value_extractor == "EXTRACT(jsonPayload.badRows)" &&
      google_logging_metric.number["loader/loaded"].value_extractor == "EXTRACT(jsonPayload.loaded)"
    )
    error_message = "A number is looked for under another name than Cloud Logging gives it."
  }
  assert {
    condition = alltrue([for key, metric in google_logging_metric.number :
    strcontains(metric.filter, key == "loader/failed_by_reason" ? "jsonPayload.failedRows>0" : "jsonPayload.leg=\"${split("/", key)[0]}\"")])
    error_message = "A metric counts another leg's lines."
  }
  assert {
    condition     = alltrue([for metric in google_logging_metric.number : strcontains(metric.filter, "(\"my-relay-generator\" OR \"my-relay-loader\" OR \"my-relay-splitter\")")])
    error_message = "A metric counts lines of something other than the three services."
  }
  assert {
    condition     = alltrue([for name in values(local.promql) : strcontains(google_monitoring_dashboard.main.dashboard_json, name)])
    error_message = "A metric is paid for and not shown."
  }
  assert {
    condition     = local.promql["generator/calls"] == "logging_googleapis_com:user_my_relay_generator_calls"
    error_message = "The dashboard asks for a name that PromQL does not have."
  }
  assert {
    condition     = alltrue([for name in ["oldest_unacked_message_age", "request_latencies", "instance_count"] : strcontains(google_monitoring_dashboard.main.dashboard_json, name)])
    error_message = "The dashboard lacks something that Google measures."
  }
  assert {
    condition     = !strcontains(google_monitoring_dashboard.main.dashboard_json, "tasuki")
    error_message = "The dashboard shows another relay of the project."
  }
  assert {
    condition     = output.dashboard != ""
    error_message = "Nobody is told where the dashboard is."
  }
}

run "everybody_is_told_of_every_alert" {
  command = plan

  variables {
    alert_emails = ["b@example.com", "a@example.com"]
  }

  assert {
    condition = alltrue([for policy in concat(values(google_monitoring_alert_policy.log), [
      google_monitoring_alert_policy.error, google_monitoring_alert_policy.dead_letters,
      google_monitoring_alert_policy.oldest_event, google_monitoring_alert_policy.sweep_stopped,
    ]) : length(policy.notification_channels) == 2 && length(policy.documentation[0].content) > 50])
    error_message = "An alert tells nobody, or not what to do."
  }
  assert {
    condition     = length(google_monitoring_alert_policy.sweep_stopped.conditions) == 3 && length(google_monitoring_alert_policy.oldest_event.conditions) == 3
    error_message = "A leg is not watched."
  }
  assert {
    condition     = length(google_billing_budget.monthly) + length(google_logging_project_bucket_config.default) + length(google_project_iam_audit_config.data) == 0
    error_message = "What concerns the whole project is done without being asked for."
  }
}

run "what_concerns_the_project_is_there_on_request" {
  command = plan

  variables {
    alert_emails       = ["a@example.com"]
    budget             = { billing_account = "012345-6789AB-CDEF01", monthly = 500 }
    log_retention_days = 90
    audit_logs         = true
  }

  assert {
    condition = (
      contains(keys(google_project_service.api), "billingbudgets.googleapis.com") &&
      google_billing_budget.monthly[0].amount[0].specified_amount[0].units == "500" &&
      length(google_billing_budget.monthly[0].threshold_rules) == 3 &&
      length(google_billing_budget.monthly[0].all_updates_rule[0].monitoring_notification_channels) == 1
    )
    error_message = "The budget is another, or tells nobody."
  }
  assert {
    condition     = google_logging_project_bucket_config.default[0].retention_days == 90
    error_message = "Logs are kept for another time."
  }
  assert {
    condition     = alltrue([for config in google_project_iam_audit_config.data : length(config.audit_log_config) == 2]) && length(google_project_iam_audit_config.data) == 4
    error_message = "Who reads or writes is not logged everywhere."
  }
}

run "refuses_what_is_no_address" {
  command = plan

  variables {
    alert_emails = ["somebody"]
  }
  expect_failures = [var.alert_emails]
}

run "refuses_what_is_no_billing_account" {
  command = plan

  variables {
    budget = { billing_account = "my account", monthly = 10 }
  }
  expect_failures = [var.budget]
}

run "refuses_what_is_no_number_of_days" {
  command = plan

  variables {
    log_retention_days = 0
  }
  expect_failures = [var.log_retention_days]
}

run "refuses_a_negative_price" {
  command = plan

  variables {
    token_prices = { input = -1 }
  }
  expect_failures = [var.token_prices]
}
