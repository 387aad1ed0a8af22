//! The Gemini client against a server that does what a script says, over http and https.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails here; clippy only knows functions marked as tests"
)]

use futures::future::join_all;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::gemini::{Gemini, GeminiConfig};
use tasuki_relay::pipeline::{AnswerColumn, KeyType, ModelSettings, Pipeline, RunSettings, ValueType};
use tasuki_relay::ports::{Ask, Fault, Model, Reply};
use tasuki_relay::prices::Tier;
use tasuki_tests::model_server::{Act, CallInfo, ModelServer, RetryEncoding, Script};

const KEY: &str = "sekret-key";
const PROMPT: &str = "canary of a row";
const BOTH: [fn(Script) -> Script; 2] = [|script| script, Script::https];

fn pipeline() -> Arc<Pipeline> {
    let column = |name: &str, value_type, count| AnswerColumn {
        name: name.to_owned(),
        value_type,
        count,
        distinct: count.is_some(),
        max_chars: None,
        one_of: None,
        pattern: None,
        description: None,
    };
    Arc::new(Pipeline {
        name: "p".to_owned(),
        key: "id".to_owned(),
        key_type: KeyType::String,
        system: Some("Name the themes.".to_owned()),
        template: "{{ text }}".to_owned(),
        columns: vec!["text".to_owned()],
        answer: vec![column("themes", ValueType::String, Some(6)), column("score", ValueType::Integer, None)],
        model: ModelSettings { name: "m-lite".to_owned(), ..ModelSettings::default() },
        run: RunSettings::default(),
        table: "t".to_owned(),
    })
}

fn ask(prompt: impl Into<String>) -> Ask {
    Ask { pipeline: pipeline(), prompt: prompt.into(), row: Arc::new(Map::new()), max_output_tokens: None }
}

fn config(server: &ModelServer, max_in_flight: u32) -> GeminiConfig {
    let https = server.base().starts_with("https");
    let get = |name: &str| match name {
        "GEMINI_API_KEY" => Some(KEY.to_owned()),
        "GOOGLE_GEMINI_BASE_URL" => Some(server.base()),
        "SSL_CERT_FILE" if https => Some(server.ca_pem_path().display().to_string()),
        _ => None,
    };
    let mut config = GeminiConfig::from_env(get, max_in_flight).unwrap();
    config.server.timeout = |_| Duration::from_secs(20);
    config
}

fn client(server: &ModelServer) -> Gemini {
    Gemini::new(config(server, 100)).unwrap()
}

/// Asks over http and over https, each in a server of its own.
async fn asked(act: impl Fn(&CallInfo) -> Act + Clone + Send + Sync + 'static) -> Vec<Result<Reply, Fault>> {
    let mut results = Vec::new();
    for over in BOTH {
        let server = ModelServer::start(over(Script::acting(act.clone()))).await.unwrap();
        let result = client(&server).ask(&ask(PROMPT)).await;
        if let Err(fault) = &result {
            says_nothing_secret(fault);
        }
        results.push(result);
    }
    results
}

async fn fault_of(act: Act) -> Fault {
    let mut results = asked(move |_| act.clone()).await.into_iter();
    let (plain, tls) = (results.next().unwrap().unwrap_err(), results.next().unwrap().unwrap_err());
    assert_eq!(plain, tls, "http and https differ");
    plain
}

fn says_nothing_secret(fault: &Fault) {
    let text = format!("{fault} {fault:?}");
    assert!(![KEY, PROMPT, "/v1beta", "generateContent"].iter().any(|secret| text.contains(secret)), "{text}");
}

#[tokio::test]
async fn an_answer_comes_with_its_tokens_and_version() {
    for over in BOTH {
        let server = ModelServer::start(over(Script::default())).await.unwrap();
        let reply = client(&server).ask(&ask(PROMPT)).await.unwrap();
        let answer: Value = serde_json::from_str(&reply.text).unwrap();
        assert_eq!(answer["themes"].as_array().unwrap().len(), 6);
        assert!(answer["score"].is_u64());
        assert_eq!((reply.finish.as_deref(), reply.model.as_str()), (Some("STOP"), "m-lite-001"));
        assert_eq!((reply.usage.prompt, reply.usage.output), server.tally().tokens());
        assert_eq!(server.tally().calls(), 1);
    }
}

