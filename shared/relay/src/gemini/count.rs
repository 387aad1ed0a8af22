//! `countTokens`: what a question's prompt, system instruction and schema take, counted by the model for free.

use super::{Gemini, fault, reply, request};
use crate::calls::{self, Line};
use crate::ports::{Ask, CountTokens, Fault};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::StatusCode;

impl Gemini {
    async fn count(&self, line: &Line<'_>, ask: &Ask) -> Result<u64, Fault> {
        let (access, model) = (&*self.config.access, &ask.pipeline.model);
        let address = self.config.method(model, "countTokens")?;
        let body = Bytes::from(access.count_body(model, request::body(ask, None)));
        let response = line.post(&address, &access.authorise().await?, &body).await?;
        let told = line.read(response).await?;
        match told.status {
            StatusCode::OK => reply::total_tokens(access, &told.body),
            status => Err(fault::fault(access, status.as_u16(), calls::retry_after(&told.headers), &told.body)),
        }
    }
}

#[async_trait]
impl CountTokens for Gemini {
    async fn count_tokens(&self, ask: &Ask) -> Result<u64, Fault> {
        let line = self.calls.line().await?;
        line.within((self.config.server.timeout)(ask.pipeline.model.tier), self.count(&line, ask)).await
    }
}
