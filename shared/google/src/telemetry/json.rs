//! One JSON line per event, as Cloud Logging reads it from stdout: `tracing-stackdriver`'s, with the run's trace and labels.

use super::labels::Labels;
use super::traceparent::Traceparent;
use opentelemetry::trace::TraceContextExt;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::OnceLock;
use tracing::dispatcher::WeakDispatch;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

thread_local! {
    /// What the line that is being written has beside its own fields: `tracing-stackdriver` has no place to give it.
    static BESIDE: RefCell<Map<String, Value>> = RefCell::default();
}

/// The layer that writes the lines.
pub(super) struct Json<S, W: for<'w> MakeWriter<'w> + 'static>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
{
    lines: tracing_stackdriver::Layer<S, Beside<W>>,
    /// `projects/<project>/traces/`, where the project is known.
    traces: Option<String>,
    dispatch: OnceLock<WeakDispatch>,
}

impl<S, W> Json<S, W>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    pub(super) fn new(project: Option<&str>, writer: W) -> Json<S, W> {
        let lines = tracing_stackdriver::layer().with_source_location(false).with_writer(Beside(writer));
        let traces = project.map(|project| format!("projects/{project}/traces/"));
        Json { lines, traces, dispatch: OnceLock::new() }
    }

    /// The fields of Cloud Logging's `LogEntry` that come from the event's spans
    /// (<https://docs.cloud.google.com/logging/docs/structured-logging>).
    fn beside(&self, event: &Event<'_>, context: &Context<'_, S>) -> Map<String, Value> {
        let mut labels = Labels::of_event(event);
        let mut beside = Map::new();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Labels>() {
                labels.fill(outer);
            }
            if !beside.contains_key(SPAN)
                && let Some(id) = self.span_id(&span.id())
            {
                beside.insert(SPAN.to_owned(), id.into());
            }
        }
        if let (Some(traces), Some(run)) = (&self.traces, &labels.run) {
            let trace = Traceparent::of_run(run).trace_id();
            beside.insert("logging.googleapis.com/trace".to_owned(), format!("{traces}{trace}").into());
        }
        if labels != Labels::default() {
            beside.insert("logging.googleapis.com/labels".to_owned(), json!(labels));
        }
        beside
    }

    /// The id that the span is exported with.
    fn span_id(&self, span: &Id) -> Option<String> {
        let dispatch = self.dispatch.get()?.upgrade()?;
        let context = tracing_opentelemetry::get_otel_context(span, &dispatch)?;
        let id = context.span().span_context().span_id();
        Some(id.to_string())
    }
}

const SPAN: &str = "logging.googleapis.com/spanId";

impl<S, W> Layer<S> for Json<S, W>
where
    S: Subscriber + for<'l> LookupSpan<'l>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.dispatch.set(dispatch.downgrade()).ok();
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.lines.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.lines.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        BESIDE.replace(self.beside(event, &context));
        self.lines.on_event(event, context);
    }
}

/// Adds what [`BESIDE`] holds to each line.
pub(super) struct Beside<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Beside<W> {
    type Writer = Line<W::Writer>;
    fn make_writer(&'w self) -> Self::Writer {
        Line(self.0.make_writer())
    }
}

/// Takes one line, whole, as the layer writes it.
pub(super) struct Line<W>(W);

impl<W: Write> Write for Line<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let beside = serde_json::to_string(&BESIDE.take()).unwrap_or_default();
        let more = beside.strip_prefix('{').filter(|more| *more != "}");
        match (line.strip_suffix(b"}\n"), more) {
            (Some(open), Some(more)) => {
                let whole = [open, b",", more.as_bytes(), b"\n"].concat();
                self.0.write_all(&whole)?;
            }
            _ => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
