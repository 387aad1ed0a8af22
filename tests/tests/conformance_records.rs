//! The records port: one suite on every adapter, and what only the SQLite one must do.

use rusqlite::Connection;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tasuki::store::{Reader, Store};
use tasuki_relay::books::ResultRow;
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::names::ShardIndex;
use tasuki_relay::pipeline::{KeyType, Pipeline, ValueType};
use tasuki_relay::ports::{Fingerprints, Loaded, Records, RecordsError, RunState};
use tasuki_relay::record::{Counts, Key, Outcome};
use tasuki_tests::build::{answer, column, failed, part, pipeline, run_id, unchanged, with_totals};
use tasuki_tests::memory::records::MemoryRecords;
use tasuki_tests::suites::books::books_suite;
use tasuki_tests::suites::records::records_suite;

const S0: ShardIndex = ShardIndex(0);

/// A folder that goes away with the test, and the store's path in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("makes a folder");
    let path = folder.path().join("tasuki.db");
    (folder, path)
}

fn open(path: &Path) -> Store {
    Store::open(path, Clock::starting_at(Millis(1_763_620_000_000))).expect("opens")
}

fn results(path: &Path, pipeline: &Pipeline, run: Option<i64>, limit: u64) -> Vec<ResultRow> {
    let mut rows = Vec::new();
    let each = |row| {
        rows.push(row);
        ControlFlow::Continue(())
    };
    Reader::open(path).results(pipeline, run.map(run_id).as_ref(), limit, each).expect("answers");
    rows
}

fn systemic(result: Result<Loaded, RecordsError>) -> String {
    match result {
        Err(RecordsError::Systemic(mend)) => mend,
        other => panic!("not systemic: {other:?}"),
    }
}

fn with_value(mut outcome: Outcome, name: &str, value: Value) -> Outcome {
    if let Outcome::Answer(answer) = &mut outcome {
        answer.values.insert(name.into(), value);
    }
    outcome
}

#[tokio::test]
async fn a_file_is_told_of_as_books_must() {
    let (_folder, path) = folder();
    books_suite(&open(&path), &Reader::open(&path)).await;
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    records_suite(&MemoryRecords::new(Clock::starting_at(Millis(1_000)))).await;
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let (_folder, path) = folder();
    records_suite(&open(&path)).await;
}

#[tokio::test]
async fn memory_rejects_a_row_and_commits_nothing() {
    let records = MemoryRecords::new(Clock::starting_at(Millis(1_000)));
    records.reject(Key::Integer(2));
    let before = records.look(Clone::clone);
    let one = part(&pipeline("themes"), 1, S0, vec![(1, answer("f")), (2, answer("f"))]);
    assert_eq!(records.load(&one).await, Err(RecordsError::Rejected(vec![(1, "CHECK".into())])));
    records.look(|state| assert_eq!(*state, before));
}

