//! What calls a leg, and what the leg says to it.

use super::{Generation, ObjectsError};
use crate::names::Bucket;

/// An object was finalized: a hint that there may be work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub bucket: Bucket,
    /// Its name.
    pub name: String,
    /// Its version.
    pub generation: Generation,
}

/// What a handler says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Done, now or earlier, or never to be done: acknowledge (200).
    Done,
    /// Not an event of ours: acknowledge (204).
    NotOurs,
    /// Deliver it again (503).
    Later(Why),
}

/// Why an event is to be delivered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Another process holds the claim.
    LiveClaim,
    /// This process holds as many shards as it admits.
    Full,
    /// This process is stopping.
    Stopping,
    /// A systemic error stopped the machine. Says what to do.
    Systemic(String),
    /// The shard's budget of retries is spent.
    Spent,
    /// A port did not confirm.
    Unconfirmed(String),
    /// The claim was lost to another process.
    LostClaim,
}

impl From<ObjectsError> for Why {
    fn from(error: ObjectsError) -> Why {
        match error {
            ObjectsError::Denied(what) => Why::Systemic(format!("storage does not allow it: {what}")),
            ObjectsError::Precondition | ObjectsError::Unknown(_) => Why::Unconfirmed(error.to_string()),
        }
    }
}
