# One page: what the relay does, what it costs, and where it waits.

locals {
  # PromQL's names of the metrics of monitoring.tf: the first / becomes :, everything else that is no letter or digit becomes _
  # (https://docs.cloud.google.com/monitoring/promql/promql-mapping).
  promql = { for key, metric in google_logging_metric.number : key => "logging_googleapis_com:user_${replace(metric.name, "/[^a-zA-Z0-9]/", "_")}" }
  logged = "{monitored_resource=\"cloud_run_revision\"}"

  # How much of a number came a second, over the last five minutes: a line is written when a shard is done.
  rate    = { for key, name in local.promql : key => "sum(rate(${name}_sum${local.logged}[5m]))" }
  by      = { for key, name in local.promql : key => "sum by (${local.measured[key].label}) (rate(${name}_sum${local.logged}[5m]))" }
  at_most = { for key, name in local.promql : key => "(0.95, sum by (le) (rate(${name}_bucket${local.logged}[5m])))" }

  # What Google measures.
  one_of = { for what, names in {
    services      = [for service in values(google_cloud_run_v2_service.service) : service.name]
    subscriptions = concat([for subscription in values(local.eventarc_subscription) : basename(subscription)], [google_pubsub_subscription.dead.name])
  } : what => "monitoring.regex.full_match(\"${join("|", names)}\")" }
  of_services = "resource.type=\"cloud_run_revision\" AND resource.labels.service_name=${local.one_of.services}"
  of_hops     = "resource.type=\"pubsub_subscription\" AND resource.labels.subscription_id=${local.one_of.subscriptions}"
  of_store    = "resource.type=\"spanner_instance\" AND resource.labels.instance_id=\"${google_spanner_instance.main.name}\""
  commits     = "${local.of_store} AND metric.type=\"spanner.googleapis.com/api/request_latencies\" AND metric.labels.method=\"Commit\""

  builtin = {
    "commit, half" = { filter = local.commits, aligner = "ALIGN_DELTA", reducer = "REDUCE_PERCENTILE_50", by = [] }
    "commit, 99 %" = { filter = local.commits, aligner = "ALIGN_DELTA", reducer = "REDUCE_PERCENTILE_99", by = [] }
    "store's CPU"  = { filter = "${local.of_store} AND metric.type=\"spanner.googleapis.com/instance/cpu/utilization_by_priority\"", aligner = "ALIGN_MEAN", reducer = "REDUCE_SUM", by = ["metric.label.priority"] }
    "oldest event" = { filter = "${local.of_hops} AND metric.type=\"pubsub.googleapis.com/subscription/oldest_unacked_message_age\"", aligner = "ALIGN_MAX", reducer = "REDUCE_MAX", by = ["resource.label.subscription_id"] }
    "events"       = { filter = "${local.of_hops} AND metric.type=\"pubsub.googleapis.com/subscription/num_undelivered_messages\"", aligner = "ALIGN_MAX", reducer = "REDUCE_MAX", by = ["resource.label.subscription_id"] }
    "instances"    = { filter = "${local.of_services} AND metric.type=\"run.googleapis.com/container/instance_count\"", aligner = "ALIGN_MAX", reducer = "REDUCE_SUM", by = ["resource.label.service_name", "metric.label.state"] }
    "requests"     = { filter = "${local.of_services} AND metric.type=\"run.googleapis.com/request_count\"", aligner = "ALIGN_RATE", reducer = "REDUCE_SUM", by = ["resource.label.service_name", "metric.label.response_code_class"] }
  }
  google = { for name, series in local.builtin : name => { timeSeriesFilter = {
    filter = series.filter
    aggregation = {
      alignmentPeriod    = "60s"
      perSeriesAligner   = series.aligner
      crossSeriesReducer = series.reducer
      groupByFields      = series.by
    }
  } } }

  charts = [
    { title = "Rows a second", lines = {
      "read"       = { prometheusQuery = local.rate["splitter/rows"] }
      "loaded"     = { prometheusQuery = local.rate["loader/loaded"] }
      "failed"     = { prometheusQuery = local.rate["loader/failed"] }
      "unchanged"  = { prometheusQuery = local.rate["loader/unchanged"] }
      "superseded" = { prometheusQuery = local.rate["loader/superseded"] }
    } },
    { title = "Model, dollars an hour (at $${var.token_prices.input} in and $${var.token_prices.output} out for a million tokens)", lines = {
      "all pipelines" = { prometheusQuery = "3600 / 1000000 * (${var.token_prices.input} * ${local.rate["generator/prompt_tokens"]} + ${var.token_prices.output} * (${local.rate["generator/output_tokens"]} + ${local.rate["generator/thought_tokens"]}))" }
    } },
    { title = "Spent on models, dollars an hour, by pipeline (calls without a known price are not in it)", lines = {
      "" = { prometheusQuery = "3600 / 1000000 * ${local.by["generator/cost_microusd"]}" }
    } },
    { title = "Rows loaded a second, by pipeline", lines = {
      "" = { prometheusQuery = local.by["loader/loaded"] }
    } },
    { title = "Failed rows a second, by reason", lines = {
      "" = { prometheusQuery = local.by["loader/failed_by_reason"] }
    } },
    { title = "Rows in flight (on average)", lines = {
      "asked and not yet answered" = { prometheusQuery = "${local.rate["generator/latency_sum_ms"]} / 1000" }
    } },
    { title = "Busy replies (429) of all calls", lines = {
      "share" = { prometheusQuery = "${local.rate["generator/rejected"]} / ${local.rate["generator/calls"]}" }
    } },
    { title = "From a row's first call to its last reply, ms", lines = {
      "half of the rows, in 95 % of the shards" = { prometheusQuery = "histogram_quantile${local.at_most["generator/latency_p50_ms"]}" }
      "95 % of the rows, in 95 % of the shards" = { prometheusQuery = "histogram_quantile${local.at_most["generator/latency_p95_ms"]}" }
    } },
    { title = "Calls a second that brought no answer of use", lines = {
      "perhaps paid (no reply)"            = { prometheusQuery = local.rate["generator/ambiguous_calls"] }
      "paid and thrown away"               = { prometheusQuery = local.rate["generator/wasted"] }
      "rows that could not be read at all" = { prometheusQuery = local.rate["splitter/bad_rows"] }
    } },
    { title = "Tokens a second", lines = {
      "in"               = { prometheusQuery = local.rate["generator/prompt_tokens"] }
      "of these, cached" = { prometheusQuery = local.rate["generator/cached_tokens"] }
      "out"              = { prometheusQuery = local.rate["generator/output_tokens"] }
      "thought"          = { prometheusQuery = local.rate["generator/thought_tokens"] }
    } },
    { title = "Commits, ms", lines = {
      "a part's transaction, 95 %" = { prometheusQuery = "histogram_quantile${local.at_most["loader/commit_ms"]}" }
    } },
    { title = "Spanner: commit latency, s", lines = {
      "50 %" = local.google["commit, half"]
      "99 %" = local.google["commit, 99 %"]
    } },
    { title = "Spanner: CPU by priority (high above 0.65: raise processing_units)", lines = { "" = local.google["store's CPU"] } },
    { title = "Oldest event that waits, s", lines = { "" = local.google["oldest event"] } },
    { title = "Events that wait, and dead letters", lines = { "" = local.google["events"] } },
    { title = "Instances", lines = { "" = local.google["instances"] } },
    { title = "Requests a second", lines = { "" = local.google["requests"] } },
  ]
}

resource "google_monitoring_dashboard" "main" {
  dashboard_json = jsonencode({
    displayName = var.prefix
    mosaicLayout = {
      columns = 12
      tiles = [for i, chart in local.charts : {
        xPos = i % 2 * 6, yPos = floor(i / 2) * 4, width = 6, height = 4
        widget = {
          title = chart.title
          xyChart = { dataSets = [for legend, query in chart.lines : merge(
            { plotType = "LINE", targetAxis = "Y1" },
            legend == "" ? {} : { legendTemplate = legend },
            { timeSeriesQuery = query },
          )] }
        }
      }]
    }
  })

  depends_on = [time_sleep.apis]
}
