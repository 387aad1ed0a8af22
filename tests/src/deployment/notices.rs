//! The topic of completion notices on Pub/Sub's emulator, and a subscription that hears them.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tasuki_relay::clock::Chance;
use tasuki_relay::names::RunId;

/// Pulls that bring nothing before all notices are taken to be heard: a pull may be empty although there are messages.
const EMPTY_PULLS: u32 = 3;

/// A topic with a subscription.
pub struct Topic {
    /// `projects/…/topics/…`.
    pub name: String,
    subscription: String,
    at: String,
    /// By message: nothing is acknowledged, so a message may be pulled again.
    heard: Mutex<BTreeMap<String, Value>>,
}

impl Topic {
    /// One that no other test of this emulator has.
    pub async fn fresh() -> Result<Topic> {
        let id = Chance::system().identity();
        let topic = Topic {
            name: format!("projects/tasuki-test/topics/t{id}"),
            subscription: format!("projects/tasuki-test/subscriptions/t{id}"),
            at: format!("http://{}/v1", std::env::var("PUBSUB_EMULATOR_HOST")?),
            heard: Mutex::default(),
        };
        let client = reqwest::Client::new();
        for (name, body) in [(&topic.name, json!({})), (&topic.subscription, json!({"topic": topic.name}))] {
            let made = client.put(format!("{}/{name}", topic.at)).body(body.to_string()).send().await?;
            ensure!(made.status().is_success(), "{name}: {}", made.status());
        }
        Ok(topic)
    }

    /// The notices of a run that came until now, each that was published once: attributes, data.
    pub async fn of(&self, run: &RunId) -> Result<Vec<Value>> {
        let (client, mut empty) = (reqwest::Client::new(), 0);
        while empty < EMPTY_PULLS {
            let pull = client.post(format!("{}/{}:pull", self.at, self.subscription));
            let body = json!({"maxMessages": 100, "returnImmediately": true}).to_string();
            let pulled: Value = serde_json::from_slice(&pull.body(body).send().await?.bytes().await?)?;
            let messages = pulled["receivedMessages"].as_array().cloned().unwrap_or_default();
            empty += u32::from(messages.is_empty());
            for mut received in messages {
                let message = received["message"].take();
                let id = message["messageId"].as_str().context("a message has an id")?.to_owned();
                self.heard().insert(id, message);
            }
        }
        let is_of = |message: &&Value| message["attributes"]["ce-subject"].as_str() == Some(run.as_str());
        Ok(self.heard().values().filter(is_of).cloned().collect())
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<String, Value>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
