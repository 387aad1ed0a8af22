use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use tokio::time::sleep;

fn pace() -> Pace {
    Pace::new(Clock::system(), Chance::seeded(1), 1)
}

fn gate() -> Arc<Gate> {
    pace().gate(&ModelSettings::default())
}

async fn pass(gate: &Arc<Gate>) -> Permit {
    gate.pass(Ceilings::default(), 100).await
}

/// The longest time that the model names in a history, in milliseconds.
const HOLD_MS: u64 = 100_000;
/// Between two calls at the slowest rate.
const SLOWEST: Duration = Duration::from_secs(2);

proptest! {
    #[test]
    fn a_backoff_never_overflows_shrinks_or_passes_its_cap(attempt in any::<u32>(), base in 1..u64::MAX, cap in any::<u64>()) {
        let at = |attempt| backoff(attempt, Duration::from_millis(base), Duration::from_millis(cap));
        prop_assert!(at(attempt) <= Duration::from_millis(cap));
        prop_assert!(at(attempt) <= at(attempt.saturating_add(1)));
    }

    /// Whatever comes back whenever: the next call waits for a reply, or for a time that comes.
    #[test]
    fn no_history_stops_a_model_for_ever(replies in proptest::collection::vec((0..3u8, 0..20_000u64, proptest::option::of(0..HOLD_MS)), 1..200)) {
        let (mut law, mut now, mut flying) = (Law::default(), Duration::ZERO, Vec::new());
        for (reply, wait, hold) in replies {
            while let Some(at) = law.permit_at(now) && flying.len() < 50 {
                prop_assert!(at <= now + Duration::from_millis(HOLD_MS) + SLOWEST, "{at:?} at {now:?}");
                if at > now {
                    now = at.min(now + Duration::from_millis(wait));
                    break;
                }
                flying.push(law.on_send(now));
            }
            now += Duration::from_millis(wait);
            let Some(call) = flying.pop() else { continue };
            match reply {
                0 => law.on_ok(now, call),
                1 => law.on_rejected(now, call, hold.map(Duration::from_millis)),
                _ => law.on_lost(),
            }
            prop_assert!(law.rate().is_none_or(|rate| rate.is_finite() && rate > 0.0));
        }
        prop_assert!(!flying.is_empty() || law.permit_at(now).is_some());
    }
}

#[test]
fn the_wait_after_errors_doubles_until_its_cap() {
    let waits = (0..9).map(|attempt| backoff(attempt, BASE, CAP).as_secs());
    assert_eq!(waits.collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_rejects_nothing_is_at_full_speed_almost_at_once() {
    let (gate, clock, mut flying) = (gate(), Clock::system(), Vec::new());
    let start = clock.instant();
    while flying.len() < 5_000 {
        flying.push(pass(&gate).await);
    }
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_that_something_else_bounds_follow_their_answers_at_once() {
    let (gate, clock, mut flying) = (gate(), Clock::system(), Vec::new());
    while flying.len() < 500 {
        flying.push(pass(&gate).await);
    }
    sleep(Duration::from_secs(2)).await;
    let answered = clock.instant();
    for permit in flying {
        permit.answered(100);
        drop(pass(&gate).await);
    }
    assert_eq!(answered.elapsed(), Duration::ZERO, "each burst is one that the model has taken before");
}

#[tokio::test(start_paused = true)]
async fn a_time_that_the_model_names_holds_every_call_until_then_and_not_much_longer() {
    let (gate, start) = (gate(), Clock::system().instant());
    let (one, two) = (pass(&gate).await, pass(&gate).await);
    one.rejected(Some(Duration::from_secs(30)));
    two.rejected(Some(Duration::from_secs(5)));
    drop(pass(&gate).await);
    assert!((30..=31).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_wrong_time_does_not_stop_the_relay_for_a_day() {
    let (gate, start) = (gate(), Clock::system().instant());
    pass(&gate).await.rejected(Some(Duration::MAX));
    drop(pass(&gate).await);
    assert!(start.elapsed() <= HOLD_MAX + RETURNS_WITHIN + Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_pass_in_the_order_in_which_they_came() {
    let gate = gate();
    pass(&gate).await.rejected(Some(Duration::from_secs(5)));
    let (passed, mut calls) = (Arc::new(AtomicU32::new(0)), tokio::task::JoinSet::new());
    for nth in 0..20 {
        let (gate, passed) = (gate.clone(), passed.clone());
        calls.spawn(async move {
            let permit = pass(&gate).await;
            assert_eq!(passed.fetch_add(1, Relaxed), nth);
            permit.answered(1);
        });
        tokio::task::yield_now().await;
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_keeps_no_other_from_passing() {
    let gate = gate();
    pass(&gate).await.rejected(Some(Duration::from_secs(5)));
    let given_up = tokio::time::timeout(Duration::from_secs(1), pass(&gate)).await;
    assert!(given_up.is_err());
    drop(pass(&gate).await);
}

/// A model that is down for a minute, told by "overloaded" 503s.
#[tokio::test(start_paused = true)]
async fn an_outage_is_asked_about_sparsely_and_is_over_within_seconds() {
    let (gate, clock) = (gate(), Clock::system());
    let start = clock.instant();
    let (down, up) = (start + Duration::from_secs(20), start + Duration::from_secs(80));
    let mut sent = [0; 100];
    let mut room = 120.0;
    let mut filled = start;
    while start.elapsed() < Duration::from_secs(100) {
        let permit = pass(&gate).await;
        let now = clock.instant();
        sent[start.elapsed().as_secs().min(99) as usize] += 1;
        room = f64::min(room + 100.0 * (now - filled).as_secs_f64(), 100.0);
        filled = now;
        let fine = (now < down || now >= up) && room >= 1.0;
        room -= if fine { 1.0 } else { 0.0 };
        tokio::spawn(async move {
            sleep(Duration::from_millis(500)).await;
            if fine { permit.answered(1) } else { permit.rejected(None) }
        });
    }
    let (before, during, after): (u32, u32, u32) =
        (sent[10..20].iter().sum(), sent[25..80].iter().sum(), sent[85..95].iter().sum());
    assert!(before > 850, "{before} of 1,000 before");
    assert!(during <= 60, "{during} in 55 s of the outage");
    assert!(after > 700, "{after} of 1,000 after");
}

#[test]
fn models_and_locations_have_gates_of_their_own() {
    let (pace, here) = (pace(), ModelSettings::default());
    let there = ModelSettings { location: Some("eu".into()), ..here.clone() };
    let other = ModelSettings { name: "another".into(), ..here.clone() };
    assert!(Arc::ptr_eq(&pace.gate(&here), &pace.gate(&here)));
    assert!(!Arc::ptr_eq(&pace.gate(&here), &pace.gate(&there)) && !Arc::ptr_eq(&pace.gate(&here), &pace.gate(&other)));
}
