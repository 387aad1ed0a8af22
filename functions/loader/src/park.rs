//! RUNNING ⇄ PARKED: the store says what the run's marker says. The generator stands still by the marker alone.

use crate::{Loader, unconfirmed};
use serde::de::IgnoredAny;
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::{RunState, Why};
use tasuki_relay::record::{self, Header};

impl Loader {
    /// Takes an open run, which the store has in `state`, to PARKED or back, and announces each parking once.
    pub(crate) async fn mark_parked(&self, run: &RunId, state: Option<RunState>) -> Result<(), Why> {
        let marker = control::parked_by(&*self.objects, run).await?;
        let is_parked = state == Some(RunState::Parked);
        match marker {
            None if is_parked => self.records.resume(run).await.map_err(unconfirmed),
            None => Ok(()),
            Some(marker) if is_parked && self.memory(|memory| memory.parked_by(run) == Some(marker)) => Ok(()),
            Some(marker) => {
                let Some(header) = self.a_header(run).await? else { return Ok(()) };
                self.records.park(&header, marker).await.map_err(unconfirmed)?;
                self.publish_all(run).await?;
                self.memory(|memory| memory.parked(run, marker));
                Ok(())
            }
        }
    }

    /// What the run is: it may be parked before any part of it is loaded. `None` before its first shard, when there is nothing
    /// to stand still.
    async fn a_header(&self, run: &RunId) -> Result<Option<Header>, Why> {
        let first = self.objects.list(Bucket::Shards, &names::shards(run), None, 1).await?.pop();
        let Some(first) = first else { return Ok(None) };
        let shard = self.objects.read(Bucket::Shards, &first.name, None).await?;
        let header = shard.and_then(|shard| record::decode::<Header, IgnoredAny>(&shard.body).ok());
        Ok(header.map(|(header, _)| header).filter(|header| header.run == *run))
    }
}
