# Only project_id must be given. Everything else has a value that works in an empty project.

variable "project_id" {
  description = "The project that receives everything. It must exist and have billing, nothing else."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be a project's ID, like my-project-123: not its number, not its display name."
  }
}

variable "prefix" {
  description = "Starts every name, so that two relays fit into one project."
  type        = string
  default     = "tasuki"

  validation {
    # A service account's ID ends at 30 characters ("-generator" is added), a bucket's name at 63 ("<project>-<prefix>-answers").
    condition     = can(regex("^[a-z][a-z0-9-]{0,13}[a-z0-9]$", var.prefix))
    error_message = "prefix must have 2 to 15 characters, a-z 0-9 and -, begin with a letter and not end with a hyphen."
  }
}

variable "agents" {
  description = "What this relay gives to Google's agents: their roles in the project; the use of kms_key, also for Eventarc's topics. Of two relays in a project only one gives each: a destroy takes it back, from both."
  type = object({
    project = optional(bool, true)
    key     = optional(bool, true)
  })
  default  = {}
  nullable = false
}

variable "labels" {
  description = "Labels for everything that takes labels, besides app = prefix."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition = alltrue([for key, value in var.labels :
    can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))])
    error_message = "labels: a key begins with a-z, and keys and values have at most 63 characters of a-z 0-9 _ -."
  }
  validation {
    condition     = !contains(keys(var.labels), "app")
    error_message = "labels: app is taken: it is the prefix."
  }
}

variable "region" {
  description = "Where buckets, triggers, services, the store and schedules live: all in one region, because a trigger must lie where its bucket lies."
  type        = string
  default     = "europe-west4"

  validation {
    condition     = can(regex("^(africa|asia|australia|europe|me|northamerica|southamerica|us)-[a-z]+[0-9]+$", var.region))
    error_message = "region must be one region, like europe-west4 or asia-northeast1: not a zone, not a multi-region."
  }
}

variable "residency" {
  description = "Where data may be: any, eu, us, or region (nowhere but in var.region). A region, a location of models (here or in a pipeline) or of sources outside is refused."
  type        = string
  default     = "any"
  nullable    = false

  validation {
    condition     = contains(["any", "eu", "us", "region"], var.residency)
    error_message = "residency must be any, eu, us or region."
  }
  validation {
    condition     = var.residency != "eu" || startswith(var.region, "europe-")
    error_message = "residency is eu, but region is ${var.region}: choose a region that begins with europe-."
  }
  validation {
    condition     = var.residency != "us" || startswith(var.region, "us-")
    error_message = "residency is us, but region is ${var.region}: choose a region that begins with us-."
  }
}

variable "model_location" {
  description = "Where Vertex AI is asked, unless the pipeline says otherwise: global (most capacity), eu, us, or a region."
  type        = string
  default     = "global"
  nullable    = false

  validation {
    condition     = can(regex("^(global|eu|us|[a-z]+-[a-z]+[0-9]+)$", var.model_location))
    error_message = "model_location must be global, eu, us, or a region like europe-west4."
  }
  validation {
    condition     = can(regex(local.residence, var.model_location))
    error_message = "residency is ${var.residency}, but model_location is ${var.model_location}: choose one inside, like ${local.residence_example}."
  }
}

variable "openai_base_url" {
  description = "Where pipelines with provider = \"openai\" are answered: an https address with chat completions, like https://gateway.internal/v1. Null: OpenAI itself, if there is openai_api_key_secret."
  type        = string
  default     = null

  validation {
    condition     = var.openai_base_url == null || can(regex("^https://[^/?#@ ]+[^?#@ ]*$", var.openai_base_url))
    error_message = "openai_base_url must be an https address without a query or a password: rows go there."
  }
}

variable "openai_response_format" {
  description = "How that server is told the form of answers: json_schema, or text (in words, for a server that refuses a schema). Null: json_schema."
  type        = string
  default     = null

  validation {
    condition     = var.openai_response_format == null || contains(["json_schema", "text"], coalesce(var.openai_response_format, "-"))
    error_message = "openai_response_format must be json_schema or text."
  }
}

variable "openai_api_key_secret" {
  description = "Name of the secret in Secret Manager, of this project, that holds the key for it. Null: no key."
  type        = string
  default     = null

  validation {
    condition     = var.openai_api_key_secret == null || can(regex("^[A-Za-z0-9_-]{1,255}$", var.openai_api_key_secret))
    error_message = "openai_api_key_secret is the name of a secret, not its path and not the key."
  }
}

