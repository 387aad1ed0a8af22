//! The model: a question in, an answer and its usage out, or why not.

use crate::pipeline::Pipeline;
use crate::prices::Tier;
use crate::record::Usage;
use async_trait::async_trait;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// One question to the model.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is asked of every row of the run: system instruction, schema, settings.
    pub pipeline: Arc<Pipeline>,
    /// The template, rendered with the row.
    pub prompt: String,
    /// The row. Only the stand-in model looks at it.
    pub row: Arc<Map<String, Value>>,
    /// Output tokens at most, where it differs from the pipeline's.
    pub max_output_tokens: Option<u32>,
}

/// A reply that the model finished, for better or worse. Classified by [`crate::outcome`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The answer's text (all parts that are not thoughts); empty when there is none.
    pub text: String,
    /// `finishReason` as the model wrote it: STOP, MAX_TOKENS, SAFETY, …
    pub finish: Option<String>,
    /// `promptFeedback.blockReason` as the model wrote it.
    pub blocked: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// `modelVersion`, or the model that was asked for.
    pub model: String,
    /// The tier that served it, where the service says so: a priority call may be served, and priced, as standard.
    pub tier: Option<Tier>,
}

/// Why there is no reply. No variant carries text of the row: messages of the API may echo it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// 429, and the 503 that says "overloaded". Not paid, never an attempt of the row.
    #[error("the model is busy")]
    Busy {
        /// RetryInfo or Retry-After.
        retry_after: Option<Duration>,
    },
    /// 500, 502, 503, or no connection at all. Not paid.
    #[error("the model is unavailable: {0}")]
    Unavailable(String),
    /// 504, timeout, reset after sending. Perhaps paid.
    #[error("no reply: {0}")]
    Ambiguous(String),
    /// A 200 whose body is no reply. Paid.
    #[error("the reply is not readable: {0}")]
    Garbled(String),
    /// 400 INVALID_ARGUMENT. Not paid.
    #[error("the model refused the request: {0}")]
    Invalid(String),
    /// 401, 403, 404, billing, API_KEY_INVALID, FAILED_PRECONDITION: no row's fault. Not paid. Says what to do.
    #[error("{0}")]
    Systemic(String),
}

/// A model.
#[async_trait]
pub trait Model: Send + Sync {
    /// Asks once. Never retries: who pays decides.
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault>;
}

/// A model that counts the tokens of a question without answering it, for free.
#[async_trait]
pub trait CountTokens: Send + Sync {
    /// Counts once: prompt, system instruction and schema, as the model reads them.
    async fn count_tokens(&self, ask: &Ask) -> Result<u64, Fault>;
}
