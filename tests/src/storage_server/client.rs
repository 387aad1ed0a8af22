use anyhow::{Context, ensure};
use serde_json::json;
use std::sync::Arc;
use tasuki_google::connect::{Endpoint, install_tls};
use tasuki_google::objects::{Buckets, GoogleObjects, Traceparent};
use tasuki_relay::clock::Chance;
use tasuki_relay::names::Bucket;

/// Four buckets whose real names no test shares with another.
pub fn fresh_buckets() -> Buckets {
    let run = Chance::system().identity();
    let named = |bucket: Bucket| format!("tasuki-{}-{}", &run[..8], bucket.as_str());
    Buckets {
        inbox: named(Bucket::Inbox),
        shards: named(Bucket::Shards),
        answers: named(Bucket::Answers),
        state: named(Bucket::State),
    }
}

/// Makes the buckets on a server, ours or another one.
pub async fn make_buckets(host: &str, buckets: &Buckets) -> anyhow::Result<()> {
    install_tls();
    let client = reqwest::Client::new();
    for bucket in Bucket::ALL {
        let body = json!({ "name": buckets.name(bucket) }).to_string();
        let request = client.post(format!("http://{host}/storage/v1/b?project=tasuki-test"));
        let response = request.header("content-type", "application/json").body(body).send().await?;
        ensure!(response.status().is_success(), "bucket {}: {}", buckets.name(bucket), response.status());
    }
    Ok(())
}

/// The adapter on a server; what it creates carries no trace.
pub async fn objects_on(host: &str, buckets: &Buckets) -> anyhow::Result<GoogleObjects> {
    traced_objects_on(host, buckets, Arc::new(|| None)).await
}

/// The adapter on a server.
pub async fn traced_objects_on(host: &str, buckets: &Buckets, trace: Traceparent) -> anyhow::Result<GoogleObjects> {
    install_tls();
    GoogleObjects::new(&Endpoint::emulator(host), buckets.clone(), trace).await.context("storage client")
}
