# roles/aiplatform.user holds some hundred rights; asking a model needs one. A role on a published model does not exist, so
# this one is on the project (accounts.tf).
resource "google_project_iam_custom_role" "predict" {
  role_id     = "${local.role_prefix}_predict"
  title       = "${var.prefix}: ask a model"
  permissions = ["aiplatform.endpoints.predict"]
  depends_on  = [time_sleep.apis]
}
