//! Many clients share one hidden quota, in simulated time: a discrete-event loop over pure policies.

mod baselines;
mod policy;
mod world;

pub use baselines::{Backoff, Parallel, Pause};
pub use policy::{Adaptive, Policy};
pub use world::{Curve, Outcome, World, run};
