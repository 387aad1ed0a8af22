//! What is told of a run's calls before they are loaded is what they come to when they are.
#![expect(clippy::unwrap_used, reason = "a test may unwrap")]

use bytes::Bytes;
use std::collections::BTreeSet;
use tasuki_relay::clock::Clock;
use tasuki_relay::names::{Bucket, Segment, ShardIndex};
use tasuki_relay::ports::{Objects, Part};
use tasuki_relay::record::{AnswerLine, Bill, CheckpointLine, Counts, GivenBack, encode, encode_lines};
use tasuki_relay::settle::settle;
use tasuki_relay::stored::{self, Stored};
use tasuki_tests::build::{answer, failed, part, pipeline, run_id};
use tasuki_tests::memory::MemoryObjects;

const RUN: i64 = 1;
const NO_LIMIT: usize = usize::MAX;

/// Three rows of one call each, one of which failed and one of which was mended, and an answer that was thrown away.
fn shard(index: u32) -> Part {
    let rows = vec![(1, answer("f")), (2, failed("malformed")), (3, answer("f"))];
    let mut part = part(&pipeline("themes"), RUN, ShardIndex(index), rows);
    (part.header.wasted_answers, part.header.wasted) = (1, Bill { calls: 1, cost: 11, ..Bill::default() });
    part.lines[2].spent.salvage = Bill { calls: 1, cost: 3, ..Bill::default() };
    part
}

async fn put_answers(objects: &MemoryObjects, part: &Part) {
    let body = Bytes::from(encode(&part.header, &part.lines));
    objects.create(Bucket::Answers, &part.id.object(), body).await.unwrap();
}

async fn put_segment(objects: &MemoryObjects, part: &Part, (epoch, seq): (u32, u32), lines: &[CheckpointLine]) {
    let name = Segment { shard: part.id.clone(), epoch, seq }.object();
    objects.create(Bucket::State, &name, Bytes::from(encode_lines(lines))).await.unwrap();
}

/// What loading the part counts, without its rows.
fn loaded(part: &Part) -> Counts {
    let counts = settle(part, &Default::default()).counts;
    Counts { shards: 0, loaded: 0, failed: 0, ..counts }
}

async fn found(objects: &MemoryObjects, loaded: &[u32], most: usize) -> Stored {
    let loaded: BTreeSet<ShardIndex> = loaded.iter().copied().map(ShardIndex).collect();
    stored::calls(objects, &run_id(RUN), &loaded, most).await.unwrap()
}

#[tokio::test]
async fn each_call_of_a_run_is_counted_once_wherever_it_is_stored() {
    let objects = MemoryObjects::new(Clock::system());
    assert_eq!(found(&objects, &[], NO_LIMIT).await, Stored::default());
    let parts: Vec<Part> = (0..5).map(shard).collect();
    let settled = |line: &AnswerLine| CheckpointLine::Settled(line.clone());
    // 0 and 2 are loaded; 1 and 3 have answers, and the checkpoints that those were made of; of 4 there are only checkpoints.
    for part in &parts {
        put_segment(&objects, part, (1, 0), &[settled(&part.lines[0])]).await;
    }
    for part in &parts[..4] {
        put_answers(&objects, part).await;
    }
    let [_, answered, _, also, open] = parts.try_into().unwrap();
    // Its first row was paid for again, one more failed, and the last was given back twice, with a part of it in memory.
    let back = |spent| CheckpointLine::Unsettled { ordinal: open.lines[2].ordinal, spent, why: GivenBack::Stopped };
    let mut late = open.lines[0].clone();
    late.spent.latency_ms += 1;
    put_segment(&objects, &open, (2, 0), &[settled(&late), back(open.lines[0].spent)]).await;
    put_segment(&objects, &open, (3, 0), &[settled(&open.lines[1]), back(open.lines[2].spent)]).await;

    let mut of_answers = loaded(&answered);
    of_answers += loaded(&also);
    let mut all = of_answers;
    let (mut mended, wasted) = (open.lines[2].spent, late.spent.bill());
    mended.retries = mended.bill().without(mended.salvage);
    all.spend(&open.lines[0].spent, false);
    all.spend(&open.lines[1].spent, true);
    all.spend(&mended, false);
    all.throw_away(1, wasted);
    assert_eq!(found(&objects, &[0, 2], NO_LIMIT).await, Stored { counts: all, unread: 0 });
    assert_eq!(all.paid_calls, 2 * 4 + 4, "all that is not loaded");

    // Beyond the limit nothing is read of a shard that cannot be read whole, and that is said.
    assert_eq!(found(&objects, &[0, 2], 5).await, Stored { counts: all, unread: 0 });
    assert_eq!(found(&objects, &[0, 2], 4).await, Stored { counts: of_answers, unread: 3 });
    assert_eq!(found(&objects, &[0, 2], 1).await, Stored { counts: loaded(&answered), unread: 4 });
    assert_eq!(found(&objects, &[0, 1, 2, 3, 4], NO_LIMIT).await, Stored::default(), "the store has all");
}

#[tokio::test]
async fn a_corrupt_object_counts_nothing_and_hinders_no_other() {
    let objects = MemoryObjects::new(Clock::system());
    let (corrupt, whole) = (shard(0), shard(1));
    objects.create(Bucket::Answers, &corrupt.id.object(), Bytes::from_static(b"junk")).await.unwrap();
    put_answers(&objects, &whole).await;
    assert_eq!(found(&objects, &[], NO_LIMIT).await, Stored { counts: loaded(&whole), unread: 0 });
}
