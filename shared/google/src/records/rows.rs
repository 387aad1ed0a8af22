//! Rows of target tables as Spanner holds them, and the keys that find them.

use google_cloud_spanner::key::{Key as SpannerKey, KeySet};
use google_cloud_spanner::mutation::Mutation;
use google_cloud_spanner::read::ReadRequest;
use google_cloud_spanner::result::{ResultSet, Row};
use google_cloud_spanner::statement::Statement;
use google_cloud_spanner::value::{FromValue, Value};
use google_cloud_spanner::{Result, key};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use tasuki_relay::clock::Millis;
use tasuki_relay::ddl::{COMMITTED_AT, quoted};
use tasuki_relay::pipeline::{AnswerColumn, KeyType, Pipeline, ValueType};
use tasuki_relay::ports::Part;
use tasuki_relay::prices::dollars;
use tasuki_relay::record::Key;
use tasuki_relay::settle::{Existing, Touch, Upsert};

/// A value of a mutation that Spanner replaces by the commit's time.
pub(super) const COMMIT_TIME: &str = "spanner.commit_timestamp()";

/// Columns and values of a row, the key first; without `committed_at`.
pub(super) type Values = Vec<(String, Value)>;

/// What is read of target rows, beside their key.
const EXISTING: [&str; 4] = ["source_time", "run_time", "run", "fingerprint"];

/// Reads the target rows of `keys`, sorted as Spanner reads them best; each brings its key and `columns`.
fn read(pipeline: &Pipeline, keys: &[Key], columns: &[&str]) -> ReadRequest {
    let set = keys.iter().fold(KeySet::builder(), |set, key| set.add_key(SpannerKey::new(vec![key_out(key)])));
    let columns = std::iter::once(pipeline.key.as_str()).chain(columns.iter().copied()).map(str::to_owned);
    ReadRequest::builder(pipeline.table.clone(), columns.collect::<Vec<_>>())
        .with_keys(set.build())
        .with_retry_policy(super::pool::patience())
        .build()
}

/// Reads what [`existing`] takes.
pub(super) fn read_existing(pipeline: &Pipeline, keys: &[Key]) -> ReadRequest {
    read(pipeline, keys, &EXISTING)
}

/// Reads what [`fingerprints`] takes.
pub(super) fn read_fingerprints(pipeline: &Pipeline, keys: &[Key]) -> ReadRequest {
    read(pipeline, keys, &["fingerprint"])
}

/// The rows that were found; `None` when one of them was not written by Tasuki.
pub(super) async fn existing(pipeline: &Pipeline, mut found: ResultSet) -> Result<Option<BTreeMap<Key, Existing>>> {
    let mut rows = BTreeMap::new();
    while let Some(row) = found.next().await.transpose()? {
        let Ok(run) = row.get::<String>("run")?.parse() else { return Ok(None) };
        let existing = Existing {
            source_time: time_in(&row, "source_time")?,
            run_time: time_in(&row, "run_time")?,
            run,
            fingerprint: row.get("fingerprint")?,
        };
        rows.insert(key_in(pipeline, &row)?, existing);
    }
    Ok(Some(rows))
}

/// The fingerprints that were found.
pub(super) async fn fingerprints(pipeline: &Pipeline, mut found: ResultSet) -> Result<Vec<(Key, String)>> {
    let mut rows = Vec::new();
    while let Some(row) = found.next().await.transpose()? {
        rows.push((key_in(pipeline, &row)?, row.get("fingerprint")?));
    }
    Ok(rows)
}

/// The whole row of an answer; `None` when a value does not fit its column.
pub(super) fn upsert_values(part: &Part, row: &Upsert<'_>) -> Option<Values> {
    let pipeline = &part.pipeline;
    let mut values = vec![(pipeline.key.clone(), key_out(row.key))];
    for column in &pipeline.answer {
        values.push((column.name.clone(), answer_out(column, row.answer.values.get(&column.name)?)?));
    }
    values.extend(stamp(part, row.ordinal));
    let texts = [("model", &row.answer.model), ("fingerprint", &row.answer.fingerprint)];
    values.extend(texts.map(|(name, text)| (name.to_owned(), text.clone().into())));
    let usage = row.spent.usage;
    let tokens = [
        ("prompt_tokens", usage.prompt),
        ("output_tokens", usage.output),
        ("thought_tokens", usage.thought),
        ("cached_tokens", usage.cached),
    ];
    values.extend(tokens.map(|(name, tokens)| (name.to_owned(), int(tokens).into())));
    values.push(("cost".to_owned(), row.spent.known_cost().map(dollars).into()));
    Some(values)
}

/// What a confirmed row gets: it keeps its answer.
pub(super) fn touch_values(part: &Part, row: &Touch<'_>) -> Values {
    let mut values = vec![(part.pipeline.key.clone(), key_out(row.key))];
    values.extend(stamp(part, row.ordinal));
    values
}

/// run, run_time, ordinal, source_time.
fn stamp(part: &Part, ordinal: u64) -> [(String, Value); 4] {
    [
        ("run".to_owned(), part.id.run.to_string().into()),
        ("run_time".to_owned(), time_out(part.header.run_time)),
        ("ordinal".to_owned(), int(ordinal).into()),
        ("source_time".to_owned(), time_out(part.header.source_time)),
    ]
}

