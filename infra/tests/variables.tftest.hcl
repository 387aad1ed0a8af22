# Each variable has an effect, and each bad value is refused. Without Google, as in rules.tftest.hcl.

provider "google" {
  project      = "demo-project"
  region       = "europe-west4"
  access_token = "offline"
}

provider "google-beta" {
  project      = "demo-project"
  region       = "europe-west4"
  access_token = "offline"
}

variables {
  project_id = "demo-project"
}

override_resource {
  target = google_pubsub_topic.dead
  values = { id = "projects/demo-project/topics/tasuki-dead-letters" }
}
override_data {
  target = data.google_pubsub_subscription.delivery
  values = {
    ack_deadline_seconds       = 600
    message_retention_duration = "604800s"
    retry_policy               = [{ minimum_backoff = "10s", maximum_backoff = "600s" }]
    dead_letter_policy         = [{ dead_letter_topic = "projects/demo-project/topics/tasuki-dead-letters", max_delivery_attempts = 100 }]
    push_config                = [{ push_endpoint = "https://s.run.app/events?__GCP_CloudEventsMode=GCS_NOTIFICATION", attributes = {}, no_wrapper = [], oidc_token = [{ audience = "https://s.run.app", service_account_email = "tasuki-trigger@demo-project.iam.gserviceaccount.com" }] }]
  }
}

# What holds without any of them.

run "only_a_project_is_needed" {
  command = apply

  assert {
    condition = (
      length(google_bigquery_dataset.staging) == 0 && length(google_cloud_scheduler_job.run) == 0 && length(google_kms_crypto_key_iam_member.agent) == 0 &&
      length(google_service_account.account) == 6 && length(terraform_data.image) == 1 && !contains(keys(local.project_roles), "the splitter may run jobs in BigQuery")
    )
    error_message = "Something is there that nobody asked for."
  }
  assert {
    condition     = alltrue([for env in google_cloud_run_v2_service.service["splitter"].template[0].containers[0].env : !startswith(env.name, "TASUKI_BIGQUERY_")])
    error_message = "BigQuery is a source, and nobody named one."
  }
  assert {
    condition     = local.spanner_edition == "STANDARD" && google_spanner_instance.main.processing_units == 100 && !google_spanner_database.main.deletion_protection
    error_message = "The store is not the smallest one."
  }
}

# In a second relay of a project: what belongs to both stays when it goes.

run "a_second_relay_leaves_the_agents_roles_to_the_first" {
  command = plan

  variables {
    kms_key = "projects/keys/locations/europe-west4/keyRings/r/cryptoKeys/k"
    agents  = { project = false, key = false }
  }
  assert {
    condition     = length([for what in keys(local.project_roles) : what if startswith(what, "Eventarc") || startswith(what, "Storage")]) + length(google_kms_crypto_key_iam_member.agent) + length(google_eventarc_google_channel_config.key) == 0
    error_message = "A destroy of this relay would take a role from the other one."
  }
}

# What is refused, before anything is made: each variable that is named under expect_failures must have said so.

run "values_that_are_none_are_refused" {
  command = plan

  variables {
    project_id        = "123456789012"            # a number
    prefix            = "tasuki-of-the-catalogue" # names would be too long
    labels            = { Team = "x" }
    residency         = "jp"
    image             = "europe-west4-docker.pkg.dev/p/r/tasuki:latest" # by tag
    max_in_flight     = 0
    pipelines_dir     = "tests"                                                                              # there is a run file only
    schedules         = { s = { cron = "daily", pipeline = "themes", run_file = "tests/nightly.run.toml" } } # no cron
    sources           = ["products"]                                                                         # without its project
    bigquery_gib_max  = 0
    spanner           = { processing_units = 150 }
    delivery          = { ack_deadline_seconds = 900 } # Pub/Sub has 600 at most
    retention_days    = 30
    answer_cache_days = 0
    operators         = ["me@example.com"] # without its kind
    network           = { network = "n", subnetwork = "s", egress = "NONE" }
  }
  expect_failures = [var.project_id, var.prefix, var.labels, var.residency, var.image, var.max_in_flight, var.pipelines_dir, var.schedules, var.sources, var.bigquery_gib_max, var.spanner, var.delivery, var.retention_days, var.answer_cache_days, var.operators, var.network]
}

