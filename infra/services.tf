# The three services. What each is told stands in the `env` maps and nowhere else: tests/tests/infra.rs compares them with the
# services' own table of settings.

locals {
  # Above what a service admits: a request that it must refuse gets its 503 at once, and /sweep and the probes their answer.
  requests_beyond = 4

  # Calls in flight of one instance of the generator; instances × share = var.max_in_flight.
  share     = min(var.max_in_flight, 1000)
  instances = ceil(var.max_in_flight / local.share)

  # A service answers so many seconds before its caller gives up: Pub/Sub's, Cloud Run's and its own clock start one after the other.
  answers_earlier = 15

  environment = {
    GOOGLE_CLOUD_PROJECT  = var.project_id
    TASUKI_INBOX_BUCKET   = google_storage_bucket.bucket["inbox"].name
    TASUKI_SHARDS_BUCKET  = google_storage_bucket.bucket["shards"].name
    TASUKI_ANSWERS_BUCKET = google_storage_bucket.bucket["answers"].name
    TASUKI_STATE_BUCKET   = google_storage_bucket.bucket["state"].name
    TASUKI_ACK_DEADLINE   = var.delivery.ack_deadline_seconds - local.answers_earlier
    TASUKI_LEASE          = 120
    TASUKI_OIDC_EMAILS    = join(",", [for caller in ["trigger", "scheduler"] : local.email[caller]])
  }

  services = {
    splitter = {
      instances        = 4
      memory           = "4Gi" # 20 million keys of a file are 1 GB, and four files are split at once
      cpu_when_waiting = var.long_splits
      env = {
        TASUKI_CONCURRENCY      = 4
        TASUKI_INBOX_RETENTION  = var.retention_days
        TASUKI_BIGQUERY_SOURCES = local.bigquery ? join(",", var.sources) : null
        TASUKI_BIGQUERY_STAGING = local.bigquery_staging
        TASUKI_BIGQUERY_GIB_MAX = local.bigquery ? var.bigquery_gib_max : null
        TASUKI_SPANNER_DATABASE = local.spanner_database
        TASUKI_SPANNER_ROLE     = "splitter"
      }
    }
    generator = {
      instances        = local.instances
      memory           = "1Gi"
      cpu_when_waiting = true # paid calls go on when their request was cut
      env = {
        TASUKI_CONCURRENCY     = 16
        TASUKI_MAX_IN_FLIGHT   = local.share
        TASUKI_INSTANCES       = local.instances
        TASUKI_MODEL_LOCATION  = var.model_location
        OPENAI_BASE_URL        = var.openai_base_url
        OPENAI_RESPONSE_FORMAT = var.openai_response_format
      }
    }
    loader = {
      instances        = 4
      memory           = "2Gi" # 16 answers objects of 1,000 rows at once
      cpu_when_waiting = false
      env = {
        TASUKI_CONCURRENCY      = 16
        TASUKI_COMPLETED_TOPIC  = google_pubsub_topic.completed.id
        TASUKI_SPANNER_DATABASE = local.spanner_database
        TASUKI_SPANNER_ROLE     = "loader"
      }
    }
  }
}

resource "google_cloud_run_v2_service" "service" {
  for_each = local.services

  name                = "${var.prefix}-${each.key}"
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY" # Eventarc, Pub/Sub and Cloud Scheduler of this project come through
  deletion_protection = var.protect

  template {
    service_account                  = local.email[each.key]
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"
    timeout                          = "${var.delivery.ack_deadline_seconds}s"
    max_instance_request_concurrency = each.value.env.TASUKI_CONCURRENCY + local.requests_beyond
    encryption_key                   = var.kms_key

    scaling {
      min_instance_count = 0
      max_instance_count = each.value.instances
    }

    containers {
      image   = local.image
      command = ["tasuki-${each.key}"]

      ports {
        container_port = 8080
      }

      resources {
        cpu_idle          = !each.value.cpu_when_waiting
        startup_cpu_boost = true
        limits = {
          cpu    = "1"
          memory = each.value.memory
        }
      }

      # It listens in milliseconds; connecting to its stores takes longer.
      startup_probe {
        period_seconds    = 1
        timeout_seconds   = 1
        failure_threshold = 60
        http_get {
          path = "/ready"
        }
      }
      liveness_probe {
        period_seconds    = 30
        timeout_seconds   = 5
        failure_threshold = 3
        http_get {
          path = "/live"
        }
      }

      dynamic "env" {
        for_each = { for name, value in merge(local.environment, each.value.env) : name => value if value != null }
        content {
          name  = env.key
          value = env.value
        }
      }

      # Read when an instance starts: neither this configuration nor its state ever holds the key.
      dynamic "env" {
        for_each = each.key == "generator" ? var.openai_api_key_secret[*] : []
        content {
          name = "OPENAI_API_KEY"
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }
    }

    dynamic "vpc_access" {
      for_each = var.network[*]
      content {
        egress = vpc_access.value.egress
        network_interfaces {
          network    = vpc_access.value.network
          subnetwork = vpc_access.value.subnetwork
          tags       = vpc_access.value.tags
        }
      }
    }
  }

  # Called as soon as it is there: what it needs must be there before.
  depends_on = [
    terraform_data.image,
    terraform_data.targets,
    time_sleep.store,
    google_pubsub_topic_iam_member.loader,
    google_secret_manager_secret_iam_member.generator,
    time_sleep.iam,
  ]
}

# The generator reads this one secret, and nobody else any.
resource "google_secret_manager_secret_iam_member" "generator" {
  for_each = toset(var.openai_api_key_secret[*])

  project    = var.project_id
  secret_id  = each.value
  role       = "roles/secretmanager.secretAccessor"
  member     = local.member["generator"]
  depends_on = [time_sleep.apis]
}

locals {
  # Eventarc calls /events and Cloud Scheduler /sweep, and nobody else anything.
  invokers = { for pair in setproduct(keys(local.services), ["trigger", "scheduler"]) : "${pair[0]} by ${pair[1]}" => { service = pair[0], account = pair[1] } }
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = local.invokers

  name     = google_cloud_run_v2_service.service[each.value.service].name
  location = google_cloud_run_v2_service.service[each.value.service].location
  role     = "roles/run.invoker"
  member   = local.member[each.value.account]
}

# `tasuki doctor` looks at what is deployed.
resource "google_cloud_run_v2_service_iam_member" "operator" {
  for_each = { for pair in setproduct(keys(local.services), var.operators) : join(" ", pair) => { service = pair[0], member = pair[1] } }

  name     = google_cloud_run_v2_service.service[each.value.service].name
  location = google_cloud_run_v2_service.service[each.value.service].location
  role     = "roles/run.viewer"
  member   = each.value.member
}
