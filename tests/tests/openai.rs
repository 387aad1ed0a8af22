//! The client of chat completions against a server that does what a script says, over http and https.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails here; clippy only knows functions marked as tests"
)]

use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::openai::{Form, OpenAi, OpenAiConfig};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Ask, Fault, Model, Reply};
use tasuki_relay::prices::Tier;
use tasuki_tests::model_server::{Act, CallInfo, ModelServer, RetryEncoding, Script};

const KEY: &str = "sekret-key";
const PROMPT: &str = "canary of a row";
const BOTH: [fn(Script) -> Script; 2] = [|script| script, Script::https];

fn ask(model: &str) -> Ask {
    let text = format!(
        "name = \"p\"\nkey = \"id\"\n[prompt]\nsystem = \"Name the themes.\"\ntemplate = \"{{{{ text }}}}\"\n\
         [model]\nprovider = \"openai\"\nname = \"org/m-lite\"\n{model}\n[answer.themes]\ntype = \"string\"\ncount = 6\n\
         distinct = true\n[answer.score]\ntype = \"integer\"\n[target]\ntable = \"t\"\n"
    );
    let pipeline = Arc::new(Pipeline::parse(&text).unwrap());
    Ask { pipeline, prompt: PROMPT.to_owned(), row: Arc::new(Map::new()), max_output_tokens: None }
}

fn config(server: &ModelServer) -> OpenAiConfig {
    let https = server.base().starts_with("https");
    let get = |name: &str| match name {
        "OPENAI_API_KEY" => Some(KEY.to_owned()),
        "OPENAI_BASE_URL" => Some(server.chat_base()),
        "SSL_CERT_FILE" if https => Some(server.ca_pem_path().display().to_string()),
        _ => None,
    };
    let mut config = OpenAiConfig::from_env(get, 100).unwrap();
    config.server.timeout = |_| Duration::from_secs(20);
    config
}

/// Asks over http and over https, each in a server of its own; both say the same.
async fn asked(model: &str, act: impl Fn(&CallInfo) -> Act + Clone + Send + Sync + 'static) -> Result<Reply, Fault> {
    let mut results = Vec::new();
    for over in BOTH {
        let server = ModelServer::start(over(Script::acting(act.clone()))).await.unwrap();
        results.push(OpenAi::new(config(&server)).unwrap().ask(&ask(model)).await);
        assert_eq!(server.tally().calls(), 1, "a call is never sent twice");
    }
    let (tls, plain) = (results.pop().unwrap(), results.pop().unwrap());
    assert_eq!(plain, tls, "http and https differ");
    if let Err(fault) = &plain {
        let text = format!("{fault} {fault:?}");
        assert!(![KEY, PROMPT, "chat/completions"].iter().any(|secret| text.contains(secret)), "{text}");
    }
    plain
}

async fn fault_of(act: Act) -> Fault {
    asked("", move |_| act.clone()).await.unwrap_err()
}

#[tokio::test]
async fn an_answer_comes_with_its_tokens_version_and_tier() {
    let reply = asked("tier = 'flex'", |_| Act::Auto).await.unwrap();
    let answer: Value = serde_json::from_str(&reply.text).unwrap();
    assert_eq!(answer["themes"].as_array().unwrap().len(), 6);
    assert!(answer["score"].is_u64());
    assert_eq!((reply.finish.as_deref(), reply.model.as_str()), (Some("STOP"), "org/m-lite-001"));
    assert!(reply.usage.prompt > 0 && reply.usage.output > 0);
    assert_eq!(reply.tier, Some(Tier::Flex));
}

#[tokio::test]
async fn the_server_sees_the_key_the_model_and_the_settings() {
    let result = asked("max_output_tokens = 100\ntemperature = 0.5", |call| {
        assert_eq!(call.authorization.as_deref(), Some("Bearer sekret-key"));
        assert_eq!((call.path.as_str(), call.model.as_str()), ("/v1/chat/completions", "org/m-lite"));
        assert_eq!(call.request["messages"][0], json!({ "role": "system", "content": "Name the themes." }));
        assert_eq!((&call.request["max_tokens"], &call.request["temperature"]), (&json!(100), &json!(0.5)));
        Act::Answer("{}".to_owned())
    });
    assert_eq!(result.await.unwrap().text, "{}");
}

