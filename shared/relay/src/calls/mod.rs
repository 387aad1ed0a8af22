//! Calls to a model's server, whatever its messages are: connections, sending, limits of time, and what a call comes to that
//! breaks off. [`crate::gemini`] and [`crate::openai`] put their messages on top.

mod body;
mod config;
mod fault;
mod pool;
pub mod tls;

pub(crate) use body::{garbled, or_default};
pub(crate) use config::set;
pub use config::{ConfigError, Key, Server, call_limit};
pub(crate) use fault::{retry_after, seconds};

use crate::ports::Fault;
use bytes::Bytes;
use fault::Sent;
use http_body_util::{BodyExt, Full};
use pool::{Lease, Pool};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Response, StatusCode};
use std::future::Future;
use std::time::Duration;

/// How often a request may go out that the server refuses unseen: HTTP/2 does so to what is under way when it learns of
/// the server's limit, and when a connection is being closed.
const SENDS_MAX: u32 = 3;

/// The connections to one server.
#[derive(Debug)]
pub(crate) struct Calls(Pool);

impl Calls {
    /// Opens nothing yet. Fails when the trusted certificates cannot be read.
    pub(crate) fn new(server: &Server) -> Result<Calls, ConfigError> {
        Ok(Calls(Pool::new(server)?))
    }

    /// Room for one call; waits while there is none.
    pub(crate) async fn line(&self) -> Result<Line<'_>, Fault> {
        Ok(Line { lease: self.0.lease().await?, sent: Sent::default() })
    }
}

/// One call: what is sent over it is sent for the same answer.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    lease: Lease<'a>,
    sent: Sent,
}

/// A reply that came whole.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Of a 200 all of it. A status says enough: of another a body that is cut or endless is empty.
    pub(crate) body: Bytes,
}

impl Line<'_> {
    /// Gives `call` up after `limit`.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(fault::timeout(limit, &self.sent)))
    }

    /// Sends JSON until the server looks at it. What was sent before over this line was not looked at.
    pub(crate) async fn post(&self, address: &str, headers: &HeaderMap, body: &Bytes) -> Result<Response, Fault> {
        let mut sends_left = SENDS_MAX;
        loop {
            sends_left -= 1;
            self.sent.unset();
            match self.send(address, headers.clone(), body.clone()).await {
                // The server says that it did not look at it: this is still the same call.
                Err(error) if sends_left > 0 && fault::unprocessed(&error) => (),
                result => return result.map_err(|error| fault::transport(&error, &self.sent)),
            }
        }
    }

    async fn send(&self, address: &str, headers: HeaderMap, body: Bytes) -> reqwest::Result<Response> {
        let length = HeaderValue::from(body.len());
        let mark = self.sent.clone();
        // A connection takes the body when the request goes out: from that moment the call may be paid.
        let body = Full::new(body).map_frame(move |frame| {
            mark.set();
            frame
        });
        let request = self
            .lease
            .client()
            .post(address)
            .headers(headers)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(CONTENT_LENGTH, length);
        request.body(Body::wrap(body)).send().await
    }

    /// Reads a reply to its end.
    pub(crate) async fn read(&self, mut response: Response) -> Result<Told, Fault> {
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        let body = match body::read(response).await {
            Ok(Some(body)) => body,
            Ok(None) if status == StatusCode::OK => return Err(body::too_long()),
            Err(error) if status == StatusCode::OK => return Err(fault::transport(&error, &self.sent)),
            Ok(None) | Err(_) => Bytes::new(),
        };
        Ok(Told { status, headers, body })
    }
}
