//! Rows of target tables: read by key, written in a part's transaction.

use super::fault::{Fault, breach};
use super::runs::{int, parsed};
use super::target::{self, quoted};
use rusqlite::types::{Value as Sql, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};
use serde_json::Value;
use std::collections::BTreeMap;
use tasuki_relay::clock::Millis;
use tasuki_relay::pipeline::{AnswerColumn, Pipeline, ValueType};
use tasuki_relay::ports::{Part, RecordsError};
use tasuki_relay::prices::dollars;
use tasuki_relay::record::Key;
use tasuki_relay::settle::{Existing, Settled, Upsert};

/// The target rows of `keys` that exist.
pub(super) fn existing(
    connection: &Connection,
    pipeline: &Pipeline,
    keys: Vec<Key>,
) -> rusqlite::Result<BTreeMap<Key, Existing>> {
    let sql = format!(
        "SELECT source_time, run_time, run, fingerprint FROM {} WHERE {} = ?",
        quoted(&pipeline.table),
        quoted(&pipeline.key)
    );
    let read = |row: &Row<'_>| {
        Ok(Existing {
            source_time: parsed(row, "source_time")?,
            run_time: parsed(row, "run_time")?,
            run: parsed(row, "run")?,
            fingerprint: row.get("fingerprint")?,
        })
    };
    let mut select = connection.prepare_cached(&sql)?;
    let mut existing = BTreeMap::new();
    for key in keys {
        if let Some(row) = select.query_row([key_out(&key)], read).optional()? {
            existing.insert(key, row);
        }
    }
    Ok(existing)
}

/// The fingerprints of the rows of `keys` that exist. A table that does not fit the pipeline is found here already,
/// before anything is paid for.
pub(super) fn fingerprints(
    connection: &Connection,
    pipeline: &Pipeline,
    keys: Vec<Key>,
) -> Result<BTreeMap<Key, String>, Fault> {
    if target::known(connection, pipeline)?.is_none() {
        return Ok(BTreeMap::new());
    }
    let rows = existing(connection, pipeline, keys)?;
    Ok(rows.into_iter().map(|(key, row)| (key, row.fingerprint)).collect())
}

/// Writes upserts and touches. Rows that breach a constraint are all found, and nothing may be committed then.
pub(super) fn write(connection: &Connection, part: &Part, settled: &Settled<'_>, now: Millis) -> Result<(), Fault> {
    let mut upsert = connection.prepare_cached(&upsert_sql(&part.pipeline))?;
    let mut touch = connection.prepare_cached(&touch_sql(&part.pipeline))?;
    let mut rejected = Vec::new();
    let upserts = settled.upserts.iter().map(|row| (row.ordinal, upsert_values(part, row, now)));
    for (ordinal, values) in upserts {
        let Some(values) = values else {
            rejected.push((ordinal, "DATATYPE".to_owned()));
            continue;
        };
        note(connection, ordinal, upsert.execute(params_from_iter(values)), &mut rejected)?;
    }
    for row in &settled.touches {
        let [source_time, run_time, run] = stamp(part);
        let values = [source_time, run_time, run, Sql::Integer(int(row.ordinal)), key_out(row.key)];
        note(connection, row.ordinal, touch.execute(values), &mut rejected)?;
    }
    match rejected.is_empty() {
        true => Ok(()),
        false => Err(RecordsError::Rejected(rejected).into()),
    }
}

/// A breach undoes only its statement, so that the next row can be tried in the same transaction, unless the user's
/// constraint says ROLLBACK: then the transaction is gone, and what is known by now has to do.
fn note(
    connection: &Connection,
    ordinal: u64,
    done: rusqlite::Result<usize>,
    rejected: &mut Vec<(u64, String)>,
) -> Result<(), Fault> {
    let Err(error) = done else { return Ok(()) };
    let Some(code) = breach(&error) else { return Err(error.into()) };
    rejected.push((ordinal, code.to_owned()));
    match connection.is_autocommit() {
        false => Ok(()),
        true => Err(RecordsError::Rejected(std::mem::take(rejected)).into()),
    }
}

