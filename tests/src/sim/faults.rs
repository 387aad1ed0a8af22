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
    /// The process stands still for five minutes and goes on, as after SIGSTOP and SIGCONT.
    Stalls,
}

/// All of them.
pub const ALL: [Fault; 8] = [
    Fault::Fails,
    Fault::Lost,
    Fault::Hangs,
    Fault::HangsAfter,
    Fault::Late,
    Fault::DiesBefore,
    Fault::DiesAfter,
    Fault::Stalls,
];

/// How long a stalled process stands still, and a late effect takes: longer than any lease.
pub const STALL: Duration = Duration::from_secs(300);

/// The faults of a world: by kind of port call ("generator create answers") and the number of that call.
#[derive(Debug, Default)]
pub struct Faults {
    scheduled: BTreeMap<(String, u64), Fault>,
    met: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    calls: BTreeMap<String, u64>,
    faults: usize,
}

impl Faults {
    /// These, and no others.
    pub fn of(scheduled: impl IntoIterator<Item = ((String, u64), Fault)>) -> Faults {
        Faults { scheduled: scheduled.into_iter().collect(), met: Mutex::default() }
    }

    /// Up to `most` faults at calls that a run without faults made: drawn from `calls`, which counts them by kind.
    pub fn draw(calls: &BTreeMap<String, u64>, most: u64, chance: &Chance) -> Faults {
        let kinds: Vec<_> = calls.iter().collect();
        let one = |_| {
            let (kind, count) = kinds[chance.below(kinds.len() as u64) as usize];
            // Earlier faults may save later calls (a crashed process makes fewer): the first half is always made.
            let at = chance.below(count.div_ceil(2));
            let fault = ALL[chance.below(ALL.len() as u64) as usize];
            ((kind.clone(), at), fault)
        };
        Faults::of((0..=chance.below(most)).map(one))
    }

    /// Counts a call and tells its fault.
    pub fn next(&self, kind: &str) -> Option<Fault> {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = met.calls.entry(kind.to_owned()).or_default();
        let at = *calls;
        *calls += 1;
        let fault = self.scheduled.get(&(kind.to_owned(), at)).copied();
        met.faults += usize::from(fault.is_some());
        fault
    }

    /// The calls so far, by kind.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).calls.clone()
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
