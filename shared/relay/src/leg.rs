//! A leg as whoever drives it sees it: a server that Eventarc and Cloud Scheduler call, or the embedded relay.

use crate::names::RunId;
use crate::ports::{Event, Verdict, Why};
use crate::sweep::{Due, Sweep};
use async_trait::async_trait;
use std::sync::Arc;

/// A leg of the relay.
#[async_trait]
pub trait Leg: Send + Sync + 'static {
    /// Handles one event. Dropping the returned future does not cut the work.
    async fn handle(self: Arc<Self>, event: &Event) -> Verdict;
    /// What events should have brought and did not: of all open runs, or of one.
    async fn due(&self, sweep: Sweep, only: Option<&RunId>) -> Due;
    /// What was due is being seen to: it is due again when it is older.
    fn drove(&self, event: &Event);
    /// Finds and drives what is due. Returns how much.
    ///
    /// # Errors
    /// The first failure, after all that could be done was done.
    async fn sweep(self: Arc<Self>) -> Result<usize, Why>;
    /// Starts nothing more, saves what is under way, and returns when nothing is.
    async fn drain(&self);
    /// What keeps it waiting, where a person can be told.
    fn trouble(&self) -> Option<String> {
        None
    }
}
