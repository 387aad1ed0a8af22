//! Rows of Runs with the sum of their counters, and the step to their end state.

use super::fault::Fault;
use super::load::open_run;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use std::collections::BTreeSet;
use std::error::Error;
use std::str::FromStr;
use tasuki_relay::books::LoadedParts;
use tasuki_relay::clock::Millis;
use tasuki_relay::names::{RunId, ShardIndex};
use tasuki_relay::ports::{Announcement, Generation, RunRow, RunState};
use tasuki_relay::record::{Counts, Header, Totals};
use tasuki_relay::settle;

/// The values of [`Counts::COLUMNS`].
pub(super) fn counts_out(counts: &Counts) -> [i64; Counts::COLUMNS.len()] {
    counts.values().map(int)
}

fn counts_in(row: &Row<'_>) -> rusqlite::Result<Counts> {
    let mut values = [0; Counts::COLUMNS.len()];
    for (value, column) in values.iter_mut().zip(Counts::COLUMNS) {
        *value = uint(row.get(column)?);
    }
    Ok(Counts::of(values))
}

/// SQLite has no unsigned integers; no count of ours reaches 2^63.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The inverse of [`int`].
pub(super) fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Text of a column, parsed.
pub(super) fn parsed<T: FromStr>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T::Err: Error + Send + Sync + 'static,
{
    let index = row.as_ref().column_index(column)?;
    let text = row.get_ref(index)?.as_str()?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)))
}

fn run_in(row: &Row<'_>) -> rusqlite::Result<RunRow> {
    let state = row.as_ref().column_index("state")?;
    let unknown = || rusqlite::Error::InvalidColumnType(state, "state".into(), Type::Text);
    let ended: Option<String> = row.get("ended_at")?;
    Ok(RunRow {
        run: parsed(row, "run")?,
        pipeline: row.get("pipeline")?,
        input: row.get("input")?,
        source_time: parsed(row, "source_time")?,
        run_time: parsed(row, "run_time")?,
        state: RunState::parse(row.get_ref(state)?.as_str()?).ok_or_else(unknown)?,
        refused: row.get("refused")?,
        expected_rows: row.get::<_, Option<i64>>("expected_rows")?.map(uint),
        expected_shards: row.get::<_, Option<i64>>("expected_shards")?.map(uint),
        opened_at: parsed(row, "opened_at")?,
        ended_at: ended.map(|_| parsed(row, "ended_at")).transpose()?,
        counts: counts_in(row)?,
    })
}

/// The runs for which `condition` holds, newest first.
pub(super) fn runs(connection: &Connection, condition: &str, values: impl Params) -> rusqlite::Result<Vec<RunRow>> {
    let sums = Counts::COLUMNS.map(|column| format!("COALESCE(SUM({column}), 0) AS {column}")).join(", ");
    let sql = format!(
        "SELECT Runs.*, {sums} FROM Runs LEFT JOIN Counters USING (run) WHERE {condition} \
         GROUP BY Runs.run ORDER BY run_time DESC, Runs.run"
    );
    connection.prepare_cached(&sql)?.query_map(values, run_in)?.collect()
}

/// One run.
pub(super) fn run(connection: &Connection, run: &RunId) -> rusqlite::Result<Option<RunRow>> {
    Ok(runs(connection, "Runs.run = ?", [run.as_str()])?.pop())
}

/// Within a transaction: takes an open run to its end state, with its outbox row, if all is loaded.
pub(super) fn finish(connection: &Connection, id: &RunId, now: Millis) -> Result<Option<RunRow>, Fault> {
    let Some(mut row) = run(connection, id)? else { return Ok(None) };
    if row.state.has_ended() {
        return Ok(Some(row));
    }
    let refused: Option<u32> = connection
        .prepare_cached("SELECT refused_shard FROM Runs WHERE run = ?")?
        .query_row([id.as_str()], |row| row.get(0))?;
    let totals = row.expected_shards.zip(row.expected_rows).map(|(shards, rows)| Totals { shards, rows });
    if let Some(state) = settle::end_state(refused.map(ShardIndex), totals, &row.counts) {
        connection.prepare_cached("UPDATE Runs SET state = ?, ended_at = ? WHERE run = ?")?.execute(params![
            state.as_str(),
            now.to_string(),
            id.as_str()
        ])?;
        connection
            .prepare_cached("INSERT INTO Outbox (event_id, run) VALUES (?, ?)")?
            .execute([&settle::event_id(id, state), id.as_str()])?;
        (row.state, row.ended_at) = (state, Some(now));
    }
    Ok(Some(row))
}

/// Within a transaction: takes a run from RUNNING to PARKED, with the outbox row of this marker.
pub(super) fn park(connection: &Connection, header: &Header, marker: Generation, now: Millis) -> rusqlite::Result<()> {
    open_run(connection, header, now)?;
    let id = header.run.as_str();
    let parked = connection
        .prepare_cached("UPDATE Runs SET state = 'PARKED' WHERE run = ? AND state IN ('RUNNING', 'PARKED')")?
        .execute([id])?;
    if parked > 0 {
        connection
            .prepare_cached("INSERT INTO Outbox (event_id, run) VALUES (?, ?) ON CONFLICT (event_id) DO NOTHING")?
            .execute([&settle::parked_id(&header.run, marker), id])?;
    }
    Ok(())
}

/// Takes a run from PARKED to RUNNING.
pub(super) fn resume(connection: &Connection, run: &RunId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE Runs SET state = 'RUNNING' WHERE run = ? AND state = 'PARKED'")?
        .execute([run.as_str()])?;
    Ok(())
}

/// The outbox rows that are not marked published, of one run or of all.
pub(super) fn unpublished(connection: &Connection, only: Option<&RunId>) -> Result<Vec<Announcement>, Fault> {
    let mut select = connection.prepare_cached(
        "SELECT event_id, run FROM Outbox WHERE published_at IS NULL AND (?1 IS NULL OR run = ?1) ORDER BY event_id",
    )?;
    let due = select
        .query_map([only.map(RunId::as_str)], |row| {
            Ok((row.get::<_, String>("event_id")?, parsed::<RunId>(row, "run")?))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut announcements = Vec::with_capacity(due.len());
    for (event_id, id) in due {
        announcements.extend(run(connection, &id)?.and_then(|run| settle::announcement(event_id, run)));
    }
    Ok(announcements)
}

/// All ledger rows of a run.
pub(super) fn loaded_parts(connection: &Connection, run: &RunId) -> rusqlite::Result<LoadedParts> {
    let mut select = connection.prepare_cached("SELECT * FROM Ledger WHERE run = ?")?;
    let (mut rows, mut parts) = (select.query([run.as_str()])?, LoadedParts::default());
    while let Some(row) = rows.next()? {
        parts.shards.insert(ShardIndex(row.get("shard")?));
        parts.counts += counts_in(row)?;
    }
    Ok(parts)
}

/// Which of `shards` have a ledger row.
pub(super) fn ledgered(
    connection: &Connection,
    run: &RunId,
    shards: &[ShardIndex],
) -> rusqlite::Result<BTreeSet<ShardIndex>> {
    let mut select = connection.prepare_cached("SELECT 1 FROM Ledger WHERE run = ? AND shard = ?")?;
    let mut there = BTreeSet::new();
    for shard in shards {
        if select.query_row(params![run.as_str(), shard.0], |_| Ok(())).optional()?.is_some() {
            there.insert(*shard);
        }
    }
    Ok(there)
}
