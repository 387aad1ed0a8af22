# What must hold of a deployment that uses everything. Without Google: the providers are stand-ins, curl and gcloud too (stand-ins/),
# and the token is none, so that nothing could happen with the true ones.

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
  sources    = ["demo-project.catalog", "other-project.shop.products"]
  operators  = ["user:me@example.com"]
  schedules = {
    nightly = { cron = "0 3 * * *", pipeline = "themes", run_file = "tests/nightly.run.toml" }
  }
}

# What Eventarc's subscriptions are after they were changed.
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

run "no_service_may_write_the_bucket_that_calls_it" {
  command = apply

  assert {
    condition = alltrue([for service, bucket in local.hops : alltrue([
      for grant in concat(values(google_storage_bucket_iam_member.grant), values(google_storage_bucket_iam_member.dropper)) :
      contains(["roles/storage.objectViewer", local.custom_role["list"]], grant.role)
      if grant.bucket == google_storage_bucket.bucket[bucket].name && grant.member == "serviceAccount:${google_cloud_run_v2_service.service[service].template[0].service_account}"
    ])])
    error_message = "A service may write where it listens: it would call itself for ever."
  }
  assert {
    condition = alltrue([for service, trigger in google_eventarc_trigger.hop :
      trigger.destination[0].cloud_run_service[0].service == google_cloud_run_v2_service.service[service].name &&
      contains([for criterion in trigger.matching_criteria : criterion.value], google_storage_bucket.bucket[local.hops[service]].name)
    ]) && length(distinct(values(local.hops))) == 3
    error_message = "A trigger does not lead from its bucket to its service, or two share a bucket."
  }
}

