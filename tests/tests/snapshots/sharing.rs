//! Splitters that share a snapshot: who reads which part, and what the next one finds of one that died.

use super::*;

#[tokio::test(start_paused = true)]
async fn splitters_that_sweep_join_in_on_free_parts() {
    let (world, rows) = (World::new(10, "").await, distinct(400));
    let mut snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 16);
    snapshots.latency = SECOND * 10;
    let (first, second) = (world.splitter(1, snapshots.named("first")), world.splitter(2, snapshots.named("second")));
    let (event, begun) = (world.event.clone(), first.clone());
    let begun = tokio::spawn(async move { begun.handle(&event).await });
    for minute in 0..10 {
        sleep(MINUTE).await;
        second.sweep().await.expect("memory");
        first.sweep().await.expect("memory");
        if second.handle(&world.event).await == Verdict::Done {
            world.check(&rows);
            let reads = snapshots.reads();
            let parts: BTreeSet<u32> = reads.iter().map(|(_, part)| *part).collect();
            assert_eq!((reads.len(), parts.len()), (16, 16), "each part is read once: {reads:?}");
            assert!(reads.iter().any(|(who, _)| *who == "second"), "the second helped: {reads:?}");
            assert!(minute < 5);
            begun.await.expect("no panic");
            return;
        }
    }
    panic!("the split does not end");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_another_holds_is_left_to_it_until_its_lease_ends() {
    let (world, rows) = (World::new(10, "").await, distinct(100));
    let snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 4);
    let others = Claims::new(world.objects.clone(), world.clock.clone(), Chance::seeded(9), Timing::default());
    let Ok(Claimed::Won(held)) = others.take(&names::split_part(&world.run(), 2)).await else {
        panic!("the claim is new")
    };
    let splitter = world.splitter(1, snapshots.clone());
    assert_eq!(splitter.handle(&world.event).await, Verdict::Later(Why::LiveClaim));
    assert_eq!(snapshots.reads().iter().map(|(_, part)| *part).collect::<Vec<_>>(), [0, 1, 3]);
    drop(held); // its holder died
    sleep(SECOND * 121).await;
    assert_eq!(splitter.handle(&world.event).await, Verdict::Done);
    assert_eq!(snapshots.reads().len(), 4, "the other parts had ended");
    world.check(&rows);
}

/// A process that dies with its n-th shard.
struct Dying {
    shards_left: AtomicU32,
}

#[async_trait]
impl Hook for Dying {
    async fn before(&self, _call: &mut Call) -> Result<(), ObjectsError> {
        match self.shards_left.load(Ordering::Relaxed) {
            0 => pending().await,
            _ => Ok(()),
        }
    }

    async fn after(&self, call: &Call) -> Result<(), ObjectsError> {
        let writes_shard = call.op == Op::Write && call.bucket == Bucket::Shards;
        if writes_shard && self.shards_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            pending::<()>().await;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_splitter_killed_with_any_shard_is_resumed_where_it_stood() {
    for dies_with in [1, 4, 5, 6, 13, 20] {
        let (world, rows) = (World::new(5, "").await, distinct(100));
        let snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 4);
        let dying = Hooked::new(world.objects.clone(), Dying { shards_left: AtomicU32::new(dies_with) });
        let killed = world.splitter_over(dying, 1, snapshots.named("killed"));
        let event = world.event.clone();
        let died = tokio::time::timeout(SECOND * 20, async move { killed.handle(&event).await }).await;
        assert!(died.is_err(), "it hangs for ever");
        sleep(SECOND * 121).await;
        let there: Vec<Object> = world.objects.versions(Bucket::Shards);
        let next = world.splitter(2, snapshots.named("next"));
        next.sweep().await.expect("memory");
        assert_eq!(next.handle(&world.event).await, Verdict::Done);
        world.check(&rows);
        let after = world.objects.versions(Bucket::Shards);
        assert!(there.iter().all(|shard| after.contains(shard)), "what was there stays");
        assert_eq!(after.len(), world.shards().len(), "no shard is written twice");
        assert_eq!(snapshots.jobs().len(), 1, "the snapshot is taken once");
    }
}
