//! Rows of Runs with the sum of their counters, the step to their end state, and the outbox.

use super::pool;
use super::rows::{COMMIT_TIME, time_in, time_out, uint};
use google_cloud_spanner::Result;
use google_cloud_spanner::mutation::{Mutation, WriteBuilder};
use google_cloud_spanner::result::{ResultSet, Row};
use google_cloud_spanner::statement::{Statement, StatementBuilder};
use google_cloud_spanner::transaction::ReadWriteTransaction;
use tasuki_relay::books::LoadedParts;
use tasuki_relay::names::{RunId, ShardIndex};
use tasuki_relay::ports::{Generation, RunRow, RunState};
use tasuki_relay::record::{Counts, Header, Totals};
use tasuki_relay::settle;

/// Notices that one call returns at most: a sweep publishes them one by one, and the next sweep takes the rest.
const NOTICES_MAX: i64 = 100;

/// A run as it stands.
#[derive(Debug)]
pub(super) struct Standing {
    /// Its row, with the sum of its counters.
    pub(super) row: RunRow,
    refused_shard: Option<ShardIndex>,
}

impl Standing {
    /// The end state that it reaches now, if it does.
    pub(super) fn end_state(&self) -> Option<RunState> {
        let row = &self.row;
        let totals = row.expected_shards.zip(row.expected_rows).map(|(shards, rows)| Totals { shards, rows });
        if row.state.has_ended() { None } else { settle::end_state(self.refused_shard, totals, &row.counts) }
    }
}

/// Asks for one run and the sum of its counters.
pub(super) fn ask(run: &RunId) -> Statement {
    let statement = Statement::builder(select("WHERE run = @run", "WHERE r.run = @run"));
    statement.add_param("run", run.to_string()).with_retry_policy(pool::patience()).build()
}

/// Asks for all runs, newest first.
pub(super) fn ask_all() -> StatementBuilder {
    Statement::builder(select("", "ORDER BY r.run_time DESC, r.run DESC"))
}

/// Runs with the sum of their counters.
fn select(counters: &str, runs: &str) -> String {
    let sums = Counts::COLUMNS.map(|column| format!("SUM({column}) AS {column}")).join(", ");
    let counts = Counts::COLUMNS.map(|column| format!("COALESCE(c.{column}, 0) AS {column}")).join(", ");
    format!(
        "SELECT r.*, {counts} FROM Runs AS r \
         LEFT JOIN (SELECT run, {sums} FROM Counters {counters} GROUP BY run) AS c ON c.run = r.run {runs}"
    )
}

/// The answer to [`ask_all`].
pub(super) async fn all(mut found: ResultSet) -> Result<Vec<RunRow>> {
    let mut runs = Vec::new();
    while let Some(row) = found.next().await.transpose()? {
        runs.extend(read(&row)?.map(|standing| standing.row));
    }
    Ok(runs)
}

/// The answer to [`ask`]; `None` for an unknown run. A row that Tasuki cannot have written is an unknown run too.
pub(super) async fn standing(mut found: ResultSet) -> Result<Option<Standing>> {
    found.next().await.transpose()?.map_or(Ok(None), |row| read(&row))
}

fn read(row: &Row) -> Result<Option<Standing>> {
    let (run, state) = (row.get::<String>("run")?.parse(), RunState::parse(&row.get::<String>("state")?));
    let (Ok(run), Some(state)) = (run, state) else { return Ok(None) };
    let count = |column: &str| Ok::<_, google_cloud_spanner::Error>(row.get::<Option<i64>>(column)?.map(uint));
    let refused_shard =
        row.get::<Option<i64>>("refused_shard")?.and_then(|shard| u32::try_from(shard).ok()).map(ShardIndex);
    let row = RunRow {
        run,
        pipeline: row.get("pipeline")?,
        input: row.get("input")?,
        source_time: time_in(row, "source_time")?,
        run_time: time_in(row, "run_time")?,
        state,
        refused: row.get("refused")?,
        expected_rows: count("expected_rows")?,
        expected_shards: count("expected_shards")?,
        opened_at: time_in(row, "opened_at")?,
        ended_at: if row.is_null("ended_at")? { None } else { Some(time_in(row, "ended_at")?) },
        counts: counts_in(row)?,
    };
    Ok(Some(Standing { row, refused_shard }))
}

fn counts_in(row: &Row) -> Result<Counts> {
    let mut counts = [0; Counts::COLUMNS.len()];
    for (value, column) in counts.iter_mut().zip(Counts::COLUMNS) {
        *value = uint(row.get(column)?);
    }
    Ok(Counts::of(counts))
}

/// Asks for all ledger rows of a run.
pub(super) fn ask_loaded_parts(run: &RunId) -> StatementBuilder {
    let sql = format!("SELECT shard, {} FROM Ledger WHERE run = @run", Counts::COLUMNS.join(", "));
    Statement::builder(sql).add_param("run", run.to_string())
}

