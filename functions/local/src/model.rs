//! Which model answers: the pipeline's provider, where the environment says how to reach it; else the stand-in, which says so.

use anyhow::{Result, bail};
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use tasuki_relay::gemini::{Gemini, GeminiConfig};
use tasuki_relay::openai::{OpenAi, OpenAiConfig};
use tasuki_relay::pipeline::{ModelSettings, Provider};
use tasuki_relay::ports::{Ask, CountTokens, Fault, Model, Reply};
use tasuki_relay::router::Router;
use tasuki_relay::stand_in::StandIn;

/// Prompts that are counted at a time: a few hundred a minute at 100 ms each, where 3,000 are allowed (peers.md 5.4).
pub(crate) const COUNTS_AT_ONCE: u32 = 4;

/// Who answers the rows of a run: part of what the run is, since some are paid and the stand-in makes its answers up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// There is a key.
    Gemini,
    /// There is a key or an address of chat completions.
    OpenAi,
    /// There is neither.
    StandIn,
}

impl Answerer {
    /// As the folder's files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Answerer::Gemini => "gemini",
            Answerer::OpenAi => "openai",
            Answerer::StandIn => StandIn::MODEL,
        }
    }

    /// The inverse of [`Answerer::as_str`].
    pub fn parse(text: &str) -> Option<Answerer> {
        [Answerer::Gemini, Answerer::OpenAi, Answerer::StandIn].into_iter().find(|answerer| answerer.as_str() == text)
    }

    /// The real one of a provider.
    pub(crate) fn of(provider: Provider) -> Answerer {
        match provider {
            Provider::Google => Answerer::Gemini,
            Provider::OpenAi => Answerer::OpenAi,
        }
    }

    /// In a sentence.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Answerer::Gemini => "Gemini",
            Answerer::OpenAi => "the OpenAI-compatible endpoint",
            Answerer::StandIn => "the stand-in model",
        }
    }

    /// How a command gets this one for pipelines of a provider.
    pub(crate) fn mend(self, provider: Provider) -> &'static str {
        match (self, provider) {
            (Answerer::Gemini, _) => "set GEMINI_API_KEY",
            (Answerer::OpenAi, _) => "set OPENAI_API_KEY or OPENAI_BASE_URL",
            (Answerer::StandIn, Provider::Google) => "unset GEMINI_API_KEY and GOOGLE_API_KEY",
            (Answerer::StandIn, Provider::OpenAi) => "unset OPENAI_API_KEY and OPENAI_BASE_URL",
        }
    }
}

impl fmt::Display for Answerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who answers the pipelines of each provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answerers {
    /// Of Google's.
    pub google: Answerer,
    /// Of chat completions.
    pub openai: Answerer,
}

impl Answerers {
    /// Who answers those of this one.
    pub fn of(self, provider: Provider) -> Answerer {
        match provider {
            Provider::Google => self.google,
            Provider::OpenAi => self.openai,
        }
    }
}

/// A model, and who that is.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) answerer: Answerer,
}

/// Reads the environment for the pipelines of a provider. An error names the variable and the mend; nothing was started then.
pub(crate) fn choose(provider: Provider, max_in_flight: u32) -> Result<Chosen> {
    let model: Option<Arc<dyn Model>> = match provider {
        Provider::Google => gemini(max_in_flight)?,
        Provider::OpenAi => openai(max_in_flight)?,
    };
    Ok(match model {
        Some(model) => Chosen { model, answerer: Answerer::of(provider) },
        None => Chosen { model: Arc::new(StandIn), answerer: Answerer::StandIn },
    })
}

/// The same for all providers: each run is answered by its pipeline's.
pub(crate) fn choose_all(max_in_flight: u32) -> Result<(Arc<dyn Model>, Answerers)> {
    let (google, openai) = (choose(Provider::Google, max_in_flight)?, choose(Provider::OpenAi, max_in_flight)?);
    let answerers = Answerers { google: google.answerer, openai: openai.answerer };
    Ok((Arc::new(Router { google: google.model, openai: openai.model }), answerers))
}

fn gemini(max_in_flight: u32) -> Result<Option<Arc<dyn Model>>> {
    if set("GEMINI_API_KEY").or_else(|| set("GOOGLE_API_KEY")).is_some() {
        return Ok(Some(Arc::new(Gemini::new(GeminiConfig::from_env(set, max_in_flight)?)?)));
    }
    if set("GOOGLE_GEMINI_BASE_URL").is_some() {
        bail!(
            "GOOGLE_GEMINI_BASE_URL is set, but no key: set GEMINI_API_KEY too, or unset both for the stand-in model"
        );
    }
    Ok(None)
}

fn openai(max_in_flight: u32) -> Result<Option<Arc<dyn Model>>> {
    if !OpenAiConfig::is_meant(set) {
        return Ok(None);
    }
    Ok(Some(Arc::new(OpenAi::new(OpenAiConfig::from_env(set, max_in_flight)?)?)))
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
