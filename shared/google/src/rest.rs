//! Google's REST APIs, to look at: what `tasuki doctor` asks. Reads only, with the credentials of whoever asks.

use crate::connect::Endpoint;
use google_cloud_auth::credentials::CacheableResource;
use http::{Extensions, HeaderMap, header};
use reqwest::{Client, Method, redirect};
use serde_json::Value;
use std::sync::Mutex;
use std::time::Duration;
use tasuki_relay::clock::Millis;

/// A look may take so long: each is one small document.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Largest reply that is read: a service or a policy is a few KB.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// Why something cannot be seen. The service's own words may quote what was asked: only its code and reason are passed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unseen {
    /// 401, 403. The reason is a word for programs (`google.rpc.ErrorInfo`), where there is one: `SERVICE_DISABLED`.
    #[error("not allowed{}", .0.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Denied(Option<String>),
    /// 404.
    #[error("not there")]
    Absent,
    /// Anything else.
    #[error("{0}")]
    Unreachable(String),
}

/// Google's REST APIs.
#[derive(Debug)]
pub struct Rest {
    client: Client,
    endpoint: Endpoint,
    /// What the last reply said that the time is.
    date: Mutex<Option<Millis>>,
}

impl Rest {
    /// Every address is asked at the endpoint's address where that has one. Needs TLS installed ([`crate::connect::install_tls`]).
    pub fn new(endpoint: Endpoint) -> reqwest::Result<Rest> {
        let client = Client::builder().timeout(CALL_TIMEOUT).redirect(redirect::Policy::none()).build()?;
        Ok(Rest { client, endpoint, date: Mutex::new(None) })
    }

    /// The document at `https://<host>/<path>`.
    pub async fn get(&self, host: &str, path: &str) -> Result<Value, Unseen> {
        self.call(Method::GET, host, path, None).await
    }

    /// Asks a question that has a body. Only for methods that change nothing.
    pub async fn ask(&self, host: &str, path: &str, body: &Value) -> Result<Value, Unseen> {
        self.call(Method::POST, host, path, Some(body)).await
    }

    /// What the last reply said that the time is.
    pub fn date(&self) -> Option<Millis> {
        *self.date.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn call(&self, method: Method, host: &str, path: &str, body: Option<&Value>) -> Result<Value, Unseen> {
        let base = self.endpoint.url.clone().unwrap_or_else(|| format!("https://{host}"));
        let mut request = self.client.request(method, format!("{base}/{path}")).headers(self.headers().await?);
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let broken = |_| Unseen::Unreachable(format!("{host} does not answer"));
        let mut reply = request.send().await.map_err(broken)?;
        self.note_date(reply.headers());
        let (status, mut text) = (reply.status(), Vec::new());
        while let Some(chunk) = reply.chunk().await.map_err(broken)? {
            text.extend_from_slice(&chunk);
            if text.len() > REPLY_BYTES_MAX {
                return Err(Unseen::Unreachable(format!("{host} says more than {REPLY_BYTES_MAX} bytes")));
            }
        }
        let body = serde_json::from_slice::<Value>(&text);
        match status.as_u16() {
            200..300 => body.map_err(|_| Unseen::Unreachable(format!("{host} says what cannot be read"))),
            401 | 403 => Err(Unseen::Denied(body.ok().and_then(|body| reason(&body)))),
            404 => Err(Unseen::Absent),
            code => Err(Unseen::Unreachable(format!("{host}: HTTP {code}"))),
        }
    }

    fn note_date(&self, headers: &HeaderMap) {
        let date = headers.get(header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        if let Some(date) = date {
            *self.date.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Millis::of(date));
        }
    }

    async fn headers(&self) -> Result<HeaderMap, Unseen> {
        match self.endpoint.credentials.headers(Extensions::new()).await {
            Ok(CacheableResource::New { data, .. }) => Ok(data),
            Ok(CacheableResource::NotModified) => Err(Unseen::Unreachable("no token was given".to_owned())),
            Err(_) => Err(Unseen::Denied(Some("no token: run `gcloud auth application-default login`".to_owned()))),
        }
    }
}

/// The word for programs in an error's details.
fn reason(body: &Value) -> Option<String> {
    let details = body["error"]["details"].as_array()?;
    details.iter().find_map(|detail| detail["reason"].as_str()).map(str::to_owned)
}
