# Mails when the project has cost so much. Who applies needs roles/billing.costsManager on the billing account.

# The budgets' API asks which project a person's requests are counted for; with a service account's it would be its own.
provider "google" {
  alias                 = "budget"
  project               = var.project_id
  billing_project       = var.project_id
  user_project_override = true
}

data "google_project" "this" {
  count = var.budget == null ? 0 : 1

  project_id = var.project_id
}

resource "google_billing_budget" "monthly" {
  provider = google.budget
  count    = var.budget == null ? 0 : 1

  billing_account = var.budget.billing_account
  display_name    = "${var.prefix} in ${var.project_id}"

  budget_filter {
    projects = ["projects/${data.google_project.this[0].number}"]
  }
  amount {
    specified_amount {
      units = tostring(var.budget.monthly)
    }
  }
  dynamic "threshold_rules" {
    for_each = [0.5, 0.9, 1.0]
    content {
      threshold_percent = threshold_rules.value
    }
  }
  all_updates_rule {
    # Besides these, those who administer the billing account are told.
    # A budget takes 5 channels at most.
    monitoring_notification_channels = slice(local.channels, 0, min(length(local.channels), 5))
  }

  depends_on = [time_sleep.apis]
}
