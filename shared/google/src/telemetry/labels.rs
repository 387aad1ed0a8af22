//! Which run, shard and pipeline a span is about: read off its fields, and kept with it.

use serde::Serialize;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The fields `run`, `shard` and `pipeline`, where they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Labels {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
}

impl Labels {
    pub(super) fn of_event(event: &Event<'_>) -> Labels {
        let mut labels = Labels::default();
        event.record(&mut labels);
        labels
    }

    pub(super) fn of_span(attributes: &Attributes<'_>) -> Labels {
        let mut labels = Labels::default();
        attributes.record(&mut labels);
        labels
    }

    /// Takes what is missing from an outer span.
    pub(super) fn fill(&mut self, outer: &Labels) {
        let Labels { run, shard, pipeline } = outer.clone();
        self.run = self.run.take().or(run);
        self.shard = self.shard.take().or(shard);
        self.pipeline = self.pipeline.take().or(pipeline);
    }
}

impl Visit for Labels {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let place = match field.name() {
            "run" => &mut self.run,
            "shard" => &mut self.shard,
            "pipeline" => &mut self.pipeline,
            _ => return,
        };
        *place = Some(format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Keeps the labels of spans.
pub(super) struct Keep;

impl<S: Subscriber + for<'l> LookupSpan<'l>> Layer<S> for Keep {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Labels::of_span(attributes));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(labels) = span.extensions_mut().get_mut::<Labels>() {
            values.record(labels);
        }
    }
}
