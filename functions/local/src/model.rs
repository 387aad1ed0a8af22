//! Which model answers: Gemini with a key, else the stand-in, which says so.

use anyhow::{Result, bail};
use async_trait::async_trait;
use std::sync::Arc;
use tasuki_relay::gemini::{Gemini, GeminiConfig};
use tasuki_relay::ports::{Ask, Fault, Model, Reply};
use tasuki_relay::stand_in::StandIn;

/// A model, and whether it is the stand-in.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) stand_in: bool,
}

/// Reads the environment. An error names the variable and the mend; nothing was started then.
pub(crate) fn choose(max_in_flight: u32) -> Result<Chosen> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    if set("GEMINI_API_KEY").or_else(|| set("GOOGLE_API_KEY")).is_some() {
        let gemini = Gemini::new(GeminiConfig::from_env(set, max_in_flight)?)?;
        return Ok(Chosen { model: Arc::new(gemini), stand_in: false });
    }
    if set("GOOGLE_GEMINI_BASE_URL").is_some() {
        bail!(
            "GOOGLE_GEMINI_BASE_URL is set, but no key: set GEMINI_API_KEY too, or unset both for the stand-in model"
        );
    }
    Ok(Chosen { model: Arc::new(StandIn), stand_in: true })
}

/// A model that is never asked: for sealing a cancelled run.
pub(crate) struct NoModel;

#[async_trait]
impl Model for NoModel {
    async fn ask(&self, _: &Ask) -> Result<Reply, Fault> {
        Err(Fault::Unavailable("this command asks no model".to_owned()))
    }
}
