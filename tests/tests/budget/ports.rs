//! The model and storage, as one process has them.

use crate::world::{PRICE, run};
use crate::wrong::Wrong;
use async_trait::async_trait;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_relay::clock::Chance;
use tasuki_relay::names;
use tasuki_relay::ports::{Ask, Fault, Model, ObjectsError, Reply};
use tasuki_relay::record::Usage;
use tasuki_tests::hooked::{Call, Hook, Op};
use tokio::time::sleep;

/// The most tokens that a call puts out: most of its worst case, as of a long answer to a short row.
pub const OUTPUT_MAX: u64 = 2_000;

/// What the model was asked, and what that costs from the moment at which the call arrives.
pub struct Paid {
    pub chance: Chance,
    pub cost: AtomicU64,
    /// Of these calls nothing is stored: their process died before.
    pub lost: AtomicU64,
    pub calls: Mutex<BTreeMap<String, u32>>,
    /// No call may lift the cost above this, and what was lost.
    pub cap: AtomicU64,
    /// By how much one did. Kept for the end: who asks is a task whose panic nobody sees.
    pub over: AtomicU64,
}

/// The calls of a process: what was asked, and what it cost.
pub type Calls = Arc<Mutex<Vec<(String, u64)>>>;

/// The model, as one process sees it.
pub struct Scripted(pub Arc<Paid>, pub Arc<AtomicBool>, pub Calls);

#[async_trait]
impl Model for Scripted {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let Scripted(paid, dead, calls) = self;
        if dead.load(Relaxed) {
            return std::future::pending().await;
        }
        if paid.chance.below(20) == 0 {
            sleep(paid.chance.up_to(Duration::from_millis(200))).await;
            return Err(Fault::Busy { retry_after: None });
        }
        let usage =
            Usage { prompt: 20 + paid.chance.below(40), output: paid.chance.below(OUTPUT_MAX + 1), ..Usage::default() };
        let cost = PRICE.of(usage);
        let sum = paid.cost.fetch_add(cost, Relaxed) + cost;
        let cap = paid.cap.load(Relaxed) + paid.lost.load(Relaxed);
        paid.over.fetch_max(sum.saturating_sub(cap), Relaxed);
        *paid.calls.lock().unwrap().entry(ask.prompt.clone()).or_default() += 1;
        calls.lock().unwrap().push((ask.prompt.clone(), cost));
        sleep(Duration::from_millis(200) + paid.chance.up_to(Duration::from_secs(4))).await;
        if dead.load(Relaxed) {
            return std::future::pending().await;
        }
        let text = json!({"theme": "x"}).to_string();
        Ok(Reply { text, finish: Some("STOP".into()), usage, model: "m".into(), ..Reply::default() })
    }
}

/// Storage as one process sees it: a dead one gets no reply, and writes of the budget fail as often as is said, before their effect
/// or after it.
pub struct Faulty {
    pub dead: Arc<AtomicBool>,
    pub chance: Chance,
    pub faults_percent: u64,
    pub wrong: Option<Wrong>,
}

impl Faulty {
    /// As often before as after.
    fn chance_of_fault(&self, call: &Call) -> Result<(), ObjectsError> {
        let of_budget = call.op == Op::Write && call.name == names::budget(&run());
        if of_budget && self.chance.below(200) < self.faults_percent {
            return Err(ObjectsError::Unknown("a fault".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Hook for Faulty {
    async fn before(&self, call: &mut Call) -> Result<(), ObjectsError> {
        sleep(Duration::from_millis(5) + self.chance.up_to(Duration::from_millis(40))).await;
        if self.dead.load(Relaxed) {
            return std::future::pending().await;
        }
        let fault = self.chance_of_fault(call);
        if fault.is_err() && self.wrong == Some(Wrong::FailedWriteBelieved) {
            (call.name, call.generation) = (format!("unread/{}", self.chance.identity()), None);
            return Ok(());
        }
        fault
    }

    async fn after(&self, call: &Call) -> Result<(), ObjectsError> {
        self.chance_of_fault(call)
    }
}