#[tokio::test]
async fn what_was_committed_is_there_when_the_file_is_opened_again() {
    let (_folder, path) = folder();
    let one = with_totals(part(&pipeline("themes"), 1, S0, vec![(1, answer("f")), (2, failed("malformed"))]), 1, 2);
    let before = {
        let store = open(&path);
        store.load(&one).await.unwrap();
        store.finish(&one.id.run).await.unwrap()
    };
    let store = open(&path);
    assert_eq!(before.as_ref().map(|run| run.state), Some(RunState::Complete));
    assert_eq!(store.finish(&one.id.run).await.unwrap(), before);
    assert_eq!(store.load(&one).await, Ok(Loaded::Already));
    assert_eq!(store.unpublished(None).await.unwrap().len(), 1);
    assert_eq!(store.fingerprints(&one.pipeline, &[Key::Integer(1)]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_that_is_not_there_yet_reads_as_empty() {
    let (_folder, path) = folder();
    let reader = Reader::open(&path);
    assert_eq!(reader.runs(), Ok(vec![]));
    assert_eq!(reader.failure_reasons(&run_id(1)), Ok(vec![]));
    assert!(results(&path, &pipeline("themes"), None, 10).is_empty());
    let store = open(&path);
    assert_eq!(reader.run(&run_id(1)), Ok(None));
    store.load(&part(&pipeline("themes"), 1, S0, vec![])).await.unwrap();
    assert_eq!(reader.runs().unwrap().len(), 1, "the same reader sees what came to be");
}

#[tokio::test]
async fn a_reader_sees_what_was_loaded_while_the_store_is_open() {
    let (_folder, path) = folder();
    let store = open(&path);
    let mut target = pipeline("themes");
    target.answer.push(column("good", ValueType::Boolean, None));
    target.answer.push(column("stars", ValueType::Integer, None));
    target.answer.push(column("note", ValueType::String, None));
    let full = |stars: i64| {
        let outcome = with_value(with_value(answer("f"), "good", json!(true)), "stars", json!(stars));
        with_value(outcome, "note", json!("[1] \u{0}"))
    };
    let rows =
        vec![(9, full(5)), (1, failed("malformed")), (8, full(-4)), (2, failed("timeout")), (3, failed("timeout"))];
    store.load(&part(&target, 1, S0, rows)).await.unwrap();
    store.load(&part(&target, 2, S0, vec![(9, unchanged("f"))])).await.unwrap();

    let reader = Reader::open(&path);
    assert_eq!(reader.runs().unwrap().iter().map(|run| run.run.clone()).collect::<Vec<_>>(), [run_id(2), run_id(1)]);
    assert_eq!(reader.run(&run_id(1)).unwrap().unwrap().counts.loaded, 2);
    let mut failures = Vec::new();
    let each = |row| {
        failures.push(row);
        ControlFlow::Continue(())
    };
    reader.failures(&run_id(1), 2, each).unwrap();
    let brief: Vec<_> = failures.iter().map(|row| (row.ordinal, row.key.clone(), row.reason.as_str())).collect();
    assert_eq!(brief, [(1, Some(Key::Integer(1)), "malformed"), (3, Some(Key::Integer(2)), "timeout")]);
    assert_eq!(reader.failure_reasons(&run_id(1)), Ok(vec![("timeout".into(), 2), ("malformed".into(), 1)]));

    let all = results(&path, &target, None, 10);
    assert_eq!(all.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), [Key::Integer(9), Key::Integer(8)]);
    let values = json!({"themes": ["a", "b"], "score": 0.5, "good": true, "stars": -4, "note": "[1] \u{0}"});
    let names: Vec<_> = all[1].values.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["themes", "score", "good", "stars", "note"]);
    assert_eq!(Value::Object(all[1].values.iter().cloned().collect()), values);
    assert_eq!((&all[0].run, all[0].ordinal, all[0].model.as_str()), (&run_id(2), 0, "model-001"), "confirmed");
    assert_eq!(results(&path, &target, Some(1), 10).len(), 1);
    assert_eq!(results(&path, &target, None, 1).len(), 1);
}

#[tokio::test]
async fn rows_that_breach_a_users_constraint_are_all_named_and_nothing_is_committed() {
    let (_folder, path) = folder();
    let store = open(&path);
    let target = pipeline("themes");
    store.load(&part(&target, 1, S0, vec![(1, answer("f"))])).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER low BEFORE INSERT ON themes WHEN NEW.score < 0 BEGIN SELECT RAISE(ABORT, 'low'); END;
             CREATE UNIQUE INDEX models ON themes (model) WHERE score > 9;",
        )
        .unwrap();

    let scored = |score: f64| with_value(answer("f"), "score", json!(score));
    let rows = vec![(2, scored(-1.0)), (3, scored(1.0)), (4, scored(10.0)), (5, scored(11.0)), (6, scored(-2.0))];
    let mut two = part(&target, 2, S0, rows);
    let rejected = [(0, "TRIGGER"), (3, "UNIQUE"), (4, "TRIGGER")].map(|(ordinal, code)| (ordinal, code.to_owned()));
    assert_eq!(store.load(&two).await, Err(RecordsError::Rejected(rejected.to_vec())));
    assert_eq!(store.finish(&run_id(2)).await, Ok(None));
    assert_eq!(results(&path, &target, None, 10).len(), 1);

    for (ordinal, code) in rejected {
        two.lines[ordinal as usize].outcome = failed(&format!("store_rejected:{code}"));
    }
    let Ok(Loaded::Now(counts)) = store.load(&two).await else { panic!("loads without them") };
    assert_eq!((counts.loaded, counts.failed), (2, 3));
}

#[tokio::test]
async fn a_constraint_that_rolls_back_still_commits_nothing() {
    let (_folder, path) = folder();
    let store = open(&path);
    let target = pipeline("themes");
    store.load(&part(&target, 1, S0, vec![(1, answer("f"))])).await.unwrap();
    let trigger = "CREATE TRIGGER low BEFORE INSERT ON themes WHEN NEW.id = 3 BEGIN SELECT RAISE(ROLLBACK, 'low'); END";
    Connection::open(&path).unwrap().execute_batch(trigger).unwrap();
    let rows = (2..6).map(|key| (key, answer("f"))).collect();
    let two = part(&target, 2, S0, rows);
    assert_eq!(store.load(&two).await, Err(RecordsError::Rejected(vec![(1, "TRIGGER".into())])));
    assert_eq!(results(&path, &target, None, 10).len(), 1);
    assert_eq!(store.finish(&run_id(2)).await, Ok(None));
}

