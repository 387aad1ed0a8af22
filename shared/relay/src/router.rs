//! One process, models of several providers.

use crate::pipeline::Provider;
use crate::ports::{Ask, Fault, Model, Reply};
use async_trait::async_trait;
use std::sync::Arc;

/// Asks whom the question's pipeline names.
pub struct Router {
    /// Google's models.
    pub google: Arc<dyn Model>,
    /// What is behind chat completions.
    pub openai: Arc<dyn Model>,
}

#[async_trait]
impl Model for Router {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        match ask.pipeline.model.provider {
            Provider::Google => self.google.ask(ask).await,
            Provider::OpenAi => self.openai.ask(ask).await,
        }
    }
}

/// A provider that this process has no way to: every run of it waits until a person says how.
pub struct Nobody(pub &'static str);

#[async_trait]
impl Model for Nobody {
    async fn ask(&self, _: &Ask) -> Result<Reply, Fault> {
        Err(Fault::Systemic(self.0.to_owned()))
    }
}
