use crate::calls;
use crate::ports::Fault;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// What a status that is no answer comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// The prompt is not let in, for this reason.
    Blocked(&'static str),
    Fault(Fault),
}

/// The codes and types of errors that decide something, or may be shown: anything else in those places is the server's free
/// text. From <https://platform.openai.com/docs/guides/error-codes>, from Azure's content filter and from LiteLLM's.
const KNOWN: &[&str] = &[
    // no money, no account: beside a 429 too
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
    "access_terminated",
    // the prompt
    "content_filter",
    "content_policy_violation",
    "invalid_prompt",
    // whose key, which model
    "invalid_api_key",
    "invalid_organization",
    "model_not_found",
    "no_db_connection", // LiteLLM without a database: the key is not its own
    // the request
    "context_length_exceeded",
    "exceed_context_size_error", // llama.cpp
    "string_above_max_length",
    "unsupported_parameter",
    "unsupported_value",
    "invalid_value",
    "invalid_json_schema",
    "unknown_parameter",
    "invalid_request_error",
    // the server
    "slow_down",
    "rate_limit_exceeded",
    "rate_limit_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
];
const NO_MONEY: &[&str] = &[
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
    "access_terminated",
];
const BLOCKED: &[&str] = &["content_filter", "content_policy_violation", "invalid_prompt"];
const NOBODYS_FAULT: &[&str] = &["invalid_api_key", "invalid_organization", "model_not_found", "no_db_connection"];
/// LiteLLM puts a status in the place of the code; its messages begin with words of its own (seen of version 1.106).
const LITELLM: &[(&str, &str)] = &[
    ("litellm.ContentPolicyViolationError", "content_policy_violation"),
    ("litellm.BadRequestError: litellm.ContentPolicyViolationError", "content_policy_violation"),
    ("/chat/completions: Invalid model name", "model_not_found"),
];
/// Fields of ours that a server may not take. With the one that is told a person knows what to take out of the pipeline.
const OURS: &[&str] = &[
    "model",
    "messages",
    "temperature",
    "max_tokens",
    "max_completion_tokens",
    "reasoning_effort",
    "response_format",
    "service_tier",
    "store",
    "input_tokens", // vLLM: the prompt is too long
];

/// The refusal that a status and its body (`{"error": {…}}` as JSON, or anything) stand for: the table in protocol.md 4.
/// `status` 200 means: what the body says. `has_key`: the call had one.
pub(super) fn read(status: u16, retry_after: Option<Duration>, body: &[u8], has_key: bool) -> Refusal {
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    // Some servers leave the envelope out.
    let error = if body["error"].is_object() { &body["error"] } else { &body };
    let known =
        |field: &str| error[field].as_str().and_then(|word| KNOWN.iter().find(|known| **known == word).copied());
    let words = [known("code"), of_litellm(error), known("type")];
    let is_any = |of: &[&str]| words.iter().flatten().any(|word| of.contains(word));
    let word = words.into_iter().flatten().next();
    let status = if status == 200 { status_within(error, word) } else { status };
    if let (400 | 403, Some(reason)) = (status, words.iter().flatten().find(|word| BLOCKED.contains(word))) {
        return Refusal::Blocked(reason);
    }
    Refusal::Fault(match status {
        402 => systemic(status, word, BILLING),
        429 if is_any(NO_MONEY) => systemic(status, word, BILLING),
        429 => Fault::Busy { retry_after },
        503 if is_any(&["slow_down"]) || overloaded(error) => Fault::Busy { retry_after },
        408 | 499 | 504 => Fault::Ambiguous(format!("HTTP {status}")),
        401 if has_key => systemic(status, word, "the endpoint does not accept OPENAI_API_KEY: set it to a valid key"),
        401 => systemic(status, word, "the endpoint wants a key: set OPENAI_API_KEY"),
        403 => systemic(
            status,
            word,
            "access is denied: check what OPENAI_API_KEY may do, that its project may use this model, and that its country is served",
        ),
        404 => systemic(
            status,
            word,
            "the model or the address is not known: check [model] name in the pipeline, and OPENAI_BASE_URL (most servers want it to end in /v1)",
        ),
        400 if is_any(NOBODYS_FAULT) => systemic(
            status,
            word,
            "the endpoint does not know the key or the model: check OPENAI_API_KEY, OPENAI_BASE_URL and [model] name",
        ),
        400..=499 => Fault::Invalid(refused(status, word, error)),
        _ => Fault::Unavailable(format!("HTTP {status}")),
    })
}

