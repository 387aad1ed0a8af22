//! BigQuery's REST API, as much of it as a snapshot needs. Plain HTTP: a job's id, and the reason of an error, decide what
//! happens next, and no client may retry on its own between them.

use super::fault::Failure;
use crate::connect::Endpoint;
use google_cloud_auth::credentials::CacheableResource;
use http::{Extensions, HeaderMap};
use reqwest::{Client, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

const REAL: &str = "https://bigquery.googleapis.com";
/// A call may take so long: BigQuery answers `jobs.query` within the time that it is given, here at most [`QUERY_TIMEOUT`].
const CALL_TIMEOUT: Duration = Duration::from_secs(100);
/// How long a query may run before `jobs.query` answers without its rows (REST reference: at most 200 s).
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest reply that is read: 4,000 counts, or a job with 1,000 columns, are far below it.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// Calls with one account.
#[derive(Clone, Debug)]
pub struct Rest {
    client: Client,
    base: String,
    endpoint: Endpoint,
}

impl Rest {
    /// Needs TLS installed ([`crate::connect::install_tls`]).
    pub fn new(endpoint: Endpoint) -> reqwest::Result<Rest> {
        let client = Client::builder().timeout(CALL_TIMEOUT).redirect(reqwest::redirect::Policy::none()).build()?;
        let base = endpoint.url.as_deref().unwrap_or(REAL);
        Ok(Rest { client, base: format!("{base}/bigquery/v2/projects/"), endpoint })
    }

    /// `path` starts with the project.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.call(Method::GET, path, Vec::new()).await
    }

    /// Posts JSON.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).expect("requests are plain data");
        self.call(Method::POST, path, body).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, Failure> {
        let request = self.client.request(method, format!("{}{path}", self.base)).headers(self.headers().await?);
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        // reqwest's errors hold the address; there is nothing else in them that decides anything.
        let mut reply = request.send().await.map_err(|_| Failure::silent())?;
        let (status, mut text) = (reply.status(), Vec::new());
        while let Some(chunk) = reply.chunk().await.map_err(|_| Failure::silent())? {
            text.extend_from_slice(&chunk);
            if text.len() > REPLY_BYTES_MAX {
                return Err(Failure::silent());
            }
        }
        if !status.is_success() {
            return Err(Failure::of(status.as_u16(), &text));
        }
        serde_json::from_slice(&text).map_err(|_| Failure::of(status.as_u16(), b""))
    }

    async fn headers(&self) -> Result<HeaderMap, Failure> {
        match self.endpoint.credentials.headers(Extensions::new()).await {
            Ok(CacheableResource::New { data, .. }) => Ok(data),
            Ok(CacheableResource::NotModified) | Err(_) => Err(Failure::silent()),
        }
    }
}
