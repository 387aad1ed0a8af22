# Services of Google that must be switched on, and the accounts that they work as.

locals {
  apis = toset(concat(
    [
      "aiplatform.googleapis.com",
      "artifactregistry.googleapis.com",
      "bigquery.googleapis.com",
      "bigquerystorage.googleapis.com",
      "cloudbuild.googleapis.com",
      "cloudresourcemanager.googleapis.com", # roles on the project
      "cloudscheduler.googleapis.com",
      "eventarc.googleapis.com",
      "iam.googleapis.com",
      "logging.googleapis.com",
      "monitoring.googleapis.com",
      "pubsub.googleapis.com",
      "run.googleapis.com",
      "spanner.googleapis.com",
      "storage.googleapis.com",
    ],
    var.network == null ? [] : ["compute.googleapis.com"],
    var.kms_key == null ? [] : ["cloudkms.googleapis.com"],
    var.openai_api_key_secret == null ? [] : ["secretmanager.googleapis.com"],
    var.budget == null ? [] : ["billingbudgets.googleapis.com"],
  ))

  # A new project has these agents only after the first use of their service, and roles are given to them before that.
  agents = toset(concat(
    ["eventarc.googleapis.com", "pubsub.googleapis.com"],
    var.kms_key == null ? [] : ["artifactregistry.googleapis.com", "run.googleapis.com", "spanner.googleapis.com"],
  ))
}

resource "google_project_service" "api" {
  for_each = local.apis

  service = each.key
  # Somebody else in the project may use it by now.
  disable_on_destroy = false
}

# Switching on is answered before every place knows of it.
resource "time_sleep" "apis" {
  create_duration = "60s"
  triggers        = { apis = join(",", sort(keys(google_project_service.api))) }
}

resource "google_project_service_identity" "agent" {
  provider = google-beta
  for_each = local.agents

  service    = each.key
  depends_on = [time_sleep.apis]
}

# Reading this makes Cloud Storage's agent, which google_project_service_identity does not know.
data "google_storage_project_service_account" "agent" {
  depends_on = [time_sleep.apis]
}

# Reading this makes BigQuery's agent.
data "google_bigquery_default_service_account" "agent" {
  count = var.kms_key == null ? 0 : 1

  depends_on = [time_sleep.apis]
}

# What was read, kept. One more API makes Terraform put off reading until the apply; a member that is not known until then would have
# its role taken away and given again, with events lost in between.
resource "terraform_data" "agent" {
  for_each = merge(
    { storage = data.google_storage_project_service_account.agent.member },
    var.kms_key == null ? {} : { bigquery = data.google_bigquery_default_service_account.agent[0].member },
  )

  input            = each.value
  triggers_replace = var.project_id

  lifecycle {
    ignore_changes = [input]
  }
}

locals {
  # Service of Google → the member that it works as.
  agent = merge(
    { for service, identity in google_project_service_identity.agent : split(".", service)[0] => identity.member },
    { for service, kept in terraform_data.agent : service => kept.output },
  )
}

# IAM takes a while until every place knows a new role: Eventarc looks at two agents' roles when a trigger is made, and the
# services are called as soon as they are there.
resource "time_sleep" "iam" {
  create_duration = "120s"
  triggers = {
    roles = sha256(jsonencode([
      { for key, member in google_project_iam_member.role : key => member.id },
      { for key, member in google_storage_bucket_iam_member.grant : key => member.id },
      { for key, member in google_secret_manager_secret_iam_member.generator : key => member.id },
    ]))
  }
}
