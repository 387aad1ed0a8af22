//! The model suite, on the model in memory, the stand-in, and the clients of Gemini and of chat completions over http and https.

use serde_json::json;
use std::collections::BTreeMap;
use tasuki_relay::gemini::{Gemini, GeminiConfig};
use tasuki_relay::openai::{OpenAi, OpenAiConfig};
use tasuki_relay::ports::Reply;
use tasuki_relay::stand_in::StandIn;
use tasuki_tests::memory::MemoryModel;
use tasuki_tests::model_server::{ModelServer, Script};
use tasuki_tests::suites::{model_questions, model_suite};

#[tokio::test]
async fn the_model_in_memory() {
    let text = json!({"themes": ["a", "b", "c"], "score": 3}).to_string();
    let reply = Reply { text, finish: Some("STOP".into()), model: "memory-1".into(), ..Reply::default() };
    let says = model_questions().unwrap().into_iter().map(|ask| (ask.prompt, Ok(reply.clone())));
    model_suite(&MemoryModel::new(says)).await.unwrap();
}

#[tokio::test]
async fn the_stand_in() {
    model_suite(&StandIn).await.unwrap();
}

async fn gemini(script: Script) -> anyhow::Result<()> {
    let server = ModelServer::start(script).await?;
    let mut environment = BTreeMap::from([
        ("GEMINI_API_KEY".to_owned(), "key".to_owned()),
        ("GOOGLE_GEMINI_BASE_URL".to_owned(), server.base()),
    ]);
    if server.base().starts_with("https") {
        environment.insert("SSL_CERT_FILE".to_owned(), server.ca_pem_path().display().to_string());
    }
    let config = GeminiConfig::from_env(|name| environment.get(name).cloned(), 1_000)?;
    model_suite(&Gemini::new(config)?).await
}

#[tokio::test]
async fn gemini_over_http() {
    gemini(Script::default()).await.unwrap();
}

#[tokio::test]
async fn gemini_over_https() {
    gemini(Script::default().https()).await.unwrap();
}

async fn openai(script: Script) -> anyhow::Result<()> {
    let server = ModelServer::start(script).await?;
    let mut environment = BTreeMap::from([("OPENAI_BASE_URL".to_owned(), server.chat_base())]);
    if server.base().starts_with("https") {
        environment.insert("SSL_CERT_FILE".to_owned(), server.ca_pem_path().display().to_string());
    }
    let config = OpenAiConfig::from_env(|name| environment.get(name).cloned(), 1_000)?;
    model_suite(&OpenAi::new(config)?).await
}

#[tokio::test]
async fn chat_completions_over_http() {
    openai(Script::default()).await.unwrap();
}

#[tokio::test]
async fn chat_completions_over_https() {
    openai(Script::default().https()).await.unwrap();
}
