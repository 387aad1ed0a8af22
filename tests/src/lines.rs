//! What is logged while something is done.

use crate::sim::faults::Faults;
use crate::sim::{self, draw};
use std::io::{self, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use tasuki_google::telemetry::{Settings, subscriber};
use tasuki_relay::clock::Chance;
use tracing_subscriber::fmt::MakeWriter;

/// Takes what is logged.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// All of it so far.
    pub fn text(&self) -> String {
        let text = self.0.lock().expect("no writer panics").clone();
        String::from_utf8(text).expect("logs are text")
    }
}

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(text);
        Ok(text.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;
    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

/// What deployed legs of project `p` log while `work` is done, all levels of it.
pub fn of_deployed_legs(work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let (project, filter) = (Some("p".to_owned()), Some("trace".to_owned()));
    let settings = Settings { name: "tasuki-test", project, filter, otlp: None };
    let subscriber = subscriber(&settings, lines.clone()).expect("a filter of ours");
    tracing::subscriber::with_default(subscriber, work);
    lines.text()
}

/// Runs of the relay in memory, without and with a fault.
pub fn relay(seeds: Range<u64>) {
    for seed in seeds {
        let chance = Chance::seeded(seed);
        let calm = Arc::new(Faults::default());
        sim::run(draw::setup(seed), &calm).expect("a calm world holds");
        let faults = calm.and_one_more(&chance).unwrap_or_default();
        sim::run(draw::setup(seed), &Arc::new(faults)).expect("a world with a fault holds");
    }
}

/// As Cloud Logging shows a field: `bad_rows` is `badRows`.
pub fn camel(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |all, word| all + &word[..1].to_uppercase() + &word[1..])
}
