//! The Gemini client: the model port over HTTP.
//!
//! [`GeminiConfig`] says where, and [`Access`] as whom: the Gemini API, or another service with the same messages. The pool keeps the connections; request, reply and fault are pure. No error
//! text holds anything that the server wrote but status names and known reason codes: its messages may echo the row.

mod access;
mod config;
mod count;
mod fault;
mod pool;
mod reply;
mod request;
pub mod tls;

pub use access::{Access, Key};
pub use config::{ConfigError, GeminiConfig};

use crate::ports::{Ask, Fault, Model, Reply};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use fault::Sent;
use http_body_util::{BodyExt, Full};
use pool::Pool;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Client, Response, StatusCode};

/// Longest reply in bytes: an answer may have 64 KiB ([`crate::limits::ANSWER_BYTES_MAX`]), thoughts and escapes several
/// times that; more than this is no reply to us.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// How often a request may go out that the server refuses unseen: HTTP/2 does so to what is under way when it learns of
/// the server's limit, and when a connection is being closed.
const SENDS_MAX: u32 = 3;

/// A Gemini model behind the model port. One for a process and server: it holds the connections.
#[derive(Debug)]
pub struct Gemini {
    config: GeminiConfig,
    pool: Pool,
}

impl Gemini {
    /// Opens nothing yet. Fails when the trusted certificates cannot be read.
    pub fn new(config: GeminiConfig) -> Result<Gemini, ConfigError> {
        Ok(Gemini { pool: Pool::new(&config)?, config })
    }

    /// Makes one call and reads its reply to the end.
    async fn call(&self, client: &Client, ask: &Ask, sent: &Sent) -> Result<Reply, Fault> {
        let access = &*self.config.access;
        let address = self.config.generate_content(&ask.pipeline.model)?;
        let body = Bytes::from(request::body(ask));
        let who = access.authorise().await?;
        let mut response = self.send(client, &address, &who, &body, sent).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // What authorises a call may have run out on its way. A second refusal is no row's fault.
            let another = access.authorise().await?;
            if another != who {
                sent.unset();
                response = self.send(client, &address, &another, &body, sent).await?;
            }
        }
        let status = response.status();
        if status == StatusCode::OK {
            let body = read(response).await.map_err(|error| fault::transport(&error, sent))?;
            let body = body.ok_or_else(|| Fault::Garbled("it is longer than 4 MiB".to_owned()))?;
            return reply::reply(access, &body, &ask.pipeline.model.name);
        }
        let retry_after = fault::retry_after(response.headers());
        // A status says enough: a body that is cut or endless only costs its details.
        let body = read(response).await.ok().flatten().unwrap_or_default();
        Err(fault::fault(access, status.as_u16(), retry_after, &body))
    }

    /// Sends until the server looks at it.
    async fn send(
        &self,
        client: &Client,
        address: &str,
        who: &HeaderMap,
        body: &Bytes,
        sent: &Sent,
    ) -> Result<Response, Fault> {
        let mut sends_left = SENDS_MAX;
        loop {
            sends_left -= 1;
            match send_once(client, address, who.clone(), body.clone(), sent).await {
                // The server says that it did not look at it: this is still the same call.
                Err(error) if sends_left > 0 && fault::unprocessed(&error) => sent.unset(),
                result => return result.map_err(|error| fault::transport(&error, sent)),
            }
        }
    }
}

#[async_trait]
impl Model for Gemini {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let lease = self.pool.lease().await?;
        let sent = Sent::default();
        match tokio::time::timeout(self.config.timeout, self.call(lease.client(), ask, &sent)).await {
            Ok(result) => result,
            Err(_) => Err(fault::timeout(self.config.timeout, &sent)),
        }
    }
}

async fn send_once(
    client: &Client,
    address: &str,
    who: HeaderMap,
    body: Bytes,
    sent: &Sent,
) -> reqwest::Result<Response> {
    let length = HeaderValue::from(body.len());
    let mark = sent.clone();
    // A connection takes the body when the request goes out: from that moment the call may be paid.
    let body = Full::new(body).map_frame(move |frame| {
        mark.set();
        frame
    });
    let request = client
        .post(address)
        .headers(who)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(CONTENT_LENGTH, length);
    request.body(Body::wrap(body)).send().await
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
