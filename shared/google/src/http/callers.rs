//! Who may call: the second wall behind Cloud Run's own check of the invoker (protocol.md 9).

use super::keys::{Keys, NoKey};
use crate::settings;
use http::{HeaderMap, StatusCode, header};
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use tasuki_relay::clock::Clock;

/// Google's two spellings of itself as the issuer ("OpenID Connect", ID token claims).
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// Clocks may differ by so many seconds.
const SKEW_SECONDS: u64 = 10;

/// Why a caller is turned away. Says nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No bearer token.
    #[error("no bearer token")]
    NoToken,
    /// Not signed by a known key with RS256, expired, or of another issuer.
    #[error("the token is not valid")]
    Invalid,
    /// For another service.
    #[error("the token's audience is another service")]
    Audience,
    /// Somebody else.
    #[error("the caller is not on the list (TASUKI_OIDC_EMAILS)")]
    Email,
    /// The public keys cannot be fetched: not the caller's fault.
    #[error("the public keys cannot be fetched")]
    NoKeys,
}

impl Refused {
    /// What it is answered with. Pub/Sub delivers again on all of them: a wall that is built wrong loses nothing.
    pub fn status(self) -> StatusCode {
        match self {
            Refused::NoToken | Refused::Invalid => StatusCode::UNAUTHORIZED,
            Refused::Audience | Refused::Email => StatusCode::FORBIDDEN,
            Refused::NoKeys => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    email_verified: bool,
}

/// The wall.
pub struct Callers {
    emails: BTreeSet<String>,
    keys: Arc<Keys>,
}

impl Callers {
    /// A wall that these callers pass.
    pub fn new(callers: &settings::Callers, client: reqwest::Client, clock: Clock) -> Callers {
        Callers {
            emails: callers.emails.iter().cloned().collect(),
            keys: Keys::new(callers.jwks.clone(), client, clock),
        }
    }

    /// Lets a request pass, or says why not. `host` is the name that the front end routed by.
    pub async fn check(&self, headers: &HeaderMap, host: &str) -> Result<(), Refused> {
        let token = bearer(headers).ok_or(Refused::NoToken)?;
        let head = decode_header(token).map_err(|_| Refused::Invalid)?;
        if head.alg != Algorithm::RS256 {
            return Err(Refused::Invalid);
        }
        let key = self.keys.get(&head.kid.ok_or(Refused::Invalid)?).await.map_err(|no| match no {
            NoKey::Unknown => Refused::Invalid,
            NoKey::Unreachable => Refused::NoKeys,
        })?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = SKEW_SECONDS;
        validation.set_issuer(&ISSUERS);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.validate_aud = false; // below: only its origin counts
        let claims: Claims = decode(token, &key, &validation).map_err(|_| Refused::Invalid)?.claims;
        if !is_ours(&claims.aud, host) {
            return Err(Refused::Audience);
        }
        if !claims.email_verified || !self.emails.contains(&claims.email) {
            return Err(Refused::Email);
        }
        Ok(())
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// An audience is the address that was called, with or without a path: its origin must be this service.
fn is_ours(audience: &str, host: &str) -> bool {
    let origin = audience.strip_prefix("https://").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    !host.is_empty() && origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_of_an_audience_counts() {
        for ours in ["https://a.run.app", "https://a.run.app/", "https://a.run.app/events?x=1", "https://A.run.app"] {
            assert!(is_ours(ours, "a.run.app"), "{ours}");
        }
        for other in [
            "http://a.run.app",
            "https://a.run.app.evil.com",
            "https://b.run.app",
            "a.run.app",
            "",
            "https://a.run.app@b",
        ] {
            assert!(!is_ours(other, "a.run.app"), "{other}");
        }
        assert!(!is_ours("https://", ""));
    }
}
