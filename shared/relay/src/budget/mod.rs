//! What a run may cost: `[run] max_cost_usd`, kept by all processes together. Pure; the generator's purse does the I/O.
//!
//! Money is leased in slices from one object, [`Ledger`], and a call takes its worst case from its process's slice before it
//! starts. So the sum of all slices bounds what is paid, whoever crashes, and no call asks the object.

mod ledger;
#[cfg(test)]
mod tests;
mod worst;

pub use ledger::{Eyes, Ledger, Need, Slice};
pub use worst::{Worst, worst_case};

use crate::prices::{dollars, picodollars};

/// How a budget's reason to park begins: what a person or a program tells it by.
const SPENT: &str = "the budget of ";

/// Why a run is parked at its cap; all amounts in picodollars. `next` is the worst case of the call that found no room.
pub fn spent_up(cap: u64, spent: u64, next: u64) -> String {
    format!("{SPENT}{} is spent ({}, and the next call may cost {})", usd(cap), usd(spent), usd(next))
}

/// This is the reason of a run that was parked at its cap.
pub fn is_spent_up(why: &str) -> bool {
    why.starts_with(SPENT)
}

/// Picodollars as a person writes them: `$4.98`, `$0.000312`.
pub fn usd(picodollars: u64) -> String {
    let dollars = dollars(picodollars);
    if dollars >= 1.0 {
        return format!("${dollars:.2}");
    }
    let text = format!("${dollars:.6}");
    let cut = text.trim_end_matches('0');
    text[..cut.len().max("$0.00".len())].to_owned()
}

/// The cap that a person wrote into `control/<run>/max-cost`, in dollars: `12.5`. `None` when it is no amount.
pub fn parse_cap(text: &[u8]) -> Option<u64> {
    let dollars: f64 = std::str::from_utf8(text).ok()?.trim().trim_start_matches('$').parse().ok()?;
    (dollars.is_finite() && dollars >= 0.0).then(|| picodollars(dollars))
}