variable "image" {
  description = "The services' image, by digest. Null: Cloud Build makes it from this repository in the same apply (needs gcloud on this machine)."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("^[^@ ]+@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must name its digest, like europe-docker.pkg.dev/project/repository/tasuki@sha256:…: a tag can change under a running service."
  }
}

variable "max_in_flight" {
  description = "Model calls in flight at most, over all instances of the generator."
  type        = number
  default     = 2000
  nullable    = false

  validation {
    condition     = var.max_in_flight >= 1 && var.max_in_flight <= 50000 && floor(var.max_in_flight) == var.max_in_flight
    error_message = "max_in_flight must be a whole number from 1 to 50000."
  }
  validation {
    # So that instances × share is this number, and not a little less.
    condition     = var.max_in_flight <= 1000 || var.max_in_flight % 1000 == 0
    error_message = "max_in_flight above 1000 must be a multiple of 1000: an instance of the generator holds 1000 calls."
  }
}

variable "pipelines_dir" {
  description = "Folder with the pipelines to deploy: each *.toml in it that is not a run file (*.run.toml). Null: ../examples."
  type        = string
  default     = null

  validation {
    condition     = var.pipelines_dir == null ? true : length([for name in fileset(var.pipelines_dir, "*.toml") : name if !endswith(name, ".run.toml")]) > 0
    error_message = "pipelines_dir holds no pipeline (*.toml): name the folder of your pipelines, from where terraform runs or absolute."
  }
}

variable "schedules" {
  description = "Runs by the clock: a run file (*.run.toml, a path on this machine) that Cloud Scheduler drops into the pipeline's inbox. Keys name the schedules."
  type = map(object({
    cron      = string
    time_zone = optional(string, "Etc/UTC")
    pipeline  = string
    run_file  = string
  }))
  default  = {}
  nullable = false

  validation {
    # An IAM policy takes 20 conditional bindings of one role and account ("Conditions: limits" of IAM's documentation).
    condition     = length(var.schedules) <= 20
    error_message = "schedules: at most 20."
  }
  validation {
    condition     = alltrue([for name in keys(var.schedules) : can(regex("^[a-z][a-z0-9-]{0,30}$", name))])
    error_message = "schedules: a key has at most 31 characters of a-z 0-9 - and begins with a letter."
  }
  validation {
    condition     = alltrue([for schedule in var.schedules : can(regex("^(\\S+\\s+){4}\\S+$", trimspace(schedule.cron)))])
    error_message = "schedules: cron must have five fields, like \"0 3 * * *\"."
  }
  validation {
    condition     = alltrue([for schedule in var.schedules : can(regex("^[a-z][a-z0-9_-]{0,30}$", schedule.pipeline))])
    error_message = "schedules: pipeline must be a pipeline's name."
  }
  validation {
    condition     = alltrue([for schedule in var.schedules : endswith(schedule.run_file, ".run.toml") && fileexists(schedule.run_file)])
    error_message = "schedules: run_file must be a file on this machine whose name ends in .run.toml."
  }
}

variable "sources" {
  description = "What run files may read from BigQuery: project.dataset or project.dataset.table. The splitter gets dataViewer on these and on nothing else. Empty: BigQuery is no source."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for source in var.sources : can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]\\.[A-Za-z0-9_]+(\\.[A-Za-z0-9_-]+)?$", source))])
    error_message = "sources: each must be project.dataset or project.dataset.table."
  }
  validation {
    condition     = length(distinct(var.sources)) == length(var.sources)
    error_message = "sources: one is named twice."
  }
}

variable "sources_location" {
  description = "BigQuery's location of the sources, and so of the staging dataset: a query reads one location only. Null: var.region."
  type        = string
  default     = null

  validation {
    condition     = var.sources_location == null ? true : can(regex("^(EU|US|[a-z]+-[a-z]+[0-9]+)$", var.sources_location))
    error_message = "sources_location must be EU, US or a region like europe-west4."
  }
  validation {
    condition     = var.sources_location == null || var.kms_key == null ? true : lower(var.sources_location) == var.region
    error_message = "kms_key lies in region (${var.region}), but the staging dataset would lie in sources_location (${coalesce(var.sources_location, "unset")}), and BigQuery takes a key of its own location only: give sources of ${var.region}, or no kms_key."
  }
  validation {
    condition     = var.sources_location == null ? true : can(regex(local.residence, lower(var.sources_location)))
    error_message = "residency is ${var.residency}, but sources_location is ${coalesce(var.sources_location, "unset")}: choose ${var.residency == "region" ? var.region : "${upper(var.residency)}, or a region inside"}."
  }
}

