use super::*;
use crate::clock::Millis;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(120);

fn eyes(owner: &str, now: u64) -> Eyes<'_> {
    Eyes { owner, now: Millis(now), lease: LEASE, others_are_dead: false }
}

/// Written and read back at this time, as storage does it.
fn stored(ledger: &Ledger, now: u64) -> Ledger {
    Ledger::parse(&serde_json::to_vec(ledger).unwrap(), Millis(now)).unwrap()
}

/// A process as the ledger does not see it.
#[derive(Clone, Debug, Default)]
struct Process {
    free: u64,
    spent: u64,
    calls: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    /// A call of this worst case waits: leases if it must, reserves if it can.
    Call(u8, u64),
    /// The oldest call comes home and cost so many hundredths of its worst case.
    Home(u8, u64),
    Renew(u8),
    Close(u8),
    /// The process is gone, and with it what was under way.
    Crash(u8),
    /// So many seconds pass.
    Passes(u64),
    SettleDead,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..4u8, 1..40u64).prop_map(|(who, worst)| Step::Call(who, worst)),
        8 => (0..4u8, 0..=100u64).prop_map(|(who, part)| Step::Home(who, part)),
        2 => (0..4u8).prop_map(Step::Renew),
        1 => (0..4u8).prop_map(Step::Close),
        1 => (0..4u8).prop_map(Step::Crash),
        1 => (1..200u64).prop_map(Step::Passes),
        1 => Just(Step::SettleDead),
    ];
    proptest::collection::vec(step, 0..200)
}

/// Processes, the object, and what is true.
struct World {
    ledger: Ledger,
    cap: u64,
    now: u64,
    processes: BTreeMap<u8, Process>,
    renewed: BTreeMap<u8, u64>,
    /// Names of processes that crashed: another one with the same number has another name.
    lives: BTreeMap<u8, u32>,
    stored: u64,
}

impl World {
    fn name(&self, who: u8) -> String {
        format!("{who}-{}", self.lives.get(&who).copied().unwrap_or(0))
    }

    fn lease(&mut self, who: u8, next: u64) {
        let process = self.processes.entry(who).or_default().clone();
        let need = Need { spent: process.spent, reserved: process.calls.iter().sum(), next, waiting: next, rate: 1 };
        let (name, now) = (self.name(who), self.now);
        let free = self.ledger.lease(eyes(&name, now), need, self.cap);
        self.ledger = stored(&self.ledger, now);
        self.renewed.insert(who, now);
        self.processes.get_mut(&who).unwrap().free = free;
    }