#[tokio::test]
async fn a_server_that_takes_no_schema_gets_none() {
    let server = ModelServer::start(Script::acting(|call| match call.request.get("response_format") {
        Some(_) => Act::Status(422, String::new()),
        None => Act::Answer("{}".to_owned()),
    }));
    let server = server.await.unwrap();
    let refused = OpenAi::new(config(&server)).unwrap().ask(&ask("")).await;
    assert!(matches!(refused, Err(Fault::Invalid(_))), "{refused:?}");
    let config = OpenAiConfig { form: Form::Text, ..config(&server) };
    assert_eq!(OpenAi::new(config).unwrap().ask(&ask("")).await.unwrap().text, "{}");
}

#[tokio::test]
async fn a_server_without_a_key_sees_none() {
    let server = ModelServer::start(Script::acting(|call| {
        assert_eq!(call.authorization, None);
        Act::Auto
    }));
    let server = server.await.unwrap();
    let config = OpenAiConfig { key: None, ..config(&server) };
    OpenAi::new(config).unwrap().ask(&ask("")).await.unwrap();
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back() {
    for seconds in [2.0, 0.25] {
        let retry_after = Some(Duration::from_secs_f64(seconds));
        let act = Act::Busy { retry_after, encoding: RetryEncoding::Header };
        assert_eq!(fault_of(act).await, Fault::Busy { retry_after });
    }
    let no_money = json!({ "error": { "code": "insufficient_quota", "message": PROMPT } }).to_string();
    let fault = fault_of(Act::Status(429, no_money)).await;
    assert!(matches!(&fault, Fault::Systemic(what) if what.contains("billing")), "{fault:?}");
}

#[tokio::test]
async fn each_status_has_its_fault() {
    let echo = |code: u16| Act::Status(code, json!({ "error": { "code": PROMPT, "message": PROMPT } }).to_string());
    for status in [500, 502, 503] {
        assert!(matches!(fault_of(echo(status)).await, Fault::Unavailable(_)), "{status}");
    }
    for status in [408, 504] {
        assert!(matches!(fault_of(echo(status)).await, Fault::Ambiguous(_)), "{status}");
    }
    for status in [400, 413, 422] {
        assert!(matches!(fault_of(echo(status)).await, Fault::Invalid(_)), "{status}");
    }
    for status in [401, 402, 403, 404] {
        assert!(matches!(fault_of(echo(status)).await, Fault::Systemic(_)), "{status}");
    }
    for act in [Act::Cut(0), Act::Cut(60), Act::Reset] {
        assert!(matches!(fault_of(act).await, Fault::Ambiguous(_)));
    }
    for act in [Act::Garbage, Act::Body(r#"{"choices": 1}"#.to_owned())] {
        assert!(matches!(fault_of(act).await, Fault::Garbled(_)));
    }
}

#[tokio::test]
async fn refused_blocked_and_truncated_answers_are_replies() {
    let end = |act: Act| async move {
        let reply = asked("", move |_| act.clone()).await.unwrap();
        (reply.text, reply.finish, reply.blocked)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(end(Act::Refused("I will not.".to_owned())).await, (String::new(), some("SAFETY"), None));
    assert_eq!(end(Act::BlockedAnswer("SAFETY".to_owned())).await, (String::new(), some("SAFETY"), None));
    assert_eq!(end(Act::Blocked(String::new())).await, (String::new(), None, some("content_filter")));
    assert_eq!(end(Act::MaxTokens("{\"th".to_owned())).await, ("{\"th".to_owned(), some("MAX_TOKENS"), None));
}

#[tokio::test]
async fn a_tier_has_its_own_limit_of_time() {
    let server = ModelServer::start(Script::default().latency(Duration::from_millis(600))).await.unwrap();
    let mut config = config(&server);
    config.server.timeout = |tier| Duration::from_millis(if tier == Tier::Flex { 20_000 } else { 200 });
    let client = OpenAi::new(config).unwrap();
    let fault = client.ask(&ask("")).await.unwrap_err();
    assert!(matches!(&fault, Fault::Ambiguous(text) if text.contains("200ms")), "{fault:?}");
    client.ask(&ask("tier = 'flex'")).await.unwrap();
}
