//! The job that takes a snapshot: started once, asked for until it ends, and what its failures come to.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_no_second_job() {
    let (world, rows) = (World::new(10, "").await, distinct(30));
    let snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 2).script([Act::Lost]);
    let splitter = world.splitter(1, snapshots.clone());
    assert!(matches!(splitter.handle(&world.event).await, Verdict::Later(Why::Unconfirmed(_))));
    assert_eq!(splitter.handle(&world.event).await, Verdict::Done);
    assert_eq!(snapshots.jobs(), [names::snapshot_job(&world.run(), 1)]);
    world.check(&rows);
}

#[tokio::test(start_paused = true)]
async fn a_job_of_two_hours_is_asked_for_until_it_is_done_and_started_once() {
    let (world, rows) = (World::new(10, "").await, distinct(30));
    let long = [Act::Takes(MINUTE * 120)];
    let snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 2).script(long);
    let splitter = world.splitter(1, snapshots.clone());
    assert!(matches!(splitter.handle(&world.event).await, Verdict::Later(Why::Unconfirmed(_))));
    let mut sweeps = 0;
    while world.shards().is_empty() {
        sleep(MINUTE).await;
        splitter.sweep().await.expect("memory");
        sweeps += 1;
        assert!(sweeps < 130, "the sweep finds the job done");
    }
    assert_eq!(snapshots.jobs(), [names::snapshot_job(&world.run(), 1)]);
    world.check(&rows);
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_that_passes_the_next_job_is_started_later() {
    let (world, rows) = (World::new(10, "").await, distinct(30));
    let fails = ["backendError", "rateLimitExceeded"].map(Act::Fails);
    let snapshots = MemorySnapshots::new(world.clock.clone(), rows.clone(), "id", 2).script(fails);
    let splitter = world.splitter(1, snapshots.clone());
    for jobs in [1, 1] {
        assert!(matches!(splitter.handle(&world.event).await, Verdict::Later(Why::Unconfirmed(_))));
        assert_eq!(snapshots.jobs().len(), jobs, "not at once");
    }
    sleep(MINUTE).await;
    assert!(matches!(splitter.handle(&world.event).await, Verdict::Later(Why::Unconfirmed(_))));
    assert_eq!(snapshots.jobs().len(), 2);
    sleep(MINUTE * 2).await;
    assert_eq!(splitter.handle(&world.event).await, Verdict::Done);
    assert_eq!(snapshots.jobs().len(), 3);
    world.check(&rows);
}

#[tokio::test(start_paused = true)]
async fn five_failures_refuse_the_run() {
    let world = World::new(10, "").await;
    let fails = (0..9).map(|_| Act::Fails("backendError"));
    let snapshots = MemorySnapshots::new(world.clock.clone(), distinct(30), "id", 2).script(fails);
    let splitter = world.splitter(1, snapshots.clone());
    for _ in 0..60 {
        if splitter.handle(&world.event).await == Verdict::Done {
            break;
        }
        sleep(MINUTE).await;
    }
    assert_eq!(snapshots.jobs().len(), 5);
    let shards = world.shards();
    assert!(shards.len() == 1 && shards[0].0.refused.as_deref().is_some_and(|why| why.contains("backendError")));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_refused_refuses_the_run_once() {
    let world = World::new(10, "").await;
    let refused = [Act::Refused("resourcesExceeded")];
    let snapshots = MemorySnapshots::new(world.clock.clone(), distinct(30), "id", 2).script(refused);
    let splitter = world.splitter(1, snapshots.clone());
    assert_eq!(splitter.handle(&world.event).await, Verdict::Done);
    assert_eq!(splitter.handle(&world.event).await, Verdict::Done);
    let shards = world.shards();
    assert_eq!((shards.len(), shards[0].0.refused.as_deref()), (1, Some("resourcesExceeded")));
    assert_eq!(snapshots.jobs().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_deleted_while_it_is_read_refuses_the_run() {
    let world = World::new(10, "").await;
    let mut snapshots = MemorySnapshots::new(world.clock.clone(), distinct(100), "id", 4);
    snapshots.latency = SECOND;
    let (splitter, event) = (world.splitter(1, snapshots.clone()), world.event.clone());
    let begun = tokio::spawn(async move { splitter.handle(&event).await });
    sleep(Duration::from_millis(2_500)).await;
    snapshots.delete();
    assert_eq!(begun.await.expect("no panic"), Verdict::Done);
    let last = world.shards().pop().expect("shards").0;
    assert_eq!(last.shard, tasuki_relay::names::ShardIndex::REFUSAL);
    assert!(last.refused.is_some_and(|why| why.starts_with("source_gone")));
}