/// Writes [`upsert_values`] over whatever is there.
pub(super) fn upsert(pipeline: &Pipeline, values: Values) -> Mutation {
    let row = Mutation::new_insert_or_update_builder(pipeline.table.clone());
    let row = values.into_iter().fold(row, |row, (name, value)| row.set(name).to(value));
    row.set(COMMITTED_AT).to(COMMIT_TIME.to_owned()).build()
}

/// Writes [`touch_values`] onto the row that is there.
pub(super) fn touch(pipeline: &Pipeline, values: Values) -> Mutation {
    let row = Mutation::new_update_builder(pipeline.table.clone());
    values.into_iter().fold(row, |row, (name, value)| row.set(name).to(value)).build()
}

/// [`upsert`] as a statement: it fails by itself, where a mutation fails the whole commit.
pub(super) fn upsert_statement(pipeline: &Pipeline, values: Values) -> Statement {
    let names: Vec<String> = values.iter().map(|(name, _)| quoted(name)).collect();
    let marks: Vec<String> = (0..values.len()).map(|at| format!("@p{at}")).collect();
    let sql = format!(
        "INSERT OR UPDATE INTO {} ({}, {COMMITTED_AT}) VALUES ({}, PENDING_COMMIT_TIMESTAMP())",
        quoted(&pipeline.table),
        names.join(", "),
        marks.join(", ")
    );
    with_params(sql, values)
}

/// [`touch`] as a statement.
pub(super) fn touch_statement(pipeline: &Pipeline, values: Values) -> Statement {
    let set = values.iter().enumerate().skip(1).map(|(at, (name, _))| format!("{} = @p{at}", quoted(name)));
    let set = set.collect::<Vec<_>>().join(", ");
    let sql = format!("UPDATE {} SET {set} WHERE {} = @p0", quoted(&pipeline.table), quoted(&pipeline.key));
    with_params(sql, values)
}

fn with_params(sql: String, values: Values) -> Statement {
    let values = values.into_iter().enumerate();
    values.fold(Statement::builder(sql), |made, (at, (_, value))| made.add_param(format!("p{at}"), value)).build()
}

fn answer_out(column: &AnswerColumn, value: &Json) -> Option<Value> {
    match column.count {
        Some(_) => {
            let each = value.as_array()?.iter().map(|value| one_out(column.value_type, value));
            Some(each.collect::<Option<Vec<Value>>>()?.into())
        }
        None => one_out(column.value_type, value),
    }
}

fn one_out(value_type: ValueType, value: &Json) -> Option<Value> {
    Some(match value_type {
        ValueType::String => value.as_str()?.to_owned().into(),
        ValueType::Integer => value.as_i64()?.into(),
        ValueType::Number => value.as_f64()?.into(),
        ValueType::Boolean => value.as_bool()?.into(),
    })
}

/// The inverse of [`answer_out`]; null where the row is older than the column.
pub(super) fn answer_in(column: &AnswerColumn, row: &Row) -> Result<Json> {
    match column.value_type {
        ValueType::String => read_as::<String>(column, row),
        ValueType::Integer => read_as::<i64>(column, row),
        ValueType::Number => read_as::<f64>(column, row),
        ValueType::Boolean => read_as::<bool>(column, row),
    }
}

fn read_as<T: FromValue + Into<Json>>(column: &AnswerColumn, row: &Row) -> Result<Json> {
    let name = column.name.as_str();
    Ok(match column.count {
        Some(_) => row.get::<Option<Vec<Option<T>>>>(name)?.map_or(Json::Null, |values| {
            Json::Array(values.into_iter().map(|value| value.map_or(Json::Null, Into::into)).collect())
        }),
        None => row.get::<Option<T>>(name)?.map_or(Json::Null, Into::into),
    })
}

pub(super) fn key_out(key: &Key) -> Value {
    match key {
        Key::Integer(number) => (*number).into(),
        Key::Text(text) => text.clone().into(),
    }
}

pub(super) fn key_in(pipeline: &Pipeline, row: &Row) -> Result<Key> {
    let name = pipeline.key.as_str();
    Ok(match pipeline.key_type {
        KeyType::Integer => Key::Integer(row.get(name)?),
        KeyType::String => Key::Text(row.get(name)?),
    })
}

/// A time of the relay: milliseconds, where Spanner has nanoseconds.
pub(super) fn time_out(time: Millis) -> Value {
    (SystemTime::UNIX_EPOCH + Duration::from_millis(time.0)).into()
}

/// The inverse of [`time_out`].
pub(super) fn time_in(row: &Row, column: &str) -> Result<Millis> {
    Ok(Millis::of(row.get::<SystemTime>(column)?))
}

/// Spanner has no unsigned integers; no count of ours reaches 2^63.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The inverse of [`int`].
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// The key of a row of the tables that a run owns.
pub(super) fn of_run(run: &str, number: u32) -> SpannerKey {
    key![run, i64::from(number)]
}