fn upsert_sql(pipeline: &Pipeline) -> String {
    let key = quoted(&pipeline.key);
    let others: Vec<String> = pipeline.answer.iter().map(|column| quoted(&column.name)).collect();
    let others = others.into_iter().chain(target::OURS.iter().map(|(name, _)| (*name).to_owned())).collect::<Vec<_>>();
    let set = others.iter().map(|name| format!("{name} = excluded.{name}")).collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO {} ({key}, {}) VALUES (?{}) ON CONFLICT ({key}) DO UPDATE SET {set}",
        quoted(&pipeline.table),
        others.join(", "),
        ", ?".repeat(others.len())
    )
}

fn touch_sql(pipeline: &Pipeline) -> String {
    format!(
        "UPDATE {} SET source_time = ?, run_time = ?, run = ?, ordinal = ? WHERE {} = ?",
        quoted(&pipeline.table),
        quoted(&pipeline.key)
    )
}

/// In the order of [`upsert_sql`]; `None` when a value does not fit its column.
fn upsert_values(part: &Part, row: &Upsert<'_>, now: Millis) -> Option<Vec<Sql>> {
    let mut values = vec![key_out(row.key)];
    for column in &part.pipeline.answer {
        values.push(answer_out(column, row.answer.values.get(&column.name)?)?);
    }
    let [source_time, run_time, run] = stamp(part);
    let usage = row.spent.usage;
    let tokens = [usage.prompt, usage.output, usage.thought, usage.cached].map(|count| Sql::Integer(int(count)));
    values.extend([run, run_time, Sql::Integer(int(row.ordinal)), source_time]);
    values.extend([Sql::Text(row.answer.model.clone()), Sql::Text(row.answer.fingerprint.clone())]);
    values.extend(tokens);
    let cost = row.spent.known_cost().map_or(Sql::Null, |cost| Sql::Real(dollars(cost)));
    values.extend([cost, Sql::Text(now.to_string())]);
    Some(values)
}

/// source_time, run_time, run.
fn stamp(part: &Part) -> [Sql; 3] {
    [part.header.source_time.to_string(), part.header.run_time.to_string(), part.id.run.to_string()].map(Sql::Text)
}

fn answer_out(column: &AnswerColumn, value: &Value) -> Option<Sql> {
    Some(match (column.count, column.value_type) {
        (Some(_), _) => Sql::Text(value.is_array().then(|| value.to_string())?),
        (None, ValueType::String) => Sql::Text(value.as_str()?.to_owned()),
        (None, ValueType::Integer) => Sql::Integer(value.as_i64()?),
        (None, ValueType::Number) => Sql::Real(value.as_f64()?),
        (None, ValueType::Boolean) => Sql::Integer(value.as_bool()?.into()),
    })
}

/// The inverse of what a load writes; NULL where the row is older than the column.
pub(super) fn answer_in(column: &AnswerColumn, value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null | ValueRef::Blob(_) => Value::Null,
        ValueRef::Integer(number) if column.value_type == ValueType::Boolean => (number != 0).into(),
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            let array = column.count.and_then(|_| serde_json::from_str(&text).ok());
            array.unwrap_or_else(|| Value::String(text.into_owned()))
        }
    }
}

/// A key as SQLite holds it.
pub(super) fn key_out(key: &Key) -> Sql {
    match key {
        Key::Integer(number) => Sql::Integer(*number),
        Key::Text(text) => Sql::Text(text.clone()),
    }
}

/// The inverse of [`key_out`].
pub(super) fn key_in(value: ValueRef<'_>) -> Option<Key> {
    match value {
        ValueRef::Integer(number) => Some(Key::Integer(number)),
        ValueRef::Text(text) => Some(Key::Text(String::from_utf8_lossy(text).into_owned())),
        ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}
