//! A collector of OTLP on 127.0.0.1, which keeps what it is sent.

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// What was sent: path, body.
type Sent = Arc<Mutex<Vec<(String, Bytes)>>>;

/// A collector; it listens for as long as the runtime lives.
#[derive(Clone, Debug)]
pub struct Collector {
    /// `http://host:port`.
    pub address: String,
    sent: Sent,
}

impl Collector {
    /// Starts within the current runtime.
    pub async fn start() -> Result<Collector> {
        let (listener, sent) = (TcpListener::bind("127.0.0.1:0").await?, Sent::default());
        let (address, kept) = (format!("http://{}", listener.local_addr()?), sent.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request| take(kept.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Collector { address, sent })
    }

    /// What was sent until now: path, body.
    pub fn sent(&self) -> Vec<(String, Bytes)> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn take(sent: Sent, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if let Ok(body) = request.into_body().collect().await {
        sent.lock().unwrap_or_else(PoisonError::into_inner).push((path, body.to_bytes()));
    }
    Ok(Response::new(Full::default()))
}