variable "bigquery_gib_max" {
  description = "What one run's query may read at most, in GiB, by its dry run."
  type        = number
  default     = 1000
  nullable    = false

  validation {
    condition     = var.bigquery_gib_max >= 1 && var.bigquery_gib_max <= 1000000 && floor(var.bigquery_gib_max) == var.bigquery_gib_max
    error_message = "bigquery_gib_max must be a whole number from 1 to 1000000."
  }
}

variable "spanner" {
  description = "The store's size: processing_units, or autoscaling between two sizes (which needs the edition ENTERPRISE); and how many days daily backups are kept (0: none)."
  type = object({
    processing_units = optional(number, 100)
    autoscaling      = optional(object({ min_processing_units = number, max_processing_units = number }))
    edition          = optional(string)
    backup_days      = optional(number, 7)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for units in [var.spanner.processing_units] : units >= 100 && (units < 1000 ? units % 100 == 0 : units % 1000 == 0)])
    error_message = "spanner.processing_units must be a multiple of 100 below 1000, and of 1000 from there on."
  }
  validation {
    condition = var.spanner.autoscaling == null ? true : (
      var.spanner.autoscaling.min_processing_units >= 1000 && var.spanner.autoscaling.min_processing_units % 1000 == 0 &&
      var.spanner.autoscaling.max_processing_units % 1000 == 0 &&
      var.spanner.autoscaling.max_processing_units > var.spanner.autoscaling.min_processing_units
    )
    error_message = "spanner.autoscaling: both must be multiples of 1000, the smaller one at least 1000, the greater one greater."
  }
  validation {
    condition     = var.spanner.edition == null ? true : contains(["STANDARD", "ENTERPRISE", "ENTERPRISE_PLUS"], var.spanner.edition)
    error_message = "spanner.edition must be STANDARD, ENTERPRISE or ENTERPRISE_PLUS."
  }
  validation {
    condition     = !(var.spanner.autoscaling != null && coalesce(var.spanner.edition, "ENTERPRISE") == "STANDARD")
    error_message = "spanner.autoscaling needs the edition ENTERPRISE or ENTERPRISE_PLUS: leave edition out, or name one of them."
  }
  validation {
    # Spanner keeps a backup for a year at most ("Backup overview" of its documentation).
    condition     = var.spanner.backup_days >= 0 && var.spanner.backup_days <= 366
    error_message = "spanner.backup_days must be 0 (no backups) to 366."
  }
}

variable "delivery" {
  description = "How events are delivered again: put on the subscriptions that Eventarc makes."
  type = object({
    ack_deadline_seconds  = optional(number, 600)
    minimum_backoff       = optional(string, "10s")
    maximum_backoff       = optional(string, "600s")
    retention             = optional(string, "604800s") # 7 days
    max_delivery_attempts = optional(number, 100)
  })
  default  = {}
  nullable = false

  validation {
    # A service answers 15 s earlier, and not before a lease of 120 s is over: a redelivery would find its own dead claim alive.
    condition     = var.delivery.ack_deadline_seconds >= 135 && var.delivery.ack_deadline_seconds <= 600
    error_message = "delivery.ack_deadline_seconds must be 135 to 600: Pub/Sub's maximum, and 15 more than the lease of a claim."
  }
  validation {
    condition     = var.delivery.max_delivery_attempts >= 5 && var.delivery.max_delivery_attempts <= 100
    error_message = "delivery.max_delivery_attempts must be 5 to 100. Each 503 counts, and a busy service answers 503: 100 is right."
  }
  validation {
    condition = alltrue([for time in [var.delivery.minimum_backoff, var.delivery.maximum_backoff] :
    can(regex("^[0-9]+s$", time)) && try(tonumber(trimsuffix(time, "s")) <= 600, false)])
    error_message = "delivery.minimum_backoff and maximum_backoff must be seconds up to 600, like \"10s\"."
  }
  validation {
    condition     = can(regex("^[0-9]+s$", var.delivery.retention)) && try(tonumber(trimsuffix(var.delivery.retention, "s")) >= 86400 && tonumber(trimsuffix(var.delivery.retention, "s")) <= 2678400, false)
    error_message = "delivery.retention must be seconds from \"86400s\" (a day) to \"2678400s\" (31 days)."
  }
}

variable "long_splits" {
  description = "True: the splitter keeps its CPU between requests. For splits of an hour: one of more than 10 minutes waits between the deliveries of its event, 10 s at first, 10 minutes in the end. Costs about $68 a month more."
  type        = bool
  default     = false
  nullable    = false
}

