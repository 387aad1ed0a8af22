//! The transaction of one part (protocol.md 5): two round trips of reads, then all writes as mutations of one commit.

use super::rows::{self, COMMIT_TIME, int, of_run, uint};
use super::runs;
use google_cloud_spanner::Result;
use google_cloud_spanner::key;
use google_cloud_spanner::key::Key as SpannerKey;
use google_cloud_spanner::mutation::Mutation;
use google_cloud_spanner::read::ReadRequest;
use google_cloud_spanner::result::Row;
use google_cloud_spanner::transaction::ReadWriteTransaction;
use std::collections::BTreeMap;
use std::sync::Arc;
use tasuki_relay::names::ShardId;
use tasuki_relay::ports::{Loaded, Part, RecordsError, RunState};
use tasuki_relay::record::{Counts, Key};
use tasuki_relay::settle::{self, Existing, Failure, Settled, settle};

/// One attempt: decides by what it reads and buffers what is to be written. It changes nothing else, so Spanner may
/// abort it and have it run again. An inner error buffers nothing: the commit is empty then.
pub(super) async fn attempt(
    transaction: ReadWriteTransaction,
    part: Arc<Part>,
) -> Result<std::result::Result<Loaded, RecordsError>> {
    let (run, shard) = (part.id.run.as_str(), part.id.shard);
    if one(&transaction, "Ledger", &["shard"], of_run(run, shard.0)).await?.is_some() {
        return Ok(Ok(Loaded::Already));
    }
    let slot = settle::slot(shard);
    let (run_row, counter, existing) = futures::try_join!(
        one(&transaction, "Runs", &["refused_shard"], key![run]),
        one(&transaction, "Counters", &Counts::COLUMNS, of_run(run, slot)),
        existing(&transaction, &part),
    )?;
    let Some(existing) = existing else { return Ok(Err(not_ours(&part))) };
    let settled = settle(&part, &existing);
    let mut mutations = Vec::new();
    mutations.extend(run_mutation(&part, run_row.as_ref())?);
    mutations.push(ledger_mutation(&part, &settled.counts));
    mutations.push(counter_mutation(run, slot, &settled.counts, counter.as_ref())?);
    mutations.extend(settled.failures.iter().map(|failure| failure_mutation(run, failure)));
    match target_mutations(&part, &settled) {
        Ok(target) => mutations.extend(target),
        Err(misfits) => return Ok(Err(RecordsError::Rejected(misfits))),
    }
    transaction.buffer(mutations)?;
    Ok(Ok(Loaded::Now(settled.counts)))
}

/// The row of this key.
async fn one(
    transaction: &ReadWriteTransaction,
    table: &str,
    columns: &[&str],
    key: SpannerKey,
) -> Result<Option<Row>> {
    let read = ReadRequest::builder(table, columns.to_vec()).with_keys(key).build();
    transaction.execute_read(read).await?.next().await.transpose()
}

/// The target rows of `part` that exist, in one round trip; `None` when one of them was not written by Tasuki. A part
/// without answers asks for none: its pipeline may be one that nobody could read.
pub(super) async fn existing(
    transaction: &ReadWriteTransaction,
    part: &Part,
) -> Result<Option<BTreeMap<Key, Existing>>> {
    let keys = settle::keys_to_read(part);
    if keys.is_empty() {
        return Ok(Some(BTreeMap::new()));
    }
    let found = transaction.execute_read(rows::read_existing(&part.pipeline, &keys)).await?;
    rows::existing(&part.pipeline, found).await
}

/// Rows of the target belong to somebody else.
pub(super) fn not_ours(part: &Part) -> RecordsError {
    RecordsError::Systemic(format!(
        "table {} holds rows with these keys that Tasuki did not write: give pipeline {} another [target] table",
        part.pipeline.table, part.pipeline.name
    ))
}

/// The row of Runs, from the first header that comes; totals and refusal from whichever header has them.
fn run_mutation(part: &Part, there: Option<&Row>) -> Result<Option<Mutation>> {
    let header = &part.header;
    let mut row = match there {
        Some(_) => Mutation::new_update_builder("Runs"),
        None => Mutation::new_insert_builder("Runs"),
    };
    row = row.set("run").to(part.id.run.to_string());
    let mut changes = there.is_none();
    if there.is_none() {
        row = runs::opened(row, header, RunState::Running);
    }
    if let Some(totals) = header.totals {
        row = row.set("expected_shards").to(int(totals.shards)).set("expected_rows").to(int(totals.rows));
        changes = true;
    }
    let refused_by = there.map(|row| row.get::<Option<i64>>("refused_shard")).transpose()?.flatten();
    let shard = i64::from(part.id.shard.0);
    if let Some(refused) = header.refused.as_ref().filter(|_| refused_by.is_none_or(|by| by < shard)) {
        row = row.set("refused").to(refused.clone()).set("refused_shard").to(shard);
        changes = true;
    }
    Ok(changes.then(|| row.build()))
}

fn ledger_mutation(part: &Part, counts: &Counts) -> Mutation {
    let ShardId { run, shard } = &part.id;
    let row = Mutation::new_insert_builder("Ledger")
        .set("run")
        .to(run.to_string())
        .set("shard")
        .to(i64::from(shard.0))
        .set("generation")
        .to(part.generation)
        .set("committed_at")
        .to(COMMIT_TIME.to_owned());
    let counts = Counts::COLUMNS.into_iter().zip(counts.values());
    counts.fold(row, |row, (column, count)| row.set(column).to(int(count))).build()
}

/// The run's counter, as it was read and more.
fn counter_mutation(run: &str, slot: u32, more: &Counts, there: Option<&Row>) -> Result<Mutation> {
    let mut counts = *more;
    if let Some(there) = there {
        let mut before = [0; Counts::COLUMNS.len()];
        for (value, column) in before.iter_mut().zip(Counts::COLUMNS) {
            *value = uint(there.get(column)?);
        }
        counts += Counts::of(before);
    }
    let row = Mutation::new_insert_or_update_builder("Counters");
    let row = row.set("run").to(run.to_owned()).set("slot").to(i64::from(slot));
    let counts = Counts::COLUMNS.into_iter().zip(counts.values());
    Ok(counts.fold(row, |row, (column, count)| row.set(column).to(int(count))).build())
}

fn failure_mutation(run: &str, failure: &Failure) -> Mutation {
    let Failure { ordinal, key, reason, message, attempts } = failure;
    Mutation::new_insert_builder("Failures")
        .set("run")
        .to(run.to_owned())
        .set("ordinal")
        .to(int(*ordinal))
        .set("key")
        .to(key.as_ref().map(ToString::to_string))
        .set("reason")
        .to(reason.clone())
        .set("message")
        .to(message.clone())
        .set("attempts")
        .to(i64::from(*attempts))
        .build()
}

/// Upserts and touches; or the rows whose values do not fit their columns.
fn target_mutations(part: &Part, settled: &Settled<'_>) -> std::result::Result<Vec<Mutation>, Vec<(u64, String)>> {
    let (mut mutations, mut misfits) = (Vec::new(), Vec::new());
    for row in &settled.upserts {
        match rows::upsert_values(part, row) {
            Some(values) => mutations.push(rows::upsert(&part.pipeline, values)),
            None => misfits.push((row.ordinal, "DATATYPE".to_owned())),
        }
    }
    let touches = settled.touches.iter().map(|row| rows::touch(&part.pipeline, rows::touch_values(part, row)));
    mutations.extend(touches);
    if misfits.is_empty() { Ok(mutations) } else { Err(misfits) }
}
