//! The paid calls of a run as far as objects tell them: its answers, and the checkpoints of shards that have none yet.

use crate::checkpoint::Checkpoints;
use crate::names::{self, Bucket, RunId, Segment, ShardId, ShardIndex};
use crate::ports::{Objects, ObjectsError};
use crate::record::{self, Bill, Counts, Spent};
use crate::sweep::list;
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};

/// Objects that are read at once: each is whole in memory, a shard's answers in a MB or so.
const AT_ONCE: usize = 16;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Calls, tokens, costs and their classes; no rows and no parts: those count when they are loaded.
    pub counts: Counts,
    /// Objects beyond the limit, which were not read.
    pub unread: usize,
}

/// Of a header.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wasted {
    wasted_answers: u64,
    wasted: Bill,
}

/// Of an answer line.
#[derive(Deserialize)]
struct Line {
    outcome: End,
    #[serde(default)]
    spent: Spent,
}

/// Of a [`record::Outcome`]: whether it is a failure.
#[derive(Deserialize)]
struct End {
    #[serde(default)]
    failed: Option<IgnoredAny>,
}

/// The calls of all shards of `run` but those that are `loaded`, each call once. Reads `most` objects at most, the answers first.
///
/// # Errors
/// The first object that could not be read: a sum without it would be too low.
pub async fn calls(
    objects: &dyn Objects,
    run: &RunId,
    loaded: &BTreeSet<ShardIndex>,
    most: usize,
) -> Result<Stored, ObjectsError> {
    let first = first_absent(loaded);
    // Checkpoints are listed first: what is answered meanwhile is found among the answers.
    let before = ShardId { run: run.clone(), shard: ShardIndex(first) }.checkpoints();
    let segments = list(objects, Bucket::State, &names::checkpoints(run), Some(before)).await?;
    let answers = list(objects, Bucket::Answers, &names::shards(run), Some(names::before(run, first))).await?;
    let answered: BTreeSet<ShardId> =
        answers.iter().filter_map(|meta| ShardId::parse_object(&meta.name).ok()).collect();
    let mut open = BTreeMap::<ShardId, Vec<Segment>>::new();
    for segment in segments.iter().filter_map(|meta| Segment::parse_object(&meta.name).ok()) {
        if !answered.contains(&segment.shard) && !loaded.contains(&segment.shard.shard) {
            open.entry(segment.shard.clone()).or_default().push(segment);
        }
    }
    let (mut left, mut unread) = (most, 0);
    let mut take = |objects: usize| {
        let taken = objects <= left;
        if taken {
            left -= objects
        } else {
            unread += objects
        }
        taken
    };
    let answered: Vec<ShardId> = answered.into_iter().filter(|id| !loaded.contains(&id.shard) && take(1)).collect();
    // Of a shard all checkpoints or none: the lowest of a row says what it cost.
    let open: Vec<Vec<Segment>> = open.into_values().filter(|segments| take(segments.len())).collect();

    let sum = |mut sum: Counts, more: Counts| async move {
        sum += more;
        Ok(sum)
    };
    let answered = futures::stream::iter(answered).map(|id| of_answers(objects, id));
    let counts = answered.buffer_unordered(AT_ONCE).try_fold(Counts::default(), sum).await?;
    let open = futures::stream::iter(open).map(|segments| of_checkpoints(objects, segments));
    let counts = open.buffer_unordered(AT_ONCE).try_fold(counts, sum).await?;
    Ok(Stored { counts, unread })
}

/// The lowest shard that is not loaded: listings begin there.
fn first_absent(loaded: &BTreeSet<ShardIndex>) -> u32 {
    let in_turn = loaded.iter().zip(0..).take_while(|(shard, at)| shard.0 == *at);
    in_turn.last().map_or(0, |(shard, _)| shard.0 + 1)
}

async fn of_answers(objects: &dyn Objects, id: ShardId) -> Result<Counts, ObjectsError> {
    let mut counts = Counts::default();
    let Some(object) = objects.read(Bucket::Answers, &id.object(), None).await? else { return Ok(counts) };
    // The loader tells of one that is corrupt.
    if let Ok((Wasted { wasted_answers, wasted }, lines)) = record::decode::<Wasted, Line>(&object.body) {
        counts.throw_away(wasted_answers, wasted);
        lines.iter().for_each(|line| counts.spend(&line.spent, line.outcome.failed.is_some()));
    }
    Ok(counts)
}

async fn of_checkpoints(objects: &dyn Objects, segments: Vec<Segment>) -> Result<Counts, ObjectsError> {
    let mut all = Checkpoints::default();
    for segment in segments {
        let Some(object) = objects.read(Bucket::State, &segment.object(), None).await? else { continue };
        if let Ok(lines) = record::decode_lines(&object.body) {
            all.add(&segment, lines);
        }
    }
    Ok(all.counts())
}
