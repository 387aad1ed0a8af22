use super::fault::{self, Refusal};
use crate::calls::{garbled, or_default};
use crate::ports::{Fault, Reply};
use crate::prices::Tier;
use crate::record::Usage;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;

/// What we read of a `chat.completion`. Fields may be absent or null, enums are text: servers differ, and newer ones must not
/// break us.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(default, borrow, deserialize_with = "or_default")]
    choices: Vec<Choice<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    usage: Tokens,
    #[serde(default, borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    service_tier: Option<Cow<'a, str>>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default, borrow, deserialize_with = "or_default")]
    message: Message<'a>,
    #[serde(default, borrow)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
struct Message<'a> {
    #[serde(default, borrow)]
    content: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    refusal: Option<Cow<'a, str>>,
    /// Where LiteLLM puts it.
    #[serde(default, borrow, deserialize_with = "or_default")]
    provider_specific_fields: Specific<'a>,
}

#[derive(Default, Deserialize)]
struct Specific<'a> {
    #[serde(default, borrow)]
    refusal: Option<Cow<'a, str>>,
}

impl Message<'_> {
    fn is_refused(&self) -> bool {
        let refusals = [&self.refusal, &self.provider_specific_fields.refusal];
        refusals.into_iter().flatten().any(|refusal| !refusal.is_empty())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Option<u64>,
}

impl Tokens {
    /// Reasoning is part of the completion's tokens.
    fn usage(&self) -> Usage {
        let thought = self.completion_tokens_details.as_ref().and_then(|details| details.reasoning_tokens).unwrap_or(0);
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens).unwrap_or(0);
        let output = self.completion_tokens.unwrap_or(0).saturating_sub(thought);
        Usage { prompt: self.prompt_tokens.unwrap_or(0), output, thought, cached }
    }
}

/// Decodes the body of a 200. `asked` is the model that was asked for.
pub(super) fn reply(body: &[u8], asked: &str, has_key: bool) -> Result<Reply, Fault> {
    let decoded: Body<'_> = serde_json::from_slice(body).map_err(|error| garbled(&error))?;
    if decoded.error.is_some() {
        return match fault::read(200, None, body, has_key) {
            Refusal::Blocked(reason) => Ok(blocked(reason, asked)),
            Refusal::Fault(fault) => Err(fault),
        };
    }
    let usage = decoded.usage.usage();
    let first = decoded.choices.into_iter().next();
    let (message, finish) = first.map_or_else(Default::default, |first| (first.message, first.finish_reason));
    let is_refused = message.is_refused();
    Ok(Reply {
        text: message.content.filter(|_| !is_refused).map_or_else(String::new, Cow::into_owned),
        finish: if is_refused { Some(SAFETY.to_owned()) } else { finish.map(end) },
        blocked: None,
        usage,
        model: decoded.model.map_or_else(|| asked.to_owned(), Cow::into_owned),
        tier: decoded.service_tier.and_then(|tier| served(&tier)),
    })
}

/// What a prompt comes to that the server does not let in. It tells no tokens.
pub(super) fn blocked(reason: &str, asked: &str) -> Reply {
    Reply { blocked: Some(reason.to_owned()), model: asked.to_owned(), ..Reply::default() }
}

const SAFETY: &str = "SAFETY";

/// The end of an answer in the words of [`crate::outcome`], which are Gemini's; one that nobody knows as it is.
fn end(finish: Cow<'_, str>) -> String {
    match &*finish {
        "stop" => "STOP".to_owned(),
        "length" => "MAX_TOKENS".to_owned(),
        "content_filter" => SAFETY.to_owned(),
        _ => finish.into_owned(),
    }
}

fn served(tier: &str) -> Option<Tier> {
    if tier == "default" { Some(Tier::Standard) } else { Tier::parse(tier) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Result<Reply, Fault> {
        reply(body.as_bytes(), "asked", true)
    }

    #[test]
    fn an_answer_comes_with_its_tokens_model_and_tier() {
        let reply = read(
            r#"{"id": "x", "object": "chat.completion", "model": "m-001", "service_tier": "default", "choices": [
                {"index": 0, "finish_reason": "stop", "logprobs": null, "message":
                    {"role": "assistant", "content": "{\"a\":\"\u65e5\"}", "refusal": null, "annotations": []}}],
               "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17,
                "prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 3}}}"#,
        );
        let usage = Usage { prompt: 9, output: 5, thought: 3, cached: 2 };
        let (text, finish) = ("{\"a\":\"日\"}".to_owned(), Some("STOP".to_owned()));
        let tier = Some(Tier::Standard);
        assert_eq!(reply, Ok(Reply { text, finish, blocked: None, usage, model: "m-001".to_owned(), tier }));
    }

    #[test]
    fn ends_have_the_words_of_outcomes() {
        let end = |finish: &str| {
            let body = format!(r#"{{"choices": [{{"finish_reason": {finish}, "message": {{"content": "x"}}}}]}}"#);
            let reply = read(&body).unwrap();
            (reply.finish, reply.text)
        };
        let some = |word: &str| (Some(word.to_owned()), "x".to_owned());
        assert_eq!(end(r#""length""#), some("MAX_TOKENS"));
        assert_eq!(end(r#""content_filter""#), some("SAFETY"));
        assert_eq!(end(r#""a_new_one""#), some("a_new_one"));
        assert_eq!(end("null"), (None, "x".to_owned()));
    }

    #[test]
    fn a_refusal_is_a_withheld_answer_and_its_words_are_dropped() {
        for refusal in [r#""refusal": "canary""#, r#""provider_specific_fields": {"refusal": "canary"}"#] {
            let body =
                format!(r#"{{"choices": [{{"finish_reason": "stop", "message": {{"content": null, {refusal}}}}}]}}"#);
            let reply = read(&body).unwrap();
            assert_eq!((reply.finish.as_deref(), reply.text.as_str()), (Some("SAFETY"), ""));
            assert!(!format!("{reply:?}").contains("canary"));
        }
    }

    #[test]
    fn small_servers_leave_things_out() {
        assert_eq!(read("{}").unwrap(), Reply { model: "asked".to_owned(), ..Reply::default() });
        let nulls = read(
            r#"{"choices": [{"message": null, "finish_reason": null}], "usage": null, "model": null, "service_tier": null,
                "error": null}"#,
        );
        assert_eq!(nulls.unwrap(), Reply { model: "asked".to_owned(), ..Reply::default() });
        let some =
            read(r#"{"usage": {"prompt_tokens": 4, "prompt_tokens_details": null}, "service_tier": "auto"}"#).unwrap();
        assert_eq!((some.usage.prompt, some.tier), (4, None));
    }

    #[test]
    fn an_error_within_a_200_is_that_error() {
        let body = r#"{"error": {"code": 429, "message": "x"}}"#;
        assert_eq!(read(body), Err(Fault::Busy { retry_after: None }));
    }

    #[test]
    fn what_is_no_reply_is_garbled_and_not_quoted() {
        for body in ["", "<html>canary</html>", r#"{"choices": "canary"}"#, r#"["canary"]"#, r#"{"choices": [{"#] {
            let Err(fault @ Fault::Garbled(_)) = read(body) else { panic!("{body}") };
            assert!(!fault.to_string().contains("canary"), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = reply(&body, "asked", false);
        }
    }
}
