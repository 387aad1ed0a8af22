//! Logs, traces and metrics of a deployed leg.
//!
//! Logs are JSON lines on stdout. The three legs write one line each for every piece of work, with these fields, as Cloud
//! Logging shows them under `jsonPayload` (in camel case: `badRows`, `paidCalls`); `run`, `shard` and `pipeline` are labels
//! too. Dashboards read them: a name that is here stays.
//!
//! | `leg` | one line for each | fields, in numbers unless said otherwise |
//! | --- | --- | --- |
//! | `splitter` | split of a run | `run`, `pipeline` (text); `shards`, `rows`, `bad_rows` (failed when read), `unchanged`, `bytes` (of the shards' lines), `took_ms` |
//! | `generator` | answers object | `run`, `shard`, `pipeline`, `reasons` (text: `malformed=2,timeout=1`); `rows`, `answered`, `failed`, `unchanged`, `calls` (that were sent; of rejected ones those since the last claim), `paid_calls`, `ambiguous_calls` (perhaps paid), `rejected` (429s and "overloaded" 503s since the last claim), `waited_ms` (time that rows waited for their turn to call, all together), `in_flight` (calls in flight of the process when the line was written), `wasted` (paid answers thrown away), `epochs` (times the shard was claimed), `prompt_tokens`, `output_tokens`, `thought_tokens`, `cached_tokens`, `reused` (answers of earlier runs), `cost_microusd` (millionths of a dollar; calls without a known price are not in it), and of the rows that were asked the time from the first call to the last reply: `latency_sum_ms`, `latency_p50_ms`, `latency_p95_ms`, `latency_max_ms` |
//! | `loader` | part that was committed | `run`, `shard`, `pipeline` (text); `rows`, `loaded`, `failed`, `cancelled` (of the failed), `unchanged`, `superseded`, `commit_ms` |
//!
//! Beside its line the loader writes one for each reason that rows of the part failed for: `run`, `shard`, `pipeline`,
//! `reason` (text), `failed_rows`; and one for the end of a run: `run`, `pipeline`, `state` (text).
//!
//! A line that a person should look at has the field `alert`: `systemic`, `corrupt`, `panic`, `bad_event`, `sweep`,
//! `run_failed`.
//!
//! **One run is one trace**, derived from its name ([`Traceparent::of_run`]). The trace context travels in objects' metadata
//! from leg to leg: it tells which span caused which. With an OTLP endpoint spans and metrics are exported
//! (`tasuki.<leg>.<field>` for each number above); without one, none of that runs, and logs have their trace all the same.

mod json;
mod labels;
mod metrics;
mod otlp;
mod traceparent;

pub use traceparent::{NotATraceparent, Traceparent};

use crate::connect::{Endpoint, install_tls};
use google_cloud_auth::build_errors::Error as CredentialsError;
use json::Json;
use labels::{Keep, Labels};
use otlp::Otlp;
use std::panic::{self, PanicHookInfo};
use tracing::{Level, Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// What is logged unless `TASUKI_LOG` says otherwise.
const FILTER: &str = "warn,tasuki=info";

/// The numbers in each leg's line: the table above. All of them are metrics too.
pub const FIELDS: [(&str, &[&str]); 3] = [
    ("splitter", &["shards", "rows", "bad_rows", "unchanged", "bytes", "took_ms"]),
    (
        "generator",
        &[
            "rows",
            "answered",
            "failed",
            "unchanged",
            "calls",
            "paid_calls",
            "ambiguous_calls",
            "rejected",
            "waited_ms",
            "in_flight",
            "wasted",
            "epochs",
            "prompt_tokens",
            "output_tokens",
            "thought_tokens",
            "cached_tokens",
            "reused",
            "cost_microusd",
            "latency_sum_ms",
            "latency_p50_ms",
            "latency_p95_ms",
            "latency_max_ms",
        ],
    ),
    ("loader", &["rows", "loaded", "failed", "cancelled", "unchanged", "superseded", "commit_ms"]),
];

/// What telemetry is set up with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The service, as it is called in traces: `tasuki-splitter`.
    pub name: &'static str,
    /// Where its traces are (`GOOGLE_CLOUD_PROJECT`); without it lines carry no trace.
    pub project: Option<String>,
    /// `TASUKI_LOG`: `level` or `target=level`, comma-separated. Default: `warn,tasuki=info`. Of other crates than Tasuki's
    /// nothing below a warning is ever written: Google's clients and the HTTP stack tell what they carry.
    pub filter: Option<String>,
    /// Where OTLP goes: see [`collector`].
    pub otlp: Option<Endpoint>,
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter is none.
    #[error("TASUKI_LOG: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The collector's address is none.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Otlp(String),
    /// There is a subscriber already.
    #[error("logging was started twice")]
    Twice,
}

