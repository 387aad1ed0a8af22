//! The transaction of one part (protocol.md 5), within one that the caller commits.

use super::fault::Fault;
use super::runs::{counts_out, int};
use super::{rows, target};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params, params_from_iter};
use std::collections::BTreeMap;
use tasuki_relay::clock::Millis;
use tasuki_relay::ports::{Loaded, Part, RunState};
use tasuki_relay::record::{Counts, Header, Totals};
use tasuki_relay::settle::{self, Failure, settle};

/// Ledger, target rows, failures, counters and totals of `part`; all, or an error and nothing may be committed.
pub(super) fn load(connection: &Connection, part: &Part, now: Millis) -> Result<Loaded, Fault> {
    let (run, shard) = (part.id.run.as_str(), part.id.shard);
    let mut ledger = connection.prepare_cached("SELECT 1 FROM Ledger WHERE run = ? AND shard = ?")?;
    if ledger.exists(params![run, shard.0])? {
        return Ok(Loaded::Already);
    }
    settle::check_commit(part, 0)?;
    let keys = settle::keys_to_read(part);
    // A part without answers needs no table: its pipeline may be one that nobody could read.
    let existing = match keys.is_empty() {
        true => BTreeMap::new(),
        false => {
            target::ensure(connection, &part.pipeline)?;
            rows::existing(connection, &part.pipeline, keys)?
        }
    };
    let settled = settle(part, &existing);
    book_run(connection, part, now)?;
    book_shard(connection, part, &settled.counts, now)?;
    if !(settled.upserts.is_empty() && settled.touches.is_empty()) {
        rows::write(connection, part, &settled, now)?;
    }
    book_failures(connection, run, &settled.failures)?;
    Ok(Loaded::Now(settled.counts))
}

/// The row of Runs, where there is none.
pub(super) fn open_run(connection: &Connection, header: &Header, now: Millis) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO Runs (run, pipeline, input, source_time, run_time, state, opened_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run) DO NOTHING",
    )?;
    insert.execute(params![
        header.run.as_str(),
        header.pipeline,
        header.input,
        header.source_time.to_string(),
        header.run_time.to_string(),
        RunState::Running.as_str(),
        now.to_string(),
    ])?;
    Ok(())
}

/// The row of Runs, from the first header that comes; totals and refusal from whichever header has them.
fn book_run(connection: &Connection, part: &Part, now: Millis) -> rusqlite::Result<()> {
    let (run, header) = (part.id.run.as_str(), &part.header);
    open_run(connection, header, now)?;
    if let Some(Totals { shards, rows }) = header.totals {
        connection
            .prepare_cached("UPDATE Runs SET expected_shards = ?, expected_rows = ? WHERE run = ?")?
            .execute(params![int(shards), int(rows), run])?;
    }
    if let Some(refused) = &header.refused {
        connection
            .prepare_cached(
                "UPDATE Runs SET refused = ?1, refused_shard = ?2 \
                 WHERE run = ?3 AND (refused_shard IS NULL OR refused_shard < ?2)",
            )?
            .execute(params![refused, part.id.shard.0, run])?;
    }
    Ok(())
}

/// The ledger row, and the same counts onto the run's counter.
fn book_shard(connection: &Connection, part: &Part, counts: &Counts, now: Millis) -> rusqlite::Result<()> {
    let run = || Sql::Text(part.id.run.to_string());
    let counts = counts_out(counts).map(Sql::Integer);
    let (columns, marks) = (Counts::COLUMNS.join(", "), ", ?".repeat(Counts::COLUMNS.len()));

    let insert =
        format!("INSERT INTO Ledger (run, shard, generation, committed_at, {columns}) VALUES (?, ?, ?, ?{marks})");
    let shard = Sql::Integer(part.id.shard.0.into());
    let place = [run(), shard, Sql::Integer(part.generation), Sql::Text(now.to_string())];
    connection.prepare_cached(&insert)?.execute(params_from_iter(place.iter().chain(&counts)))?;

    let sums = Counts::COLUMNS.map(|column| format!("{column} = {column} + excluded.{column}")).join(", ");
    let add = format!(
        "INSERT INTO Counters (run, slot, {columns}) VALUES (?, ?{marks}) ON CONFLICT (run, slot) DO UPDATE SET {sums}"
    );
    let place = [run(), Sql::Integer(settle::slot(part.id.shard).into())];
    connection.prepare_cached(&add)?.execute(params_from_iter(place.iter().chain(&counts)))?;
    Ok(())
}

fn book_failures(connection: &Connection, run: &str, failures: &[Failure]) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        "INSERT INTO Failures (run, ordinal, key, reason, message, attempts) VALUES (?, ?, ?, ?, ?, ?)",
    )?;
    for Failure { ordinal, key, reason, message, attempts } in failures {
        let key = key.as_ref().map_or(Sql::Null, rows::key_out);
        insert.execute(params![run, int(*ordinal), key, reason, message, attempts])?;
    }
    Ok(())
}
