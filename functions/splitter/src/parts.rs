//! A snapshot's shards: part by part, each claimed on its own, so that several processes share a large run.
//!
//! How they come to share it: the split's own claim is held for the plan and the snapshot only, and free while the parts are
//! worked on. So the run is due in every process's sweep, and open to every redelivered event, by the rules for any free claim;
//! who takes it up finds the snapshot, gives the claim back, and works on the parts that nobody holds. Who finds all parts ended
//! takes the claim once more and ends the split. Claims only save work: two processes on one part write the same shards.

use crate::Splitter;
use crate::lines::Lines;
use crate::split::{Ended, pipeline_of};
use crate::writer::{Start, Writer, header, write_shard};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use tasuki_relay::claims::{Claimed, Standing};
use tasuki_relay::limits::PART_ROWS_AT_ONCE;
use tasuki_relay::names::{self, Bucket, ShardId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{PartRow, RowsError, SourceRow, Why};
use tasuki_relay::record::{Header, Plan, Snapshot, SnapshotPart};
use tasuki_relay::sweep::PAGE;

impl Splitter {
    /// Writes the shards of every part that nobody else works on. All shards of the run are confirmed when it returns `Ok`.
    pub(crate) async fn split_parts(&self, mut plan: Plan, snapshot: Snapshot) -> Result<(), Why> {
        plan.source_time = snapshot.source_time;
        let pipeline = Arc::new(pipeline_of(&plan)?);
        match self.free_parts(&plan, &pipeline, &snapshot).await {
            Ok(()) => Ok(()),
            Err(Ended::Later(why)) => Err(why),
            Err(Ended::Refused(why)) => self.refuse(&plan, ShardIndex::REFUSAL, None, &why).await,
            Err(Ended::Gone) => {
                let why = "source_gone: the snapshot was deleted while it was read: drop the file again";
                self.refuse(&plan, ShardIndex::REFUSAL, None, why).await
            }
        }
    }

    async fn free_parts(&self, plan: &Plan, pipeline: &Arc<Pipeline>, snapshot: &Snapshot) -> Result<(), Ended> {
        let totals = snapshot.totals(plan.rows_per_shard);
        if totals.rows == 0 {
            let header = Header { totals: Some(totals), ..header(plan, ShardIndex(0), 0, &[]) };
            return write_shard(&*self.objects, header, &[]).await;
        }
        let mut held_elsewhere = false;
        for part in snapshot.parts(plan.rows_per_shard) {
            if self.jobs.stop().is_cancelled() {
                return Err(Why::Stopping.into());
            }
            let name = names::split_part(&plan.run, part.part);
            match self.claims.standing(&name).await? {
                Some(Standing::Ended) => continue,
                Some(Standing::Live) => {
                    held_elsewhere = true;
                    continue;
                }
                Some(Standing::Free(_)) | None => (),
            }
            match self.claim(&name).await? {
                Claimed::Ended => (),
                Claimed::Live | Claimed::Free(_) => held_elsewhere = true,
                Claimed::Won(claim) => match self.unless_stopped(self.split_part(plan, pipeline, snapshot, part)).await
                {
                    Ok(()) => claim.end().await?,
                    Err(ended) => {
                        claim.release().await;
                        return Err(ended);
                    }
                },
            }
        }
        if held_elsewhere { Err(Why::LiveClaim.into()) } else { Ok(()) }
    }

    /// Cuts work short when the process stops: a read of a snapshot may take minutes. Shards on their way are written or not:
    /// whoever takes the part up looks.
    pub(crate) async fn unless_stopped<T, E: From<Why>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.jobs.stop().cancelled() => Err(Why::Stopping.into()),
        }
    }

    /// Reads a part from its start, as keys are told apart from there, and writes the shards from the first absent one on.
    async fn split_part(
        &self,
        plan: &Plan,
        pipeline: &Arc<Pipeline>,
        snapshot: &Snapshot,
        part: SnapshotPart,
    ) -> Result<(), Ended> {
        let absent = self.first_absent(plan, part).await?;
        if absent == part.shard + part.shards {
            return Ok(());
        }
        let totals = (part.shard == 0).then(|| snapshot.totals(plan.rows_per_shard));
        let start = Start { first: part.first, shard: part.shard, absent, totals };
        let mut writer = Writer::new(self, plan, pipeline.clone(), start)?;
        let mut lines = Lines::new(pipeline, part.first);
        let (mut at, mut most) = (0, PART_ROWS_AT_ONCE);
        while at < part.rows {
            let piece = at..part.rows.min(at + most);
            let rows = match self.snapshots.read(snapshot, part.part, piece.clone()).await {
                Err(RowsError::TooLarge) if piece.end - piece.start > 1 => {
                    most = (piece.end - piece.start) / 2;
                    continue;
                }
                rows => rows?,
            };
            at = piece.end;
            for PartRow { pos, row } in in_order(rows, piece)? {
                let place = format!("row {pos} of part {} of the snapshot", part.part);
                writer.push(lines.line(SourceRow { place, row })).await?;
            }
            if self.jobs.stop().is_cancelled() {
                return Err(Why::Stopping.into());
            }
        }
        writer.close_part().await?;
        let (run, SnapshotPart { part, rows, shards, .. }) = (&plan.run, part);
        tracing::info!(%run, part, rows, shards, "split part {part} of run {run}");
        Ok(())
    }

    /// The first shard of a part that is not there; the one behind its last when all are.
    async fn first_absent(&self, plan: &Plan, part: SnapshotPart) -> Result<u32, Ended> {
        let (mut there, end) = (BTreeSet::new(), part.shard + part.shards);
        let mut after = names::before(&plan.run, part.shard);
        loop {
            let page = self.objects.list(Bucket::Shards, &names::shards(&plan.run), Some(&after), PAGE).await?;
            there.extend(page.iter().filter_map(|meta| ShardId::parse_object(&meta.name).ok()).map(|id| id.shard.0));
            match page.last() {
                Some(last) if page.len() == PAGE && there.last().is_some_and(|shard| *shard < end) => {
                    after.clone_from(&last.name);
                }
                _ => break,
            }
        }
        Ok((part.shard..end).find(|shard| !there.contains(shard)).unwrap_or(end))
    }
}