/// Telemetry at work.
#[derive(Debug)]
#[must_use = "what is not yet exported is sent by `stop`"]
pub struct Telemetry(Option<Otlp>);

impl Telemetry {
    /// Sends what is left to the collector, within some seconds. Logs need no end: each line is written when it comes.
    pub async fn stop(self) {
        if let Some(otlp) = self.0 {
            tokio::task::spawn_blocking(move || otlp.stop()).await.ok();
        }
    }
}

/// Where OTLP goes, from `OTEL_EXPORTER_OTLP_ENDPOINT`: a collector beside the service, which asks for no credentials; or
/// Google's `https://telemetry.googleapis.com`, which wants the service account's.
pub fn collector(address: &str) -> Result<Endpoint, CredentialsError> {
    let host = reqwest::Url::parse(address).ok().and_then(|url| url.host_str().map(str::to_owned));
    match host.is_some_and(|host| host.ends_with(".googleapis.com")) {
        true => Ok(Endpoint { url: Some(address.to_owned()), ..Endpoint::real()? }),
        false => Ok(Endpoint::emulator(address)),
    }
}

/// Starts logging to stdout, and exporting where that is asked for: once for a process, within its runtime. From then on a
/// panic is one line of severity ERROR, without its text.
pub fn start(settings: &Settings) -> Result<Telemetry, StartError> {
    install_tls();
    let project = settings.project.as_deref();
    let otlp = settings.otlp.as_ref().map(|endpoint| Otlp::new(settings.name, project, endpoint));
    let otlp = otlp.transpose().map_err(StartError::Otlp)?;
    let exported =
        otlp.as_ref().map(|otlp| otlp.layer().with_filter(filter_fn(is_ours)).with_filter(LevelFilter::INFO));
    let subscriber = kept().with(exported).with(lines(settings, std::io::stdout)?);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| StartError::Twice)?;
    panic::set_hook(Box::new(panicked));
    Ok(Telemetry(otlp))
}

/// The lines of a leg, to `writer` and nowhere else: for tests, which compare them or look for what must not be there.
pub fn subscriber<W>(settings: &Settings, writer: W) -> Result<impl Subscriber + Send + Sync, StartError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    Ok(kept().with(lines(settings, writer)?))
}

/// The `traceparent` of what goes on now, for the metadata of an object: of the exported span, else of the run that the
/// current span is about; `None` outside of any.
pub fn current_traceparent() -> Option<String> {
    let span = Span::current();
    let exported = otlp::traceparent(&span.context());
    exported.or_else(|| Some(Traceparent::of_run(&run_of(&span)?))).map(|context| context.to_string())
}

/// Makes `span`, which must not have been entered yet, the child of what caused it: the `traceparent` in the metadata of the
/// object that an event tells of. One that is none is passed over.
pub fn with_parent(traceparent: Option<&str>, span: &Span) {
    if let Some(parent) = traceparent.and_then(|text| text.parse().ok()) {
        // Without an exporter there is no span to be a child.
        span.set_parent(otlp::remote(parent)).ok();
    }
}

fn kept() -> impl Subscriber + for<'l> LookupSpan<'l> + Send + Sync {
    tracing_subscriber::registry().with(Keep.with_filter(filter_fn(is_ours)))
}

fn lines<S, W>(settings: &Settings, writer: W) -> Result<impl Layer<S> + use<S, W>, StartError>
where
    S: Subscriber + for<'l> LookupSpan<'l> + Send + Sync,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let asked = EnvFilter::try_new(settings.filter.as_deref().unwrap_or(FILTER))?;
    let safe = filter_fn(|about| is_ours(about) || *about.level() <= Level::WARN);
    // Spans are no lines; they give lines their labels.
    let spans = filter_fn(|about| about.is_span() && is_ours(about));
    Ok(Json::new(settings.project.as_deref(), writer).with_filter(asked.and(safe).or(spans)))
}

fn is_ours(about: &Metadata<'_>) -> bool {
    about.target().starts_with("tasuki")
}

fn run_of(span: &Span) -> Option<String> {
    let run = |(id, dispatch): (&tracing::Id, &tracing::Dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.scope().find_map(|span| span.extensions().get::<Labels>()?.run.clone())
    };
    span.with_subscriber(run).flatten()
}

/// A panic's text may quote what the code had in its hands.
fn panicked(panic: &PanicHookInfo<'_>) {
    let (file, line) = panic.location().map_or(("", 0), |place| (place.file(), place.line()));
    tracing::error!(alert = "panic", file, line, "a thread panicked");
}

#[cfg(test)]
mod tests;
