//! What a run with a cap goes through. Each world is right with the ledger as it is; the wrong variants fail in some of them.

use crate::world::{ROWS, SHARDS, START, Setup, World, run, unrenewed};
use anyhow::{Context, Result, bail, ensure};
use futures::future::join_all;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tasuki_relay::claims::Timing;
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::ports::Objects;
use tasuki_relay::sweep::Sweep;
use tokio::time::{sleep, timeout};

/// About half of what the rows cost.
pub const CAP: u64 = 800_000_000_000;

const ALL_ROWS: usize = (SHARDS as u64 * ROWS) as usize;
/// By then everybody has given back what he holds.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// Plays a scenario on a runtime of its own: nothing of the world before is left.
pub fn play(scenario: impl AsyncFn(Setup) -> Result<()>, setup: Setup) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(scenario(setup))
}

fn used(world: &World, percent: u64) -> Result<()> {
    let cost = world.cost();
    ensure!(cost * 100 >= CAP * percent, "less than {percent} % of the cap is used: {cost} of {CAP}");
    Ok(())
}

/// The run is parked at its cap, though another process sweeps, and goes on with a greater one to its end.
pub async fn parked_and_resumed(setup: Setup) -> Result<()> {
    let world = World::new(setup, CAP, 0).await;
    let sweeper = world.process().generator;
    let sweeps = async {
        loop {
            sleep(Duration::from_secs(7)).await;
            sweeper.due(Sweep::ByAge, None).await;
        }
    };
    tokio::select! { biased; delivered = world.deliver() => delivered?, () = sweeps => () }
    world.check_capped()?;
    let why = world.parked().await.context("the run is not parked")?;
    ensure!(why.starts_with("the budget of $0.80 is spent ($0.7"), "{why}");
    used(&world, 95)?;
    println!(
        "seed {}: {:.2} % used after {:?}",
        setup.seed,
        world.cost() as f64 * 100.0 / CAP as f64,
        world.clock.now().since(START)
    );
    sleep(SETTLED_WITHIN).await;
    ensure!(world.ledger().slices.is_empty(), "a slice is left: {:?}", world.ledger());
    world.check_settled()?;

    world.resume(4 * CAP).await;
    world.deliver().await?;
    ensure!(world.parked().await.is_none(), "a run with a greater cap is parked again");
    ensure!(world.answered() == ALL_ROWS, "{} rows are answered", world.answered());
    ensure!(world.paid.calls.lock().unwrap().values().all(|calls| *calls == 1), "a row is paid twice");
    sleep(SETTLED_WITHIN).await;
    world.check_settled()?;
    world.check_capped()
}

/// Every third write of the ledger fails, or its reply is lost.
pub async fn faults(setup: Setup) -> Result<()> {
    let world = World::new(setup, CAP, 30).await;
    world.deliver().await?;
    world.check_capped()?;
    ensure!(world.parked().await.is_some(), "the run is not parked");
    used(&world, 90)
}

/// One process dies at some time.
pub async fn crash_of_one(setup: Setup) -> Result<()> {
    let world = World::new(setup, CAP, 0).await;
    let dies_after = Duration::from_secs(8) + world.paid.chance.up_to(Duration::from_secs(20));
    let crash = async {
        sleep(dies_after).await;
        world.crash(0);
        sleep(Duration::from_secs(60)).await; // the living renew twice
        let left = unrenewed(&world.ledger(), world.clock.now(), Duration::from_secs(60));
        ensure!(left.len() == 1, "what a crashed process held is free before its lease is over");
        Ok(())
    };
    let (delivered, crashed) = futures::join!(world.deliver(), crash);
    delivered.and(crashed)?;
    world.check_capped()?;
    ensure!(world.parked().await.is_some(), "the run is not parked");
    sleep(SETTLED_WITHIN).await;
    world.check_settled()?;
    let spent = world.ledger().spent();
    ensure!(spent <= CAP && spent * 100 >= CAP * 95, "{spent} of {CAP} are spent");
    Ok(())
}

/// One process cannot reach the ledger any more, and has no use for its slice until the others have settled it.
pub async fn cut_off(setup: Setup) -> Result<()> {
    let world = World::new(setup, CAP, 0).await;
    let cut = async {
        sleep(Duration::from_secs(8)).await;
        let fate = &world.processes[0].fate;
        let ledger = world.objects.find(Bucket::State, &names::budget(&run())).expect("it works");
        fate.cut_off.store(ledger.generation, Relaxed);
        fate.turned_away.store(true, Relaxed);
        sleep(Timing::default().lease + world.paid.chance.up_to(Duration::from_secs(40))).await;
        fate.turned_away.store(false, Relaxed);
    };
    futures::join!(world.deliver(), cut).0?;
    world.check_capped()?;
    ensure!(world.parked().await.is_some(), "the run is not parked");
    used(&world, 95)
}

