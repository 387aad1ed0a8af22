# How long logs are kept, and who touched which data: both for the whole project, so both only on request.

resource "google_logging_project_bucket_config" "default" {
  count = var.log_retention_days == null ? 0 : 1

  project        = var.project_id
  location       = "global"
  bucket_id      = "_Default"
  retention_days = var.log_retention_days
  depends_on     = [time_sleep.apis]
}

resource "google_project_iam_audit_config" "data" {
  for_each = toset(var.audit_logs ? ["aiplatform.googleapis.com", "bigquery.googleapis.com", "spanner.googleapis.com", "storage.googleapis.com"] : [])

  project = var.project_id
  service = each.key

  audit_log_config {
    log_type = "DATA_READ"
  }
  audit_log_config {
    log_type = "DATA_WRITE"
  }

  depends_on = [time_sleep.apis]
}