#[tokio::test]
async fn the_server_sees_the_key_the_model_and_the_settings() {
    let results = asked(|call| {
        assert_eq!(call.key_header.as_deref(), Some(KEY));
        assert_eq!(call.path, "/v1beta/models/m-lite:generateContent");
        assert_eq!((call.model.as_str(), call.prompt.as_str()), ("m-lite", PROMPT));
        let generation = &call.request["generationConfig"];
        assert_eq!(generation["thinkingConfig"]["thinkingLevel"], "MINIMAL");
        assert_eq!(generation["responseMimeType"], "application/json");
        Act::Answer(if call.http2 { "over 2" } else { "over 1" }.to_owned())
    });
    let texts: Vec<String> = results.await.into_iter().map(|result| result.unwrap().text).collect();
    assert_eq!(texts, ["over 1", "over 2"], "http is HTTP/1.1 and https HTTP/2");
}

#[tokio::test]
async fn the_gemini_api_is_not_asked_about_rows_that_must_stay_in_a_place() {
    let server = ModelServer::start(Script::default()).await.unwrap();
    let mut ask = ask(PROMPT);
    Arc::make_mut(&mut ask.pipeline).model.location = Some("eu".to_owned());
    let fault = client(&server).ask(&ask).await.unwrap_err();
    assert!(matches!(&fault, Fault::Systemic(what) if what.contains("location")), "{fault:?}");
    assert_eq!(server.tally().calls(), 0);
}

#[tokio::test]
async fn the_gemini_api_is_told_the_tier_in_the_body_and_a_tier_has_its_own_limit_of_time() {
    let script = Script::acting(|call| {
        let flex = call.request.get("service_tier").is_some_and(|tier| tier == "flex");
        assert!(call.headers.keys().all(|name| !name.as_str().starts_with("x-vertex")), "{:?}", call.headers);
        Act::After(Duration::from_millis(600), Box::new(Act::Answer(if flex { "flex" } else { "no" }.to_owned())))
    });
    let server = ModelServer::start(script).await.unwrap();
    let mut config = config(&server, 10);
    config.server.timeout = |tier| Duration::from_millis(if tier == Tier::Flex { 20_000 } else { 200 });
    let gemini = Gemini::new(config).unwrap();
    let fault = gemini.ask(&ask(PROMPT)).await.unwrap_err();
    assert!(matches!(&fault, Fault::Ambiguous(text) if text.contains("200ms")), "{fault:?}");
    let mut flex = ask(PROMPT);
    Arc::make_mut(&mut flex.pipeline).model.tier = Tier::Flex;
    assert_eq!(gemini.ask(&flex).await.unwrap().text, "flex");
}

#[tokio::test]
async fn a_busy_model_says_when_to_come_back() {
    for (encoding, seconds) in [(RetryEncoding::Text, 12.5), (RetryEncoding::Parts, 12.5), (RetryEncoding::Header, 7.0)]
    {
        let retry_after = Some(Duration::from_secs_f64(seconds));
        assert_eq!(fault_of(Act::Busy { retry_after, encoding }).await, Fault::Busy { retry_after });
    }
    let overloaded = r#"{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}"#;
    assert_eq!(fault_of(Act::Status(503, overloaded.to_owned())).await, Fault::Busy { retry_after: None });
    assert_eq!(
        fault_of(Act::ErrorIn200(429, "RESOURCE_EXHAUSTED".to_owned())).await,
        Fault::Busy { retry_after: None }
    );
}

