//! Target tables on Spanner: what they hold, and what follows when they are not what a pipeline wants.

use crate::records::{AT_ONCE, S0, count, make, open, with_table};
use anyhow::{Result, bail, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use std::sync::Arc;
use tasuki_google::service::Platform;
use tasuki_google::settings::{self, Role};
use tasuki_relay::clock::{Chance, Clock};
use tasuki_relay::ddl;
use tasuki_relay::pipeline::{KeyType, Pipeline, ValueType};
use tasuki_relay::ports::{Fingerprints, Loaded, Records, RecordsError};
use tasuki_relay::record::{Key, Outcome};
use tasuki_tests::build::{answer, column, failed, part, pipeline, run_id, unchanged};
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::spanner::Database;

pub fn trials() -> Vec<Trial> {
    use Needs::Spanner;
    vec![
        trial("rows_that_breach_a_constraint_are_all_named", &[Spanner], rows_that_breach_a_constraint_are_all_named),
        trial("a_value_that_does_not_fit_is_rejected", &[Spanner], a_value_that_does_not_fit_is_rejected),
        trial("a_table_that_does_not_fit_is_systemic", &[Spanner], a_table_that_does_not_fit_is_systemic),
        trial("a_database_that_is_absent_is_systemic_to_the_splitter", &[Spanner], an_absent_database_is_systemic),
        trial("a_loaded_part_stays_loaded_without_its_table", &[Spanner], a_loaded_part_stays_loaded_without_its_table),
        trial("a_users_indexes_count_as_mutations", &[Spanner], a_users_indexes_count_as_mutations),
        trial("answers_are_stored_as_what_they_are", &[Spanner], answers_are_stored_as_what_they_are),
        trial("the_tables_of_tasuki_schema_can_be_applied_again", &[Spanner], tables_can_be_applied_again),
    ]
}

fn systemic<T: std::fmt::Debug>(result: std::result::Result<T, RecordsError>) -> Result<String> {
    match result {
        Err(RecordsError::Systemic(mend)) => Ok(mend),
        other => bail!("not systemic: {other:?}"),
    }
}

fn with_value(mut outcome: Outcome, name: &str, value: Value) -> Outcome {
    if let Outcome::Answer(answer) = &mut outcome {
        answer.values.insert(name.into(), value);
    }
    outcome
}

/// An answer with this score.
fn scored(score: f64) -> Outcome {
    with_value(answer("f"), "score", json!(score))
}

async fn rows_that_breach_a_constraint_are_all_named() -> Result<()> {
    let target = pipeline("themes");
    let (database, records) = with_table(&target).await?;
    database
        .apply("ALTER TABLE themes ADD CONSTRAINT low CHECK (score >= 0); CREATE UNIQUE INDEX one ON themes (score)")
        .await?;
    records.load(&part(&target, 1, S0, vec![(1, scored(9.0)), (7, answer("f"))])).await?;

    let rows = vec![
        (2, scored(-1.0)),
        (3, scored(1.0)),
        (4, scored(9.0)), // row 1 has it
        (5, scored(1.0)), // row 3 has it
        (6, scored(-2.0)),
        (7, unchanged("f")),
    ];
    let mut two = part(&target, 2, S0, rows);
    let mut rejected = Vec::new();
    let counts = loop {
        match records.load(&two).await {
            Ok(Loaded::Now(counts)) => break counts,
            Err(RecordsError::Rejected(rows)) if !rows.is_empty() => {
                ensure!(records.finish(&run_id(2)).await?.is_none(), "nothing may be committed");
                for (ordinal, code) in rows {
                    two.lines[ordinal as usize].outcome = failed(&format!("store_rejected:{code}"));
                    rejected.push((ordinal, code));
                }
            }
            other => bail!("{other:?}"),
        }
    };
    rejected.sort();
    let told: Vec<(u64, &str)> = rejected.iter().map(|(ordinal, code)| (*ordinal, code.as_str())).collect();
    ensure!(
        told == [(0, "OUT_OF_RANGE"), (2, "ALREADY_EXISTS"), (3, "ALREADY_EXISTS"), (4, "OUT_OF_RANGE")],
        "{told:?}"
    );
    ensure!((counts.loaded, counts.failed, counts.unchanged) == (1, 4, 1), "{counts:?}");
    ensure!(count(&database, "themes").await? == 3);
    Ok(())
}

async fn a_value_that_does_not_fit_is_rejected() -> Result<()> {
    let target = pipeline("themes");
    let (database, records) = with_table(&target).await?;
    let rows = vec![
        (1, answer("f")),
        (2, with_value(answer("f"), "score", json!("x"))),
        (3, with_value(answer("f"), "themes", json!(["a", 1]))),
    ];
    let loaded = records.load(&part(&target, 1, S0, rows)).await;
    let rejected = [1, 2].map(|ordinal| (ordinal, "DATATYPE".to_owned()));
    ensure!(loaded == Err(RecordsError::Rejected(rejected.to_vec())), "{loaded:?}");
    ensure!(count(&database, "Ledger").await? == 0 && count(&database, "Runs").await? == 0);
    Ok(())
}

/// The splitter opens the store when it first asks: what is wrong then stops it as it stops the loader.
async fn an_absent_database_is_systemic() -> Result<()> {
    let database = Database::fresh(Needs::Spanner).await?;
    let variables = [
        ("TASUKI_INBOX_BUCKET", "inbox"),
        ("TASUKI_SHARDS_BUCKET", "shards"),
        ("TASUKI_ANSWERS_BUCKET", "answers"),
        ("TASUKI_STATE_BUCKET", "state"),
        ("TASUKI_SPANNER_DATABASE", &format!("{}-absent", database.name)),
        ("TASUKI_OIDC_EMAILS", "caller@example.com"),
        ("GOOGLE_CLOUD_PROJECT", "tasuki-test"),
        ("SPANNER_EMULATOR_HOST", &database.host),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = settings::read(Role::Splitter, variables)?;
    let platform = Arc::new(Platform { settings, clock: Clock::system(), chance: Chance::seeded(1) });
    let mend = systemic(platform.stored().fingerprints(&pipeline("themes"), &[Key::Integer(1)]).await)?;
    ensure!(mend.contains("NOT_FOUND") && mend.contains("infra/schema"), "{mend}");
    Ok(())
}

async fn a_table_that_does_not_fit_is_systemic() -> Result<()> {
    let (target, database) = (pipeline("themes"), Database::fresh(Needs::Spanner).await?);
    let records = open(&database, AT_ONCE).await?;
    let of = |pipeline: &Pipeline, number| part(pipeline, number, S0, vec![(1, answer("f"))]);
    let mend = systemic(records.load(&of(&target, 1)).await)?;
    ensure!(mend.contains("`tasuki schema`") && mend.contains("themes"), "{mend}");
    ensure!(records.fingerprints(&target, &[Key::Integer(1)]).await?.is_empty(), "no table, no answers");

    make(&database, &target).await?;
    ensure!(
        matches!(records.load(&of(&target, 1)).await?, Loaded::Now(_)),
        "once it is applied the same process goes on"
    );

    let mut other = target.clone();
    other.answer.push(column("order", ValueType::Integer, None));
    let mut newer = of(&other, 2);
    newer.lines[0].outcome = with_value(answer("f"), "order", json!(7));
    let mend = systemic(records.load(&newer).await)?;
    ensure!(mend.contains("no column order") && mend.contains("`tasuki schema`"), "{mend}");
    make(&database, &other).await?;
    ensure!(matches!(records.load(&newer).await?, Loaded::Now(_)));

    other = target.clone();
    other.answer[1].value_type = ValueType::Integer;
    other.key_type = KeyType::String;
    let mend = systemic(records.load(&of(&other, 3)).await)?;
    for said in ["id is INT64", "STRING(1024)", "score is FLOAT64"] {
        ensure!(mend.contains(said), "{mend}");
    }
    systemic(records.fingerprints(&other, &[]).await)?;

    // What changes under a running process is found when its commit fails.
    database.apply("ALTER TABLE themes DROP COLUMN score").await?;
    let mend = systemic(records.load(&of(&target, 4)).await)?;
    ensure!(mend.contains("no column score"), "{mend}");
    database.apply("ALTER TABLE themes ADD COLUMN score FLOAT64; ALTER TABLE themes ADD COLUMN mine STRING(MAX) NOT NULL DEFAULT ('')").await?;
    ensure!(matches!(records.load(&of(&target, 4)).await?, Loaded::Now(_)), "a column of the user's own");
    database.apply("ALTER TABLE themes ALTER COLUMN mine DROP DEFAULT").await?;
    let mut later = of(&target, 5);
    later.lines[0].key = Some(Key::Integer(5));
    let mend = systemic(records.load(&later).await)?;
    ensure!(mend.contains("mine is NOT NULL"), "no row's fault: {mend}");

    let by_hand = ddl::target(&pipeline("by_hand")).ddl().replace(" OPTIONS (allow_commit_timestamp = true)", "");
    database.apply(&by_hand).await?;
    let mend = systemic(records.load(&of(&pipeline("by_hand"), 6)).await)?;
    ensure!(mend.contains("committed_at lacks OPTIONS"), "no row's fault either: {mend}");
    Ok(())
}

async fn a_loaded_part_stays_loaded_without_its_table() -> Result<()> {
    let target = pipeline("themes");
    let (database, records) = with_table(&target).await?;
    let one = part(&target, 1, S0, vec![(1, answer("f"))]);
    records.load(&one).await?;
    database.apply("DROP TABLE themes").await?;
    ensure!(records.load(&one).await? == Loaded::Already);
    ensure!(open(&database, 1).await?.load(&one).await? == Loaded::Already);
    Ok(())
}

async fn a_users_indexes_count_as_mutations() -> Result<()> {
    let target = pipeline("themes");
    let (database, records) = with_table(&target).await?;
    let indexes: Vec<String> = (0..17).map(|at| format!("CREATE INDEX i{at} ON themes (score)")).collect();
    database.apply(&indexes.join(";")).await?;
    let of = |rows: i64| part(&target, 1, S0, (0..rows).map(|key| (key, answer("f"))).collect());
    // 1,000 rows of 15 columns are few; with 17 entries, made and removed, of 2 columns each they are 83,000.
    let mend = systemic(records.load(&of(1_000)).await)?;
    ensure!(mend.contains("mutations") && mend.contains("rows_per_shard"), "{mend}");
    ensure!(matches!(records.load(&of(100)).await?, Loaded::Now(_)));
    Ok(())
}

async fn answers_are_stored_as_what_they_are() -> Result<()> {
    let mut target = pipeline("from");
    target.key_type = KeyType::String;
    target.key = "select".into();
    target.answer.push(column("order", ValueType::Integer, Some(2)));
    target.answer.push(column("good", ValueType::Boolean, None));
    target.answer.push(column("note", ValueType::String, None));
    let (database, records) = with_table(&target).await?;
    let full = with_value(with_value(answer("f"), "order", json!([i64::MAX, -4])), "good", json!(true));
    let full = with_value(full, "note", json!("a'b`c\" \u{1F9E7}"));
    let keys: Vec<Key> = ["1", "01", "製品", "a'b`c\"", ""].map(|text| Key::Text(text.into())).to_vec();
    let mut one = part(&target, 1, S0, (0..5).map(|key| (key, full.clone())).collect());
    one.lines.iter_mut().zip(&keys).for_each(|(line, key)| line.key = Some(key.clone()));
    records.load(&one).await?;
    ensure!(records.fingerprints(&target, &keys).await?.len() == 5);

    let sql = "SELECT themes, score, `order`, good, note, run, run_time, ordinal, source_time, model, fingerprint, \
               prompt_tokens, output_tokens, thought_tokens, cached_tokens, cost, committed_at > source_time \
               FROM `from` WHERE `select` = '製品'";
    let (max, run) = (i64::MAX.to_string(), run_id(1).to_string());
    let expected = json!([[
        ["a", "b"],
        0.5,
        [max, "-4"],
        true,
        "a'b`c\" \u{1F9E7}",
        run,
        "1970-01-01T00:00:01Z",
        "2",
        "1970-01-01T00:00:01Z",
        "model-001",
        "f",
        "10",
        "2",
        "0",
        "0",
        0.000_007,
        true
    ]]);
    let stored = Value::Array(database.query(sql).await?);
    ensure!(stored == expected, "{stored}");
    Ok(())
}

async fn tables_can_be_applied_again() -> Result<()> {
    let target = pipeline("themes");
    let (database, records) = with_table(&target).await?;
    records.load(&part(&target, 1, S0, vec![(1, answer("f"))])).await?;
    let mut newer = target.clone();
    newer.answer.push(column("order", ValueType::String, Some(3)));
    for _ in 0..2 {
        make(&database, &newer).await?;
    }
    let rows = database.query("SELECT score, `order` FROM themes").await?;
    ensure!(rows == [json!([0.5, null])], "{rows:?}");
    Ok(())
}