variable "retention_days" {
  description = "How long shards, answers and dropped files are kept."
  type        = number
  default     = 45
  nullable    = false

  validation {
    # A retry reads the shards of the run that it repeats, and a late event its answers (protocol: at least 45 days).
    condition     = var.retention_days >= 45 && var.retention_days <= 3650 && floor(var.retention_days) == var.retention_days
    error_message = "retention_days must be a whole number from 45 to 3650: a run may be repeated, and an event come late, for 45 days."
  }
}

variable "answer_cache_days" {
  description = "How long answers are kept for later runs of pipelines with reuse_answers. What has expired is asked, and paid for, again."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = var.answer_cache_days >= 1 && var.answer_cache_days <= 3650 && floor(var.answer_cache_days) == var.answer_cache_days
    error_message = "answer_cache_days must be a whole number from 1 to 3650."
  }
}

variable "operators" {
  description = "Who may use the tasuki command on this relay, like user:me@example.com or group:team@example.com: drop files, cancel runs, read what became of them."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for member in var.operators : can(regex("^(user|group|serviceAccount|principal|principalSet):.+$", member))])
    error_message = "operators: each must be user:…, group:…, serviceAccount:…, principal:… or principalSet:…."
  }
}

variable "kms_key" {
  description = "A Cloud KMS key in var.region that encrypts everything that is kept: projects/…/locations/…/keyRings/…/cryptoKeys/…. Null: Google's keys. Decide before the first apply: Spanner cannot change it, and the store would be made anew, empty."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key == null ? true : can(regex("^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$", var.kms_key))
    error_message = "kms_key must be projects/…/locations/…/keyRings/…/cryptoKeys/… (without a version)."
  }
  validation {
    condition     = var.kms_key == null ? true : try(split("/", var.kms_key)[3] == var.region, true)
    error_message = "kms_key must lie in region (${var.region}): a service takes a key of its own location only."
  }
}

variable "network" {
  description = "Direct VPC egress of the services. egress: ALL_TRAFFIC (the subnetwork needs Private Google Access then) or PRIVATE_RANGES_ONLY. Null: none."
  type = object({
    network    = string
    subnetwork = string
    tags       = optional(list(string), [])
    egress     = optional(string, "ALL_TRAFFIC")
  })
  default = null

  validation {
    condition     = var.network == null ? true : contains(["ALL_TRAFFIC", "PRIVATE_RANGES_ONLY"], var.network.egress)
    error_message = "network.egress must be ALL_TRAFFIC or PRIVATE_RANGES_ONLY."
  }
}

variable "protect" {
  description = "True: destroy refuses the database, the services, and buckets and datasets that hold something. Set it to false and apply before a destroy."
  type        = bool
  default     = false
  nullable    = false
}

variable "alert_emails" {
  description = "Who is told when something is wrong. Empty: alerts are shown in Cloud Monitoring only."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "alert_emails: each must be an e-mail address."
  }
  validation {
    # "Notification channels per alert policy" of Cloud Monitoring's quotas.
    condition     = length(var.alert_emails) <= 16
    error_message = "alert_emails: at most 16; give the address of a group."
  }
}

variable "token_prices" {
  description = "Dollars for a million tokens, for the dashboard's estimate of what the model costs. The default is gemini-3.5-flash-lite's (README.md, Cost)."
  type = object({
    input  = optional(number, 0.30)
    output = optional(number, 2.50)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.token_prices.input >= 0 && var.token_prices.output >= 0
    error_message = "token_prices cannot be negative."
  }
}

variable "budget" {
  description = "A budget of the project: mails at 50, 90 and 100 % of so much a month, in the billing account's currency. It stops nothing. Null: none."
  type = object({
    billing_account = string
    monthly         = number
  })
  default = null

  validation {
    condition     = var.budget == null ? true : can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.budget.billing_account))
    error_message = "budget.billing_account must be like 012345-6789AB-CDEF01 (gcloud billing accounts list)."
  }
  validation {
    condition     = var.budget == null ? true : var.budget.monthly >= 1 && floor(var.budget.monthly) == var.budget.monthly
    error_message = "budget.monthly must be a whole number, 1 or more."
  }
}

variable "log_retention_days" {
  description = "How long the project keeps its logs, all of them: the log bucket _Default has no part of its own for Tasuki. Null: as it is, 30 days in a new project."
  type        = number
  default     = null

  validation {
    condition     = var.log_retention_days == null ? true : var.log_retention_days >= 1 && var.log_retention_days <= 3650 && floor(var.log_retention_days) == var.log_retention_days
    error_message = "log_retention_days must be a whole number from 1 to 3650."
  }
}

variable "audit_logs" {
  description = "True: who read or wrote data in Cloud Storage, Spanner, BigQuery and Vertex AI is logged, for the whole project. It costs like any log: several entries for each shard."
  type        = bool
  default     = false
  nullable    = false
}
