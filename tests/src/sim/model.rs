//! A scripted model: each row says what the model will say of it.

use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tasuki_relay::clock::{Chance, Millis};
use tasuki_relay::ports::{Fault, Reply};
use tasuki_relay::record::Usage;

/// In every row, prompt and answer; never in a log, an error or a failure's message.
pub const CANARY: &str = "CANARY";

/// What a row's text makes the model say: the word before the dash of its column `act`.
pub const ACTS: &[&str] = &["answer", "malformed", "blocked", "cut", "busy", "down", "invalid", "odd"];
/// Acts of worlds that are made for them: the call kills its process; the model never replies; it always says 503.
pub const HARD_ACTS: &[&str] = &["kills", "hangs", "dead"];

/// Minutes from the start during which every call meets the same.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// From.
    pub from: Millis,
    /// To.
    pub to: Millis,
    /// 429, or a systemic error.
    pub systemic: bool,
}

/// The model, and what was paid.
#[derive(Debug)]
pub struct Script {
    chance: Chance,
    storm: Option<Storm>,
    asked: Mutex<BTreeMap<String, u32>>,
    bill: Mutex<Bill>,
}

/// What the model charged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bill {
    /// Calls that were charged.
    pub paid: u64,
    /// Charged calls whose reply was no answer, by script: allowed retries.
    pub by_script: u64,
}

impl Script {
    /// A model with this chance for its latencies.
    pub fn new(chance: Chance, storm: Option<Storm>) -> Script {
        Script { chance, storm, asked: Mutex::default(), bill: Mutex::default() }
    }

    /// How long the next call takes: half a second to three.
    pub fn latency(&self) -> Duration {
        Duration::from_millis(500) + self.chance.up_to(Duration::from_millis(2_500))
    }

    /// The bill so far.
    pub fn bill(&self) -> Bill {
        *self.bill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges for a call that never gets a reply.
    pub fn charge(&self) {
        self.bill.lock().unwrap_or_else(PoisonError::into_inner).paid += 1;
    }

    /// Charges and replies.
    pub fn say(&self, prompt: &str, now: Millis) -> Result<Reply, Fault> {
        if let Some(storm) = self.storm.filter(|storm| storm.from <= now && now < storm.to) {
            let what = || Fault::Systemic("the key was revoked: set another".into());
            return Err(if storm.systemic { what() } else { Fault::Busy { retry_after: None } });
        }
        let times = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let times = asked.entry(prompt.to_owned()).or_default();
            *times += 1;
            *times
        };
        let act = act_of(prompt);
        match (act, times) {
            ("busy", 1..=3) => return Err(Fault::Busy { retry_after: Some(Duration::from_secs(5)) }),
            ("down", 1..=2) => return Err(Fault::Unavailable("503".into())),
            ("dead", _) => return Err(Fault::Unavailable("503".into())),
            ("invalid", _) => return Err(Fault::Invalid("400 INVALID_ARGUMENT".into())),
            _ => (),
        }
        let no_answer = matches!((act, times), ("malformed" | "odd", 1));
        let mut bill = self.bill.lock().unwrap_or_else(PoisonError::into_inner);
        bill.paid += 1;
        bill.by_script += u64::from(no_answer);
        let text = json!({"theme": format!("{CANARY} theme of {prompt}")}).to_string();
        let usage = Usage { prompt: 10, output: 5, thought: 1, cached: 0 };
        let reply = Reply { text, finish: Some("STOP".into()), usage, model: "script-1".into(), ..Reply::default() };
        Ok(match (act, times) {
            ("malformed", 1) => Reply { text: format!("{CANARY} no JSON"), ..reply },
            ("blocked", _) => Reply { text: String::new(), blocked: Some("SAFETY".into()), ..reply },
            ("cut", _) => Reply { text: reply.text[..12].to_owned(), finish: Some("MAX_TOKENS".into()), ..reply },
            ("odd", 1) => Reply { text: String::new(), finish: Some("BRAND_NEW".into()), ..reply },
            _ => reply,
        })
    }
}

/// What a prompt makes the model do.
pub fn act_of(prompt: &str) -> &'static str {
    let acts = ACTS.iter().chain(HARD_ACTS);
    acts.copied().find(|act| prompt.contains(&format!("{act}-"))).unwrap_or("answer")
}
