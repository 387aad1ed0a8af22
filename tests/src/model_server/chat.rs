//! What a server with OpenAI's chat completions answers.

use super::act::{Bodies, response};
use super::answer::Tokens;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// The last part of the path of its calls.
pub(super) const PATH: &str = "/chat/completions";

/// A reply; without `text` its message has no content. `finish` is Gemini's word.
pub(super) fn body(text: Option<&str>, finish: &str, call: &Value, model: &str, tokens: Tokens) -> String {
    let finish = match finish {
        "STOP" => "stop",
        "MAX_TOKENS" => "length",
        "SAFETY" => "content_filter",
        other => other,
    };
    completion(json!({ "role": "assistant", "content": text, "refusal": null }), finish, call, model, tokens)
}

/// The model says that it will not.
pub(super) fn refused(words: &str, call: &Value, model: &str, tokens: Tokens) -> String {
    completion(json!({ "role": "assistant", "content": null, "refusal": words }), "stop", call, model, tokens)
}

fn completion(message: Value, finish: &str, call: &Value, model: &str, tokens: Tokens) -> String {
    let Tokens { prompt, output } = tokens;
    let mut body = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": format!("{model}-001"),
        "choices": [{ "index": 0, "message": message, "finish_reason": finish, "logprobs": null }],
        "usage": { "prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output },
    });
    if let Some(tier) = call["service_tier"].as_str() {
        body["service_tier"] = tier.into();
    }
    body.to_string()
}

/// An error as the API has it; `code` says which.
pub(super) fn error(code: &str) -> String {
    json!({ "error": { "message": "told by script", "type": "invalid_request_error", "param": null, "code": code } })
        .to_string()
}

/// 429. It says when to come back in a header: whole seconds, or milliseconds where they are not whole.
pub(super) fn busy(retry_after: Option<Duration>) -> Response<Bodies> {
    let mut response = response(StatusCode::TOO_MANY_REQUESTS, error("rate_limit_exceeded").into());
    if let Some(wait) = retry_after {
        let (name, value) = match wait.subsec_millis() {
            0 => (RETRY_AFTER.as_str(), wait.as_secs()),
            _ => ("retry-after-ms", wait.as_millis() as u64),
        };
        response
            .headers_mut()
            .insert(name.parse::<hyper::header::HeaderName>().expect("a name"), HeaderValue::from(value));
    }
    response
}
