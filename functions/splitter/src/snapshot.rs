//! The snapshot of a run: one job that succeeds, whoever asks how often, and then a record that says where its rows are.

use crate::Splitter;
use crate::split::{Ended, pipeline_of};
use std::time::Duration;
use tasuki_relay::limits::SNAPSHOT_ATTEMPTS_MAX;
use tasuki_relay::names::{self, Bucket, RunId, ShardIndex};
use tasuki_relay::ports::{Order, Taking, Why};
use tasuki_relay::record::{Plan, Scan, Snapshot};
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
        let pipeline = pipeline_of(plan)?;
        let mut attempt = 1;
        loop {
            let order = Order {
                run: plan.run.clone(),
                attempt,
                source: scan.source.clone(),
                parts: scan.parts,
                key: pipeline.key.clone(),
            };
            match self.wait_for(&order).await? {
                Taking::Ready(snapshot) => return self.record_snapshot(snapshot, scan).await,
                Taking::Pending => return Err(Why::Unconfirmed("the snapshot's job is at work".into()).into()),
                Taking::Failed { reason, .. } if attempt == SNAPSHOT_ATTEMPTS_MAX => {
                    let why = format!("BigQuery failed {attempt} times to take the snapshot, at last with {reason}");
                    return Err(Ended::Refused(format!("{why}: drop the file again later")));
                }
                Taking::Failed { ended, reason } if self.clock.now() < ended + AGAIN * (1 << (attempt - 1)) => {
                    return Err(Why::Unconfirmed(format!("the snapshot's job {attempt} failed: {reason}")).into());
                }
                Taking::Failed { .. } => attempt += 1,
            }
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
    async fn record_snapshot(&self, mut snapshot: Snapshot, scan: &Scan) -> Result<Snapshot, Ended> {
        if let Some(most) = scan.source.max_rows {
            snapshot.keep(most.into());
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

fn parse(run: &RunId, body: &[u8]) -> Result<Snapshot, Why> {
    serde_json::from_slice(body).map_err(|_| Why::Systemic(format!("the snapshot of run {run} is corrupt: delete it")))
}
