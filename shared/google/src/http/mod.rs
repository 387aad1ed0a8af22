//! The HTTP server of a deployed leg: who may call, what a request means, what is acknowledged.

mod acknowledge;
mod callers;
mod event;
mod first;
mod keys;
mod limits;
mod serve;

pub use acknowledge::{Acknowledgement, acknowledge};
pub use callers::{Callers, Refused};
pub use event::{Hint, NotAHint, read};
pub use serve::{EVENTS, LIVE, READY, SWEEP, Server, serve};
