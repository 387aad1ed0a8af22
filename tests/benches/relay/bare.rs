//! The same calls without a relay: no split, no record of anything, no load. What the network's stack takes by itself.

use crate::{Line, Options, model, process};
use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client, header};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tasuki_relay::clock::{Chance, Clock};
use tasuki_relay::pace::backoff;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::schema::response_schema;

/// Calls on one HTTP/2 connection, and a fifth more connections than that needs: as the relay's client.
const CALLS_PER_CONNECTION: u32 = 100;

/// Runs the loop as a process. Wall time is from its first call to its last reply.
pub fn measure(options: &Options, server: &model::Server, input: &Path) -> Result<Line> {
    let result = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(options.arguments()).arg("bare").args([&server.base, &server.certificate]).arg(input);
    let took = process::run(command.stdout(Stdio::from(result.reopen()?)))?;
    let millis: u64 = std::fs::read_to_string(result.path())?.trim().parse()?;
    Ok(Line { wall: Duration::from_millis(millis), took })
}

/// The loop: so many workers as calls may be in flight, each with the next row until none is left. Prints milliseconds.
pub fn run(options: &Options, base: &str, certificate: &str, input: &str) -> Result<()> {
    rustls::crypto::ring::default_provider().install_default().ok().context("the first provider of this process")?;
    let full = options.in_flight.div_ceil(CALLS_PER_CONNECTION);
    let clients: Vec<Client> = (0..full + full.div_ceil(5)).map(|_| client(certificate)).collect::<Result<_>>()?;
    let rows: Arc<Vec<String>> = Arc::new(std::fs::read_to_string(input)?.lines().map(str::to_owned).collect());
    let (next, wanted) = (Arc::new(AtomicUsize::new(0)), rows.len());
    let pipeline = Arc::new(Pipeline::parse(include_str!("../../../examples/themes.toml"))?);
    let url = Arc::new(format!("{base}/v1beta/models/{}:generateContent", pipeline.model.name));
    let (clock, chance) = (Clock::system(), Chance::system());
    let started = clock.instant();
    let answered: usize = tokio::runtime::Runtime::new()?.block_on(async {
        let workers: Vec<_> = (0..options.in_flight as usize)
            .map(|worker| {
                let (client, url) = (clients[worker % clients.len()].clone(), url.clone());
                let (rows, next, pipeline) = (rows.clone(), next.clone(), pipeline.clone());
                let (retries, chance) = (options.quota.is_some(), chance.clone());
                tokio::spawn(async move {
                    let mut answered = 0;
                    while let Some(row) = rows.get(next.fetch_add(1, Relaxed)) {
                        let (mut fine, mut rejections) = (call(&client, &url, &pipeline, row).await?, 0);
                        while !fine && retries {
                            let longest = backoff(rejections, Duration::from_secs(1), Duration::from_secs(60));
                            tokio::time::sleep(chance.up_to(longest)).await;
                            (fine, rejections) = (call(&client, &url, &pipeline, row).await?, rejections + 1);
                        }
                        answered += usize::from(fine);
                    }
                    anyhow::Ok(answered)
                })
            })
            .collect();
        let mut all = 0;
        for worker in workers {
            all += worker.await??;
        }
        anyhow::Ok(all)
    })?;
    ensure!(answered == wanted, "{answered} of {wanted} calls were answered");
    crate::say(&started.elapsed().as_millis().to_string())
}

fn client(certificate: &str) -> Result<Client> {
    let certificate = Certificate::from_pem(&std::fs::read(certificate)?)?;
    Ok(Client::builder().tls_certs_only([certificate]).http2_prior_knowledge().no_proxy().build()?)
}

/// One call, as large as the relay's, and its reply to the end. False when it was not answered.
async fn call(client: &Client, url: &str, pipeline: &Pipeline, row: &str) -> Result<bool> {
    let body = json!({
        "contents": [{ "role": "user", "parts": [{ "text": row }] }],
        "systemInstruction": { "parts": [{ "text": pipeline.system }] },
        "generationConfig": { "responseMimeType": "application/json", "responseSchema": response_schema(pipeline) },
    });
    let request = client.post(url).header(header::CONTENT_TYPE, "application/json").body(body.to_string());
    let reply = request.send().await?;
    let fine = reply.status().is_success();
    Ok(fine && !reply.bytes().await?.is_empty())
}
