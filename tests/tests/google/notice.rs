//! Notices on Pub/Sub's emulator.

use anyhow::{Context, ensure};
use google_cloud_pubsub::client::{Subscriber, SubscriptionAdmin, TopicAdmin};
use google_cloud_pubsub::model::Message;
use libtest_mimic::Trial;
use serde_json::Value;
use std::time::Duration;
use tasuki_google::connect::Endpoint;
use tasuki_google::notice::PubSubNotice;
use tasuki_relay::clock::{Chance, Millis};
use tasuki_relay::names::RunId;
use tasuki_relay::ports::{Announcement, Notice, RunRow, RunState};
use tasuki_relay::record::Counts;
use tasuki_relay::settle::event_id;
use tasuki_tests::emulators::{Needs, trial};

/// Longer than any wait of these tests: what hangs fails.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_notice_that_is_published_twice_arrives_twice_with_one_id", &[Needs::PubSub], twice),
        trial("a_notice_for_an_absent_topic_is_an_error_and_no_wait", &[Needs::PubSub], absent_topic),
        trial("a_notice_without_pubsub_is_an_error_within_the_loaders_patience", &[], nobody_there),
    ]
}

fn emulator() -> anyhow::Result<Endpoint> {
    Ok(Endpoint::emulator(&std::env::var("PUBSUB_EMULATOR_HOST")?))
}

/// A name that no other test of this emulator has.
fn fresh(kind: &str) -> String {
    format!("projects/tasuki-test/{kind}/t{}", Chance::system().identity())
}

fn ended() -> Announcement {
    let run = RunId::of("inbox", "themes/rows.jsonl", 7);
    let counts = Counts { shards: 3, loaded: 290, failed: 10, paid_calls: 305, ..Counts::default() };
    Announcement {
        event_id: event_id(&run, RunState::Complete),
        state: RunState::Complete,
        run: RunRow {
            run,
            pipeline: "themes".into(),
            input: "themes/rows.jsonl".into(),
            source_time: Millis(1_763_620_000_000),
            run_time: Millis(1_763_620_000_000),
            state: RunState::Complete,
            refused: None,
            expected_rows: Some(300),
            expected_shards: Some(3),
            opened_at: Millis(1_763_620_000_000),
            ended_at: Some(Millis(1_763_620_060_000)),
            counts,
        },
    }
}

async fn create(topic: &str, subscription: &str) -> anyhow::Result<()> {
    let at = emulator()?;
    let url = at.url.context("an emulator has an address")?;
    let topics = TopicAdmin::builder().with_endpoint(&url).with_credentials(at.credentials.clone()).build().await?;
    topics.create_topic().set_name(topic).send().await?;
    let subscriptions =
        SubscriptionAdmin::builder().with_endpoint(&url).with_credentials(at.credentials).build().await?;
    subscriptions.create_subscription().set_name(subscription).set_topic(topic).send().await?;
    Ok(())
}

async fn received(subscription: &str, messages: usize) -> anyhow::Result<Vec<Message>> {
    let at = emulator()?;
    let url = at.url.context("an emulator has an address")?;
    let subscriber = Subscriber::builder().with_endpoint(url).with_credentials(at.credentials).build().await?;
    let mut stream = subscriber.subscribe(subscription).build();
    let mut got = Vec::new();
    while got.len() < messages {
        let (message, handler) = stream.next().await.context("the subscription ended")??;
        handler.ack();
        got.push(message);
    }
    Ok(got)
}

async fn twice() -> anyhow::Result<()> {
    let (topic, subscription) = (fresh("topics"), fresh("subscriptions"));
    create(&topic, &subscription).await?;
    let notice = PubSubNotice::new(topic, emulator()?).await?;
    for _ in 0..2 {
        notice.publish(&ended()).await.map_err(anyhow::Error::msg)?;
    }
    let messages = tokio::time::timeout(PATIENCE, received(&subscription, 2)).await.context("not both arrived")??;
    for message in messages {
        let attribute = |name: &str| message.attributes.get(name).map(String::as_str);
        ensure!(attribute("ce-id") == Some(ended().event_id.as_str()), "{message:?}");
        ensure!(attribute("ce-type") == Some("tasuki.run.completed"), "{message:?}");
        ensure!(attribute("content-type") == Some("application/json"), "{message:?}");
        let data: Value = serde_json::from_slice(&message.data)?;
        ensure!(data["counts"]["loaded"] == 290 && data["counts"]["failed"] == 10, "{data}");
        ensure!(data["run"] == ended().run.run.as_str() && data["state"] == "COMPLETE", "{data}");
    }
    Ok(())
}

async fn absent_topic() -> anyhow::Result<()> {
    let notice = PubSubNotice::new(fresh("topics"), emulator()?).await?;
    let published = tokio::time::timeout(PATIENCE, notice.publish(&ended())).await.context("it hangs")?;
    let error = published.err().context("a topic that is not there took a notice")?;
    ensure!(error.contains("NOT_FOUND"), "{error}");
    Ok(())
}

async fn nobody_there() -> anyhow::Result<()> {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let notice = PubSubNotice::new(fresh("topics"), Endpoint::emulator(&closed.to_string())).await?;
    let published = tokio::time::timeout(PATIENCE, notice.publish(&ended())).await.context("it hangs")?;
    let error = published.err().context("nobody took the notice, and there is no error")?;
    ensure!(error.contains("projects/tasuki-test/topics/"), "{error}");
    Ok(())
}
