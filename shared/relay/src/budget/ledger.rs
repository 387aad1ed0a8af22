//! The object `claims/<run>/budget`: what is spent, and who holds how much of the rest.

use crate::clock::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A slice lasts about so long at its process's rate: a crash keeps no more from the others.
const SLICE_SECONDS: u64 = 60;
/// A slice is for so many calls where nothing is known of a rate yet: an object takes about one change a second.
const CALLS_AT_FIRST: u64 = 50;

/// The money of a run, in picodollars.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Drawn anew for each attempt to write, so that a writer whose reply was lost knows its own write.
    pub attempt: String,
    /// What slices spent that are closed.
    pub settled: u64,
    /// The others, by their owner.
    pub slices: BTreeMap<String, Slice>,
}

/// What one process holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// It may spend so much.
    pub granted: u64,
    /// It has spent so much of that, as it said last.
    pub spent: u64,
    /// When it said so, by the server's clock; `None` in the version that says it, whose own time that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renewed: Option<Millis>,
}

/// Who looks at a ledger, and when: what counts as alive.
#[derive(Clone, Copy, Debug)]
pub struct Eyes<'a> {
    /// The owner who looks; nobody's name where only somebody else's slices are looked at.
    pub owner: &'a str,
    /// Now.
    pub now: Millis,
    /// A slice that was not renewed for so long is a crashed process's.
    pub lease: Duration,
    /// See [`crate::claims::Timing::others_are_dead`].
    pub others_are_dead: bool,
}

/// What a process has, and needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Need {
    /// Spent of its slice.
    pub spent: u64,
    /// Worst cases of its calls under way.
    pub reserved: u64,
    /// The worst case of the call that waits first; 0 when none waits.
    pub next: u64,
    /// The worst cases of all that wait.
    pub waiting: u64,
    /// What it spent in a second lately.
    pub rate: u64,
}

impl Slice {
    /// What no other may have.
    fn held(&self) -> u64 {
        self.granted.max(self.spent)
    }
}

impl Eyes<'_> {
    fn lives(&self, owner: &str, slice: &Slice) -> bool {
        let renewed = slice.renewed.unwrap_or(self.now);
        owner == self.owner || (!self.others_are_dead && self.now.since(renewed) < self.lease)
    }
}

impl Ledger {
    /// From an object's body and the time of its version. `None` when it is none of ours.
    pub fn parse(body: &[u8], created: Millis) -> Option<Ledger> {
        let mut ledger: Ledger = serde_json::from_slice(body).ok()?;
        ledger.slices.values_mut().for_each(|slice| slice.renewed = slice.renewed.or(Some(created)));
        Some(ledger)
    }

    /// What is spent for sure, or said to be.
    pub fn spent(&self) -> u64 {
        self.slices.values().fold(self.settled, |sum, slice| sum.saturating_add(slice.spent))
    }

    /// What is spent, or may be by whoever holds it: also what a crashed process held.
    pub fn committed(&self) -> u64 {
        self.slices.values().fold(self.settled, |sum, slice| sum.saturating_add(slice.held()))
    }

    /// What is left to lease.
    pub fn room(&self, cap: u64) -> u64 {
        cap.saturating_sub(self.committed())
    }

    /// Some other process is alive and holds what it has not spent: it may give that back.
    pub fn may_get_more(&self, eyes: Eyes<'_>) -> bool {
        self.slices
            .iter()
            .any(|(owner, slice)| owner != eyes.owner && eyes.lives(owner, slice) && slice.held() > slice.spent)
    }

    /// A crashed process left a slice, and nobody alive holds unspent money: what was spent can be told from what is stored.
    pub fn can_settle(&self, eyes: Eyes<'_>) -> bool {
        self.slices.iter().any(|(owner, slice)| !eyes.lives(owner, slice))
            && self.slices.iter().all(|(owner, slice)| !eyes.lives(owner, slice) || slice.held() == slice.spent)
    }

    /// No slice is a live process's.
    pub fn all_dead(&self, eyes: Eyes<'_>) -> bool {
        !self.slices.iter().any(|(owner, slice)| eyes.lives(owner, slice))
    }

    /// Renews the looking owner's slice: as much as is needed, as far as there is room and the others' shares allow; what is not
    /// needed goes back. Returns what the owner may spend beyond what it has spent and reserved.
    ///
    /// Guided self-scheduling: while others live, half of one's share of the rest, so that the slices shrink towards the end and
    /// all come to it together; and never less than the next call, where there is room for that.
    pub fn lease(&mut self, eyes: Eyes<'_>, need: Need, cap: u64) -> u64 {
        self.slices.remove(eyes.owner);
        let live = self.slices.iter().filter(|(owner, slice)| eyes.lives(owner, slice)).count() as u64;
        let held = need.spent.saturating_add(need.reserved);
        let room = self.room(cap).saturating_sub(held);
        let share = if live == 0 { room } else { room / (2 * (live + 1)) };
        let at_once = need.waiting.max(CALLS_AT_FIRST.saturating_mul(need.next));
        let wish = need.rate.saturating_mul(SLICE_SECONDS).saturating_add(at_once);
        let free = if need.next > room { 0 } else { wish.min(share.max(need.next)) };
        let slice = Slice { granted: held.saturating_add(free), spent: need.spent, renewed: None };
        self.slices.insert(eyes.owner.to_owned(), slice);
        free
    }

    /// Ends a slice that has spent so much; the rest is free.
    pub fn close(&mut self, owner: &str, spent: u64) {
        self.slices.remove(owner);
        self.settled = self.settled.saturating_add(spent);
    }

    /// Ends the slices of crashed processes. `stored` is what all answers and checkpoints of the run cost. A process may have said
    /// that it spent more than it could store: the greater counts. Only where [`Ledger::can_settle`].
    pub fn settle(&mut self, eyes: Eyes<'_>, stored: u64) {
        let spent = stored.max(self.spent());
        self.slices.retain(|owner, slice| eyes.lives(owner, slice));
        let live = self.slices.values().fold(0, |sum: u64, slice| sum.saturating_add(slice.spent));
        self.settled = self.settled.max(spent.saturating_sub(live));
    }

    /// The same money in the same hands, whenever it was renewed.
    pub fn is_like(&self, other: &Ledger) -> bool {
        let hands = |ledger: &Ledger| -> Vec<(String, u64, u64)> {
            let all = ledger.slices.iter();
            all.map(|(owner, slice)| (owner.clone(), slice.granted, slice.spent)).collect()
        };
        self.settled == other.settled && hands(self) == hands(other)
    }
}
