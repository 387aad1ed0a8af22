//! Target tables: one per `[target] table`, made when its first part is loaded.
//!
//! ```text
//! <key> PRIMARY KEY, <answers>…, run, run_time, ordinal, source_time, model, fingerprint,
//! prompt_tokens, output_tokens, thought_tokens, cached_tokens, cost, committed_at
//! ```
//!
//! Arrays are JSON text, booleans 0 and 1. An answer column may be NULL: rows of earlier pipelines do not have it.

use super::fault::Fault;
use rusqlite::{Connection, Row};
use tasuki_relay::pipeline::{AnswerColumn, KeyType, Pipeline, ValueType};
use tasuki_relay::ports::RecordsError;

/// Columns that Tasuki writes itself, with their types: [`tasuki_relay::pipeline::RESERVED_COLUMNS`].
pub(super) const OURS: [(&str, &str); 12] = [
    ("run", "TEXT NOT NULL"),
    ("run_time", "TEXT NOT NULL"),
    ("ordinal", "INTEGER NOT NULL"),
    ("source_time", "TEXT NOT NULL"),
    ("model", "TEXT NOT NULL"),
    ("fingerprint", "TEXT NOT NULL"),
    ("prompt_tokens", "INTEGER NOT NULL"),
    ("output_tokens", "INTEGER NOT NULL"),
    ("thought_tokens", "INTEGER NOT NULL"),
    ("cached_tokens", "INTEGER NOT NULL"),
    ("cost", "REAL"), // NULL: unknown until prices exist
    ("committed_at", "TEXT NOT NULL"),
];

/// The store's own tables: no target may take their names.
const TAKEN: [&str; 5] = ["Runs", "Ledger", "Counters", "Failures", "Outbox"];

/// A column as it stands in the store.
struct Column {
    name: String,
    declared: String,
    is_key: bool,
}

/// The columns of `table`; none when there is no such table.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let read =
        |row: &Row<'_>| Ok(Column { name: row.get(0)?, declared: row.get(1)?, is_key: row.get::<_, i64>(2)? > 0 });
    let mut select = connection.prepare_cached("SELECT name, type, pk FROM pragma_table_info(?)")?;
    select.query_map([table], read)?.collect()
}

/// A name between backticks: between double quotes SQLite takes an unknown column for text.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// JSON and BOOLEAN say more to a reader than TEXT and INTEGER do; SQLite stores the same.
fn declared(column: &AnswerColumn) -> &'static str {
    match (column.count, column.value_type) {
        (Some(_), _) => "JSON",
        (None, ValueType::String) => "TEXT",
        (None, ValueType::Integer) => "INTEGER",
        (None, ValueType::Number) => "REAL",
        (None, ValueType::Boolean) => "BOOLEAN",
    }
}

fn key_declared(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::String => "TEXT",
        KeyType::Integer => "INTEGER",
    }
}

/// The answer columns of `pipeline` that the table does not have yet; all of them when there is no table yet.
fn missing<'p>(pipeline: &'p Pipeline, there: &[Column]) -> Result<Vec<&'p AnswerColumn>, RecordsError> {
    let table = &pipeline.table;
    let wrong = |what: String| {
        RecordsError::Systemic(format!(
            "table {table} of the store {what}. Give the pipeline another [target] table, or drop or rename that one"
        ))
    };
    let find = |name: &str| there.iter().find(|column| column.name.eq_ignore_ascii_case(name));
    let same = |column: &Column, wanted: &str| match column.declared.eq_ignore_ascii_case(wanted) {
        true => Ok(()),
        false => {
            Err(wrong(format!("has column {} of type {}, the pipeline wants {wanted}", column.name, column.declared)))
        }
    };

    if TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(table)) {
        return Err(wrong("is one that Tasuki keeps its books in".into()));
    }
    if there.is_empty() {
        return Ok(pipeline.answer.iter().collect());
    }
    let keys: Vec<_> = there.iter().filter(|column| column.is_key).collect();
    match keys[..] {
        [key] if key.name.eq_ignore_ascii_case(&pipeline.key) => same(key, key_declared(pipeline.key_type))?,
        _ => {
            let names = keys.iter().map(|key| format!("{} {}", key.name, key.declared)).collect::<Vec<_>>().join(", ");
            let wanted = key_declared(pipeline.key_type);
            return Err(wrong(format!("has the key ({names}), the pipeline wants ({} {wanted})", pipeline.key)));
        }
    }
    if let Some((name, _)) = OURS.iter().find(|(name, _)| find(name).is_none()) {
        return Err(wrong(format!("has no column {name}: Tasuki did not make it")));
    }
    let mut missing = Vec::new();
    for column in &pipeline.answer {
        match find(&column.name) {
            Some(there) => same(there, declared(column))?,
            None => missing.push(column),
        }
    }
    Ok(missing)
}

/// Makes the table, or the answer columns that it lacks.
pub(super) fn ensure(connection: &Connection, pipeline: &Pipeline) -> Result<(), Fault> {
    let there = columns(connection, &pipeline.table)?;
    let missing = missing(pipeline, &there)?;
    let table = quoted(&pipeline.table);
    let answers = missing.into_iter().map(|column| format!("{} {}", quoted(&column.name), declared(column)));
    if there.is_empty() {
        let key = format!("{} {} PRIMARY KEY NOT NULL", quoted(&pipeline.key), key_declared(pipeline.key_type));
        let ours = OURS.iter().map(|(name, kind)| format!("{name} {kind}"));
        let columns: Vec<_> = std::iter::once(key).chain(answers).chain(ours).collect();
        connection.execute_batch(&format!("CREATE TABLE {table} ({})", columns.join(", ")))?;
    } else {
        for column in answers {
            connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN {column}"))?;
        }
    }
    Ok(())
}

/// The answer columns of `pipeline` that the table has; `None` when there is no table.
pub(super) fn known<'p>(
    connection: &Connection,
    pipeline: &'p Pipeline,
) -> Result<Option<Vec<&'p AnswerColumn>>, Fault> {
    let there = columns(connection, &pipeline.table)?;
    let missing = missing(pipeline, &there)?;
    let known = pipeline.answer.iter().filter(|column| !missing.contains(column)).collect();
    Ok((!there.is_empty()).then_some(known))
}