/// All processes die, and a sweep of a new one finds that.
pub async fn crash_of_all(setup: Setup) -> Result<()> {
    let mut world = World::new(setup, CAP, 0).await;
    let crash = async {
        sleep(Duration::from_secs(8)).await;
        (0..world.processes.len()).for_each(|nth| world.crash(nth));
    };
    tokio::select! { _ = world.deliver() => bail!("it is done"), () = crash => () }
    sleep(Duration::from_secs(100)).await;
    world.restart();
    let sweep = async || world.processes[0].generator.due(Sweep::ByAge, None).await;
    sweep().await;
    ensure!(!world.ledger().slices.is_empty(), "what crashed processes held is free before their lease is over");
    sleep(Duration::from_secs(60)).await;
    sweep().await;
    ensure!(world.ledger().slices.is_empty(), "a slice is left: {:?}", world.ledger());
    world.check_settled()?;
    world.check_capped()
}

/// All processes are told to stop.
pub async fn stop(setup: Setup) -> Result<()> {
    let world = World::new(setup, CAP, 0).await;
    let stop = async {
        sleep(Duration::from_secs(8)).await;
        let all = world.processes.iter().map(|process| process.generator.drain());
        timeout(Duration::from_secs(8), join_all(all)).await.context("Cloud Run kills after 10 s")
    };
    tokio::select! { _ = world.deliver() => bail!("it is done"), stopped = stop => drop(stopped?) }
    let ledger = world.ledger();
    // What was still under way counts at its worst.
    ensure!(ledger.slices.is_empty() && ledger.settled >= world.cost() && ledger.settled < CAP, "{ledger:?}");
    world.check_capped()
}

/// The ledger of a parked run is deleted by hand, and the run goes on with a little more.
pub async fn deleted(setup: Setup) -> Result<()> {
    let mut world = World::new(setup, CAP, 0).await;
    world.deliver().await?;
    sleep(SETTLED_WITHIN).await;
    world.objects.remove(Bucket::State, &names::budget(&run()), None).await?;
    world.restart();
    world.resume(CAP + CAP / 10).await;
    world.deliver().await?;
    world.check_capped()?;
    ensure!(world.parked().await.is_some(), "the run is not parked");
    ensure!(world.cost() > CAP, "nothing of the greater cap is used");
    Ok(())
}

/// The ledger is deleted by hand while the run works: what was held then, and not stored yet, may be spent beyond the cap. What is
/// under way then counts at its worst, so that less than the cap may be used.
pub async fn deleted_at_work(setup: Setup) -> Result<()> {
    let world = World::new(setup, CAP, 0).await;
    let delete = async {
        sleep(Duration::from_secs(5) + world.paid.chance.up_to(Duration::from_secs(20))).await;
        let unknown = world.ledger().committed() - world.stored_cost();
        world.paid.cap.fetch_add(unknown, Relaxed);
        world.objects.remove(Bucket::State, &names::budget(&run()), None).await
    };
    let (delivered, deleted) = futures::join!(world.deliver(), delete);
    delivered?;
    deleted?;
    world.check_capped()?;
    ensure!(world.parked().await.is_some(), "the run is not parked");
    Ok(())
}

/// A person lowers the cap while the run works: what is granted by then may be spent, and nothing else above the new cap.
pub async fn lowered(setup: Setup) -> Result<()> {
    let world = World::new(setup, 4 * CAP, 0).await;
    let lower = async {
        sleep(Duration::from_secs(5)).await;
        world.cap(CAP).await;
        sleep(Duration::from_secs(1)).await; // who read the cap before has written by then
        world.paid.cap.store(CAP.max(world.ledger().committed()), Relaxed);
    };
    let (delivered, ()) = futures::join!(world.deliver(), lower);
    delivered?;
    world.check_capped()?;
    ensure!(world.parked().await.is_some(), "the run is not parked");
    used(&world, 95)
}

/// The pipeline says no cap.
pub async fn without_a_cap(setup: Setup) -> Result<()> {
    let world = World::new(setup, CAP, 0).await;
    let plan = world.objects.find(Bucket::State, &names::plan(&run())).unwrap();
    let live = world.objects.live(Bucket::State);
    let body = live.iter().find(|live| live.meta.name == plan.name).unwrap();
    let text = String::from_utf8(body.body.to_vec())?.replace("[run]\\nmax_cost_usd = 0.80\\n", "");
    ensure!(!text.contains("max_cost_usd"), "{text}");
    world.objects.replace(Bucket::State, &plan.name, text.into(), plan.generation).await?;
    world.paid.cap.store(u64::MAX / 2, Relaxed);
    world.deliver().await?;
    ensure!(world.answered() == ALL_ROWS, "{} rows are answered", world.answered());
    let names: Vec<String> = world.objects.live(Bucket::State).into_iter().map(|object| object.meta.name).collect();
    ensure!(!names.iter().any(|name| name.ends_with("/budget")), "{names:?}");
    Ok(())
}
