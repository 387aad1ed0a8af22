use super::failure::{Failure, absent_is_none};
use super::{SetUpError, TRIES};
use crate::connect::Endpoint;
use bytes::Bytes;
use google_cloud_auth::credentials::{CacheableResource, Credentials};
use http::Extensions;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, Url, redirect};
use serde::Deserialize;
use std::time::Duration;
use tasuki_relay::calls::tls;
use tasuki_relay::clock::{Chance, Millis};
use tasuki_relay::pace::backoff;
use tasuki_relay::ports::{Generation, Meta};

const SERVICE: &str = "https://storage.googleapis.com";

/// One request may take so long: a page of a thousand names takes well below a second. Three of them fit in a call's limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(6);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait before the second try, doubled for the third.
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Names on one page at most (JSON API reference, objects.list, `maxResults`).
const PAGE_MAX: usize = 1_000;

/// What stays as it is in an object's name within a path: all else could be read as a part of the address.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What Google's client does over gRPC only, over Cloud Storage's JSON API: stat, list, delete.
#[derive(Debug)]
pub(super) struct JsonApi {
    client: Client,
    base: String,
    credentials: Credentials,
    chance: Chance,
}

impl JsonApi {
    pub(super) fn new(endpoint: &Endpoint) -> Result<JsonApi, SetUpError> {
        let base = endpoint.url.clone().unwrap_or_else(|| SERVICE.to_owned());
        Url::parse(&base).map_err(|_| SetUpError("its address"))?;
        let mut tls = tls::config(None).map_err(|_| SetUpError("TLS"))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            // As Google's client does it: a request that times out takes its connection with it, and no others.
            .http1_only()
            .user_agent(concat!("tasuki/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|_| SetUpError("the HTTP client"))?;
        Ok(JsonApi { client, base, credentials: endpoint.credentials.clone(), chance: Chance::system() })
    }

    /// One version, or the live one.
    pub(super) async fn stat(
        &self,
        bucket: &str,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Meta>, Failure> {
        let mut url = self.object(bucket, name)?;
        url.query_pairs_mut().append_pair("fields", FIELDS);
        if let Some(generation) = generation {
            url.query_pairs_mut().append_pair("generation", &generation.to_string());
        }
        let Some(body) = absent_is_none(self.send(Method::GET, url).await)? else { return Ok(None) };
        parse::<Resource>(&body)?.meta().map(Some)
    }

    /// Gone afterwards, unless a version other than `expected` is live: 412.
    pub(super) async fn remove(&self, bucket: &str, name: &str, expected: Option<Generation>) -> Result<(), Failure> {
        let mut url = self.object(bucket, name)?;
        if let Some(expected) = expected {
            url.query_pairs_mut().append_pair("ifGenerationMatch", &expected.to_string());
        }
        absent_is_none(self.send(Method::DELETE, url).await).map(drop)
    }

    /// The first `most` names after `after`, in their order, over as many pages as it takes.
    pub(super) async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, Failure> {
        let mut url = self.address(&format!("/storage/v1/b/{bucket}/o"))?;
        url.query_pairs_mut()
            .append_pair("fields", &format!("nextPageToken,items({FIELDS})"))
            .append_pair("prefix", prefix)
            // It includes `after` itself.
            .extend_pairs(after.map(|after| ("startOffset", after)));
        let mut found = Vec::new();
        let mut token: Option<String> = None;
        while found.len() < most {
            let wanted = (most - found.len()).saturating_add(1).min(PAGE_MAX);
            let mut url = url.clone();
            url.query_pairs_mut()
                .append_pair("maxResults", &wanted.to_string())
                .extend_pairs(token.as_ref().map(|token| ("pageToken", token)));
            let page: Page = parse(&self.send(Method::GET, url).await?)?;
            for item in page.items.iter().filter(|item| after.is_none_or(|after| item.name.as_str() > after)) {
                found.push(item.meta()?);
            }
            token = page.next_page_token;
            if token.is_none() {
                break;
            }
        }
        found.truncate(most);
        Ok(found)
    }

    /// No object is named like this: the address would be its bucket's.
    fn object(&self, bucket: &str, name: &str) -> Result<Url, Failure> {
        if matches!(name, "" | "." | "..") {
            return Err(Failure::unconfirmed("no object can have this name"));
        }
        self.address(&format!("/storage/v1/b/{bucket}/o/{}", utf8_percent_encode(name, UNRESERVED)))
    }

    fn address(&self, path: &str) -> Result<Url, Failure> {
        Url::parse(&format!("{}{path}", self.base)).map_err(|_| Failure::unconfirmed("an address that is none"))
    }

    /// The body of a good reply. Tries again what is not confirmed: everything here may be done twice.
    async fn send(&self, method: Method, url: Url) -> Result<Bytes, Failure> {
        let mut tried = 1;
        loop {
            match self.send_once(method.clone(), url.clone()).await {
                Err(Failure::Unconfirmed(_)) if tried < TRIES => {
                    tokio::time::sleep(self.chance.up_to(backoff(tried - 1, BACKOFF, BACKOFF_MAX))).await;
                    tried += 1;
                }
                result => return result,
            }
        }
    }

    async fn send_once(&self, method: Method, url: Url) -> Result<Bytes, Failure> {
        let headers = match self.credentials.headers(Extensions::new()).await {
            Ok(CacheableResource::New { data, .. }) => data,
            Ok(CacheableResource::NotModified) => return Err(Failure::unconfirmed("no token")), // only told to who has one
            Err(error) if error.is_transient() => return Err(Failure::unconfirmed("no token for now")),
            Err(_) => return Err(Failure::Unauthenticated),
        };
        let response = self.client.request(method, url).headers(headers).send().await.map_err(transport)?;
        match response.status() {
            status if status.is_success() => response.bytes().await.map_err(transport),
            status => Err(Failure::of_status(status.as_u16())),
        }
    }
}

/// Its own text holds the address, and so the object's name.
fn transport(error: reqwest::Error) -> Failure {
    Failure::unconfirmed(match () {
        () if error.is_timeout() => "no reply in time",
        () if error.is_connect() => "no connection",
        () => "the connection broke",
    })
}

/// The fields of [`Resource`].
const FIELDS: &str = "name,generation,timeCreated,size";

/// An object as the JSON API has it. Its 64-bit numbers are strings.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    generation: String,
    time_created: Millis,
    size: String,
}

impl Resource {
    fn meta(&self) -> Result<Meta, Failure> {
        let generation = self.generation.parse().map_err(|_| unreadable())?;
        let size = self.size.parse().map_err(|_| unreadable())?;
        Ok(Meta { name: self.name.clone(), generation, created: self.time_created, size })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    items: Vec<Resource>,
    next_page_token: Option<String>,
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|_| unreadable())
}

fn unreadable() -> Failure {
    Failure::unconfirmed("a reply that cannot be read")
}
