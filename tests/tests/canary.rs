//! I12: no text of a row, prompt or answer reaches a log.

use std::io::Write;
use std::sync::{Arc, Mutex};
use tasuki_relay::clock::Chance;
use tasuki_tests::sim::faults::Faults;
use tasuki_tests::sim::model::CANARY;
use tasuki_tests::sim::{self, draw};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(text);
        Ok(text.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Lines;
    fn make_writer(&'a self) -> Lines {
        self.clone()
    }
}

#[test]
fn no_row_text_reaches_a_log() {
    let lines = Lines::default();
    let everything =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(lines.clone()).finish();
    tracing::subscriber::with_default(everything, || {
        for seed in 0..60 {
            let chance = Chance::seeded(seed);
            let calm = Arc::new(Faults::default());
            sim::run(draw::setup(seed), &calm).unwrap();
            let faults = calm.and_one_more(&chance).unwrap_or_default();
            sim::run(draw::setup(seed), &Arc::new(faults)).unwrap();
        }
    });
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("generated shard") && text.contains("loaded shard"), "the legs do log");
    assert!(!text.contains(CANARY), "{}", text.lines().find(|line| line.contains(CANARY)).unwrap_or_default());
}
