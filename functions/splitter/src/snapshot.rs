//! The snapshot of a run: one job that succeeds, whoever asks how often, and then a record that says where its rows are.

use crate::Splitter;
use crate::split::{Ended, pipeline_of};
use std::time::Duration;
use tasuki_relay::limits::{
    FILE_ROWS_MAX, PART_BYTES_AIMED, PART_BYTES_MAX, PART_ROWS_AIMED, PART_ROWS_MAX, PARTS_MAX, SHARDS_MAX,
    SNAPSHOT_ATTEMPTS_MAX,
};
use tasuki_relay::names::{self, Bucket, RunId, ShardIndex};
use tasuki_relay::ports::{Order, Taking, Why};
use tasuki_relay::record::{Plan, Scan, Snapshot, Totals};
use tasuki_relay::write::{Written, create_once};

/// A job is waited for so long; a longer one is asked for again with the next event or sweep.
const WAIT: Duration = Duration::from_secs(60);
/// First and longest pause between two looks at a job.
const LOOK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// After its first failure a job is tried again so much later; then twice as long each time.
const AGAIN: Duration = Duration::from_secs(60);

impl Splitter {
    /// The run's snapshot, which is taken unless it is there; `None` when it is refused, which a shard says then.
    pub(crate) async fn snapshot(&self, plan: &Plan, scan: &Scan) -> Result<Option<Snapshot>, Why> {
        if let Some(found) = self.found_snapshot(&plan.run).await? {
            return Ok(Some(found));
        }
        match self.take_snapshot(plan, scan).await {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(Ended::Later(why)) => Err(why),
            Err(Ended::Refused(why)) => self.refuse(plan, ShardIndex::REFUSAL, None, &why).await.map(|()| None),
            Err(Ended::Gone) => Err(Why::Unconfirmed("the snapshot was gone before it was recorded".into())),
        }
    }

    pub(crate) async fn found_snapshot(&self, run: &RunId) -> Result<Option<Snapshot>, Why> {
        let object = self.objects.read(Bucket::State, &names::snapshot(run), None).await?;
        object.map(|object| parse(run, &object.body)).transpose()
    }

    async fn take_snapshot(&self, plan: &Plan, scan: &Scan) -> Result<Snapshot, Ended> {
        let mut order = Order {
            run: plan.run.clone(),
            attempt: 1,
            again: None,
            source: scan.source.clone(),
            parts: scan.parts,
            key: pipeline_of(plan)?.key,
        };
        let (whole, bytes) = self.take(&mut order).await?;
        let rows = whole.rows.iter().sum();
        let snapshot = match parts_for(rows, bytes, order.parts).map_err(Ended::Refused)? {
            Some(parts) => {
                tracing::info!(run = %plan.run, rows, bytes, parts, "the snapshot is cut again, into {parts} parts");
                let cut = Order { attempt: order.attempt + 1, again: Some(order.attempt), parts, ..order };
                self.cut_again(whole, cut).await?
            }
            None => whole,
        };
        self.record_snapshot(snapshot, plan, scan).await
    }

    /// Gives jobs for the order, one after the other failed, until one has the snapshot. Tells its bytes, too.
    async fn take(&self, order: &mut Order) -> Result<(Snapshot, u64), Ended> {
        while order.attempt <= SNAPSHOT_ATTEMPTS_MAX {
            let attempt = order.attempt;
            match self.wait_for(order).await? {
                Taking::Ready { snapshot, bytes } => return Ok((snapshot, bytes)),
                Taking::Pending => return Err(Why::Unconfirmed("the snapshot's job is at work".into()).into()),
                Taking::Failed { reason, .. } if attempt == SNAPSHOT_ATTEMPTS_MAX => {
                    let why = format!("the snapshot took {attempt} jobs, of which the last failed with {reason}");
                    return Err(Ended::Refused(format!("{why}: drop the file again later")));
                }
                Taking::Failed { ended, reason } if self.clock.now() < ended + AGAIN * (1 << (attempt - 1)) => {
                    return Err(Why::Unconfirmed(format!("the snapshot's job {attempt} failed: {reason}")).into());
                }
                Taking::Failed { .. } => order.attempt += 1,
            }
        }
        let why = format!("the snapshot took {SNAPSHOT_ATTEMPTS_MAX} jobs, and no other is started to cut it again");
        Err(Ended::Refused(format!("{why}: drop the file again later")))
    }

    /// The same rows, as old as they are, in other parts. Where BigQuery does not cut them again they are taken as they lie: they
    /// are paid for, and large parts only take longer, unless the keys of one do not fit into memory.
    async fn cut_again(&self, whole: Snapshot, mut order: Order) -> Result<Snapshot, Ended> {
        match self.take(&mut order).await {
            Ok((cut, _)) => Ok(Snapshot { source_time: whole.source_time, ..cut }),
            Err(Ended::Refused(why)) if whole.rows.iter().all(|rows| *rows <= FILE_ROWS_MAX) => {
                tracing::warn!(run = %whole.run, "the snapshot is not cut again, its parts stay large: {why}");
                Ok(whole)
            }
            Err(ended) => Err(ended),
        }
    }

