# One key for everything that is kept. Each service of Google that keeps something must be allowed to use it.

locals {
  kms_users = var.kms_key != null && var.agents.key ? toset(["storage", "bigquery", "pubsub", "eventarc", "artifactregistry", "run", "spanner"]) : toset([])
}

resource "google_kms_crypto_key_iam_member" "agent" {
  for_each = local.kms_users

  crypto_key_id = var.kms_key
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = local.agent[each.key]
}

# Whatever is encrypted waits for this. Without a key it waits for nothing more than the APIs.
resource "time_sleep" "kms" {
  create_duration = var.kms_key == null ? "0s" : "120s"
  triggers        = { key = var.kms_key == null ? "" : var.kms_key }
  depends_on      = [time_sleep.apis, google_kms_crypto_key_iam_member.agent]
}

# The topics that Eventarc makes for its triggers: one setting for a project and region, so two relays there share a key.
resource "google_eventarc_google_channel_config" "key" {
  count = var.kms_key != null && var.agents.key ? 1 : 0

  name            = "projects/${var.project_id}/locations/${var.region}/googleChannelConfig"
  location        = var.region
  crypto_key_name = var.kms_key
  depends_on      = [time_sleep.kms]
}