const BILLING: &str =
    "the endpoint says that there is no money: look at the billing and the limits of the account of OPENAI_API_KEY";

fn systemic(status: u16, word: Option<&str>, what: &str) -> Fault {
    Fault::Systemic(match word {
        Some(word) => format!("{what} (HTTP {status}, {word})"),
        None => format!("{what} (HTTP {status})"),
    })
}

fn refused(status: u16, word: Option<&str>, error: &Value) -> String {
    let field = error["param"].as_str().and_then(|field| OURS.iter().find(|ours| **ours == field));
    match (word, field) {
        (Some(word), Some(field)) => format!("HTTP {status} {word}: {field}"),
        (Some(word), None) => format!("HTTP {status} {word}"),
        (None, Some(field)) => format!("HTTP {status}: {field}"),
        (None, None) => format!("HTTP {status}"),
    }
}

/// The status of an error that came with a 200: its code, where that is one; else by its word.
fn status_within(error: &Value, word: Option<&str>) -> u16 {
    let code = error["code"].as_u64().or_else(|| error["code"].as_str()?.parse().ok());
    let code = code.and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code));
    code.unwrap_or(match word {
        Some("rate_limit_exceeded" | "rate_limit_error") => 429,
        Some(word) if NO_MONEY.contains(&word) => 429,
        Some("slow_down") => 503,
        Some("authentication_error") => 401,
        Some("permission_error") => 403,
        Some("not_found_error") => 404,
        Some(_) => 400,
        None => 500,
    })
}

fn of_litellm(error: &Value) -> Option<&'static str> {
    let message = error["message"].as_str()?;
    LITELLM.iter().find(|(begins, _)| message.starts_with(begins)).map(|(_, code)| *code)
}

fn overloaded(error: &Value) -> bool {
    error["message"].as_str().is_some_and(|message| message.to_ascii_lowercase().contains("overloaded"))
}

