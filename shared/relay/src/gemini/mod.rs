//! The Gemini client: the model port over HTTP.
//!
//! [`GeminiConfig`] says where, and [`Access`] as whom: the Gemini API, or another service with the same messages.
//! [`crate::calls`] keeps the connections; request, reply and fault are pure. No error text holds anything that the server wrote
//! but status names and known reason codes: its messages may echo the row.

mod access;
mod config;
mod count;
mod fault;
mod reply;
mod request;

pub use access::{Access, Said};
pub use config::GeminiConfig;

use crate::calls::{self, Calls, ConfigError, Line};
use crate::ports::{Ask, Fault, Model, Reply};
use crate::prices::Tier;
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName};

/// With what the Gemini API says which tier served a call
/// (<https://ai.google.dev/gemini-api/docs/priority-inference>).
const SERVED_TIER: HeaderName = HeaderName::from_static("x-gemini-service-tier");

/// A Gemini model behind the model port. One for a process and server: it holds the connections.
#[derive(Debug)]
pub struct Gemini {
    config: GeminiConfig,
    calls: Calls,
}

impl Gemini {
    /// Opens nothing yet. Fails when the trusted certificates cannot be read.
    pub fn new(config: GeminiConfig) -> Result<Gemini, ConfigError> {
        Ok(Gemini { calls: Calls::new(&config.server)?, config })
    }

    /// Makes one call and reads its reply to the end.
    async fn call(&self, line: &Line<'_>, ask: &Ask) -> Result<Reply, Fault> {
        let access = &*self.config.access;
        let model = &ask.pipeline.model;
        let address = self.config.method(model, "generateContent")?;
        let tier = Some(model.tier).filter(|tier| *tier != Tier::Standard);
        let (in_body, in_headers) = match tier.map(|tier| access.tier(tier)) {
            Some(Said::InHeaders(headers)) => (None, headers),
            Some(Said::InBody) => (tier, HeaderMap::new()),
            None => (None, HeaderMap::new()),
        };
        let body = Bytes::from(request::body(ask, in_body));
        let with = |who: &HeaderMap| {
            let mut headers = in_headers.clone();
            headers.extend(who.clone());
            headers
        };
        let who = access.authorise().await?;
        let mut response = line.post(&address, &with(&who), &body).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // What authorises a call may have run out on its way. A second refusal is no row's fault.
            let another = access.authorise().await?;
            if another != who {
                response = line.post(&address, &with(&another), &body).await?;
            }
        }
        let told = line.read(response).await?;
        if told.status == StatusCode::OK {
            let reply = reply::reply(access, &told.body, &model.name)?;
            return Ok(Reply { tier: reply.tier.or_else(|| served(&told.headers)), ..reply });
        }
        Err(fault::fault(access, told.status.as_u16(), calls::retry_after(&told.headers), &told.body))
    }
}

fn served(headers: &HeaderMap) -> Option<Tier> {
    Tier::parse(headers.get(SERVED_TIER)?.to_str().ok()?)
}

#[async_trait]
impl Model for Gemini {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let line = self.calls.line().await?;
        line.within((self.config.server.timeout)(ask.pipeline.model.tier), self.call(&line, ask)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gemini_api_says_in_a_header_what_served_a_call() {
        let said = |word: &'static str| served(&HeaderMap::from_iter([(SERVED_TIER, word.parse().unwrap())]));
        assert_eq!(
            [said("standard"), said("priority"), said("new")],
            [Some(Tier::Standard), Some(Tier::Priority), None]
        );
        assert_eq!(served(&HeaderMap::new()), None);
    }
}
