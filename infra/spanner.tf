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

resource "google_spanner_backup_schedule" "daily" {
  count = var.spanner.backup_days == 0 ? 0 : 1

  instance           = google_spanner_instance.main.name
  database           = google_spanner_database.main.name
  name               = "daily"
  retention_duration = "${var.spanner.backup_days * 86400}s"

  spec {
    cron_spec {
      text = "0 2 * * *"
    }
  }
  full_backup_spec {}
  encryption_config {
    encryption_type = "USE_DATABASE_ENCRYPTION"
  }
}

locals {
  # The provider's ID of a database is <instance>/<name>.
  spanner_database = "projects/${var.project_id}/instances/${google_spanner_instance.main.name}/databases/${google_spanner_database.main.name}"

  # Who works in the store as which of its fine-grained roles (schema/): none has rights of its own on the database.
  store_users = merge(
    { for service in ["splitter", "loader"] : service => { database_role = service, member = local.member[service] } },
    { for member in var.operators : member => { database_role = local.operator_database_role, member = member } },
  )
  operator_database_role = "reader"

  store_grants = merge([for who, user in local.store_users : {
    "${who} opens sessions"                 = { role = "roles/spanner.fineGrainedAccessUser", member = user.member, condition = null }
    "${who} works as ${user.database_role}" = { role = "roles/spanner.databaseRoleUser", member = user.member, condition = user.database_role }
  }]...)
}

resource "google_spanner_database_iam_member" "grant" {
  for_each = local.store_grants

  instance = google_spanner_instance.main.name
  database = google_spanner_database.main.name
  role     = each.value.role
  member   = each.value.member

  dynamic "condition" {
    for_each = each.value.condition[*]
    content {
      title      = "only as ${condition.value}"
      expression = "resource.type == \"spanner.googleapis.com/DatabaseRole\" && resource.name.endsWith(\"/databaseRoles/${condition.value}\")"
    }
  }
}

# The loader connects when it starts, and IAM takes a while until Spanner knows.
resource "time_sleep" "store" {
  create_duration = "120s"
  triggers        = { grants = sha256(jsonencode({ for who, grant in google_spanner_database_iam_member.grant : who => grant.id })) }
}
