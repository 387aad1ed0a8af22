//! Which model answers: Gemini with a key, else the stand-in, which says so.

use anyhow::{Result, bail};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use tasuki_relay::gemini::{Gemini, GeminiConfig};
use tasuki_relay::pipeline::{ModelSettings, Provider};
use tasuki_relay::ports::{Ask, CountTokens, Fault, Model, Reply};
use tasuki_relay::stand_in::StandIn;

/// Prompts that are counted at a time: a few hundred a minute at 100 ms each, where 3,000 are allowed (peers.md 5.4).
pub(crate) const COUNTS_AT_ONCE: u32 = 4;

/// Who answers the rows of a run: part of what the run is, since one is paid and the other makes its answers up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// There is a key.
    Gemini,
    /// There is none.
    StandIn,
}

impl Answerer {
    /// As the folder's files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Answerer::Gemini => "gemini",
            Answerer::StandIn => StandIn::MODEL,
        }
    }

    /// The inverse of [`Answerer::as_str`].
    pub fn parse(text: &str) -> Option<Answerer> {
        [Answerer::Gemini, Answerer::StandIn].into_iter().find(|answerer| answerer.as_str() == text)
    }

    /// How a command gets this one.
    pub(crate) fn mend(self) -> &'static str {
        match self {
            Answerer::Gemini => "set GEMINI_API_KEY",
            Answerer::StandIn => "unset GEMINI_API_KEY and GOOGLE_API_KEY",
        }
    }
}

impl fmt::Display for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A model, and who that is.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) answerer: Answerer,
}

/// Reads the environment. An error names the variable and the mend; nothing was started then.
pub(crate) fn choose(max_in_flight: u32) -> Result<Chosen> {
    if set("GEMINI_API_KEY").or_else(|| set("GOOGLE_API_KEY")).is_some() {
        let gemini = Gemini::new(GeminiConfig::from_env(set, max_in_flight)?)?;
        return Ok(Chosen { model: Arc::new(gemini), answerer: Answerer::Gemini });
    }
    if set("GOOGLE_GEMINI_BASE_URL").is_some() {
        bail!(
            "GOOGLE_GEMINI_BASE_URL is set, but no key: set GEMINI_API_KEY too, or unset both for the stand-in model"
        );
    }
    Ok(Chosen { model: Arc::new(StandIn), answerer: Answerer::StandIn })
}

/// Who counts the pipeline's prompts for free: Gemini, where there is a key.
pub(crate) fn counter(model: &ModelSettings) -> Result<Option<Arc<dyn CountTokens>>> {
    if model.provider != Provider::Google || set("GEMINI_API_KEY").or_else(|| set("GOOGLE_API_KEY")).is_none() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Gemini::new(GeminiConfig::from_env(set, COUNTS_AT_ONCE)?)?)))
}

/// A variable of the environment. An empty one is unset.
fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// A model that is never asked: for sealing a cancelled run.
pub(crate) struct NoModel;

#[async_trait]
impl Model for NoModel {
    async fn ask(&self, _: &Ask) -> Result<Reply, Fault> {
        Err(Fault::Unavailable("this command asks no model".to_owned()))
    }
}
