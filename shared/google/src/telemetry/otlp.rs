//! Spans and metrics by OTLP, as protobuf over HTTP, to a collector or to Google's own
//! (<https://docs.cloud.google.com/stackdriver/docs/reference/telemetry/overview>).

use super::labels::Labels;
use super::metrics::Metrics;
use super::traceparent::Traceparent;
use crate::connect::Endpoint;
use async_trait::async_trait;
use bytes::Bytes;
use google_cloud_auth::credentials::CacheableResource;
use http::{Extensions, Request, Response};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context as OtelContext, ContextGuard, KeyValue, metrics::MeterProvider};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing::span::{Attributes, Id};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// An export may take so long: what a collector does not take in time is dropped, and the work goes on.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest reply of a collector that is read: it says little.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// Exporters at work. They have threads of their own and wait for nobody.
#[derive(Clone, Debug)]
pub(super) struct Otlp {
    spans: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Otlp {
    /// Exports to `<endpoint>/v1/traces` and `<endpoint>/v1/metrics`, as the service `name`. Must be called within a runtime,
    /// which then sends.
    pub(super) fn new(name: &'static str, project: Option<&str>, endpoint: &Endpoint) -> Result<Otlp, String> {
        let base = endpoint.url.as_deref().unwrap_or_default().trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build();
        let http = http.map_err(|_| "the HTTP client cannot be set up")?;
        let client = Client { http, endpoint: Arc::new(endpoint.clone()), runtime: Handle::current() };
        let spans = SpanExporter::builder()
            .with_http()
            .with_http_client(client.clone())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{base}/v1/traces"))
            .build();
        let metrics = MetricExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{base}/v1/metrics"))
            .build();
        let not = |error: opentelemetry_otlp::ExporterBuildError| error.to_string();
        let mut about = vec![KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
        about.extend(project.map(|project| KeyValue::new("gcp.project_id", project.to_owned())));
        let resource = Resource::builder().with_service_name(name).with_attributes(about).build();
        Ok(Otlp {
            spans: SdkTracerProvider::builder()
                .with_resource(resource.clone())
                .with_batch_exporter(spans.map_err(not)?)
                .build(),
            metrics: SdkMeterProvider::builder()
                .with_resource(resource)
                .with_periodic_exporter(metrics.map_err(not)?)
                .build(),
        })
    }

    /// What is exported of spans and events.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'l> LookupSpan<'l>,
    {
        let spans = tracing_opentelemetry::layer().with_tracer(self.spans.tracer("tasuki")).with_threads(false);
        Enter.and_then(spans).and_then(Leave).and_then(Metrics::new(&self.metrics.meter("tasuki")))
    }

    /// Sends what is left. Blocks: for a thread that may.
    pub(super) fn stop(&self) {
        // What cannot be sent now is lost: nothing depends on it.
        self.spans.shutdown_with_timeout(TIMEOUT).ok();
        self.metrics.shutdown_with_timeout(TIMEOUT).ok();
    }
}

/// `parent` as the context that a span of ours continues.
pub(super) fn remote(parent: Traceparent) -> OtelContext {
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace, span) = (TraceId::from_bytes(parent.trace), SpanId::from_bytes(parent.span));
    OtelContext::new().with_remote_span_context(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}

/// The inverse of [`remote`]; `None` for a context without a span.
pub(super) fn traceparent(context: &OtelContext) -> Option<Traceparent> {
    let span = context.span();
    let about = span.span_context();
    about.is_valid().then(|| Traceparent {
        trace: about.trace_id().to_bytes(),
        span: about.span_id().to_bytes(),
        sampled: about.is_sampled(),
    })
}

thread_local! {
    static RUN: RefCell<Option<ContextGuard>> = const { RefCell::new(None) };
}

/// Puts a span with the field `run` into that run's trace, if what goes on now is not: a sweep works for many runs. The layer
/// between this one and [`Leave`] takes the current context as its span's parent; there is no other way to give it one.
struct Enter;

impl<S: Subscriber> Layer<S> for Enter {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let Some(run) = Labels::of_span(attributes).run else { return };
        let of_run = Traceparent::of_run(&run);
        let is_in_it = traceparent(&OtelContext::current()).is_some_and(|now| now.trace == of_run.trace);
        if !is_in_it {
            RUN.replace(Some(remote(of_run).attach()));
        }
    }
}

/// Ends what [`Enter`] began.
struct Leave;

impl<S: Subscriber> Layer<S> for Leave {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        RUN.take();
    }
}

/// Sends on the services' runtime: exporters have threads of their own, without one.
#[derive(Clone, Debug)]
struct Client {
    http: reqwest::Client,
    endpoint: Arc<Endpoint>,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (http, endpoint) = (self.http.clone(), self.endpoint.clone());
        self.runtime.spawn(async move { send(&http, &endpoint, request).await }).await?
    }
}

async fn send(http: &reqwest::Client, at: &Endpoint, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut request = reqwest::Request::try_from(request)?;
    if let Ok(CacheableResource::New { data, .. }) = at.credentials.headers(Extensions::new()).await {
        request.headers_mut().extend(data);
    }
    let mut reply = http.execute(request).await.map_err(reqwest::Error::without_url)?;
    let mut response = Response::builder().status(reply.status());
    if let Some(headers) = response.headers_mut() {
        headers.extend(std::mem::take(reply.headers_mut()));
    }
    let mut body = Vec::new();
    while let Some(more) = reply.chunk().await? {
        body.extend_from_slice(&more);
        if body.len() > REPLY_BYTES_MAX {
            return Err("the collector's reply is too long".into());
        }
    }
    Ok(response.body(body.into())?)
}
