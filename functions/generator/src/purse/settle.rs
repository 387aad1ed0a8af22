//! What a run has cost as far as it is stored: what crashed processes held of its budget is settled from that.

use crate::Generator;
use bytes::Bytes;
use std::collections::BTreeSet;
use tasuki_relay::budget::{Eyes, Ledger};
use tasuki_relay::claims::Timing;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::ports::{Objects, ObjectsError};
use tasuki_relay::stored;

/// What all that is stored of a run cost, in picodollars.
///
/// # Errors
/// The first object that could not be read: a sum without it would be too low.
pub(super) async fn stored(objects: &dyn Objects, run: &RunId) -> Result<u64, ObjectsError> {
    Ok(stored::calls(objects, run, &BTreeSet::new(), usize::MAX).await?.counts.cost)
}

impl Generator {
    /// Settles the slices of an open run that are all crashed processes': nobody is left who would.
    pub(crate) async fn settle_dead(&self, run: &RunId) -> Result<(), ObjectsError> {
        let name = names::budget(run);
        let Some(object) = self.objects.read(Bucket::State, &name, None).await? else { return Ok(()) };
        let Some(mut ledger) = Ledger::parse(&object.body, object.meta.created) else { return Ok(()) };
        let Timing { lease, others_are_dead, .. } = self.settings.timing;
        let eyes = Eyes { owner: "", now: self.clock.now(), lease, others_are_dead };
        if ledger.slices.is_empty() || !ledger.all_dead(eyes) || self.purses.has(run) {
            return Ok(());
        }
        ledger.settle(eyes, stored(&*self.objects, run).await?);
        ledger.attempt.clear(); // nobody's: a lost reply is no loss, the next sweep looks again
        let body = Bytes::from(serde_json::to_vec(&ledger).expect("a ledger is plain data"));
        match self.objects.replace(Bucket::State, &name, body, object.meta.generation).await {
            Ok(_) | Err(ObjectsError::Precondition) => Ok(()), // somebody works again
            Err(error) => Err(error),
        }
    }
}
