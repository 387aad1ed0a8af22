//! The Gemini client: the model port over HTTP.
//!
//! [`GeminiConfig`] says where and as whom; the pool keeps the connections; request, reply and fault are pure. No error
//! text holds anything that the server wrote but status names and known reason codes: its messages may echo the row.

mod config;
mod fault;
mod pool;
mod reply;
mod request;
pub mod tls;

pub use config::{ConfigError, GeminiConfig, Key};

use crate::ports::{Ask, Fault, Model, Reply};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use config::Endpoint;
use fault::Sent;
use http_body_util::{BodyExt, Full};
use pool::Pool;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Body, Client, Response, StatusCode};
use std::time::Duration;

/// Longest reply in bytes: an answer may have 64 KiB ([`crate::limits::ANSWER_BYTES_MAX`]), thoughts and escapes several
/// times that; more than this is no reply to us.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// How often a request may go out that the server refuses unseen: HTTP/2 does so to what is under way when it learns of
/// the server's limit, and when a connection is being closed.
const SENDS_MAX: u32 = 3;

/// The Gemini API behind the model port. One for a process: it holds the connections.
#[derive(Debug)]
pub struct Gemini {
    endpoint: Endpoint,
    timeout: Duration,
    pool: Pool,
}

impl Gemini {
    /// Opens nothing yet. Fails when the trusted certificates cannot be read.
    pub fn new(config: GeminiConfig) -> Result<Gemini, ConfigError> {
        Ok(Gemini { pool: Pool::new(&config)?, timeout: config.timeout, endpoint: Endpoint::gemini_api(config)? })
    }

    /// Makes one call and reads its reply to the end.
    async fn call(&self, client: &Client, ask: &Ask, sent: &Sent) -> Result<Reply, Fault> {
        let address = self.endpoint.generate_content(&ask.pipeline.model.name)?;
        let body = Bytes::from(request::body(ask));
        let mut sends_left = SENDS_MAX;
        let response = loop {
            sends_left -= 1;
            match self.send(client, &address, body.clone(), sent).await {
                // The server says that it did not look at it: this is still the same call.
                Err(error) if sends_left > 0 && fault::unprocessed(&error) => sent.unset(),
                result => break result.map_err(|error| fault::transport(&error, sent))?,
            }
        };
        let status = response.status();
        if status == StatusCode::OK {
            let body = read(response).await.map_err(|error| fault::transport(&error, sent))?;
            let body = body.ok_or_else(|| Fault::Garbled("it is longer than 4 MiB".to_owned()))?;
            return reply::reply(&body, &ask.pipeline.model.name);
        }
        let retry_after = response.headers().get(RETRY_AFTER).cloned();
        // A status says enough: a body that is cut or endless only costs its details.
        let body = read(response).await.ok().flatten().unwrap_or_default();
        Err(fault::fault(status.as_u16(), retry_after.as_ref().and_then(|value| value.to_str().ok()), &body))
    }

    async fn send(&self, client: &Client, address: &str, body: Bytes, sent: &Sent) -> reqwest::Result<Response> {
        let length = HeaderValue::from(body.len());
        let mark = sent.clone();
        // A connection takes the body when the request goes out: from that moment the call may be paid.
        let body = Full::new(body).map_frame(move |frame| {
            mark.set();
            frame
        });
        let request = client
            .post(address)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(CONTENT_LENGTH, length);
        self.endpoint.authorise(request).body(Body::wrap(body)).send().await
    }
}

#[async_trait]
impl Model for Gemini {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let lease = self.pool.lease().await?;
        let sent = Sent::default();
        match tokio::time::timeout(self.timeout, self.call(lease.client(), ask, &sent)).await {
            Ok(result) => result,
            Err(_) => Err(fault::timeout(self.timeout, &sent)),
        }
    }
}

/// The body of a response; `None` when it is longer than [`REPLY_BYTES_MAX`].
async fn read(mut response: Response) -> reqwest::Result<Option<Bytes>> {
    let Some(first) = response.chunk().await? else { return Ok(Some(Bytes::new())) };
    let Some(second) = response.chunk().await? else { return Ok((first.len() <= REPLY_BYTES_MAX).then_some(first)) };
    let mut whole = BytesMut::from(first);
    whole.extend_from_slice(&second);
    while whole.len() <= REPLY_BYTES_MAX {
        match response.chunk().await? {
            Some(more) => whole.extend_from_slice(&more),
            None => return Ok(Some(whole.freeze())),
        }
    }
    Ok(None)
}
