# The store.

locals {
  # The numbered files' statements, without comments and on one line each: what counts is their words, not their layout.
  # As `ddl::statements` of tasuki-relay reads them, which tests/tests/infra.rs compares.
  schema_files = sort(fileset("${path.module}/schema", "[0-9]*.sql"))
  schema = flatten([for name in local.schema_files : compact([
    for statement in split(";", replace(file("${path.module}/schema/${name}"), "/--[^\n]*/", "")) :
    trimspace(replace(statement, "/\\s+/", " "))
  ])])

  spanner_edition = coalesce(var.spanner.edition, var.spanner.autoscaling == null ? "STANDARD" : "ENTERPRISE")
}

resource "google_spanner_instance" "main" {
  name         = "${var.prefix}-store" # 6 characters at least
  display_name = "${var.prefix}-store"
  config       = "regional-${var.region}"
  edition      = local.spanner_edition

  processing_units = var.spanner.autoscaling == null ? var.spanner.processing_units : null
  dynamic "autoscaling_config" {
    for_each = var.spanner.autoscaling[*]
    content {
      autoscaling_limits {
        min_processing_units = autoscaling_config.value.min_processing_units
        max_processing_units = autoscaling_config.value.max_processing_units
      }
      autoscaling_targets {
        high_priority_cpu_utilization_percent = 65
        storage_utilization_percent           = 95
      }
    }
  }

  default_backup_schedule_type = "NONE" # the schedule below says
  force_destroy                = !var.protect
  depends_on                   = [time_sleep.apis]
}

# Only Tasuki's own tables: their statements are only ever added to, and Terraform replaces a database whose earlier statements
# changed. The pipelines' tables change with the pipelines, so they are not here (targets.tf).
resource "google_spanner_database" "main" {
  instance               = google_spanner_instance.main.name
  name                   = var.prefix
  database_dialect       = "GOOGLE_STANDARD_SQL"
  ddl                    = local.schema
  deletion_protection    = var.protect
  enable_drop_protection = var.protect

  dynamic "encryption_config" {
    for_each = var.kms_key[*]
    content {
      kms_key_name = encryption_config.value
    }
  }

  depends_on = [time_sleep.kms]
}
