# Says when a run has ended. Subscribe to it: nothing here does.
resource "google_pubsub_topic" "completed" {
  name         = "${var.prefix}-completed"
  kms_key_name = var.kms_key
  # A subscriber that was away may seek back.
  message_retention_duration = "604800s"
  depends_on                 = [time_sleep.kms]
}

resource "google_pubsub_topic_iam_member" "loader" {
  topic  = google_pubsub_topic.completed.name
  role   = "roles/pubsub.publisher"
  member = local.member["loader"]
}
