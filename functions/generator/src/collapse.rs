//! Identical prompts in flight become one call: the first leads, the others wait for what it gets.

use futures::FutureExt;
use futures::future::Shared;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tasuki_relay::names::RunId;
use tasuki_relay::record::{AnswerLine, Outcome};
use tokio::sync::oneshot;

/// Waits for what the leader gets; an error when it gave up.
pub type Waiting = Shared<oneshot::Receiver<Told>>;

/// How the leader's row ended.
#[derive(Clone, Debug)]
pub struct Told {
    pub run: RunId,
    pub outcome: Outcome,
    /// As in its `spent`: whether the answer came from the cache.
    pub reused: u32,
}

impl Told {
    /// What it is for a row of `run`, and whether it came from the cache. An answer is one for all who ask this; that there was none
    /// may come of what another run allows.
    pub fn of(self, run: &RunId) -> Option<(Outcome, u32)> {
        let holds = self.run == *run || matches!(self.outcome, Outcome::Answer(_));
        holds.then_some((self.outcome, self.reused))
    }
}

/// The prompts in flight in this process, by fingerprint.
#[derive(Debug, Default)]
pub struct Collapse(Mutex<BTreeMap<String, Waiting>>);

/// What a row does about its prompt.
pub enum Role {
    /// Nobody asks it: ask, and tell.
    Lead(Lead),
    /// Somebody asks it already: wait.
    Follow(Waiting),
}

/// The duty to tell. Dropped without telling, it makes the followers ask for themselves.
pub struct Lead {
    all: Arc<Collapse>,
    fingerprint: String,
    tell: Option<oneshot::Sender<Told>>,
}

impl Collapse {
    /// Leads if nobody does.
    pub fn join(self: &Arc<Collapse>, fingerprint: &str) -> Role {
        let mut flying = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = flying.get(fingerprint) {
            return Role::Follow(waiting.clone());
        }
        let (tell, waiting) = oneshot::channel();
        flying.insert(fingerprint.to_owned(), waiting.shared());
        Role::Lead(Lead { all: self.clone(), fingerprint: fingerprint.to_owned(), tell: Some(tell) })
    }
}

impl Lead {
    /// Tells the followers, where there are any, how it ended.
    pub fn tell(mut self, run: &RunId, line: &AnswerLine) {
        let followers = self.leave().is_some_and(|waiting| waiting.strong_count() > Some(1));
        if let Some(tell) = self.tell.take().filter(|_| followers) {
            let told = Told { run: run.clone(), outcome: line.outcome.clone(), reused: line.spent.reused };
            tell.send(told).ok(); // they may have been cut
        }
    }

    /// Takes the prompt off the list: who joins from now on leads.
    fn leave(&self) -> Option<Waiting> {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.fingerprint)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if self.tell.is_some() {
            self.leave(); // else somebody else may lead by now
        }
    }
}