#[tokio::test]
async fn each_status_has_its_fault() {
    let echo = |code: u16, status: &str, reason: &str| {
        Act::Status(
            code,
            serde_json::json!({ "error": {
                "code": code, "status": status, "message": PROMPT, "details": [{ "reason": reason }],
            } })
            .to_string(),
        )
    };
    for status in [500, 502, 503] {
        assert!(matches!(fault_of(echo(status, "INTERNAL", "")).await, Fault::Unavailable(_)), "{status}");
    }
    for status in [408, 504] {
        assert!(matches!(fault_of(echo(status, "DEADLINE_EXCEEDED", "")).await, Fault::Ambiguous(_)), "{status}");
    }
    for status in [400, 413] {
        assert!(matches!(fault_of(echo(status, "INVALID_ARGUMENT", "")).await, Fault::Invalid(_)), "{status}");
    }
    for status in [401, 402, 403, 404] {
        assert!(matches!(fault_of(echo(status, "", "")).await, Fault::Systemic(_)), "{status}");
    }
    assert!(matches!(fault_of(echo(400, "INVALID_ARGUMENT", "API_KEY_INVALID")).await, Fault::Systemic(_)));
    assert!(matches!(fault_of(echo(400, "FAILED_PRECONDITION", "")).await, Fault::Systemic(_)));
    assert!(matches!(fault_of(Act::ErrorIn200(400, "INVALID_ARGUMENT".to_owned())).await, Fault::Invalid(_)));
}

#[tokio::test]
async fn a_reply_that_breaks_off_may_have_been_paid() {
    for act in [Act::Cut(0), Act::Cut(60), Act::Reset] {
        let fault = fault_of(act.clone()).await;
        assert!(matches!(fault, Fault::Ambiguous(_)), "{act:?}: {fault:?}");
    }
}