run "nobody_is_public" {
  command = plan

  assert {
    condition = alltrue([for grant in concat(
      values(google_storage_bucket_iam_member.grant), values(google_storage_bucket_iam_member.dropper), google_storage_bucket_iam_member.build,
      values(google_project_iam_member.role), values(google_spanner_database_iam_member.grant),
      values(google_cloud_run_v2_service_iam_member.invoker), values(google_cloud_run_v2_service_iam_member.operator),
      values(google_pubsub_subscription_iam_member.dead), values(google_pubsub_subscription_iam_member.operator),
      values(google_pubsub_subscription_iam_member.operator_looks), [google_pubsub_topic_iam_member.dead, google_pubsub_topic_iam_member.loader],
      google_bigquery_dataset_iam_member.staging, values(google_bigquery_dataset_iam_member.source), values(google_bigquery_table_iam_member.source),
      google_artifact_registry_repository_iam_member.build,
    ) : !startswith(grant.member, "all")])
    error_message = "allUsers or allAuthenticatedUsers has a role."
  }
  assert {
    condition = alltrue([for service in google_cloud_run_v2_service.service :
    service.ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY" && coalesce(service.invoker_iam_disabled, false) == false])
    error_message = "A service can be called from outside, or without a role."
  }
  assert {
    condition = alltrue([for bucket in concat(values(google_storage_bucket.bucket), google_storage_bucket.build) :
    bucket.public_access_prevention == "enforced" && bucket.uniform_bucket_level_access])
    error_message = "A bucket could be made public."
  }
}

run "each_account_has_exactly_these_roles" {
  command = plan

  assert {
    condition = setunion([for grant in concat(values(google_storage_bucket_iam_member.grant), values(google_storage_bucket_iam_member.dropper), google_storage_bucket_iam_member.build) :
      join(" ", compact([
        trimprefix(split("@", grant.member)[0], "serviceAccount:tasuki-"), trimsuffix(basename(grant.role), "_${local.role_suffix}"), trimprefix(grant.bucket, "demo-project-tasuki-"),
        replace(try(grant.condition[0].expression, ""), "/resource\\.name(\\.startsWith\\(| == )\"projects/_/buckets/${grant.bucket}/objects/([^\"]*)\"\\)?/", "$2"),
      ]))
      ]) == toset([
      "splitter storage.objectViewer inbox",
      "splitter storage.objectCreator shards",
      "splitter storage.objectViewer shards",
      "splitter tasuki_list state",
      "splitter storage.objectCreator state plans/ || open/",
      "splitter storage.objectViewer state plans/ || open/ || pipelines/ || control/",
      "splitter storage.objectUser state splits/",
      "generator storage.objectViewer shards",
      "generator storage.objectCreator answers",
      "generator storage.objectViewer answers",
      "generator tasuki_list state",
      "generator storage.objectCreator state control/",
      "generator storage.objectViewer state plans/ || open/ || control/",
      "generator storage.objectUser state claims/ || ckpt/ || cache/",
      "loader storage.objectViewer shards",
      "loader storage.objectViewer answers",
      "loader tasuki_list state",
      "loader storage.objectViewer state plans/ || control/",
      "loader storage.objectUser state open/",
      "dropper tasuki_drop inbox themes/nightly.run.toml",
      "build storage.objectViewer build",
      "user:me storage.objectUser inbox",
      "user:me storage.objectViewer shards",
      "user:me storage.objectViewer answers",
      "user:me storage.objectViewer state",
      "user:me storage.objectUser state control/",
    ])
    error_message = "Somebody has another role on a bucket."
  }
  assert {
    condition = setunion([for grant in google_project_iam_member.role : "${split("@", grant.member)[0]} ${trimsuffix(basename(grant.role), "_${local.role_suffix}")}"]) == toset([
      "serviceAccount:tasuki-trigger eventarc.eventReceiver",
      "serviceAccount:tasuki-generator tasuki_predict",
      "serviceAccount:tasuki-splitter bigquery.jobUser",
      "serviceAccount:tasuki-splitter bigquery.readSessionUser",
      "serviceAccount:tasuki-build logging.logWriter",
      "serviceAccount:service-123456789012 pubsub.publisher",
      "fake:google_project_service_identity.member eventarc.serviceAgent",
      "user:me cloudscheduler.viewer",
    ])
    error_message = "Somebody has another role on the project."
  }
  assert {
    condition = setunion([for grant in google_spanner_database_iam_member.grant : join(" ", compact([
      trimprefix(split("@", grant.member)[0], "serviceAccount:tasuki-"), basename(grant.role), try(grant.condition[0].expression, "")]))
      ]) == toset([
      "splitter spanner.fineGrainedAccessUser",
      "loader spanner.fineGrainedAccessUser",
      "user:me spanner.fineGrainedAccessUser",
      "splitter spanner.databaseRoleUser resource.type == \"spanner.googleapis.com/DatabaseRole\" && resource.name.endsWith(\"/databaseRoles/splitter\")",
      "loader spanner.databaseRoleUser resource.type == \"spanner.googleapis.com/DatabaseRole\" && resource.name.endsWith(\"/databaseRoles/loader\")",
      "user:me spanner.databaseRoleUser resource.type == \"spanner.googleapis.com/DatabaseRole\" && resource.name.endsWith(\"/databaseRoles/reader\")",
    ])
    error_message = "Somebody has another role in the store."
  }
  assert {
    condition = setunion(
      [for grant in values(google_bigquery_dataset_iam_member.source) : "${grant.member} ${grant.role} ${grant.project}.${grant.dataset_id}"],
      [for grant in values(google_bigquery_table_iam_member.source) : "${grant.member} ${grant.role} ${grant.project}.${grant.dataset_id}.${grant.table_id}"],
      [for grant in google_bigquery_dataset_iam_member.staging : "${grant.member} ${grant.role} ${grant.dataset_id}"],
      ) == toset([
        "serviceAccount:tasuki-splitter@demo-project.iam.gserviceaccount.com roles/bigquery.dataViewer demo-project.catalog",
        "serviceAccount:tasuki-splitter@demo-project.iam.gserviceaccount.com roles/bigquery.dataViewer other-project.shop.products",
        "serviceAccount:tasuki-splitter@demo-project.iam.gserviceaccount.com roles/bigquery.dataEditor tasuki_staging",
    ])
    error_message = "The splitter reads or writes something else in BigQuery."
  }
  assert {
    condition = setunion([for grant in concat(values(google_cloud_run_v2_service_iam_member.invoker), values(google_cloud_run_v2_service_iam_member.operator)) :
      "${split("@", grant.member)[0]} ${grant.role} ${grant.name}"]) == setunion(
      [for service in ["splitter", "generator", "loader"] : "serviceAccount:tasuki-trigger roles/run.invoker tasuki-${service}"],
      [for service in ["splitter", "generator", "loader"] : "serviceAccount:tasuki-scheduler roles/run.invoker tasuki-${service}"],
      [for service in ["splitter", "generator", "loader"] : "user:me roles/run.viewer tasuki-${service}"],
    )
    error_message = "Somebody else may call a service."
  }
  assert {
    condition     = google_pubsub_topic_iam_member.loader.member == "serviceAccount:tasuki-loader@demo-project.iam.gserviceaccount.com" && google_pubsub_topic_iam_member.loader.role == "roles/pubsub.publisher" && google_pubsub_topic_iam_member.loader.topic == google_pubsub_topic.completed.name
    error_message = "Not the loader, or not only the notice."
  }
  assert {
    condition = { for name, role in google_project_iam_custom_role.role : name => sort(role.permissions) } == {
      predict = tolist(["aiplatform.endpoints.predict"])
      list    = tolist(["storage.objects.list"])
      drop    = tolist(["storage.objects.create", "storage.objects.delete"])
    }
    error_message = "A role of our own holds something else."
  }
}

run "a_new_api_takes_no_role_away" {
  command = plan

  variables {
    network = { network = "n", subnetwork = "s" }
  }
  assert {
    # An unknown member fails here too: its role would be taken away and given again.
    condition     = google_project_iam_member.role["Storage may tell Eventarc's topics"].member == "serviceAccount:service-123456789012@gs-project-accounts.iam.gserviceaccount.com" && contains(keys(google_project_service.api), "compute.googleapis.com")
    error_message = "Cloud Storage's agent is another."
  }
}

run "operators_look_at_all_subscriptions" {
  command = plan

  assert {
    condition = sort([for grant in google_pubsub_subscription_iam_member.operator_looks : "${grant.member} ${grant.role} ${grant.subscription}"]) == sort([for subscription in concat(values(local.eventarc_subscription), [google_pubsub_subscription.dead.name]) :
    "user:me@example.com roles/pubsub.viewer ${subscription}"])
    error_message = "tasuki doctor cannot look at a subscription."
  }
}

run "no_key_is_made_anywhere" {
  command = plan

  assert {
    # A check of the text: what a plan does not show yet counts too.
    condition     = length(google_service_account.account) > 0 && alltrue([for name in fileset(".", "*.tf") : !can(regex("resource\\s+\"google_([a-z_]*(account_key|hmac_key|apikeys_key)[a-z_]*|secret_manager_[a-z_]*secret(_version)?)\"", file(name)))])
    error_message = "There is a key: everything here works by accounts without keys."
  }
}

run "the_generator_alone_reads_one_secret" {
  command = plan

  variables {
    openai_base_url        = "https://gateway.internal/v1"
    openai_response_format = "text"
    openai_api_key_secret  = "openai-key"
  }

  assert {
    condition     = [for grant in google_secret_manager_secret_iam_member.generator : "${grant.member} ${grant.role} ${grant.secret_id}"] == ["serviceAccount:tasuki-generator@demo-project.iam.gserviceaccount.com roles/secretmanager.secretAccessor openai-key"]
    error_message = "Somebody else reads the secret, or the generator reads another."
  }
  assert {
    condition = toset(flatten([for name, service in google_cloud_run_v2_service.service : [for env in service.template[0].containers[0].env :
      "${name} ${env.name} ${try(env.value_source[0].secret_key_ref[0].secret, env.value)}" if startswith(env.name, "OPENAI_")]
    ])) == toset(["generator OPENAI_BASE_URL https://gateway.internal/v1", "generator OPENAI_RESPONSE_FORMAT text", "generator OPENAI_API_KEY openai-key"])
    error_message = "The endpoint or its key is told to another service, or the key is no secret."
  }
}

run "without_an_endpoint_no_secret_is_read" {
  command = plan

  assert {
    condition = length(google_secret_manager_secret_iam_member.generator) == 0 && alltrue([for service in google_cloud_run_v2_service.service :
    alltrue([for env in service.template[0].containers[0].env : !startswith(env.name, "OPENAI_")])])
    error_message = "There is no endpoint, but something is told of one."
  }
}

run "a_request_ends_before_its_event_is_delivered_again" {
  command = plan

  assert {
    condition = alltrue([for name, service in google_cloud_run_v2_service.service :
      tonumber(trimsuffix(service.template[0].timeout, "s")) <= local.delivery[name].ackDeadlineSeconds &&
      tonumber(one([for env in service.template[0].containers[0].env : env.value if env.name == "TASUKI_ACK_DEADLINE"])) <= local.delivery[name].ackDeadlineSeconds - 10
    ])
    error_message = "A service works longer than Pub/Sub waits for it, or does not answer before it is cut."
  }
  assert {
    condition = alltrue([for service in google_cloud_run_v2_service.service :
      tonumber(one([for env in service.template[0].containers[0].env : env.value if env.name == "TASUKI_LEASE"])) <= tonumber(one([for env in service.template[0].containers[0].env : env.value if env.name == "TASUKI_ACK_DEADLINE"]))
    ])
    error_message = "A redelivery would find its own dead claim alive."
  }
  assert {
    condition = alltrue([for service in google_cloud_run_v2_service.service :
      service.template[0].max_instance_request_concurrency == 4 + tonumber(one([for env in service.template[0].containers[0].env : env.value if env.name == "TASUKI_CONCURRENCY"]))
    ])
    error_message = "Cloud Run must let in 4 requests more than a service works on: it answers them 503 itself."
  }
  assert {
    condition     = alltrue([for job in google_cloud_scheduler_job.sweep : tonumber(trimsuffix(job.attempt_deadline, "s")) >= tonumber(trimsuffix(google_cloud_run_v2_service.service["loader"].template[0].timeout, "s"))])
    error_message = "Cloud Scheduler would cut a sweep."
  }
}

run "an_event_that_cannot_be_handled_is_kept" {
  command = plan

  assert {
    condition     = google_pubsub_subscription.dead.topic == google_pubsub_topic.dead.id && google_pubsub_subscription.dead.expiration_policy[0].ttl == ""
    error_message = "The dead letters' subscription is of another topic, or expires."
  }
  assert {
    condition = alltrue([for delivery in local.delivery :
    delivery.deadLetterPolicy == { deadLetterTopic = google_pubsub_topic.dead.id, maxDeliveryAttempts = 100 } && delivery.messageRetentionDuration == "604800s"])
    error_message = "An event is not tried 100 times within 7 days and then kept."
  }
  assert {
    condition = length(google_pubsub_subscription_iam_member.dead) == 3 && alltrue([for grant in google_pubsub_subscription_iam_member.dead :
    grant.role == "roles/pubsub.subscriber" && grant.member == google_pubsub_topic_iam_member.dead.member])
    error_message = "Pub/Sub may not move events to the dead letters."
  }
  assert {
    condition     = alltrue([for trigger in google_eventarc_trigger.hop : length(trigger.retry_policy) == 0])
    error_message = "retry_policy turns deliveries again off."
  }
}

run "lost_delivery_settings_are_told" {
  command = plan

  override_data {
    target = data.google_pubsub_subscription.delivery
    values = {
      ack_deadline_seconds       = 10 # what Eventarc gives
      message_retention_duration = "604800s"
      retry_policy               = [{ minimum_backoff = "10s", maximum_backoff = "600s" }]
      dead_letter_policy         = [{ dead_letter_topic = "projects/demo-project/topics/tasuki-dead-letters", max_delivery_attempts = 100 }]
      push_config                = [{ push_endpoint = "https://s.run.app/events?__GCP_CloudEventsMode=GCS_NOTIFICATION", attributes = {}, no_wrapper = [], oidc_token = [{ audience = "https://s.run.app", service_account_email = "tasuki-trigger@demo-project.iam.gserviceaccount.com" }] }]
    }
  }
  expect_failures = [check.delivery]
}

run "a_token_for_another_address_is_told" {
  command = plan

  override_data {
    target = data.google_pubsub_subscription.delivery
    values = {
      ack_deadline_seconds       = 600
      message_retention_duration = "604800s"
      retry_policy               = [{ minimum_backoff = "10s", maximum_backoff = "600s" }]
      dead_letter_policy         = [{ dead_letter_topic = "projects/demo-project/topics/tasuki-dead-letters", max_delivery_attempts = 100 }]
      push_config                = [{ push_endpoint = "https://s.run.app/events?__GCP_CloudEventsMode=GCS_NOTIFICATION", attributes = {}, no_wrapper = [], oidc_token = [{ audience = "https://s-old.run.app", service_account_email = "tasuki-trigger@demo-project.iam.gserviceaccount.com" }] }]
    }
  }
  expect_failures = [check.delivery]
}

run "a_shard_fits_one_commit" {
  command = plan

  assert {
    # Limits of tasuki-relay: 1,000 rows in a shard, 80,000 mutations in a commit, one for each column of each row; and the row
    # of a failed row, the ledger's, the counters'.
    condition = alltrue([for table, text in local.target_files :
    length(regexall("(?m)^  `", text)) > 12 && 1000 * length(regexall("(?m)^  `", text)) + 100 <= 80000])
    error_message = "A shard of 1,000 rows of one of schema/targets is more than a commit may hold."
  }
}

run "regions_agree" {
  command = plan

  assert {
    condition = distinct(concat(
      [for bucket in google_storage_bucket.bucket : lower(bucket.location)],
      [for trigger in google_eventarc_trigger.hop : trigger.location],
      [for service in google_cloud_run_v2_service.service : service.location],
      [for job in google_cloud_scheduler_job.sweep : job.region],
      [for job in google_cloud_scheduler_job.run : job.region],
      [for dataset in google_bigquery_dataset.staging : dataset.location],
      [trimprefix(google_spanner_instance.main.config, "regional-"), google_artifact_registry_repository.images.location],
    )) == tolist(["europe-west4"])
    error_message = "Something lies elsewhere."
  }
}

run "what_must_last_is_not_deleted" {
  command = plan

  assert {
    condition = alltrue(flatten([for name, bucket in google_storage_bucket.bucket : [for rule in bucket.lifecycle_rule :
      alltrue([for prefix in coalesce(one(rule.condition).matches_prefix, []) : prefix != "" && !startswith("pipelines/", prefix)]) &&
      (name == "state" ? length(coalesce(one(rule.condition).matches_prefix, [])) > 0 : one(rule.condition).with_state == "ARCHIVED" || try(one(rule.condition).age >= 45, false))
      if one(rule.action).type == "Delete"
    ]]))
    error_message = "A lifecycle rule deletes pipelines, or shards, answers or dropped files before 45 days."
  }
  assert {
    condition     = google_storage_bucket.bucket["inbox"].versioning[0].enabled && google_storage_bucket.bucket["answers"].soft_delete_policy[0].retention_duration_seconds > 0
    error_message = "A dropped file that was overwritten, or paid answers that were deleted, cannot be brought back."
  }
  assert {
    condition     = google_spanner_backup_schedule.daily[0].retention_duration == "604800s"
    error_message = "The store has no backups."
  }
}

run "a_schedule_makes_a_new_generation_each_time" {
  command = plan

  assert {
    condition     = google_cloud_scheduler_job.run["nightly"].http_target[0].uri == "https://storage.googleapis.com/upload/storage/v1/b/demo-project-tasuki-inbox/o?uploadType=media&name=themes%2Fnightly.run.toml"
    error_message = "The schedule writes elsewhere, or under a precondition that refuses to overwrite."
  }
  assert {
    condition     = base64decode(google_cloud_scheduler_job.run["nightly"].http_target[0].body) == file("tests/nightly.run.toml")
    error_message = "The schedule drops something else."
  }
  assert {
    condition     = google_cloud_scheduler_job.run["nightly"].http_target[0].oauth_token[0].service_account_email == "tasuki-dropper@demo-project.iam.gserviceaccount.com"
    error_message = "The schedule works as somebody else."
  }
}

run "the_command_finds_everything" {
  command = plan

  assert {
    condition = output.deployment.spanner_database == "projects/demo-project/instances/tasuki-store/databases/tasuki" && output.deployment.spanner_role == "reader" && (
      output.deployment.inbox_bucket == "demo-project-tasuki-inbox" && output.deployment.bigquery_staging == "demo-project.tasuki_staging" &&
      length(output.deployment.schedulers) == 3 && toset(keys(output.deployment.subscriptions)) == toset(keys(output.deployment.services))
    )
    error_message = "The deployment's file would be wrong."
  }
  assert {
    condition     = output.drop == "gcloud storage cp ../examples/products.jsonl gs://demo-project-tasuki-inbox/themes/"
    error_message = "The command to copy is not one."
  }
}

run "tables_of_its_own_are_only_ever_added_to" {
  command = plan

  assert {
    condition     = length(local.schema) == 55 && local.schema[0] == regex("^CREATE TABLE Runs \\( run STRING\\(27\\) NOT NULL, .* \\) PRIMARY KEY \\(run\\)$", local.schema[0])
    error_message = "The statements are read wrongly, or there are more now: then count them here."
  }
  assert {
    condition     = google_spanner_database.main.ddl == tolist(local.schema) && !can(regex("row_themes", join("", google_spanner_database.main.ddl)))
    error_message = "A pipeline's table is in ddl: its first change would replace the database."
  }
}