/// `retry-after-ms`, which is finer, else Retry-After.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let milliseconds = || headers.get("retry-after-ms")?.to_str().ok()?.trim().parse::<f64>().ok();
    let fine = milliseconds().and_then(|ms| Duration::try_from_secs_f64(ms / 1_000.0).ok());
    fine.or_else(|| calls::retry_after(headers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fault(status: u16, error: Value) -> Fault {
        match read(status, None, json!({ "error": error }).to_string().as_bytes(), true) {
            Refusal::Fault(fault) => fault,
            Refusal::Blocked(reason) => panic!("{status} is no block: {reason}"),
        }
    }

    fn coded(status: u16, code: &str) -> Fault {
        fault(status, json!({ "message": "canary", "type": "invalid_request_error", "param": null, "code": code }))
    }

    fn after(headers: &[(&'static str, &str)]) -> Option<Duration> {
        retry_after(&headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect())
    }

    #[test]
    fn a_busy_server_says_for_how_long_in_seconds_or_milliseconds() {
        assert_eq!(after(&[("retry-after", "7")]), Some(Duration::from_secs(7)));
        assert_eq!(after(&[("retry-after", "1"), ("retry-after-ms", "250")]), Some(Duration::from_millis(250)));
        for nonsense in ["soon", "-1", "NaN", "1e300"] {
            assert_eq!(after(&[("retry-after-ms", nonsense), ("retry-after", "2")]), Some(Duration::from_secs(2)));
        }
        assert_eq!(after(&[]), None);
        let Refusal::Fault(busy) = read(429, Some(Duration::from_secs(3)), b"", true) else { panic!() };
        assert_eq!(busy, Fault::Busy { retry_after: Some(Duration::from_secs(3)) });
    }

    #[test]
    fn a_rate_limit_passes_and_an_empty_account_does_not() {
        assert_eq!(coded(429, "rate_limit_exceeded"), Fault::Busy { retry_after: None });
        assert_eq!(coded(429, "resource_unavailable"), Fault::Busy { retry_after: None }, "flex has no room");
        for code in ["insufficient_quota", "billing_hard_limit_reached"] {
            let Fault::Systemic(what) = coded(429, code) else { panic!("{code}: a row waits for money") };
            assert!(what.contains("billing") && what.contains(code), "{what}");
        }
        let by_type = fault(429, json!({ "type": "insufficient_quota", "code": null }));
        assert!(matches!(by_type, Fault::Systemic(_)), "{by_type:?}");
    }

    #[test]
    fn each_status_has_its_fault() {
        for status in [401, 402, 403, 404] {
            assert!(matches!(coded(status, "x"), Fault::Systemic(_)), "{status}");
        }
        for status in [408, 499, 504] {
            assert!(matches!(coded(status, "x"), Fault::Ambiguous(_)), "{status}");
        }
        for status in [500, 502, 503, 529, 302] {
            assert!(matches!(coded(status, "x"), Fault::Unavailable(_)), "{status}");
        }
        for status in [400, 409, 413, 422] {
            assert!(matches!(coded(status, "x"), Fault::Invalid(_)), "{status}");
        }
        assert_eq!(coded(503, "slow_down"), Fault::Busy { retry_after: None });
        let overloaded = json!({ "message": "The engine is currently overloaded" });
        assert_eq!(fault(503, overloaded), Fault::Busy { retry_after: None });
    }

    #[test]
    fn advice_names_what_to_set() {
        let Refusal::Fault(Fault::Systemic(none)) = read(401, None, b"", false) else { panic!() };
        assert!(none.contains("set OPENAI_API_KEY"), "{none}");
        let Fault::Systemic(lost) = coded(404, "model_not_found") else { panic!() };
        assert!(lost.contains("[model] name") && lost.contains("OPENAI_BASE_URL"), "{lost}");
        assert!(matches!(coded(400, "model_not_found"), Fault::Systemic(_)));
        let field = json!({ "code": "unsupported_value", "param": "temperature", "message": "canary" });
        assert_eq!(fault(400, field), Fault::Invalid("HTTP 400 unsupported_value: temperature".to_owned()));
        let llama = json!({ "code": 400, "type": "exceed_context_size_error", "message": "canary" });
        assert_eq!(fault(400, llama), Fault::Invalid("HTTP 400 exceed_context_size_error".to_owned()));
        let vllm = json!({ "code": 400, "type": "BadRequestError", "param": "input_tokens", "message": "canary" });
        assert_eq!(fault(400, vllm), Fault::Invalid("HTTP 400: input_tokens".to_owned()));
    }

    #[test]
    fn a_prompt_that_is_not_let_in_is_blocked_and_stops_no_machine() {
        for (status, code) in [(400, "content_filter"), (400, "invalid_prompt"), (403, "content_policy_violation")] {
            let body = json!({ "error": { "code": code, "message": "canary" } }).to_string();
            assert_eq!(read(status, None, body.as_bytes(), true), Refusal::Blocked(code));
        }
    }

    #[test]
    fn what_litellm_says_in_words_is_understood() {
        let said = |message: &str| {
            let error = json!({ "message": message, "type": "invalid_request_error", "param": null, "code": "400" });
            read(400, None, json!({ "error": error }).to_string().as_bytes(), true)
        };
        for by in ["", "litellm.BadRequestError: "] {
            let blocked = said(&format!("{by}litellm.ContentPolicyViolationError: OpenAIException - canary"));
            assert_eq!(blocked, Refusal::Blocked("content_policy_violation"));
        }
        let model = said("/chat/completions: Invalid model name passed in model=x. Call `/v1/models` to view …");
        assert!(matches!(&model, Refusal::Fault(Fault::Systemic(what)) if what.contains("[model] name")), "{model:?}");
        let of_a_row = said("litellm.BadRequestError: OpenAIException - litellm.ContentPolicyViolationError");
        assert!(matches!(of_a_row, Refusal::Fault(Fault::Invalid(_))));
    }

    #[test]
    fn nothing_that_the_server_wrote_freely_is_passed_on() {
        let canary = json!({ "code": "canary", "type": "canary", "message": "canary", "param": "canary" });
        for status in (300..=599).chain([200]) {
            for body in [json!({ "error": canary }), canary.clone(), json!({ "detail": "canary" }), json!("canary")] {
                let refusal = read(status, None, body.to_string().as_bytes(), false);
                assert!(!format!("{refusal:?}").contains("canary"), "{status}: {refusal:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(status in any::<u16>(), body in proptest::collection::vec(any::<u8>(), 0..99)) {
            let _ = read(status, None, &body, true);
        }
    }
}