run "values_that_are_none_are_refused_too" {
  command = plan

  variables {
    prefix            = "t-"
    labels            = { app = "x" } # ours
    model_location    = "Global"
    max_in_flight     = 2500                                                                                  # no number of instances shares it
    schedules         = { s = { cron = "0 3 * * *", pipeline = "themes", run_file = "tests/none.run.toml" } } # no such file
    sources           = ["demo-project.catalog", "demo-project.catalog"]
    spanner           = { edition = "STANDARD", autoscaling = { min_processing_units = 1000, max_processing_units = 2000 } }
    delivery          = { ack_deadline_seconds = 134 } # it could not answer before the lease is over
    operators         = ["allUsers"]
    kms_key           = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
    bigquery_gib_max  = 1.5
    retention_days    = 45.5
    answer_cache_days = 0.5

    openai_base_url        = "http://10.0.0.2:8000/v1" # in the clear
    openai_response_format = "json_object"
    openai_api_key_secret  = "projects/p/secrets/key"
  }
  expect_failures = [var.prefix, var.labels, var.model_location, var.max_in_flight, var.schedules, var.sources, var.spanner, var.delivery, var.operators, var.kms_key, var.bigquery_gib_max, var.retention_days, var.answer_cache_days, var.openai_base_url, var.openai_response_format, var.openai_api_key_secret]
}

run "a_multi_region_is_refused" {
  command = plan

  variables {
    region    = "eu"
    schedules = { s = { cron = "0 3 * * *", pipeline = "themes", run_file = "variables.tf" } } # no run file
    spanner   = { autoscaling = { min_processing_units = 2000, max_processing_units = 1000 } }
    delivery  = { max_delivery_attempts = 1000 }
  }
  expect_failures = [var.region, var.schedules, var.spanner, var.delivery]
}

run "a_zone_is_refused" {
  command = plan

  variables {
    region    = "europe-west4-a"
    schedules = { "At Night" = { cron = "0 3 * * *", pipeline = "themes", run_file = "tests/nightly.run.toml" } }
    spanner   = { backup_days = 1000 }
    delivery  = { minimum_backoff = "10" } # without its unit
  }
  expect_failures = [var.region, var.schedules, var.spanner, var.delivery]
}

run "a_key_elsewhere_is_refused" {
  command = plan

  variables {
    kms_key  = "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"
    delivery = { retention = "3600s" }
  }
  expect_failures = [var.kms_key, var.delivery]
}

run "sources_where_the_key_is_not_are_refused" {
  command = plan

  variables {
    kms_key          = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"
    sources_location = "EU"
  }
  expect_failures = [var.sources_location]
}

run "a_region_outside_the_residency_is_refused" {
  command = plan

  variables {
    residency = "eu"
    region    = "us-central1"
  }
  expect_failures = [var.residency]
}

run "a_model_and_sources_outside_europe_are_refused" {
  command = plan

  variables {
    residency        = "eu"
    model_location   = "global"
    sources_location = "US"
  }
  expect_failures = [var.model_location, var.sources_location]
}

run "a_model_and_sources_outside_america_are_refused" {
  command = plan

  variables {
    residency        = "us"
    region           = "us-central1"
    model_location   = "europe-west4"
    sources_location = "EU"
  }
  expect_failures = [var.model_location, var.sources_location]
}

run "a_model_and_sources_outside_the_region_are_refused" {
  command = plan

  variables {
    residency        = "region"
    model_location   = "eu"
    sources_location = "EU"
  }
  expect_failures = [var.model_location, var.sources_location]
}

run "a_schedule_of_no_pipeline_is_refused" {
  command = plan

  variables {
    schedules = { s = { cron = "0 3 * * *", pipeline = "other", run_file = "tests/nightly.run.toml" } }
  }
  expect_failures = [google_cloud_scheduler_job.run]
}

run "a_pipeline_that_asks_elsewhere_or_is_named_otherwise_or_has_no_table_is_refused" {
  command = plan

  variables {
    residency      = "eu"
    model_location = "eu"
    pipelines_dir  = "tests/pipelines"
  }
  expect_failures = [google_storage_bucket_object.pipeline["abroad"], google_storage_bucket_object.pipeline["misnamed"], terraform_data.targets]
}

# Everything at once, otherwise. Two relays in one project do not share a name.

