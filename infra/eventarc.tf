# Each hop's trigger, and how its events are delivered again.

resource "google_eventarc_trigger" "hop" {
  for_each = local.hops

  name            = "${var.prefix}-${each.key}"
  location        = lower(google_storage_bucket.bucket[each.value].location) # the state holds it in capitals
  service_account = local.email["trigger"]

  matching_criteria {
    attribute = "type"
    value     = "google.cloud.storage.object.v1.finalized"
  }
  matching_criteria {
    attribute = "bucket"
    value     = google_storage_bucket.bucket[each.value].name
  }

  destination {
    cloud_run_service {
      service = google_cloud_run_v2_service.service[each.key].name
      region  = google_cloud_run_v2_service.service[each.key].location
      path    = "/events"
    }
  }

  # No retry_policy: its only value, max_attempts = 1, turns deliveries again off.

  depends_on = [
    time_sleep.iam,
    google_cloud_run_v2_service_iam_member.invoker,
    google_eventarc_google_channel_config.key,
  ]
}

locals {
  # Service → projects/P/subscriptions/S.
  eventarc_subscription = { for service, trigger in google_eventarc_trigger.hop : service => trigger.transport[0].pubsub[0].subscription }
}

resource "google_pubsub_topic" "dead" {
  name                       = "${var.prefix}-dead-letters"
  kms_key_name               = var.kms_key
  message_retention_duration = "604800s"
  depends_on                 = [time_sleep.kms]
}

# A topic without a subscription forgets at once.
resource "google_pubsub_subscription" "dead" {
  name                       = "${var.prefix}-dead-letters"
  topic                      = google_pubsub_topic.dead.id
  ack_deadline_seconds       = 60
  message_retention_duration = "2678400s" # 31 days, the most that Pub/Sub keeps

  expiration_policy {
    ttl = "" # never
  }
}

resource "google_pubsub_topic_iam_member" "dead" {
  topic  = google_pubsub_topic.dead.name
  role   = "roles/pubsub.publisher"
  member = local.agent["pubsub"]
}

# Who moves an event to the dead letters must take it off the subscription where it was.
resource "google_pubsub_subscription_iam_member" "dead" {
  for_each = local.hops

  subscription = local.eventarc_subscription[each.key]
  role         = "roles/pubsub.subscriber"
  member       = local.agent["pubsub"]
}

# The operator reads dead letters and takes them off, and looks at how events are delivered.
resource "google_pubsub_subscription_iam_member" "operator" {
  for_each = toset(var.operators)

  subscription = google_pubsub_subscription.dead.name
  role         = "roles/pubsub.subscriber"
  member       = each.key
}

# A subscriber may pull, but not look at the subscription.
resource "google_pubsub_subscription_iam_member" "operator_looks" {
  for_each = { for pair in setproduct(concat(keys(local.hops), ["dead"]), var.operators) : join(" ", pair) => { of = pair[0], member = pair[1] } }

  subscription = each.value.of == "dead" ? google_pubsub_subscription.dead.name : local.eventarc_subscription[each.value.of]
  role         = "roles/pubsub.viewer"
  member       = each.value.member
}

# Whoever applies. Ephemeral: the token is in no state and no plan.
ephemeral "google_client_config" "me" {}

locals {
  delivery = { for service, subscription in local.eventarc_subscription : service => {
    name                     = subscription
    ackDeadlineSeconds       = var.delivery.ack_deadline_seconds
    messageRetentionDuration = var.delivery.retention
    expirationPolicy         = {} # never
    retryPolicy              = { minimumBackoff = var.delivery.minimum_backoff, maximumBackoff = var.delivery.maximum_backoff }
    deadLetterPolicy         = { deadLetterTopic = google_pubsub_topic.dead.id, maxDeliveryAttempts = var.delivery.max_delivery_attempts }
  } }
}

# Eventarc owns the subscription, and neither its API nor a resource has a field for these settings (issues 17697, 17701 and
# 12254 of the provider); its documentation says to change the subscription itself. Left alone it would have an ack deadline of
# 10 s, which is also the request's timeout, keep events for a day, and drop them without a trace.
resource "terraform_data" "delivery" {
  for_each = local.hops

  triggers_replace = local.delivery[each.key]

  provisioner "local-exec" {
    # The token goes through a pipe: everybody on this machine may list a command's arguments.
    command = "printf 'Authorization: Bearer %s' \"$TOKEN\" | curl --fail-with-body --silent --show-error --retry 5 --retry-all-errors -X PATCH -H @- -H 'Content-Type: application/json' -d \"$BODY\" \"$URL\""
    environment = {
      TOKEN = ephemeral.google_client_config.me.access_token
      URL   = "https://pubsub.googleapis.com/v1/${local.eventarc_subscription[each.key]}"
      BODY  = jsonencode({ updateMask = "ackDeadlineSeconds,messageRetentionDuration,expirationPolicy,retryPolicy,deadLetterPolicy", subscription = local.delivery[each.key] })
    }
  }

  depends_on = [google_pubsub_topic_iam_member.dead, google_pubsub_subscription_iam_member.dead]
}

data "google_pubsub_subscription" "delivery" {
  for_each = local.hops

  name       = basename(local.eventarc_subscription[each.key])
  depends_on = [terraform_data.delivery]
}

# Eventarc's documentation does not promise to keep the settings when it changes a trigger: each plan looks.
check "delivery" {
  assert {
    condition = alltrue([for subscription in data.google_pubsub_subscription.delivery :
      subscription.ack_deadline_seconds == var.delivery.ack_deadline_seconds &&
      subscription.message_retention_duration == var.delivery.retention &&
      try(subscription.retry_policy[0].minimum_backoff, "") == var.delivery.minimum_backoff &&
      try(subscription.retry_policy[0].maximum_backoff, "") == var.delivery.maximum_backoff &&
      try(subscription.dead_letter_policy[0].dead_letter_topic, "") == google_pubsub_topic.dead.id &&
      try(subscription.dead_letter_policy[0].max_delivery_attempts, 0) == var.delivery.max_delivery_attempts
    ])
    error_message = "A subscription of Eventarc lost its delivery settings. Put them back: terraform apply -replace='terraform_data.delivery[\"splitter\"]' -replace='terraform_data.delivery[\"generator\"]' -replace='terraform_data.delivery[\"loader\"]'."
  }
  # A service refuses a token that was made out to another address. Without an audience Pub/Sub names the whole endpoint.
  assert {
    condition = alltrue([for service, subscription in data.google_pubsub_subscription.delivery : try(
      regex("^https://[^/?#]+", coalesce(subscription.push_config[0].oidc_token[0].audience, subscription.push_config[0].push_endpoint)) ==
      regex("^https://[^/?#]+", subscription.push_config[0].push_endpoint), false
    )])
    error_message = "A subscription of Eventarc calls one address with a token for another, or without one: the service answers 403. Make the triggers anew: terraform apply -replace='google_eventarc_trigger.hop[\"splitter\"]' -replace='google_eventarc_trigger.hop[\"generator\"]' -replace='google_eventarc_trigger.hop[\"loader\"]'."
  }
}
