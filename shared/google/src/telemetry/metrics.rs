//! Metrics out of the legs' lines: what a dashboard reads in the logs and what it reads here is the same.

use super::FIELDS;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use std::collections::BTreeMap;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Instruments by leg and field: `tasuki.<leg>.<field>`, with the attribute `pipeline`. Runs and shards have none: they
/// are without number.
pub(super) struct Metrics(BTreeMap<(&'static str, &'static str), Instrument>);

enum Instrument {
    Counter(Counter<u64>),
    /// Of what cannot be added up over shards.
    Histogram(Histogram<u64>),
}

impl Metrics {
    pub(super) fn new(meter: &Meter) -> Metrics {
        let instruments = FIELDS.iter().flat_map(|(leg, fields)| fields.iter().map(move |field| (*leg, *field)));
        let named = |(leg, field): (&'static str, &'static str)| {
            let name = format!("tasuki.{leg}.{field}");
            let instrument = match field.ends_with("_ms") || matches!(field, "epochs" | "in_flight") {
                true => Instrument::Histogram(meter.u64_histogram(name).build()),
                false => Instrument::Counter(meter.u64_counter(name).build()),
            };
            ((leg, field), instrument)
        };
        Metrics(instruments.map(named).collect())
    }
}

impl<S: Subscriber> Layer<S> for Metrics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let Some(leg) = FIELDS.iter().map(|(leg, _)| *leg).find(|leg| *leg == line.leg) else { return };
        let pipeline = [KeyValue::new("pipeline", line.pipeline)];
        for (field, value) in line.numbers {
            match self.0.get(&(leg, field)) {
                Some(Instrument::Counter(counter)) => counter.add(value, &pipeline),
                Some(Instrument::Histogram(histogram)) => histogram.record(value, &pipeline),
                None => (),
            }
        }
    }
}

/// A leg's line, as far as it is counted.
#[derive(Default)]
struct Line {
    leg: String,
    pipeline: String,
    numbers: Vec<(&'static str, u64)>,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.numbers.push((field.name(), value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "leg" => self.leg = value.to_owned(),
            "pipeline" => self.pipeline = value.to_owned(),
            _ => (),
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
