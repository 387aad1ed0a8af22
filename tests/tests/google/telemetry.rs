//! Spans and metrics by OTLP, into a collector.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use libtest_mimic::Trial;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tasuki_google::telemetry::{self, Settings, Traceparent, collector, current_traceparent, with_parent};
use tasuki_tests::collector::Collector;
use tasuki_tests::emulators::trial;
use tracing::Instrument;

pub fn trials() -> Vec<Trial> {
    vec![trial("spans_and_metrics_of_a_run_reach_the_collector_in_one_trace", &[], exported)]
}

/// A leg's work on one shard, as the legs do it; returns the `traceparent` that its object gets.
async fn work(run: &str) -> Option<String> {
    let span = tracing::info_span!(target: "tasuki_test", "generate", run, pipeline = "themes");
    let work = async {
        tracing::info!(target: "tasuki_test", leg = "generator", pipeline = "themes", rows = 7_u64, "generated");
        current_traceparent()
    };
    work.instrument(span).await
}

async fn exported() -> Result<()> {
    let collected = Collector::start().await?;
    let endpoint = collector(&collected.address)?;
    let settings =
        Settings { name: "tasuki-test", project: Some("p".into()), filter: Some("off".into()), otlp: Some(endpoint) };
    let telemetry = telemetry::start(&settings)?;

    // An event: its object's metadata has the trace context of the leg before.
    let before = Traceparent::of_run("ra");
    let event = tracing::info_span!(target: "tasuki_test", "event");
    with_parent(Some(&before.to_string()), &event);
    let handed_on = work("ra").instrument(event).await.context("an object has a trace context")?;
    // A sweep works for many runs.
    let sweep = tracing::info_span!(target: "tasuki_test", "sweep");
    let swept = work("rb").instrument(sweep).await.context("an object has a trace context")?;
    tracing::info_span!(target: "hyper", "of another crate").in_scope(|| ());
    telemetry.stop().await;

    let sent = collected.sent();
    let spans: Vec<Span> = spans(&sent)?;
    let named = |name: &str, trace: &[u8]| {
        let found = spans.iter().find(|span| span.name == name && span.trace_id == trace);
        found.cloned().with_context(|| format!("no span {name} in that trace: {spans:?}"))
    };
    let (event, job) = (named("event", &before.trace)?, named("generate", &before.trace)?);
    ensure!(event.parent_span_id == before.span, "the event is a child of the leg before: {event:?}");
    ensure!(job.parent_span_id == event.span_id, "the work is a child of the event: {job:?}");
    let handed_on: Traceparent = handed_on.parse()?;
    ensure!(handed_on.trace == before.trace && handed_on.span[..] == job.span_id, "{handed_on}");
    let of_b = Traceparent::of_run("rb");
    ensure!(named("generate", &of_b.trace)?.span_id == swept.parse::<Traceparent>()?.span, "{swept}");
    ensure!(spans.len() == 4, "spans of ours alone: {spans:?}");

    let metrics = sent.iter().filter(|(path, _)| path == "/v1/metrics");
    let metrics: Vec<ExportMetricsServiceRequest> =
        metrics.map(|(_, body)| ExportMetricsServiceRequest::decode(body.clone())).collect::<Result<_, _>>()?;
    let text = format!("{metrics:?}");
    ensure!(text.contains("tasuki.generator.rows") && text.contains("AsInt(14)"), "{text}");
    Ok(())
}

fn spans(sent: &[(String, Bytes)]) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for (_, body) in sent.iter().filter(|(path, _)| path == "/v1/traces") {
        let request = ExportTraceServiceRequest::decode(body.clone())?;
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        spans.extend(scopes.flat_map(|scope| scope.spans));
    }
    Ok(spans)
}
