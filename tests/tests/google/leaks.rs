//! No text of a row, prompt or answer leaves the buckets and the store, whatever goes wrong: the services as processes, with
//! everything logged that can be, their telemetry, their replies and their notices.

use crate::end_to_end::EMULATORS;
use crate::records::COMMIT;
use anyhow::{Context, Result, ensure};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use libtest_mimic::Trial;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tasuki_tests::collector::Collector;
use tasuki_tests::deployment::{CALLER, Delivery, Deployment, Setup};
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::model_server::{Act, CallInfo, Script};
use tasuki_tests::oidc::{Signed, claims, token};
use tasuki_tests::storage_server::{Fault, On, Op};

/// In every row and every answer; percent-encoding leaves it as it is, base64 does not: see [`in_base64`].
const CANARY: &str = "canary4c81e0";
const LOOK: Duration = Duration::from_millis(50);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("no_text_of_rows_prompts_or_answers_leaves_the_buckets_and_the_store", EMULATORS, nothing_leaks),
        trial("a_text_is_found_in_base64_wherever_it_stands", &[Needs::Nothing], || async { base64_is_seen_through() }),
    ]
}

/// What of a text is in the base64 of whatever contains it: three forms, by its position among groups of three bytes. The
/// digits at its ends that hold bits of its neighbours are left out.
fn in_base64(text: &str) -> [String; 3] {
    [0, 1, 2].map(|before: usize| {
        let whole = BASE64.encode(format!("{}{text}", "\0".repeat(before)).as_bytes());
        whole[(before * 8).div_ceil(6)..(before + text.len()) * 8 / 6].to_owned()
    })
}

/// Where the canary stands in a text, as it is or in base64, with what stands before it.
fn shown(text: &str) -> Option<&str> {
    let forms = [CANARY.to_owned()].into_iter().chain(in_base64(CANARY));
    let (at, length) = forms.filter_map(|form| Some((text.find(&form)?, form.len()))).min()?;
    Some(&text[text.floor_char_boundary(at.saturating_sub(600))..at + length])
}

fn base64_is_seen_through() -> Result<()> {
    for (before, after) in (0..6).flat_map(|before| (0..6).map(move |after| (before, after))) {
        let text = format!("{}{CANARY}{}", "\u{7f}".repeat(before), "\u{7f}".repeat(after));
        for base64 in [BASE64, BASE64URL_NOPAD] {
            let encoded = base64.encode(text.as_bytes());
            ensure!(shown(&encoded).is_some(), "{before} bytes before and {after} after it: {encoded}");
        }
    }
    ensure!(shown(&BASE64.encode(b"another4c81e0")).is_none());
    Ok(())
}

/// Rows whose texts say what becomes of them.
const FATES: [&str; 8] = ["good", "echo", "prose", "short", "blocked", "broken", "cut", "busy"];
const OF_EACH: usize = 12;

/// Every way to go wrong that quotes what was sent.
fn act(call: &CallInfo) -> Act {
    let prompt = &call.prompt;
    let error = |code: u16, status: &str| {
        let message = format!("Invalid value at 'contents[0].parts[0].text': {prompt}");
        Act::Status(code, json!({"error": {"code": code, "status": status, "message": message}}).to_string())
    };
    let says = |fate: &str| prompt.contains(fate);
    match () {
        () if says("echo") => error(400, "INVALID_ARGUMENT"),
        () if says("prose") => Act::Answer(format!("Of course! {prompt}")),
        () if says("short") => Act::Answer(json!({"words": [CANARY]}).to_string()),
        () if says("blocked") => Act::Blocked("PROHIBITED_CONTENT".to_owned()),
        () if says("broken") && call.nth < 3 => error(500, CANARY),
        () if says("cut") && call.nth == 1 => Act::Cut(40),
        () if says("busy") && call.nth == 1 => error(429, "RESOURCE_EXHAUSTED"),
        () => Act::Answer(json!({"words": [format!("{CANARY} one"), format!("{CANARY} two")]}).to_string()),
    }
}

fn rows() -> (String, u64) {
    let mut lines = Vec::new();
    for at in 0..OF_EACH {
        lines.extend(FATES.map(|fate| {
            json!({"id": format!("{CANARY}-{fate}-{at}"), "text": format!("{fate} {CANARY} {at}")}).to_string()
        }));
    }
    let row = |id: &str| json!({"id": id, "text": format!("good {CANARY}")}).to_string();
    lines.extend([
        row(&format!("{CANARY}-good-1")), // doubled
        row(&format!("refused-{CANARY}")),
        json!({"text": format!("{CANARY} without a key")}).to_string(),
        json!({"id": {CANARY: 1}, "text": CANARY}).to_string(),
        json!({"id": format!("{CANARY}-bare"), "other": CANARY}).to_string(),
        format!("{{\"id\": \"{CANARY}\", \"text\": {CANARY}"),
        format!("{CANARY}, {CANARY}"),
    ]);
    (lines.join("\n") + "\n", lines.len() as u64)
}