/// The answer to [`ask_loaded_parts`].
pub(super) async fn loaded_parts(mut found: ResultSet) -> Result<LoadedParts> {
    let mut parts = LoadedParts::default();
    while let Some(row) = found.next().await.transpose()? {
        parts.shards.extend(u32::try_from(row.get::<i64>("shard")?).map(ShardIndex));
        parts.counts += counts_in(&row)?;
    }
    Ok(parts)
}

/// Takes the run to its end state, if it is open and all of it is loaded.
pub(super) async fn end(transaction: ReadWriteTransaction, run: RunId) -> Result<()> {
    let found = standing(transaction.execute_query(ask(&run)).await?).await?;
    let Some(state) = found.and_then(|standing| standing.end_state()) else { return Ok(()) };
    let ended = Mutation::new_update_builder("Runs")
        .set("run")
        .to(run.to_string())
        .set("state")
        .to(state.as_str().to_owned())
        .set("ended_at")
        .to(COMMIT_TIME.to_owned());
    let notice = Mutation::new_insert_builder("Outbox")
        .set("event_id")
        .to(settle::event_id(&run, state))
        .set("run")
        .to(run.to_string());
    transaction.buffer([ended.build(), notice.build()])
}

/// The columns that a run gets when it becomes known, but for its name.
pub(super) fn opened(row: WriteBuilder, header: &Header, state: RunState) -> WriteBuilder {
    let row = row.set("pipeline").to(header.pipeline.clone());
    let row = row.set("input").to(header.input.clone());
    let row = row.set("source_time").to(time_out(header.source_time));
    let row = row.set("run_time").to(time_out(header.run_time));
    let row = row.set("state").to(state.as_str().to_owned());
    row.set("opened_at").to(COMMIT_TIME.to_owned())
}

/// Takes an open run, or one that is not known yet, to PARKED, with the outbox row of this marker.
pub(super) async fn park(transaction: ReadWriteTransaction, header: Header, marker: Generation) -> Result<()> {
    let found = standing(transaction.execute_query(ask(&header.run)).await?).await?;
    let run = || header.run.to_string();
    let parked = match found.map(|standing| standing.row.state) {
        Some(state) if state.has_ended() => return Ok(()),
        Some(_) => {
            let state = RunState::Parked.as_str().to_owned();
            Mutation::new_update_builder("Runs").set("run").to(run()).set("state").to(state).build()
        }
        None => opened(Mutation::new_insert_builder("Runs").set("run").to(run()), &header, RunState::Parked).build(),
    };
    // When it was published, if it was, stays.
    let notice = Mutation::new_insert_or_update_builder("Outbox")
        .set("event_id")
        .to(settle::parked_id(&header.run, marker))
        .set("run")
        .to(run());
    transaction.buffer([parked, notice.build()])
}

/// Takes the run from PARKED to RUNNING.
pub(super) async fn resume(transaction: ReadWriteTransaction, run: RunId) -> Result<()> {
    let sql = "UPDATE Runs SET state = 'RUNNING' WHERE run = @run AND state = 'PARKED'";
    transaction.execute_update(Statement::builder(sql).add_param("run", run.to_string()).build()).await?;
    Ok(())
}

/// Asks for the notices that are due: of one run, or of all.
pub(super) fn ask_unpublished(run: Option<&RunId>) -> Statement {
    let only = if run.is_some() { "AND run = @run" } else { "" };
    let sql = format!(
        "SELECT event_id, run FROM Outbox WHERE published_at IS NULL {only} ORDER BY event_id LIMIT {NOTICES_MAX}"
    );
    let statement = Statement::builder(sql).with_retry_policy(pool::patience());
    match run {
        Some(run) => statement.add_param("run", run.to_string()).build(),
        None => statement.build(),
    }
}

/// The answer to [`ask_unpublished`]: the event's id and its run.
pub(super) async fn unpublished(mut found: ResultSet) -> Result<Vec<(String, RunId)>> {
    let mut due = Vec::new();
    while let Some(row) = found.next().await.transpose()? {
        let event_id: String = row.get("event_id")?;
        if let Ok(run) = row.get::<String>("run")?.parse() {
            due.push((event_id, run));
        }
    }
    Ok(due)
}

/// Marks a notice published, once.
pub(super) async fn mark(transaction: ReadWriteTransaction, event_id: String) -> Result<()> {
    let sql = "UPDATE Outbox SET published_at = PENDING_COMMIT_TIMESTAMP() \
               WHERE event_id = @event_id AND published_at IS NULL";
    transaction.execute_update(Statement::builder(sql).add_param("event_id", event_id).build()).await?;
    Ok(())
}
