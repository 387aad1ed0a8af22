//! The client for every server with OpenAI's chat completions: OpenAI, LiteLLM, vLLM, Triton's OpenAI front end, Ollama, ….
//!
//! [`OpenAiConfig`] says where and as whom; [`crate::calls`] keeps the connections; request, reply and fault are pure. No error
//! text holds anything that the server wrote but codes from a fixed list: its messages may echo the row.

mod config;
mod fault;
mod reply;
mod request;

pub use config::{NOT_SET, OpenAiConfig};
pub use request::Form;

use crate::calls::{Calls, ConfigError, Line};
use crate::ports::{Ask, Fault, Model, Reply};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::StatusCode;

/// A model behind chat completions, behind the model port. One for a process and server: it holds the connections.
#[derive(Debug)]
pub struct OpenAi {
    config: OpenAiConfig,
    calls: Calls,
}

impl OpenAi {
    /// Opens nothing yet. Fails when the trusted certificates cannot be read.
    pub fn new(config: OpenAiConfig) -> Result<OpenAi, ConfigError> {
        Ok(OpenAi { calls: Calls::new(&config.server)?, config })
    }

    async fn call(&self, line: &Line<'_>, ask: &Ask) -> Result<Reply, Fault> {
        let body = Bytes::from(request::body(ask, self.config.dialect(), self.config.form));
        let response = line.post(&self.config.address(), &self.config.headers(), &body).await?;
        let told = line.read(response).await?;
        let asked = &ask.pipeline.model.name;
        if told.status == StatusCode::OK {
            return reply::reply(&told.body, asked, self.config.has_key());
        }
        let after = fault::retry_after(&told.headers);
        match fault::read(told.status.as_u16(), after, &told.body, self.config.has_key()) {
            fault::Refusal::Blocked(reason) => Ok(reply::blocked(reason, asked)),
            fault::Refusal::Fault(fault) => Err(fault),
        }
    }
}

#[async_trait]
impl Model for OpenAi {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let line = self.calls.line().await?;
        line.within((self.config.server.timeout)(ask.pipeline.model.tier), self.call(&line, ask)).await
    }
}