/// Rows in the order of their positions: exactly those that were asked for.
fn in_order(mut rows: Vec<PartRow>, wanted: Range<u64>) -> Result<Vec<PartRow>, RowsError> {
    rows.sort_unstable_by_key(|row| row.pos);
    if rows.iter().map(|row| row.pos).eq(wanted.clone()) {
        return Ok(rows);
    }
    Err(RowsError::Unknown(format!(
        "{} rows came that are not those from {} to {}",
        rows.len(),
        wanted.start,
        wanted.end
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(pos: u64) -> PartRow {
        PartRow { pos, row: Ok(serde_json::Map::new()) }
    }

    proptest! {
        #[test]
        fn rows_in_any_order_are_put_in_theirs(from in 0..50u64, rows in Just((0..40u64).collect::<Vec<_>>()).prop_shuffle()) {
            let sorted = in_order(rows.iter().map(|pos| row(from + pos)).collect(), from..from + 40).unwrap();
            prop_assert!(sorted.iter().map(|row| row.pos).eq(from..from + 40));
        }

        #[test]
        fn a_row_that_is_lost_doubled_or_foreign_is_noticed(at in 0..40usize, other in 0..60u64) {
            let mut rows: Vec<_> = (0..40).map(row).collect();
            rows[at].pos = other;
            prop_assert_eq!(in_order(rows.clone(), 0..40).is_ok(), at as u64 == other);
            rows.remove(at);
            prop_assert!(in_order(rows, 0..40).is_err());
        }
    }
}
