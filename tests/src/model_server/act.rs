use super::answer::{self, Tokens};
use super::chat;
use super::tally::Tally;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::http::request;
use hyper::{Response, StatusCode, Version};
use serde_json::{Value, json};
use std::time::Duration;

/// A call, as far as a script may want to know it.
#[derive(Clone, Debug)]
pub struct CallInfo {
    /// The count of calls, from 1.
    pub n: u64,
    /// The count of calls with this prompt, from 1.
    pub nth: u64,
    /// The text of the contents; of chat completions that of the last message.
    pub prompt: String,
    /// The model in the address; of chat completions that in the body.
    pub model: String,
    /// Whether it is one for chat completions.
    pub chat: bool,
    /// The path of the address.
    pub path: String,
    /// `x-goog-api-key`.
    pub key_header: Option<String>,
    /// `authorization`.
    pub authorization: Option<String>,
    /// Whether it came over HTTP/2.
    pub http2: bool,
    /// All of its headers.
    pub headers: HeaderMap,
    /// The whole body; null when it was not JSON.
    pub request: Value,
}

impl CallInfo {
    /// `model` is the one in the address; chat completions have none there.
    pub(super) fn read(n: u64, model: Option<&str>, head: &request::Parts, body: &[u8], tally: &Tally) -> CallInfo {
        let request: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let last = request["messages"].as_array().and_then(|messages| messages.last());
        let text = match last {
            Some(message) => &message["content"],
            None => &request["contents"][0]["parts"][0]["text"],
        };
        let prompt = text.as_str().unwrap_or("").to_owned();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let http2 = head.version == Version::HTTP_2;
        CallInfo {
            n,
            nth: tally.prompted(&prompt),
            prompt,
            model: model.or(request["model"].as_str()).unwrap_or("").to_owned(),
            chat: model.is_none(),
            headers: head.headers.clone(),
            path: head.uri.path().to_owned(),
            key_header: header("x-goog-api-key"),
            authorization: header("authorization"),
            http2,
            request,
        }
    }

    /// The schema of the answer.
    fn schema(&self) -> &Value {
        match self.chat {
            true => &self.request["response_format"]["json_schema"]["schema"],
            false => &self.request["generationConfig"]["responseSchema"],
        }
    }
}

/// What is done about a call.
#[derive(Clone, Debug)]
pub enum Act {
    /// A valid answer to the call's `responseSchema`, the same for the same prompt.
    Auto,
    /// A valid answer that says that it took so many tokens.
    Long(u64),
    /// An answer with this text.
    Answer(String),
    /// A 200 with this body.
    Body(String),
    /// A status with this body.
    Status(u16, String),
    /// 429.
    Busy {
        /// For how long.
        retry_after: Option<Duration>,
        /// Where it says so.
        encoding: RetryEncoding,
    },
    /// Breaks the connection (or the stream) before the reply's first byte.
    Reset,
    /// Breaks it after so many bytes of a valid answer's body.
    Cut(usize),
    /// Never replies.
    Hang,
    /// A 200 that is not JSON.
    Garbage,
    /// The prompt is blocked for this reason.
    Blocked(String),
    /// The model says with these words that it will not; Gemini has no words for it.
    Refused(String),
    /// A candidate without content, finished for this reason.
    BlockedAnswer(String),
    /// An answer that ends here because of MAX_TOKENS.
    MaxTokens(String),
    /// An answer of no text.
    Empty,
    /// A 200 whose body is an error with this code and status.
    ErrorIn200(u16, String),
    /// The same, later.
    After(Duration, Box<Act>),
}

/// How a busy server says when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryEncoding {
    /// RetryInfo, `"12.5s"`.
    Text,
    /// RetryInfo, `{"seconds": "12", "nanos": 500000000}`.
    Parts,
    /// The header Retry-After, in whole seconds.
    Header,
}

/// The connection is to be broken.
#[derive(Debug, thiserror::Error)]
#[error("reset by script")]
pub(super) struct Reset;

/// A whole body, or one that breaks.
pub(super) type Bodies = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Reset>>>>;

