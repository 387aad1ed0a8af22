output "drop" {
  description = "Starts a run: copy a file of rows into the inbox, into the folder of its pipeline."
  value       = "gcloud storage cp ${var.pipelines_dir == null ? "../examples/products.jsonl" : "YOUR_FILE.jsonl"} gs://${google_storage_bucket.bucket["inbox"].name}/${try(sort(keys(local.pipelines))[0], "<pipeline>")}/"
}

output "buckets" {
  description = "The buckets' names."
  value       = { for name, bucket in google_storage_bucket.bucket : name => bucket.name }
}

output "services" {
  description = "The services' addresses. Only Google's own callers of this project reach them."
  value       = { for name, service in google_cloud_run_v2_service.service : name => service.uri }
}

output "image" {
  description = "What the services run."
  value       = local.image
}

output "dashboard" {
  description = "How the relay is doing."
  value       = "https://console.cloud.google.com/monitoring/dashboards/builder/${basename(google_monitoring_dashboard.main.id)}?project=${var.project_id}"
}

output "deployment" {
  description = "What the tasuki command needs to know: terraform output -json deployment > tasuki.json"
  value = {
    version          = 1
    project          = var.project_id
    region           = var.region
    inbox_bucket     = google_storage_bucket.bucket["inbox"].name
    shards_bucket    = google_storage_bucket.bucket["shards"].name
    answers_bucket   = google_storage_bucket.bucket["answers"].name
    state_bucket     = google_storage_bucket.bucket["state"].name
    spanner_database = local.spanner_database
    spanner_role     = local.operator_database_role
    completed_topic  = google_pubsub_topic.completed.id
    model_location   = var.model_location
    services = { for name, service in google_cloud_run_v2_service.service : name => {
      name    = service.name
      uri     = service.uri
      account = service.template[0].service_account
    } }
    subscriptions            = local.eventarc_subscription
    trigger_account          = local.email["trigger"]
    dead_letter_subscription = google_pubsub_subscription.dead.id
    ack_deadline_seconds     = var.delivery.ack_deadline_seconds
    max_delivery_attempts    = var.delivery.max_delivery_attempts
    bigquery_sources         = var.sources
    bigquery_staging         = local.bigquery_staging == null ? "" : local.bigquery_staging
    schedulers               = [for job in google_cloud_scheduler_job.sweep : job.id]
  }
}