run "every_variable_has_an_effect" {
  command = apply

  variables {
    prefix            = "second"
    labels            = { team = "catalogue" }
    region            = "asia-northeast1"
    residency         = "region"
    model_location    = "asia-northeast1"
    image             = "asia-northeast1-docker.pkg.dev/p/r/tasuki@sha256:0000000000000000000000000000000000000000000000000000000000000000"
    max_in_flight     = 3000
    pipelines_dir     = "../examples"
    schedules         = { nightly = { cron = "0 3 * * *", time_zone = "Asia/Tokyo", pipeline = "themes", run_file = "tests/nightly.run.toml" } }
    sources           = ["demo-project.catalog"]
    sources_location  = "asia-northeast1"
    bigquery_gib_max  = 7
    spanner           = { autoscaling = { min_processing_units = 1000, max_processing_units = 3000 }, backup_days = 0 }
    delivery          = { ack_deadline_seconds = 300, minimum_backoff = "20s", maximum_backoff = "500s", retention = "86400s", max_delivery_attempts = 50 }
    long_splits       = true
    retention_days    = 60
    answer_cache_days = 7
    operators         = ["group:team@example.com"]
    kms_key           = "projects/keys/locations/asia-northeast1/keyRings/r/cryptoKeys/k"
    network           = { network = "n", subnetwork = "s", tags = ["t"], egress = "PRIVATE_RANGES_ONLY" }
    protect           = true
  }
  override_data {
    target = data.google_pubsub_subscription.delivery
    values = {
      ack_deadline_seconds       = 300
      message_retention_duration = "86400s"
      retry_policy               = [{ minimum_backoff = "20s", maximum_backoff = "500s" }]
      dead_letter_policy         = [{ dead_letter_topic = "projects/demo-project/topics/tasuki-dead-letters", max_delivery_attempts = 50 }]
      push_config                = [{ push_endpoint = "https://s.run.app/events?__GCP_CloudEventsMode=GCS_NOTIFICATION", attributes = {}, no_wrapper = [], oidc_token = [{ audience = "https://s.run.app", service_account_email = "tasuki-trigger@demo-project.iam.gserviceaccount.com" }] }]
    }
  }

  assert {
    condition = alltrue([for name in concat(
      [for bucket in google_storage_bucket.bucket : trimprefix(bucket.name, "demo-project-")], [for service in google_cloud_run_v2_service.service : service.name],
      [for account in google_service_account.account : account.account_id], [for trigger in google_eventarc_trigger.hop : trigger.name],
      [for job in google_cloud_scheduler_job.sweep : job.name], [for job in google_cloud_scheduler_job.run : job.name], [for role in google_project_iam_custom_role.role : role.role_id],
      [google_spanner_instance.main.name, google_spanner_database.main.name, google_pubsub_topic.completed.name, google_pubsub_topic.dead.name, google_pubsub_subscription.dead.name],
      [google_artifact_registry_repository.images.repository_id, google_bigquery_dataset.staging[0].dataset_id],
    ) : startswith(name, "second")])
    error_message = "prefix: a name that two relays in one project would share."
  }
  assert {
    condition     = jsonencode(local.labels) == jsonencode({ app = "second", team = "catalogue" })
    error_message = "labels has no effect."
  }
  assert {
    condition     = google_storage_bucket.bucket["inbox"].location == "asia-northeast1" && google_spanner_instance.main.config == "regional-asia-northeast1" && google_bigquery_dataset.staging[0].location == "asia-northeast1"
    error_message = "region or sources_location has no effect."
  }
  assert {
    condition = alltrue([for service, settings in {
      splitter  = { TASUKI_BIGQUERY_SOURCES = "demo-project.catalog", TASUKI_BIGQUERY_STAGING = "demo-project.second_staging", TASUKI_BIGQUERY_GIB_MAX = "7", TASUKI_INBOX_RETENTION = "60", TASUKI_ACK_DEADLINE = "285" }
      generator = { TASUKI_MODEL_LOCATION = "asia-northeast1", TASUKI_MAX_IN_FLIGHT = "1000" }
      loader    = { TASUKI_SPANNER_ROLE = "loader", TASUKI_INBOX_BUCKET = "demo-project-second-inbox" }
      } : alltrue([for name, value in settings :
        one([for env in google_cloud_run_v2_service.service[service].template[0].containers[0].env : env.value if env.name == name]) == value
    ])])
    error_message = "A service is told something else."
  }
  assert {
    condition     = google_cloud_run_v2_service.service["generator"].template[0].scaling[0].max_instance_count * local.services.generator.env.TASUKI_MAX_IN_FLIGHT == 3000
    error_message = "max_in_flight is not instances × share."
  }
  assert {
    condition     = alltrue([for service in google_cloud_run_v2_service.service : service.template[0].containers[0].image == var.image]) && length(terraform_data.image) == 0 && !contains(keys(local.accounts), "build")
    error_message = "image has no effect, or one is built although it was given."
  }
  assert {
    condition     = google_storage_bucket_object.pipeline["themes"].name == "pipelines/themes.toml"
    error_message = "pipelines_dir has no effect."
  }
  assert {
    condition     = google_cloud_scheduler_job.run["nightly"].schedule == "0 3 * * *" && google_cloud_scheduler_job.run["nightly"].time_zone == "Asia/Tokyo"
    error_message = "schedules has no effect."
  }
  assert {
    condition     = google_spanner_instance.main.edition == "ENTERPRISE" && google_spanner_instance.main.autoscaling_config[0].autoscaling_limits[0].max_processing_units == 3000 && length(google_spanner_backup_schedule.daily) == 0
    error_message = "spanner has no effect, or a store that scales has not the edition for it."
  }
  assert {
    condition     = jsonencode(local.delivery["loader"].retryPolicy) == jsonencode({ minimumBackoff = "20s", maximumBackoff = "500s" }) && local.delivery["loader"].messageRetentionDuration == "86400s" && google_cloud_run_v2_service.service["loader"].template[0].timeout == "300s"
    error_message = "delivery has no effect."
  }
  assert {
    condition     = !google_cloud_run_v2_service.service["splitter"].template[0].containers[0].resources[0].cpu_idle
    error_message = "long_splits has no effect."
  }
  assert {
    condition     = one(google_storage_bucket.bucket["shards"].lifecycle_rule[0].condition).age == 60 && local.buckets.state.expire["plans/"] == 120
    error_message = "retention_days has no effect."
  }
  assert {
    condition = alltrue([for rule in google_storage_bucket.bucket["state"].lifecycle_rule :
    one(rule.condition).age == 7 if contains(coalesce(one(rule.condition).matches_prefix, []), "cache/")]) && local.buckets.state.expire["cache/"] == 7
    error_message = "answer_cache_days has no effect."
  }
  assert {
    condition     = length([for grant in google_storage_bucket_iam_member.grant : grant if grant.member == "group:team@example.com"]) == 5
    error_message = "operators has no effect."
  }
  assert {
    condition = alltrue([for key in concat(
      [for bucket in google_storage_bucket.bucket : bucket.encryption[0].default_kms_key_name], [for service in google_cloud_run_v2_service.service : service.template[0].encryption_key],
      [google_spanner_database.main.encryption_config[0].kms_key_name, google_pubsub_topic.completed.kms_key_name, google_pubsub_topic.dead.kms_key_name],
      [google_artifact_registry_repository.images.kms_key_name, google_bigquery_dataset.staging[0].default_encryption_configuration[0].kms_key_name],
      [for config in google_eventarc_google_channel_config.key : config.crypto_key_name], [for grant in google_kms_crypto_key_iam_member.agent : grant.crypto_key_id],
    ) : key == var.kms_key]) && length(google_kms_crypto_key_iam_member.agent) == 7
    error_message = "kms_key does not reach everything that is kept."
  }
  assert {
    condition     = alltrue([for service in google_cloud_run_v2_service.service : service.template[0].vpc_access[0].egress == "PRIVATE_RANGES_ONLY" && service.template[0].vpc_access[0].network_interfaces[0].subnetwork == "s"])
    error_message = "network has no effect."
  }
  assert {
    condition = google_spanner_database.main.deletion_protection && google_spanner_database.main.enable_drop_protection && !google_spanner_instance.main.force_destroy && (
      alltrue([for service in google_cloud_run_v2_service.service : service.deletion_protection]) && alltrue([for bucket in google_storage_bucket.bucket : !bucket.force_destroy])
    )
    error_message = "protect has no effect."
  }
}