    /// The process is no more: another one with its number has another name.
    fn leave(&mut self, who: u8) -> Option<Process> {
        *self.lives.entry(who).or_default() += 1;
        self.renewed.remove(&who);
        self.processes.remove(&who)
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Call(who, worst) => {
                if self.processes.get(&who).is_none_or(|process| process.free < worst) {
                    self.lease(who, worst);
                }
                let process = self.processes.get_mut(&who).unwrap();
                if process.free >= worst {
                    process.free -= worst;
                    process.calls.push(worst);
                }
            }
            Step::Home(who, part) => {
                let Some(process) = self.processes.get_mut(&who).filter(|process| !process.calls.is_empty()) else {
                    return;
                };
                let worst = process.calls.remove(0);
                let cost = worst * part / 100;
                process.spent += cost;
                process.free += worst - cost;
                self.stored += cost;
            }
            Step::Renew(who) if self.processes.contains_key(&who) => self.lease(who, 0),
            Step::Renew(_) => (),
            Step::Close(who) => {
                let name = self.name(who);
                if let Some(process) = self.leave(who) {
                    let calls: u64 = process.calls.iter().sum(); // at their worst: nobody knows of them any more
                    self.ledger.close(&name, process.spent + calls);
                    self.ledger = stored(&self.ledger, self.now);
                }
            }
            Step::Crash(who) => drop(self.leave(who)),
            Step::Passes(seconds) => {
                self.now += seconds * 1_000;
                // Who did not renew for so long has crashed: its slice is anybody's to settle.
                let late = |renewed: &u64| self.now - renewed >= LEASE.as_millis() as u64;
                let crashed: Vec<u8> = self.renewed.iter().filter(|(_, at)| late(at)).map(|(who, _)| *who).collect();
                crashed.into_iter().for_each(|who| drop(self.leave(who)));
            }
            Step::SettleDead => {
                if self.ledger.can_settle(eyes("", self.now)) {
                    let (before, now) = (self.ledger.spent(), self.now);
                    self.ledger.settle(eyes("", now), self.stored);
                    assert!(self.ledger.spent() >= before.max(self.stored), "settling forgets nothing");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_the_order_no_more_is_spent_than_the_cap(all in steps(), cap in 0..500u64) {
        let mut world = World {
            ledger: Ledger::default(), cap, now: 0, processes: BTreeMap::new(), renewed: BTreeMap::new(),
            lives: BTreeMap::new(), stored: 0,
        };
        for step in &all {
            world.take(step);
            prop_assert!(world.ledger.committed() <= cap, "{:?} after {step:?}", world.ledger);
            prop_assert!(world.stored <= cap, "{} after {step:?}", world.stored);
            let flying: u64 = world.processes.values().flat_map(|process| &process.calls).sum();
            prop_assert!(world.stored + flying <= cap, "what is under way is set aside");
        }
    }

    #[test]
    fn closing_gives_back_what_was_not_spent(cap in 100..1_000u64, next in 1..100u64, part in 0..=100u64) {
        let mut ledger = Ledger::default();
        let free = ledger.lease(eyes("a", 0), Need { next, waiting: next, ..Need::default() }, cap);
        prop_assert!(free >= next && ledger.room(cap) == cap - free);
        let spent = free * part / 100;
        ledger.close("a", spent);
        prop_assert_eq!((ledger.room(cap), ledger.spent()), (cap - spent, spent));
    }

    #[test]
    fn a_crashed_slice_frees_nothing_until_it_is_settled(next in 1..50u64, stored_cost in 0..100u64) {
        let mut ledger = Ledger::default();
        let need = Need { next, waiting: next, ..Need::default() };
        let granted = ledger.lease(eyes("dead", 0), need, 10_000);
        let mut ledger = stored(&ledger, 0);
        let late = LEASE.as_millis() as u64;
        prop_assert!(!ledger.can_settle(eyes("b", late - 1)) && ledger.can_settle(eyes("b", late)));
        ledger.lease(eyes("b", late), Need::default(), 10_000);
        prop_assert_eq!(ledger.room(10_000), 10_000 - granted, "a slice of nothing, and a crashed one");
        ledger.settle(eyes("b", late), stored_cost);
        prop_assert_eq!(ledger.room(10_000), 10_000 - stored_cost);
    }
}

#[test]
fn slices_shrink_towards_the_end_and_everybody_gets_the_next_call() {
    let mut ledger = Ledger::default();
    let need = Need { next: 10, waiting: 100_000, ..Need::default() };
    let mut granted = Vec::new();
    for owner in ["a", "b", "c", "d"] {
        granted.push(ledger.lease(eyes(owner, 0), need, 10_000));
    }
    assert_eq!(granted[0], 10_000, "alone: whoever comes waits for its next renewal");
    let mut ledger = Ledger::default();
    for owner in ["a", "b", "c", "d"] {
        ledger.lease(eyes(owner, 0), Need::default(), 10_000);
    }
    let granted: Vec<u64> = ["a", "b", "c", "d"].map(|owner| ledger.lease(eyes(owner, 0), need, 10_000)).into();
    assert_eq!(granted, [1_250, 1_093, 957, 837]);
    let rest = ledger.room(10_000);
    assert_eq!(
        ledger.lease(eyes("e", 0), Need { next: rest, ..need }, 10_000),
        rest,
        "the next call, where there is room"
    );
    assert_eq!(ledger.lease(eyes("f", 0), need, 10_000), 0);
    assert!(ledger.may_get_more(eyes("f", 0)) && !ledger.can_settle(eyes("f", 0)));
}

#[test]
fn what_a_process_does_not_need_goes_back_with_its_renewal() {
    let mut ledger = Ledger::default();
    let need = Need { next: 10, waiting: 10, ..Need::default() };
    assert_eq!(ledger.lease(eyes("a", 0), need, 10_000), 500, "for fifty calls at first");
    let renewed = Need { spent: 100, reserved: 20, rate: 3, ..Need::default() };
    assert_eq!(ledger.lease(eyes("a", 0), renewed, 10_000), 180, "for a minute");
    assert_eq!(ledger.slices["a"].granted, 300);
    assert_eq!(ledger.lease(eyes("a", 0), Need { next: 9_880, ..renewed }, 10_000), 9_880);
    assert_eq!(ledger.lease(eyes("a", 0), Need { next: 9_881, ..renewed }, 10_000), 0, "who is starved gives back");
    assert_eq!(ledger.slices["a"].granted, 120);
}

#[test]
fn a_slice_is_as_old_as_the_version_that_renewed_it() {
    let mut ledger = Ledger::default();
    ledger.lease(eyes("a", 0), Need { next: 1, ..Need::default() }, 100);
    let mut ledger = stored(&ledger, 1_000);
    ledger.lease(eyes("b", 100_000), Need { next: 1, ..Need::default() }, 100);
    let ledger = stored(&ledger, 100_000);
    let late = 1_000 + LEASE.as_millis() as u64;
    assert!(ledger.may_get_more(eyes("b", late - 1)), "a lives");
    assert!(!ledger.may_get_more(eyes("b", late)), "a does not, though b wrote meanwhile");
    assert!(!ledger.all_dead(eyes("", late)) && ledger.all_dead(eyes("", 100_000 + LEASE.as_millis() as u64)));
    let embedded = Eyes { others_are_dead: true, ..eyes("b", 100_000) };
    assert!(!ledger.may_get_more(embedded), "the folder's lock proves it");
}

#[test]
fn amounts_are_told_and_read_as_a_person_writes_them() {
    let told = [0, 312_000_000, 20_000_000_000, 1_000_000_000_000, 4_984_000_000_000].map(usd);
    assert_eq!(told, ["$0.00", "$0.000312", "$0.02", "$1.00", "$4.98"]);
    let why = spent_up(5_000_000_000_000, 4_984_000_000_000, 20_000_000_000);
    assert_eq!(why, "the budget of $5.00 is spent ($4.98, and the next call may cost $0.02)");
    assert!(is_spent_up(&why) && !is_spent_up("enough"));
    assert_eq!(
        [&b"12.5\n"[..], b"$3", b"", b"-1", b"NaN", b"inf"].map(parse_cap),
        [Some(12_500_000_000_000), Some(3_000_000_000_000), None, None, None, None]
    );
}

mod worst {
    use super::super::worst::FRAME_TOKENS;
    use super::super::worst_case;
    use crate::pipeline::Pipeline;
    use crate::ports::Ask;
    use std::sync::Arc;

    fn pipeline() -> Arc<Pipeline> {
        let text = "name = 'p'\nkey = 'id'\n[prompt]\ntemplate = '{{ t }}'\n[answer.a]\ntype = 'string'\n\
             [target]\ntable = 't'\n[run]\nmax_cost_usd = 5\n[model]\nmax_output_tokens = 100\n";
        Arc::new(Pipeline::parse(text).unwrap())
    }

    #[test]
    fn a_token_is_a_byte_at_least_and_thoughts_are_output() {
        let ask = |prompt: &str, max_output_tokens| {
            worst_case(&Ask { pipeline: pipeline(), prompt: prompt.into(), row: Arc::default(), max_output_tokens })
                .unwrap()
        };
        let empty = ask("", None);
        assert!(empty.prompt > FRAME_TOKENS && empty.output == 100, "the schema has tokens too: {empty:?}");
        assert_eq!(ask("襷", None).prompt, empty.prompt + 3);
        assert_eq!(ask("", Some(150)).output, 150, "asked again with more");
    }
}
