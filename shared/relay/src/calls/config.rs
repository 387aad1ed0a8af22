use crate::prices::Tier;
use reqwest::Url;
use reqwest::header::HeaderValue;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A configuration that cannot work. Names the variable and the mend, never a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// Where a model's server is, and how calls to it are made.
#[derive(Clone, Debug)]
pub struct Server {
    /// http or https, without a query; methods are at paths below it.
    pub base: Url,
    /// Calls in flight that the connections must carry, at least 1; more wait.
    pub max_in_flight: u32,
    /// From the moment of sending to the end of the reply, by tier.
    pub timeout: fn(Tier) -> Duration,
    /// Certificates in PEM that are trusted beside the system's.
    pub cert_file: Option<PathBuf>,
}

impl Server {
    /// A server at `base`, an http or https address without a query, which `variable` holds; `like` is one. Certificates are
    /// the system's, limits those of [`call_limit`].
    pub(crate) fn new(base: &str, variable: &str, like: &str, max_in_flight: u32) -> Result<Server, ConfigError> {
        let base = parse(base).ok_or_else(|| {
            ConfigError(format!("{variable} is not an http or https address: unset it, or write one like {like}"))
        })?;
        Ok(Server { base, max_in_flight, timeout: call_limit, cert_file: None })
    }

    /// The address of a path below the base, which begins with a slash.
    pub(crate) fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }
}

fn parse(text: &str) -> Option<Url> {
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .filter(|url| url.query().is_none() && url.fragment().is_none())
}

/// A call without a reply for so long is given up: structured answers of a flash model take seconds, with much thinking a
/// minute.
const STANDARD_LIMIT: Duration = Duration::from_secs(120);
/// What Vertex AI waits for at most with flex; 20 minutes unless it is asked for more
/// (<https://docs.cloud.google.com/vertex-ai/generative-ai/docs/flex-paygo>).
const FLEX_LIMIT: Duration = Duration::from_secs(30 * 60);

/// How long a call of this tier is waited for.
pub fn call_limit(tier: Tier) -> Duration {
    match tier {
        Tier::Standard | Tier::Priority => STANDARD_LIMIT,
        Tier::Flex => FLEX_LIMIT,
    }
}

/// An API key. Its `Debug` shows nothing.
#[derive(Clone)]
pub struct Key(HeaderValue);

impl Key {
    /// From text. `None` when it cannot stand in a header.
    pub fn new(text: &str) -> Option<Key> {
        Key::after("", text)
    }

    /// The same, with a word before it.
    pub(crate) fn bearer(text: &str) -> Option<Key> {
        Key::after("Bearer ", text)
    }

    fn after(word: &str, text: &str) -> Option<Key> {
        let text = Some(text.trim()).filter(|text| !text.is_empty())?;
        let mut value = HeaderValue::from_str(&format!("{word}{text}")).ok()?;
        value.set_sensitive(true);
        Some(Key(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Looks a variable up; an empty one is an unset one.
pub(crate) fn set(get: impl Fn(&str) -> Option<String>) -> impl Fn(&str) -> Option<String> {
    move |name| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}
