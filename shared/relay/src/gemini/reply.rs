use super::{Access, fault};
use crate::calls::{garbled, or_default};
use crate::ports::{Fault, Reply};
use crate::prices::Tier;
use crate::record::Usage;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What we read of a `GenerateContentResponse`. Fields may be absent or null, enums are text: a newer API must not break us.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(default, borrow, deserialize_with = "or_default")]
    candidates: Vec<Candidate<'a>>,
    #[serde(default, borrow)]
    prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(default, borrow)]
    usage_metadata: Option<UsageMetadata<'a>>,
    #[serde(default, borrow)]
    model_version: Option<Cow<'a, str>>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate<'a> {
    #[serde(default, borrow)]
    content: Option<Content<'a>>,
    #[serde(default, borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(default, borrow, deserialize_with = "or_default")]
    parts: Vec<Part<'a>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(default, borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "or_default")]
    thought: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback<'a> {
    #[serde(default, borrow)]
    block_reason: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UsageMetadata<'a> {
    prompt_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    #[serde(borrow)]
    traffic_type: Option<Cow<'a, str>>,
}

/// Decodes the body of a 200. `asked` is the model that was asked for.
pub(super) fn reply(access: &dyn Access, body: &[u8], asked: &str) -> Result<Reply, Fault> {
    let decoded: Body<'_> = serde_json::from_slice(body).map_err(|error| unreadable(access, body, &error))?;
    if decoded.error.is_some() {
        return Err(fault::fault(access, 200, None, body));
    }
    let candidate = decoded.candidates.into_iter().next();
    let (content, finish) = candidate.map_or((None, None), |first| (first.content, first.finish_reason));
    let usage = decoded.usage_metadata.unwrap_or_default();
    Ok(Reply {
        text: text(content.map_or_else(Vec::new, |content| content.parts)),
        finish: finish.map(Cow::into_owned),
        blocked: decoded.prompt_feedback.and_then(|feedback| feedback.block_reason).map(Cow::into_owned),
        usage: Usage {
            prompt: usage.prompt_token_count.unwrap_or(0),
            output: usage.candidates_token_count.unwrap_or(0),
            thought: usage.thoughts_token_count.unwrap_or(0),
            cached: usage.cached_content_token_count.unwrap_or(0),
        },
        model: decoded.model_version.map_or_else(|| asked.to_owned(), Cow::into_owned),
        tier: usage.traffic_type.and_then(|traffic| tier(&traffic)),
    })
}

/// Decodes the body of a 200 of `countTokens`.
pub(super) fn total_tokens(access: &dyn Access, body: &[u8]) -> Result<u64, Fault> {
    let decoded: Total = serde_json::from_slice(body).map_err(|error| unreadable(access, body, &error))?;
    match decoded.total_tokens {
        Some(tokens) if decoded.error.is_none() => Ok(tokens),
        _ => Err(fault::fault(access, 200, None, body)),
    }
}

/// What we read of a `CountTokensResponse`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Total {
    #[serde(default)]
    total_tokens: Option<u64>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

/// The error that some front ends wrap in an array; or nothing that is known.
fn unreadable(access: &dyn Access, body: &[u8], error: &serde_json::Error) -> Fault {
    match serde_json::from_slice::<[Wrapped; 1]>(body) {
        Ok([Wrapped { .. }]) => fault::fault(access, 200, None, body),
        Err(_) => garbled(error),
    }
}

/// See [`unreadable`].
#[derive(Deserialize)]
struct Wrapped {
    #[serde(rename = "error")]
    _error: BTreeMap<String, IgnoredAny>,
}

/// `trafficType` of Vertex AI. What is not known, as provisioned throughput, has no tier.
fn tier(traffic: &str) -> Option<Tier> {
    match traffic {
        "ON_DEMAND" => Some(Tier::Standard),
        "ON_DEMAND_FLEX" => Some(Tier::Flex),
        "ON_DEMAND_PRIORITY" => Some(Tier::Priority),
        _ => None,
    }
}

/// All parts that are not thoughts, in order. The usual single part is not copied.
fn text(parts: Vec<Part<'_>>) -> String {
    let mut texts = parts.into_iter().filter(|part| !part.thought).filter_map(|part| part.text);
    let first = texts.next().map_or_else(String::new, Cow::into_owned);
    texts.fold(first, |whole, more| whole + &more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Key;
    use crate::gemini::access::GeminiApi;
    use proptest::prelude::*;

    fn reply_of(body: &[u8]) -> Result<Reply, Fault> {
        reply(&GeminiApi(Key::new("k").unwrap()), body, "asked")
    }

    fn read(body: &str) -> Result<Reply, Fault> {
        reply_of(body.as_bytes())
    }

    #[test]
    fn thoughts_are_not_part_of_the_text() {
        let reply = read(
            r#"{"candidates": [{"content": {"role": "model", "parts": [
                {"text": "hm", "thought": true}, {"text": "{\"a\":"}, {"inlineData": {}}, {"text": "\u65e5\"}"}]},
                "finishReason": "STOP", "safetyRatings": [{"category": 7}]}],
               "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 5, "thoughtsTokenCount": 3,
                "cachedContentTokenCount": 2, "totalTokenCount": 17, "trafficType": "ON_DEMAND"},
               "modelVersion": "m-001", "responseId": "x"}"#,
        );
        let usage = Usage { prompt: 9, output: 5, thought: 3, cached: 2 };
        let (text, finish) = ("{\"a\":日\"}".to_owned(), Some("STOP".to_owned()));
        assert_eq!(
            reply,
            Ok(Reply { text, finish, blocked: None, usage, model: "m-001".to_owned(), tier: Some(Tier::Standard) })
        );
    }

    #[test]
    fn a_blocked_prompt_has_a_reason_and_no_text() {
        let reply = read(r#"{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}"#).unwrap();
        assert_eq!((reply.blocked.as_deref(), reply.text.as_str()), (Some("PROHIBITED_CONTENT"), ""));
        assert_eq!(reply.model, "asked");
    }

    #[test]
    fn an_unknown_finish_reason_and_nulls_are_read() {
        let reply = read(
            r#"{"candidates": [{"content": {"parts": null}, "finishReason": "NEW_ONE"}], "promptFeedback": null,
                "usageMetadata": {"thoughtsTokenCount": null}, "modelVersion": null, "error": null}"#,
        )
        .unwrap();
        assert_eq!(reply.finish.as_deref(), Some("NEW_ONE"));
        assert_eq!(read("{}").unwrap(), Reply { model: "asked".to_owned(), ..Reply::default() });
    }

    #[test]
    fn an_error_within_a_200_is_that_error() {
        let body = r#"{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}"#;
        assert_eq!(read(body), Err(Fault::Busy { retry_after: None }));
        assert_eq!(read(&format!("[{body}]")), Err(Fault::Busy { retry_after: None }), "in an array, too");
        let counted = total_tokens(&GeminiApi(Key::new("k").unwrap()), format!("[{body}]").as_bytes());
        assert_eq!(counted, Err(Fault::Busy { retry_after: None }));
    }

    #[test]
    fn what_is_no_reply_is_garbled_and_not_quoted() {
        for body in ["", "<html>canary</html>", r#"{"candidates": "canary"}"#, r#"["canary"]"#, r#"{"candidates": [{"#]
        {
            let Err(fault @ Fault::Garbled(_)) = read(body) else { panic!("{body}") };
            assert!(!fault.to_string().contains("canary"), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = reply_of(&body);
        }
    }
}
