//! What a run has cost as far as it is stored: the answers objects, and the checkpoints of shards that have none yet.

use crate::Generator;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use tasuki_relay::budget::{Eyes, Ledger};
use tasuki_relay::checkpoint::Checkpoints;
use tasuki_relay::claims::Timing;
use tasuki_relay::names::{self, Bucket, RunId, Segment, ShardId};
use tasuki_relay::ports::{Meta, Objects, ObjectsError};
use tasuki_relay::record::{self, Bill, Spent};
use tasuki_relay::sweep::PAGE;

/// Objects that are read at once.
const AT_ONCE: usize = 16;

/// Of a header.
#[derive(Default, Deserialize)]
struct Wasted {
    #[serde(default)]
    wasted: Bill,
}

/// Of an answer line.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    spent: Spent,
    #[serde(rename = "outcome")]
    _outcome: IgnoredAny,
}

/// What all that is stored of a run cost, in picodollars.
///
/// # Errors
/// The first object that could not be read: a sum without it would be too low.
pub(super) async fn stored(objects: &dyn Objects, run: &RunId) -> Result<u64, ObjectsError> {
    // Checkpoints are listed first: what is answered meanwhile is found among the answers.
    let segments = list(objects, Bucket::State, &names::checkpoints(run)).await?;
    let answers = list(objects, Bucket::Answers, &names::shards(run)).await?;
    let answered: BTreeSet<ShardId> =
        answers.iter().filter_map(|meta| ShardId::parse_object(&meta.name).ok()).collect();
    let mut open = BTreeMap::<ShardId, Vec<Segment>>::new();
    for segment in segments.iter().filter_map(|meta| Segment::parse_object(&meta.name).ok()) {
        if !answered.contains(&segment.shard) {
            open.entry(segment.shard.clone()).or_default().push(segment);
        }
    }
    let answers = futures::stream::iter(answered).map(|id| of_answers(objects, id));
    let open = futures::stream::iter(open.into_values()).map(|segments| of_checkpoints(objects, segments));
    let sum = |sum: u64, cost: u64| async move { Ok(sum.saturating_add(cost)) };
    let answers = answers.buffer_unordered(AT_ONCE).try_fold(0, sum).await?;
    open.buffer_unordered(AT_ONCE).try_fold(answers, sum).await
}

async fn of_answers(objects: &dyn Objects, id: ShardId) -> Result<u64, ObjectsError> {
    let Some(object) = objects.read(Bucket::Answers, &id.object(), None).await? else { return Ok(0) };
    let Ok((header, lines)) = record::decode::<Wasted, Line>(&object.body) else { return Ok(0) }; // the loader tells of it
    Ok(lines.iter().map(|line| line.spent.cost).fold(header.wasted.cost, u64::saturating_add))
}

async fn of_checkpoints(objects: &dyn Objects, segments: Vec<Segment>) -> Result<u64, ObjectsError> {
    let mut all = Checkpoints::default();
    for segment in segments {
        let Some(object) = objects.read(Bucket::State, &segment.object(), None).await? else { continue };
        if let Ok(lines) = record::decode_lines(&object.body) {
            all.add(&segment, lines);
        }
    }
    Ok(all.cost())
}

async fn list(objects: &dyn Objects, bucket: Bucket, prefix: &str) -> Result<Vec<Meta>, ObjectsError> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = objects.list(bucket, prefix, after.as_deref(), PAGE).await?;
        after = page.last().map(|meta| meta.name.clone());
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
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
