//! What goes wrong at which port call, decided by the seed. A fault that was scheduled and never met fails the test.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tasuki_relay::clock::Chance;

/// What may happen to a port call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It fails before its effect.
    Fails,
    /// Its effect happens, its reply is lost.
    Lost,
    /// It hangs before its effect.
    Hangs,
    /// Its effect happens, and it hangs.
    HangsAfter,
    /// Its effect happens five minutes later, and it hangs.
    Late,
    /// The process dies before its effect.
    DiesBefore,
    /// The process dies after its effect.
    DiesAfter,
    /// It takes nearly as long as a port call may.
    Slow,
    /// The process is told to stop, as by SIGTERM, and is killed 8 s later.
    Stops,
    /// The process stands still for five minutes and goes on, as after SIGSTOP and SIGCONT.
    Stalls,
}

/// All of them.
pub const ALL: [Fault; 10] = [
    Fault::Fails,
    Fault::Lost,
    Fault::Hangs,
    Fault::HangsAfter,
    Fault::Late,
    Fault::DiesBefore,
    Fault::DiesAfter,
    Fault::Slow,
    Fault::Stops,
    Fault::Stalls,
];

/// How long a stalled process stands still, and a late effect takes: longer than any lease.
pub const STALL: Duration = Duration::from_secs(300);

/// One port call: its kind ("generator create answers") and its number among those of its kind.
pub type Call = (String, u64);

/// How long a slow call takes: below the deadline of an object call.
pub const SLOW: Duration = Duration::from_secs(28);

/// The faults of a world, by port call.
#[derive(Debug, Default)]
pub struct Faults {
    scheduled: BTreeMap<Call, Fault>,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    counts: BTreeMap<String, u64>,
    trace: Vec<Call>,
    faults: usize,
    /// The calls before and with the last fault.
    last_fault: usize,
}

impl Faults {
    /// These, and no others.
    pub fn of(scheduled: impl IntoIterator<Item = (Call, Fault)>) -> Faults {
        Faults { scheduled: scheduled.into_iter().collect(), met: Mutex::default() }
    }

    /// One fault more, at a call that this world made after its last one. A world with both is the same up to there, so both are
    /// met. `None` when no call is left.
    pub fn and_one_more(&self, chance: &Chance) -> Option<Faults> {
        let met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let later = met.trace.get(met.last_fault..).filter(|later| !later.is_empty())?;
        let call = &later[chance.below(later.len().div_ceil(2) as u64) as usize];
        let fault = ALL[chance.below(ALL.len() as u64) as usize];
        let more = [(call.clone(), fault)];
        Some(Faults::of(self.scheduled.iter().map(|(call, fault)| (call.clone(), *fault)).chain(more)))
    }

    /// Counts a call and tells its fault.
    pub fn next(&self, kind: &str) -> Option<Fault> {
        let met = &mut *self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let count = met.counts.entry(kind.to_owned()).or_default();
        let call = (kind.to_owned(), *count);
        *count += 1;
        let fault = self.scheduled.get(&call).copied();
        met.trace.push(call);
        if fault.is_some() {
            met.faults += 1;
            met.last_fault = met.trace.len();
        }
        fault
    }

    /// The calls so far, in their order.
    pub fn trace(&self) -> Vec<Call> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).trace.clone()
    }

    /// All scheduled faults have been met.
    pub fn all_met(&self) -> bool {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).faults == self.scheduled.len()
    }

    /// What is scheduled, for a failing test's message.
    pub fn list(&self) -> String {
        self.scheduled.iter().map(|((kind, at), fault)| format!("\n  {kind} #{at}: {fault:?}")).collect()
    }
}