#[tokio::test]
async fn a_value_that_does_not_fit_its_column_is_rejected() {
    let (_folder, path) = folder();
    let one =
        part(&pipeline("themes"), 1, S0, vec![(1, answer("f")), (2, with_value(answer("f"), "score", json!("x")))]);
    assert_eq!(open(&path).load(&one).await, Err(RecordsError::Rejected(vec![(1, "DATATYPE".into())])));
}

#[tokio::test]
async fn a_new_answer_column_is_added_and_older_rows_do_not_have_it() {
    let (_folder, path) = folder();
    let store = open(&path);
    let mut target = pipeline("themes");
    store.load(&part(&target, 1, S0, vec![(1, answer("f")), (2, answer("f"))])).await.unwrap();
    target.answer.push(column("order", ValueType::Integer, None));
    assert_eq!(results(&path, &target, None, 10)[0].values[2], ("order".into(), Value::Null));
    let newer = part(&target, 2, S0, vec![(1, with_value(answer("g"), "order", json!(3)))]);
    store.load(&newer).await.unwrap();
    let of = |key| results(&path, &target, None, 10).into_iter().find(|row| row.key == Key::Integer(key)).unwrap();
    assert_eq!(of(1).values[2].1, json!(3));
    assert_eq!(of(2).values[2].1, Value::Null);
}

#[tokio::test]
async fn a_table_that_does_not_fit_is_systemic_and_says_what_to_do() {
    let (_folder, path) = folder();
    let store = open(&path);
    let target = pipeline("themes");
    store.load(&part(&target, 1, S0, vec![(1, answer("f"))])).await.unwrap();
    let load = async |pipeline: &Pipeline, number| {
        let rows = vec![(1, answer("f"))];
        systemic(store.load(&part(pipeline, number, S0, rows)).await)
    };

    let mut other = target.clone();
    other.answer[1].value_type = ValueType::Integer;
    let mend = load(&other, 2).await;
    for said in ["themes", "score", "REAL", "INTEGER", "[target]"] {
        assert!(mend.contains(said), "{mend}");
    }
    assert!(matches!(store.fingerprints(&other, &[]).await, Err(RecordsError::Systemic(_))), "before anything is paid");

    let mut other = target.clone();
    other.key_type = KeyType::String;
    assert!(load(&other, 3).await.contains("type INTEGER, the pipeline wants TEXT"));
    other.key = "sku".into();
    assert!(load(&other, 4).await.contains("(sku TEXT)"));
    assert!(load(&pipeline("ledger"), 5).await.contains("keeps its books"));
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (id INTEGER PRIMARY KEY, score REAL)").unwrap();
    assert!(load(&pipeline("mine"), 6).await.contains("no column run"));
    load(&pipeline("sqlite_themes"), 7).await;
    assert_eq!(Reader::open(&path).runs().unwrap().len(), 1);
}

#[tokio::test]
async fn a_store_of_a_later_version_is_refused() {
    let (_folder, path) = folder();
    drop(open(&path));
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 3).unwrap();
    assert!(matches!(Store::open(&path, Clock::system()), Err(RecordsError::Systemic(_))));
    assert!(matches!(Reader::open(&path).runs(), Err(RecordsError::Systemic(_))));
}

#[tokio::test]
async fn a_store_of_the_version_before_gets_its_new_columns_and_keeps_its_rows() {
    let (_folder, path) = folder();
    let target = pipeline("themes");
    open(&path).load(&part(&target, 1, S0, vec![(0, answer("f"))])).await.unwrap();
    let old = Connection::open(&path).unwrap();
    for table in ["Ledger", "Counters"] {
        for column in &Counts::COLUMNS[13..] {
            old.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}")).unwrap();
        }
    }
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);
    assert_eq!(Reader::open(&path).runs().unwrap()[0].counts.loaded, 1);
    let loaded = open(&path).load(&part(&target, 2, S0, vec![(0, answer("g"))])).await.unwrap();
    assert!(matches!(loaded, Loaded::Now(counts) if counts.cost > 0), "{loaded:?}");
}

#[tokio::test]
async fn text_keys_of_any_script_are_found_again() {
    let (_folder, path) = folder();
    let store = open(&path);
    let mut target = pipeline("themes");
    target.key_type = KeyType::String;
    let keys: Vec<Key> = ["1", "01", "製品", "a'b`c\"", ""].map(|text| Key::Text(text.into())).to_vec();
    let mut one = part(&target, 1, S0, (0..5).map(|key| (key, answer("f"))).collect());
    one.lines.iter_mut().zip(&keys).for_each(|(line, key)| line.key = Some(key.clone()));
    store.load(&one).await.unwrap();
    assert_eq!(store.fingerprints(&target, &keys).await.unwrap().len(), 5);
    assert_eq!(results(&path, &target, None, 10).into_iter().map(|row| row.key).collect::<Vec<_>>(), keys);
}
