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

  # Made of the names rather than read from the answers, so that a plan shows who gets what. Each still waits for its account.
  email  = { for name, account in google_service_account.account : name => "${account.account_id}@${var.project_id}.iam.gserviceaccount.com" }
  member = { for name, email in local.email : name => "serviceAccount:${email}" }

  # Roles of our own: what no role of Google's says as narrowly.
  custom_roles = merge(
    {
      # roles/aiplatform.user holds some hundred rights; asking a model needs one.
      predict = { title = "ask a model", permissions = ["aiplatform.endpoints.predict"] }
      # A list is asked of the bucket, not of an object, so under a condition on names it is always refused. Names in the state
      # say nothing but runs and pipelines.
      list = { title = "list objects", permissions = ["storage.objects.list"] }
    },
    # Overwriting is deleting and creating.
    length(var.schedules) == 0 ? {} : { drop = { title = "drop a file again and again", permissions = ["storage.objects.create", "storage.objects.delete"] } },
  )
  custom_role = { for name, role in google_project_iam_custom_role.role : name => "projects/${var.project_id}/roles/${role.role_id}" }

  # Only what exists for projects alone.
  project_roles = merge(
    var.agents.project ? {
      "Eventarc may make its subscriptions" = { role = "roles/eventarc.serviceAgent", member = local.agent["eventarc"] }
      "Storage may tell Eventarc's topics"  = { role = "roles/pubsub.publisher", member = local.agent["storage"] }
    } : {},
    {
      "the trigger's account may take events" = { role = "roles/eventarc.eventReceiver", member = local.member["trigger"] }
      "the generator may ask models"          = { role = local.custom_role["predict"], member = local.member["generator"] }
    },
    local.bigquery ? {
      "the splitter may run jobs in BigQuery"   = { role = "roles/bigquery.jobUser", member = local.member["splitter"] }
      "the splitter may read tables as streams" = { role = "roles/bigquery.readSessionUser", member = local.member["splitter"] }
    } : {},
    { for member in var.operators : "${member} may look at schedules" => { role = "roles/cloudscheduler.viewer", member = member } },
    var.image != null ? {} : {
      "a build may write its log" = { role = "roles/logging.logWriter", member = local.member["build"] }
    },
  )
}

resource "google_service_account" "account" {
  for_each = local.accounts

  account_id   = "${var.prefix}-${each.key}"
  display_name = "${var.prefix} ${each.value}"
  depends_on   = [time_sleep.apis]
}

# Its ID ends the names of our own roles. IAM keeps a deleted role's name for 37 days, and gives it back in the first 7 only: without
# this a second apply could be refused for a month.
resource "terraform_data" "roles" {
  triggers_replace = var.project_id
}

locals {
  role_suffix = substr(terraform_data.roles.id, 0, 8)
}

resource "google_project_iam_custom_role" "role" {
  for_each = local.custom_roles

  role_id     = "${local.role_prefix}_${each.key}_${local.role_suffix}"
  title       = "${var.prefix}: ${each.value.title}"
  permissions = each.value.permissions
  depends_on  = [time_sleep.apis]
}

resource "google_project_iam_member" "role" {
  for_each = local.project_roles

  project = var.project_id
  role    = each.value.role
  member  = each.value.member
}
