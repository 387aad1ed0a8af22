# Who works here, and what somebody may do that concerns the whole project. Roles on one thing stand beside that thing.

locals {
  accounts = merge(
    {
      splitter  = "splitter (Cloud Run)"
      generator = "generator (Cloud Run)"
      loader    = "loader (Cloud Run)"
      trigger   = "Eventarc: calls /events"
      scheduler = "Cloud Scheduler: calls /sweep"
    },
    length(var.schedules) == 0 ? {} : { dropper = "Cloud Scheduler: drops run files into the inbox" },
    var.image != null ? {} : { build = "Cloud Build: makes the image" },
  )

  # Only what exists for projects alone.
  project_roles = merge(
    {
      "Eventarc may make its subscriptions"   = { role = "roles/eventarc.serviceAgent", member = google_project_service_identity.agent["eventarc.googleapis.com"].member }
      "Storage may tell Eventarc's topics"    = { role = "roles/pubsub.publisher", member = data.google_storage_project_service_account.agent.member }
      "the trigger's account may take events" = { role = "roles/eventarc.eventReceiver", member = google_service_account.account["trigger"].member }
      "the generator may ask models"          = { role = google_project_iam_custom_role.predict.id, member = google_service_account.account["generator"].member }
    },
    local.bigquery ? {
      "the splitter may run jobs in BigQuery"   = { role = "roles/bigquery.jobUser", member = google_service_account.account["splitter"].member }
      "the splitter may read tables as streams" = { role = "roles/bigquery.readSessionUser", member = google_service_account.account["splitter"].member }
    } : {},
    var.image != null ? {} : {
      "a build may write its log" = { role = "roles/logging.logWriter", member = google_service_account.account["build"].member }
    },
  )
}

resource "google_service_account" "account" {
  for_each = local.accounts

  account_id   = "${var.prefix}-${each.key}"
  display_name = "${var.prefix} ${each.value}"
  depends_on   = [time_sleep.apis]
}

resource "google_project_iam_member" "role" {
  for_each = local.project_roles

  project = var.project_id
  role    = each.value.role
  member  = each.value.member
}
