use super::*;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Lines;
    fn make_writer(&'w self) -> Lines {
        self.clone()
    }
}

/// What is written while `work` is done.
fn logged(filter: Option<&str>, work: impl FnOnce()) -> Vec<Value> {
    let project = Some("a-project".to_owned());
    let settings = Settings { name: "tasuki-test", project, filter: filter.map(str::to_owned), otlp: None };
    let lines = Lines::default();
    tracing::subscriber::with_default(subscriber(&settings, lines.clone()).unwrap(), work);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_has_what_cloud_logging_reads() {
    let lines = logged(None, || {
        let span = tracing::info_span!("generate", run = %"ra", shard = %"00000003", pipeline = tracing::field::Empty);
        span.record("pipeline", "themes");
        let _now = span.enter();
        tracing::info!(leg = "generator", rows = 9_u64, bad_rows = 1_u64, "generated \"it\"\n");
    });
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    let trace = format!("projects/a-project/traces/{}", Traceparent::of_run("ra").trace_id());
    assert_eq!(line["severity"], "INFO");
    assert_eq!(line["message"], "generated \"it\"\n");
    assert_eq!(line["logging.googleapis.com/trace"], trace);
    assert_eq!(line["logging.googleapis.com/labels"], json!({"run": "ra", "shard": "00000003", "pipeline": "themes"}));
    assert_eq!((&line["rows"], &line["badRows"], &line["leg"]), (&json!(9), &json!(1), &json!("generator")));
    assert!(line["time"].as_str().unwrap().contains('T'), "{line}");
}

#[test]
fn a_line_outside_of_any_span_has_its_own_labels_or_none() {
    let lines = logged(None, || {
        tracing::warn!(run = %"rb", "of a run");
        tracing::warn!("of none");
    });
    assert_eq!(lines[0]["logging.googleapis.com/labels"], json!({"run": "rb"}));
    assert!(lines[1].get("logging.googleapis.com/labels").is_none(), "{}", lines[1]);
    assert!(lines[1].get("logging.googleapis.com/trace").is_none(), "{}", lines[1]);
}

#[test]
fn the_inner_span_says_what_a_line_is_about() {
    let lines = logged(Some("warn"), || {
        let _sweep = tracing::info_span!("sweep", pipeline = "outer").entered();
        let _load = tracing::info_span!("load", run = %"ra").entered();
        tracing::warn!(run = %"rb", "of another run");
    });
    // Spans give labels also where lines of their level are not written.
    assert_eq!(lines[0]["logging.googleapis.com/labels"], json!({"run": "rb", "pipeline": "outer"}));
}

#[test]
fn other_crates_say_nothing_below_a_warning_whatever_the_filter() {
    let lines = logged(Some("trace"), || {
        tracing::trace!(target: "h2::codec", "canary");
        tracing::info!(target: "google_cloud_storage", "canary");
        tracing::warn!(target: "hyper", "a connection broke");
        tracing::trace!(target: "tasuki_relay::claims", "ours");
    });
    let messages: Vec<&str> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
    assert_eq!(messages, ["a connection broke", "ours"]);
    assert!(matches!(
        subscriber(&Settings { filter: Some("a=b=c".into()), ..bare() }, io::sink),
        Err(StartError::Filter(_))
    ));
}

fn bare() -> Settings {
    Settings { name: "tasuki-test", project: None, filter: None, otlp: None }
}

#[test]
fn an_object_made_for_a_run_carries_the_runs_trace() {
    let lines = Lines::default();
    tracing::subscriber::with_default(subscriber(&bare(), lines).unwrap(), || {
        assert_eq!(current_traceparent(), None);
        let _load = tracing::info_span!("load", run = %"ra").entered();
        let _inner = tracing::info_span!("inner").entered();
        let context: Traceparent = current_traceparent().unwrap().parse().unwrap();
        assert_eq!(context.trace, Traceparent::of_run("ra").trace);
    });
}

#[test]
fn a_panic_is_one_line_without_its_text() {
    let earlier = panic::take_hook();
    let lines = logged(None, || {
        panic::set_hook(Box::new(panicked));
        panic::catch_unwind(|| panic!("canary of a row")).unwrap_err();
    });
    panic::set_hook(earlier);
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((&line["severity"], &line["alert"]), (&json!("ERROR"), &json!("panic")));
    assert!(!line.to_string().contains("canary") && line["file"].as_str().unwrap().ends_with("tests.rs"), "{line}");
}

#[test]
fn only_googles_own_collector_gets_the_service_accounts_token() {
    let collector = collector("http://127.0.0.1:4318").unwrap();
    assert_eq!(collector.url.as_deref(), Some("http://127.0.0.1:4318"));
    assert!(format!("{:?}", collector.credentials).contains("Anonymous"), "{:?}", collector.credentials);
}