#[tokio::test]
async fn a_reply_that_is_no_reply_was_paid() {
    let endless = format!(r#"{{"candidates": [], "x": "{}"}}"#, "y".repeat(5 << 20));
    for act in [Act::Garbage, Act::Body(r#"{"candidates": 1}"#.to_owned()), Act::Body(endless)] {
        assert!(matches!(fault_of(act).await, Fault::Garbled(_)));
    }
}

#[tokio::test]
async fn blocked_truncated_and_unknown_ends_are_replies() {
    let ends = |act: Act| async {
        let results = asked(move |_| act.clone()).await.into_iter().map(Result::unwrap);
        results.map(|reply| (reply.text, reply.finish, reply.blocked)).collect::<Vec<_>>()
    };
    let some = |text: &str| Some(text.to_owned());
    let twice = |end: (&str, Option<String>, Option<String>)| vec![(end.0.to_owned(), end.1, end.2); 2];
    assert_eq!(ends(Act::Blocked("SAFETY".to_owned())).await, twice(("", None, some("SAFETY"))));
    assert_eq!(ends(Act::BlockedAnswer("RECITATION".to_owned())).await, twice(("", some("RECITATION"), None)));
    assert_eq!(ends(Act::BlockedAnswer("A_NEW_REASON".to_owned())).await, twice(("", some("A_NEW_REASON"), None)));
    assert_eq!(ends(Act::MaxTokens("{\"th".to_owned())).await, twice(("{\"th", some("MAX_TOKENS"), None)));
    assert_eq!(ends(Act::Empty).await, twice(("", some("STOP"), None)));
}

#[tokio::test]
async fn silence_after_sending_may_have_been_paid() {
    for over in BOTH {
        let server = ModelServer::start(over(Script::acting(|_| Act::Hang))).await.unwrap();
        let mut config = config(&server, 10);
        config.server.timeout = |_| Duration::from_millis(300);
        let fault = Gemini::new(config).unwrap().ask(&ask(PROMPT)).await.unwrap_err();
        assert!(matches!(&fault, Fault::Ambiguous(text) if text.contains("300ms")), "{fault:?}");
        assert_eq!(server.tally().calls(), 1, "a call is never sent twice");
    }
}

#[tokio::test]
async fn a_call_that_never_found_a_connection_is_not_paid() {
    // Accepted by the system, never by a program: neither TLS nor HTTP gets an answer.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = ModelServer::start(Script::default().https()).await.unwrap();
    for (scheme, address) in [("http", closed), ("https", closed), ("https", silent.local_addr().unwrap())] {
        let base = format!("{scheme}://{address}").parse().unwrap();
        let mut config = config(&server, 500);
        (config.server.base, config.server.timeout) = (base, |_| Duration::from_millis(300));
        let gemini = Gemini::new(config).unwrap();
        let asks: Vec<Ask> = (0..300).map(|_| ask(PROMPT)).collect();
        let all = tokio::time::timeout(Duration::from_secs(20), join_all(asks.iter().map(|ask| gemini.ask(ask))));
        let (refused, mut told) = (format!("{scheme}://{address}: connection refused"), 0);
        for result in all.await.expect("calls wait for one failed attempt together") {
            let fault = result.unwrap_err();
            let Fault::Unavailable(why) = &fault else { panic!("{scheme}: {fault:?}") };
            told += u32::from(why.starts_with(&refused));
            says_nothing_secret(&fault);
        }
        assert!(address != closed || told > 0, "{scheme}: nobody learns why");
    }
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_before_anything_is_sent() {
    let server = ModelServer::start(Script::default().https()).await.unwrap();
    let mut config = config(&server, 10);
    config.server.cert_file = None;
    let gemini = Gemini::new(config).unwrap();
    let fault = gemini.ask(&ask(PROMPT)).await.unwrap_err();
    assert!(matches!(&fault, Fault::Unavailable(text) if text.contains("SSL_CERT_FILE")), "{fault:?}");
    assert_eq!((server.tally().calls(), server.tally().connections()), (0, 1));
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_found_again() {
    for over in BOTH {
        let script = over(Script::default());
        let server = ModelServer::start(script.clone()).await.unwrap();
        let script = script.port(server.port());
        let (cold, warm) = (client(&server), client(&server));
        warm.ask(&ask(PROMPT)).await.unwrap();
        server.stop().await;
        let unreached = cold.ask(&ask(PROMPT)).await.unwrap_err();
        assert!(matches!(unreached, Fault::Unavailable(_)), "{unreached:?}");
        // On the old connection the call may have left just before the server did.
        let broken = warm.ask(&ask(PROMPT)).await.unwrap_err();
        assert!(matches!(broken, Fault::Unavailable(_) | Fault::Ambiguous(_)), "{broken:?}");
        let _back = ModelServer::start(script).await.unwrap();
        for gemini in [&cold, &warm] {
            gemini.ask(&ask(PROMPT)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_ten_streams_delays_calls_and_loses_none() {
    let script = Script::default().https().max_streams(10).latency(Duration::from_millis(20));
    let server = ModelServer::start(script).await.unwrap();
    let gemini = client(&server);
    let asks: Vec<Ask> = (0..50).map(|n| ask(format!("row {n}"))).collect();
    let replies = join_all(asks.iter().map(|ask| gemini.ask(ask))).await;
    assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    assert!(server.tally().peak_in_flight() <= 10);
    assert!(server.tally().by_prompt().values().all(|calls| *calls == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_need_a_connection_per_hundred() {
    let server = ModelServer::start(Script::fixed("{}").https().latency(Duration::from_millis(1_000))).await.unwrap();
    let gemini = Gemini::new(config(&server, 1_000)).unwrap();
    let asks: Vec<Ask> = (0..1_000).map(|n| ask(format!("row {n}"))).collect();
    for result in join_all(asks.iter().map(|ask| gemini.ask(ask))).await {
        result.unwrap();
    }
    assert_eq!(server.tally().calls(), 1_000);
    assert!(server.tally().peak_in_flight() > 900, "{:?}", server.tally());
    assert!(server.tally().connections() <= 13, "{:?}", server.tally());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_http2_is_called_over_http1() {
    for script in [Script::default().https1(), Script::default()] {
        let server = ModelServer::start(script.latency(Duration::from_millis(50))).await.unwrap();
        let gemini = client(&server);
        let asks: Vec<Ask> = (0..300).map(|n| ask(format!("row {n}"))).collect();
        let replies = join_all(asks.iter().map(|ask| gemini.ask(ask))).await;
        assert!(replies.iter().all(Result::is_ok), "{:?}", replies.iter().find(|reply| reply.is_err()));
        assert_eq!(server.tally().calls(), 300);
    }
}
