//! Notices of runs that ended or were parked: CloudEvents on a Pub/Sub topic.
//!
//! One message per event in the binary mode of the CloudEvents protocol binding for Pub/Sub
//! (<https://github.com/googleapis/google-cloudevents/blob/main/docs/spec/pubsub.md>): the event's attributes are the message's,
//! with the prefix `ce-`; the data is JSON. A subscriber tells duplicates by `ce-id`, which is the same however often a
//! notice is published.

use crate::connect::Endpoint;
use async_trait::async_trait;
use google_cloud_gax::client_builder::Error as BuildError;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_pubsub::client::Publisher;
use google_cloud_pubsub::error::PublishError;
use google_cloud_pubsub::model::Message;
use google_cloud_pubsub::retry_policy::RetryableErrors;
use serde::Serialize;
use std::time::Duration;
use tasuki_relay::clock::Millis;
use tasuki_relay::ports::{Announcement, Notice, RunState};
use tasuki_relay::prices::dollars;
use tasuki_relay::record::Counts;

/// A publish is given up after so long: within the 30 s that the loader gives a notice, so that it hears why.
const TRY_FOR: Duration = Duration::from_secs(20);
/// And after so many tries: the loader's sweep comes back every minute.
const TRIES: u32 = 4;

/// Publishes to one topic. One for a process: it holds the connection.
#[derive(Clone, Debug)]
pub struct PubSubNotice {
    topic: String,
    publisher: Publisher,
}

impl PubSubNotice {
    /// `topic` is `projects/…/topics/…`. Connects with the first notice; must be called within a runtime. Fails when the
    /// credentials or the endpoint cannot be used.
    pub async fn new(topic: impl Into<String>, endpoint: Endpoint) -> Result<PubSubNotice, BuildError> {
        let topic = topic.into();
        let mut builder = Publisher::builder(&topic)
            .with_credentials(endpoint.credentials)
            .with_retry_policy(RetryableErrors.with_time_limit(TRY_FOR).with_attempt_limit(TRIES))
            .set_message_count_threshold(1); // a notice is alone: there is nothing to wait for
        if let Some(url) = endpoint.url {
            builder = builder.with_endpoint(url);
        }
        Ok(PubSubNotice { publisher: builder.build().await?, topic })
    }
}

#[async_trait]
impl Notice for PubSubNotice {
    async fn publish(&self, announcement: &Announcement) -> Result<(), String> {
        let message = message(announcement).ok_or("a run that goes on has no notice")?;
        let published = self.publisher.publish(message).await;
        published.map(drop).map_err(|error| format!("{} does not take the notice: {}", self.topic, why(&error)))
    }
}

/// The data of a notice, as JSON.
///
/// Why a run was refused is not in it: such a reason may name the columns of a file, and a file without a header line has a
/// row there.
#[derive(Serialize)]
struct Data<'a> {
    run: &'a str,
    pipeline: &'a str,
    /// The inbox object's name.
    input: &'a str,
    /// What is announced. The counts are those of now.
    state: &'static str,
    counts: &'a Counts,
    /// In dollars; null when a part of it is not known.
    cost_usd: Option<f64>,
    opened_at: Millis,
    ended_at: Option<Millis>,
}

/// The notice as a message; `None` for a state that is not announced.
fn message(announcement: &Announcement) -> Option<Message> {
    let Announcement { event_id, state, run } = announcement;
    let data = Data {
        run: run.run.as_str(),
        pipeline: &run.pipeline,
        input: &run.input,
        state: state.as_str(),
        counts: &run.counts,
        cost_usd: run.counts.known_cost().map(dollars),
        opened_at: run.opened_at,
        ended_at: run.ended_at,
    };
    let mut attributes = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", event_id.clone()),
        ("ce-type", event_type(*state)?.to_owned()),
        ("ce-source", format!("/tasuki/pipelines/{}", run.pipeline)),
        ("ce-subject", run.run.to_string()),
        ("content-type", "application/json".to_owned()),
    ];
    // When it was parked is not written anywhere: the same id must not come with different times.
    let ended_at = run.ended_at.filter(|_| state.has_ended());
    attributes.extend(ended_at.map(|at| ("ce-time", at.to_string())));
    let data = serde_json::to_vec(&data).expect("a notice is plain data");
    Some(Message::new().set_data(data).set_attributes(attributes))
}

/// `ce-type`; `None` for a state that is not announced.
fn event_type(state: RunState) -> Option<&'static str> {
    match state {
        RunState::Running => None,
        RunState::Parked => Some("tasuki.run.parked"),
        RunState::Complete => Some("tasuki.run.completed"),
        RunState::Failed => Some("tasuki.run.failed"),
        RunState::Cancelled => Some("tasuki.run.cancelled"),
    }
}