    /// Looks at a job until it is over, or [`WAIT`] is.
    async fn wait_for(&self, order: &Order) -> Result<Taking, Ended> {
        let (until, mut pause) = (self.clock.instant() + WAIT, LOOK.0);
        loop {
            let taking = self.snapshots.take(order).await?;
            if taking != Taking::Pending || self.clock.instant() >= until {
                return Ok(taking);
            }
            let stopped = tokio::time::timeout(pause, self.jobs.stop().cancelled()).await.is_ok();
            if stopped {
                return Err(Why::Stopping.into());
            }
            pause = LOOK.1.min(pause * 2);
        }
    }

    /// The first record is the snapshot: who comes later follows it.
    async fn record_snapshot(&self, mut snapshot: Snapshot, plan: &Plan, scan: &Scan) -> Result<Snapshot, Ended> {
        if let Some(most) = scan.source.max_rows {
            snapshot.keep(most.into());
        }
        let Totals { shards, rows } = snapshot.totals(plan.rows_per_shard);
        if shards > SHARDS_MAX {
            return Err(Ended::Refused(format!(
                "{rows} rows in shards of {} are more than {SHARDS_MAX} shards: raise rows_per_shard under [run]",
                plan.rows_per_shard
            )));
        }
        let body = serde_json::to_vec_pretty(&snapshot).expect("a snapshot is plain data");
        match create_once(&*self.objects, Bucket::State, &names::snapshot(&snapshot.run), body.into()).await? {
            Written::Won(_) | Written::Identical(_) => {
                let (run, job) = (&snapshot.run, &snapshot.job);
                let (rows, parts) = (snapshot.rows.iter().sum::<u64>(), snapshot.rows.len());
                tracing::info!(%run, job, rows, parts, "snapshot of run {run}: {rows} rows in {parts} parts");
                Ok(snapshot)
            }
            Written::Foreign(first) => Ok(parse(&snapshot.run, &first.body)?),
        }
    }
}

/// How many parts a snapshot of `parts` parts should have instead; `None` when they do. A dry run tells what a query reads, not
/// what it gives: only the snapshot itself tells its size.
///
/// # Errors
/// The reason for which so many rows are refused.
fn parts_for(rows: u64, bytes: u64, parts: u32) -> Result<Option<u32>, String> {
    let most = u64::from(PARTS_MAX) * PART_ROWS_MAX;
    if rows > most {
        return Err(format!("the source gives {rows} rows, and a run has at most {most}: split it by a condition"));
    }
    let fits = rows <= u64::from(parts) * PART_ROWS_MAX && bytes <= u64::from(parts) * PART_BYTES_MAX;
    let wanted = rows.div_ceil(PART_ROWS_AIMED).max(bytes.div_ceil(PART_BYTES_AIMED));
    let wanted = wanted.min(PARTS_MAX.into()) as u32;
    Ok((!fits && wanted > parts).then_some(wanted))
}

fn parse(run: &RunId, body: &[u8]) -> Result<Snapshot, Why> {
    serde_json::from_slice(body).map_err(|_| Why::Systemic(format!("the snapshot of run {run} is corrupt: delete it")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_cut_again_when_its_parts_have_more_rows_than_they_may() {
        assert_eq!(parts_for(PART_ROWS_MAX - 1, 0, 1), Ok(None));
        assert_eq!(parts_for(PART_ROWS_MAX, 0, 1), Ok(None));
        assert_eq!(parts_for(PART_ROWS_MAX + 1, 0, 1), Ok(Some(36)));
        assert_eq!(parts_for(7 * PART_ROWS_MAX, 0, 7), Ok(None), "on average");
    }

    #[test]
    fn a_snapshot_is_cut_again_when_its_parts_have_more_bytes_than_they_may() {
        assert_eq!(parts_for(1, PART_BYTES_MAX - 1, 1), Ok(None));
        assert_eq!(parts_for(1, PART_BYTES_MAX, 1), Ok(None));
        assert_eq!(parts_for(1, PART_BYTES_MAX + 1, 1), Ok(Some(33)));
        assert_eq!(parts_for(1, u64::MAX, 1), Ok(Some(PARTS_MAX)));
        assert_eq!(parts_for(1, u64::MAX, PARTS_MAX), Ok(None), "more parts there are not: they are read in pieces");
    }

    #[test]
    fn more_rows_than_the_most_parts_may_have_are_refused() {
        let most = u64::from(PARTS_MAX) * PART_ROWS_MAX;
        assert_eq!(parts_for(most - 1, 0, PARTS_MAX), Ok(None));
        assert_eq!(parts_for(most, 0, PARTS_MAX), Ok(None));
        assert!(parts_for(most + 1, 0, PARTS_MAX).is_err_and(|why| why.contains("4000000001 rows")));
        assert_eq!(parts_for(most, 0, 1), Ok(Some(PARTS_MAX)));
    }
}
