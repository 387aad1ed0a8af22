//! The model and storage, as one process has them.

use crate::world::{PRICE, run};
use crate::wrong::Wrong;
use async_trait::async_trait;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
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

/// What befalls a process.
#[derive(Default)]
pub struct Fate {
    /// It hears nothing any more.
    pub dead: AtomicBool,
    /// The ledger cannot be reached since it had this generation; 0 = it can.
    pub cut_off: AtomicI64,
    /// The model turns all its calls away.
    pub turned_away: AtomicBool,
}

/// The calls of a process: what was asked, and what it cost.
pub type Calls = Arc<Mutex<Vec<(String, u64)>>>;

/// The model, as one process sees it.
pub struct Scripted(pub Arc<Paid>, pub Arc<Fate>, pub Calls);

#[async_trait]
impl Model for Scripted {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let Scripted(paid, fate, calls) = self;
        if fate.dead.load(Relaxed) {
            return std::future::pending().await;
        }
        if paid.chance.below(20) == 0 || fate.turned_away.load(Relaxed) {
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
        if fate.dead.load(Relaxed) {
            return std::future::pending().await;
        }
        let text = json!({"theme": "x"}).to_string();
        Ok(Reply { text, finish: Some("STOP".into()), usage, model: "m".into(), ..Reply::default() })
    }
}

/// Storage as one process sees it: a dead one gets no reply, and writes of the budget fail as often as is said, before their effect
/// or after it.
pub struct Faulty {
    pub fate: Arc<Fate>,
    pub chance: Chance,
    pub faults_percent: u64,
    pub wrong: Option<Wrong>,
}

impl Faulty {
    /// As often before as after.
    fn fails(&self, call: &Call) -> Result<(), ObjectsError> {
        let is_cut_off = self.fate.cut_off.load(Relaxed) != 0;
        let fails = || is_cut_off || (call.op == Op::Write && self.chance.below(200) < self.faults_percent);
        if call.name == names::budget(&run()) && fails() {
            return Err(ObjectsError::Unknown("a fault".into()));
        }
        Ok(())
    }

    /// In place of failing: what is written is read by nobody, and what is read is as it was.
    fn believe(&self, call: &mut Call) {
        (call.name, call.generation) = match call.op {
            Op::Write => (format!("unread/{}", self.chance.identity()), None),
            _ => (call.name.clone(), Some(self.fate.cut_off.load(Relaxed))),
        };
    }
}

#[async_trait]
impl Hook for Faulty {
    async fn before(&self, call: &mut Call) -> Result<(), ObjectsError> {
        sleep(Duration::from_millis(5) + self.chance.up_to(Duration::from_millis(40))).await;
        if self.fate.dead.load(Relaxed) {
            return std::future::pending().await;
        }
        match (self.fails(call), self.wrong) {
            (Err(_), Some(Wrong::FailureBelieved)) => {
                self.believe(call);
                Ok(())
            }
            (may, _) => may,
        }
    }

    async fn after(&self, call: &Call) -> Result<(), ObjectsError> {
        if self.wrong == Some(Wrong::FailureBelieved) { Ok(()) } else { self.fails(call) }
    }
}
