# BigQuery as a source. Nothing of it is there, and nobody has a right, unless var.sources names something.

locals {
  bigquery         = length(var.sources) > 0
  bigquery_staging = local.bigquery ? "${var.project_id}.${google_bigquery_dataset.staging[0].dataset_id}" : null

  sources            = { for source in var.sources : source => split(".", source) }
  datasets           = { for source, parts in local.sources : source => { project = parts[0], dataset = parts[1] } if length(parts) == 2 }
  tables_of_bigquery = { for source, parts in local.sources : source => { project = parts[0], dataset = parts[1], table = parts[2] } if length(parts) == 3 }
}

# Where the splitter puts a run's snapshot. It gives each table an end of its own; this is for what it could not.
resource "google_bigquery_dataset" "staging" {
  count = local.bigquery ? 1 : 0

  dataset_id                  = "${local.role_prefix}_staging"
  description                 = "Snapshots of what runs of ${var.prefix} read."
  location                    = coalesce(var.sources_location, var.region)
  default_table_expiration_ms = var.retention_days * 86400000
  max_time_travel_hours       = "48" # the least: nobody goes back to a snapshot of a snapshot
  delete_contents_on_destroy  = !var.protect

  dynamic "default_encryption_configuration" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = default_encryption_configuration.value
    }
  }

  depends_on = [time_sleep.kms]
}

resource "google_bigquery_dataset_iam_member" "staging" {
  count = local.bigquery ? 1 : 0

  dataset_id = google_bigquery_dataset.staging[0].dataset_id
  role       = "roles/bigquery.dataEditor"
  member     = local.member["splitter"]
}

resource "google_bigquery_dataset_iam_member" "source" {
  for_each = local.datasets

  project    = each.value.project
  dataset_id = each.value.dataset
  role       = "roles/bigquery.dataViewer"
  member     = local.member["splitter"]
}

resource "google_bigquery_table_iam_member" "source" {
  for_each = local.tables_of_bigquery

  project    = each.value.project
  dataset_id = each.value.dataset
  table_id   = each.value.table
  role       = "roles/bigquery.dataViewer"
  member     = local.member["splitter"]
}