/// What the store says of rows that failed.
const REASONS: [&str; 9] = [
    "bad_json",
    "bad_key",
    "blocked_prompt:PROHIBITED_CONTENT",
    "duplicate_key",
    "malformed",
    "missing_column",
    "missing_key",
    "rejected",
    "store_rejected:OUT_OF_RANGE",
];

async fn nothing_leaks() -> Result<()> {
    let collector = Collector::start().await?;
    let everything = ["TASUKI_LOG", "RUST_LOG"].map(|name| (name, "trace".to_owned()));
    let variables = everything.into_iter().chain([("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address.clone())]);
    let delivery = Delivery { sweep_every: Duration::from_secs(2), doubled: 20, ..Delivery::default() };
    let setup = Setup { delivery, variables: variables.collect(), ..Setup::default() };
    let deployment = Deployment::start(Script::acting(act), setup).await?;
    deployment
        .database
        .apply("ALTER TABLE row_words ADD CONSTRAINT fair CHECK (NOT STARTS_WITH(id, 'refused'))")
        .await?;
    deployment.proxies.spanner.lose(COMMIT, 1);
    deployment.proxies.model.lose(b":generateContent", 1);
    deployment.storage.fault(On::op(Op::Insert).bucket(&deployment.buckets.answers), 2, Fault::LostReply);
    for role in deployment.services.keys() {
        garbage(&deployment, role).await?;
    }
    let (text, rows) = rows();
    let run = deployment.drop_file("rows.jsonl", text)?;
    let state = deployment.end_of(&run).await?;
    ensure!(state == "COMPLETE", "the run ended {state}");
    deployment.check_end(&run, rows).await?;
    let refused = deployment.drop_file("headless.csv", format!("{CANARY},id {CANARY}\n{CANARY},{CANARY}\n"))?;
    ensure!(deployment.end_of(&refused).await? == "FAILED");

    let failed =
        deployment.database.query(&format!("SELECT DISTINCT reason FROM Failures WHERE run = '{run}'")).await?;
    let failed: BTreeSet<&str> = failed.iter().filter_map(|row| row[0].as_str()).collect();
    ensure!(failed == BTreeSet::from(REASONS), "the rows failed otherwise: {failed:?}");
    let kept = format!("SELECT COUNT(*) FROM row_words WHERE STARTS_WITH(words[OFFSET(0)], '{CANARY}')");
    ensure!(deployment.database.query(&kept).await?[0][0] != "0", "no answer has the canary");

    for service in deployment.services.values() {
        service.signal("TERM")?;
        while !service.has_ended()? {
            tokio::time::sleep(LOOK).await;
        }
        service.is_alive()?; // it ended with 0
    }
    for (role, service) in &deployment.services {
        ensure!(service.output().contains("\"severity\":\"DEBUG\""), "the {role} does not tell all that it can");
    }
    let mut said = deployment.texts_of(&[&run, &refused]).await?;
    let exported = collector.sent();
    ensure!(exported.iter().any(|(path, _)| path == "/v1/traces"), "no spans were exported");
    said.extend(exported.iter().map(|(path, body)| (path.clone(), String::from_utf8_lossy(body).into_owned())));
    for (whose, text) in &said {
        let shown = shown(text);
        ensure!(shown.is_none(), "{whose} tells: {}", shown.unwrap_or_default());
        ensure!(!text.contains("panicked"), "{whose} panicked");
    }
    Ok(())
}

/// A body that is no event.
async fn garbage(deployment: &Deployment, role: &str) -> Result<()> {
    let host = deployment.services.get(role).context("it runs")?.host();
    let token = token(&claims(&format!("https://{host}"), CALLER, 60), Signed::Rightly);
    let request = reqwest::Client::new().post(format!("http://{host}/events")).bearer_auth(token);
    let reply = request.body(format!("{{\"message\": \"{CANARY}\"}}")).send().await?;
    let (status, text) = (reply.status().as_u16(), reply.text().await?);
    ensure!(status == 200 && !text.contains(CANARY), "{status} {text}");
    Ok(())
}