pub(super) fn response(status: StatusCode, body: Bytes) -> Response<Bodies> {
    let mut response = Response::new(Either::Left(Full::new(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Act {
    pub(super) async fn perform(self, call: &CallInfo, tally: &Tally) -> Result<Response<Bodies>, Reset> {
        let mut act = self;
        while let Act::After(wait, then) = act {
            tokio::time::sleep(wait).await;
            act = *then;
        }
        let finished_in = |tokens: Tokens, text: Option<&str>, finish: &str| {
            tally.answered(tokens);
            match call.chat {
                true => chat::body(text, finish, &call.request, &call.model, tokens),
                false => answer::body(text, finish, &call.model, tokens),
            }
        };
        let finished =
            |text: Option<&str>, finish: &str| finished_in(Tokens::of(&call.request, text.unwrap_or("")), text, finish);
        let auto = || answer::auto(call.schema(), &call.prompt);
        let body = match act {
            Act::After(..) | Act::Hang => std::future::pending().await,
            Act::Reset => return Err(Reset),
            Act::Cut(bytes) => return Ok(cut(finished(Some(&auto()), "STOP"), bytes)),
            Act::Status(status, body) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return Ok(response(status, body.into()));
            }
            Act::Busy { retry_after, .. } if call.chat => return Ok(chat::busy(retry_after)),
            Act::Busy { retry_after, encoding } => return Ok(busy(retry_after, encoding)),
            Act::Auto => finished(Some(&auto()), "STOP"),
            Act::Long(output) => finished_in(Tokens { output, ..Tokens::of(&call.request, "") }, Some(&auto()), "STOP"),
            Act::Answer(text) => finished(Some(&text), "STOP"),
            Act::Empty => finished(Some(""), "STOP"),
            Act::MaxTokens(text) => finished(Some(&text), "MAX_TOKENS"),
            Act::BlockedAnswer(reason) => finished(None, &reason),
            Act::Refused(words) if call.chat => {
                let tokens = Tokens::of(&call.request, &words);
                tally.answered(tokens);
                chat::refused(&words, &call.request, &call.model, tokens)
            }
            Act::Refused(_) => finished(None, "SAFETY"),
            Act::Blocked(_) if call.chat => {
                return Ok(response(StatusCode::BAD_REQUEST, chat::error("content_filter").into()));
            }
            Act::Blocked(reason) => {
                let tokens = Tokens { output: 0, ..Tokens::of(&call.request, "") };
                tally.answered(tokens);
                answer::blocked(&reason, &call.model, tokens)
            }
            Act::ErrorIn200(code, status) => json!({ "error": { "code": code, "status": status } }).to_string(),
            Act::Garbage => "<html>upstream</html>".to_owned(),
            Act::Body(body) => body,
        };
        Ok(response(StatusCode::OK, body.into()))
    }
}

/// Promises the whole body and breaks after `bytes` of it.
fn cut(body: String, bytes: usize) -> Response<Bodies> {
    let whole = Bytes::from(body);
    let length = HeaderValue::from(whole.len());
    let start = whole.slice(..bytes.min(whole.len()));
    let first = stream::iter([Ok(Frame::data(start))]);
    // The pause lets the first bytes out: a body that breaks at once is a reply that never began.
    let broken = stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(Reset)
    });
    let mut response = Response::new(Either::Right(StreamBody::new(first.chain(broken).boxed())));
    response.headers_mut().insert(hyper::header::CONTENT_LENGTH, length);
    response
}

pub(super) fn busy(retry_after: Option<Duration>, encoding: RetryEncoding) -> Response<Bodies> {
    let info = retry_after.and_then(|wait| match encoding {
        RetryEncoding::Text => Some(json!(format!("{}s", wait.as_secs_f64()))),
        RetryEncoding::Parts => Some(json!({ "seconds": wait.as_secs().to_string(), "nanos": wait.subsec_nanos() })),
        RetryEncoding::Header => None,
    });
    let details = info.map(|delay| json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }));
    let error = json!({ "error": {
        "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Resource exhausted, please try again later.",
        "details": Vec::from_iter(details),
    } });
    let mut response = response(StatusCode::TOO_MANY_REQUESTS, error.to_string().into());
    if let (Some(wait), RetryEncoding::Header) = (retry_after, encoding) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}
