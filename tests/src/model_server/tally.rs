use super::answer::Tokens;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// What a server counts.
#[derive(Debug, Default)]
pub struct Tally {
    calls: AtomicU64,
    in_flight: AtomicU64,
    peak: AtomicU64,
    connections: AtomicU64,
    rejected: AtomicU64,
    counted: AtomicU64,
    prompt_tokens: AtomicU64,
    output_tokens: AtomicU64,
    prompts: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// Calls whose head arrived.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// The most calls at the same time.
    pub fn peak_in_flight(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Calls that a quota rejected.
    pub fn rejections(&self) -> u64 {
        self.rejected.load(Relaxed)
    }

    /// Calls of `countTokens`: free, and in no other count.
    pub fn counted(&self) -> u64 {
        self.counted.load(Relaxed)
    }

    /// Connections that were accepted, whatever came of them.
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// Tokens that replies reported: of prompts, of answers. Cut replies count: they are paid.
    pub fn tokens(&self) -> (u64, u64) {
        (self.prompt_tokens.load(Relaxed), self.output_tokens.load(Relaxed))
    }

    /// Calls by prompt. A server with a fixed answer does not look.
    pub fn by_prompt(&self) -> BTreeMap<String, u64> {
        self.prompts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn rejected(&self) {
        self.rejected.fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) {
        self.counted.fetch_add(1, Relaxed);
    }

    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    /// The number of the call, and a guard for as long as it is in flight.
    pub(super) fn called(&self) -> (u64, InFlight<'_>) {
        self.peak.fetch_max(self.in_flight.fetch_add(1, Relaxed) + 1, Relaxed);
        (self.calls.fetch_add(1, Relaxed) + 1, InFlight(self))
    }

    /// How often this prompt has come, this time included.
    pub(super) fn prompted(&self, prompt: &str) -> u64 {
        let mut prompts = self.prompts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = prompts.entry(prompt.to_owned()).or_default();
        *count += 1;
        *count
    }

    pub(super) fn answered(&self, tokens: Tokens) {
        self.prompt_tokens.fetch_add(tokens.prompt, Relaxed);
        self.output_tokens.fetch_add(tokens.output, Relaxed);
    }
}

/// A call that has no reply yet.
pub(super) struct InFlight<'a>(&'a Tally);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
