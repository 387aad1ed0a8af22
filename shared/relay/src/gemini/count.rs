//! `countTokens`: what a question's prompt, system instruction and schema take, counted by the model for free.

use super::fault::{self, Sent};
use super::{Gemini, read, reply, request};
use crate::ports::{Ask, CountTokens, Fault};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::StatusCode;

const METHOD: (&str, &str) = (":generateContent", ":countTokens");

#[async_trait]
impl CountTokens for Gemini {
    async fn count_tokens(&self, ask: &Ask) -> Result<u64, Fault> {
        let lease = self.pool.lease().await?;
        let sent = Sent::default();
        let count = async {
            let (access, model) = (&*self.config.access, &ask.pipeline.model);
            let address = self.config.generate_content(model)?.replace(METHOD.0, METHOD.1);
            let body = Bytes::from(access.count_body(model, request::body(ask)));
            let who = access.authorise().await?;
            let response = self.send(lease.client(), &address, &who, &body, &sent).await?;
            let (status, retry_after) = (response.status(), fault::retry_after(response.headers()));
            let body = read(response).await.map_err(|error| fault::transport(&error, &sent))?.unwrap_or_default();
            match status {
                StatusCode::OK => reply::total_tokens(access, &body),
                _ => Err(fault::fault(access, status.as_u16(), retry_after, &body)),
            }
        };
        tokio::time::timeout(self.config.timeout, count)
            .await
            .unwrap_or_else(|_| Err(fault::timeout(self.config.timeout, &sent)))
    }
}