/// The code alone: the service's own words may quote the message.
fn why(error: &PublishError) -> String {
    let PublishError::Rpc(error) = error else { return "the publisher has stopped".to_owned() };
    match (error.status(), error.http_status_code()) {
        (Some(status), _) => status.code.name().to_owned(),
        (None, Some(code)) => format!("HTTP {code}"),
        (None, None) if error.is_authentication() => "no token can be had for its service account".to_owned(),
        (None, None) if error.is_timeout() || error.is_exhausted() => "no reply in time".to_owned(),
        (None, None) => "no connection".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;
    use tasuki_relay::names::RunId;
    use tasuki_relay::ports::RunRow;
    use tasuki_relay::record::{Bill, Usage};
    use tasuki_relay::settle::{event_id, parked_id};

    fn announcement(state: RunState) -> Announcement {
        let run = RunId::of("inbox", "themes/rows.jsonl", 7);
        let usage = Usage { prompt: 900, output: 60, thought: 5, cached: 100 };
        let waste = Bill { calls: 2, usage: Usage { prompt: 200, ..Usage::default() }, cost: 60_000_000 };
        let (cost, reused_answers, duplicate_prompts) = (420_000_000_000, 3, 1);
        let counts =
            Counts { shards: 2, loaded: 8, failed: 2, paid_calls: 9, ambiguous_calls: 1, usage, ..Counts::default() };
        let counts = Counts { cost, reused_answers, duplicate_prompts, waste, ..counts };
        Announcement {
            event_id: event_id(&run, state),
            state,
            run: RunRow {
                run,
                pipeline: "themes".into(),
                input: "themes/rows.jsonl".into(),
                source_time: Millis(1_763_620_000_000),
                run_time: Millis(1_763_620_000_000),
                state,
                refused: Some("no column \"canary\"".into()),
                expected_rows: Some(10),
                expected_shards: Some(2),
                opened_at: Millis(1_763_620_000_123),
                ended_at: Some(Millis(1_763_620_060_500)),
                counts,
            },
        }
    }

    #[test]
    fn a_notice_is_a_cloudevent_with_the_runs_counts() {
        let message = message(&announcement(RunState::Complete)).unwrap();
        let run = RunId::of("inbox", "themes/rows.jsonl", 7);
        let attributes: BTreeMap<&str, &str> =
            message.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let id = format!("{run}:complete");
        assert_eq!(
            attributes,
            BTreeMap::from([
                ("ce-specversion", "1.0"),
                ("ce-id", id.as_str()),
                ("ce-type", "tasuki.run.completed"),
                ("ce-source", "/tasuki/pipelines/themes"),
                ("ce-subject", run.as_str()),
                ("ce-time", "2025-11-20T06:27:40.500Z"),
                ("content-type", "application/json"),
            ])
        );
        let data: Value = serde_json::from_slice(&message.data).unwrap();
        let bill = |calls: u64, prompt: u64, cost: u64| {
            let usage = json!({ "prompt": prompt, "output": 0, "thought": 0, "cached": 0 });
            json!({ "calls": calls, "usage": usage, "cost": cost })
        };
        assert_eq!(
            data,
            json!({
                "run": run.as_str(), "pipeline": "themes", "input": "themes/rows.jsonl", "state": "COMPLETE",
                "counts": {
                    "shards": 2, "loaded": 8, "failed": 2, "cancelled": 0, "unchanged": 0, "superseded": 0,
                    "paid_calls": 9, "ambiguous_calls": 1, "wasted_answers": 0,
                    "usage": { "prompt": 900, "output": 60, "thought": 5, "cached": 100 },
                    "cost": 420_000_000_000_u64, "unpriced_calls": 0, "reused_answers": 3, "duplicate_prompts": 1,
                    "retries": bill(0, 0, 0), "salvage": bill(0, 0, 0), "waste": bill(2, 200, 60_000_000),
                },
                "cost_usd": 0.42,
                "opened_at": "2025-11-20T06:26:40.123Z", "ended_at": "2025-11-20T06:27:40.500Z",
            })
        );
    }

    #[test]
    fn a_cost_of_which_a_part_is_not_known_is_null_in_the_notice() {
        let mut parked = announcement(RunState::Complete);
        parked.run.counts.unpriced_calls = 1;
        let data: Value = serde_json::from_slice(&message(&parked).unwrap().data).unwrap();
        assert_eq!((&data["cost_usd"], &data["counts"]["unpriced_calls"]), (&Value::Null, &json!(1)));
    }

    #[test]
    fn every_end_has_a_type_of_its_own_and_a_run_that_goes_on_has_none() {
        let types = [RunState::Complete, RunState::Failed, RunState::Cancelled].map(event_type);
        assert_eq!(types, [Some("tasuki.run.completed"), Some("tasuki.run.failed"), Some("tasuki.run.cancelled")]);
        assert_eq!(event_type(RunState::Parked), Some("tasuki.run.parked"));
        assert!(message(&announcement(RunState::Running)).is_none());
    }

    #[test]
    fn a_parking_is_announced_as_such_even_when_the_run_has_ended_since() {
        let run = announcement(RunState::Complete).run;
        let parked = Announcement { event_id: parked_id(&run.run, 7), state: RunState::Parked, run };
        let message = message(&parked).unwrap();
        assert_eq!(message.attributes["ce-id"], format!("{}:parked:7", parked.run.run));
        assert!(!message.attributes.contains_key("ce-time"), "when it was parked is not known");
        assert_eq!(serde_json::from_slice::<Value>(&message.data).unwrap()["state"], "PARKED");
    }

    #[test]
    fn why_a_run_was_refused_is_not_told_to_the_world() {
        let message = message(&announcement(RunState::Failed)).unwrap();
        assert!(!format!("{message:?}{}", String::from_utf8_lossy(&message.data)).contains("canary"));
    }
}
