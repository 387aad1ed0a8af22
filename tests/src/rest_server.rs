//! Documents of Google's REST APIs on 127.0.0.1, as a test sets them; what is not set is answered 404.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<String, (u16, Value)>,
    calls: Vec<String>,
}

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct RestServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

impl RestServer {
    /// Starts on a free port, within the current runtime.
    pub async fn start() -> anyhow::Result<RestServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
        let (address, state, stop) = (listener.local_addr()?, Arc::<Mutex<State>>::default(), CancellationToken::new());
        let serving = state.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = serving.clone();
                let service = service_fn(move |request| reply(state.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        }));
        Ok(RestServer { address, state, _stop: stop.drop_guard() })
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// From now on this path, without its query, is answered so.
    pub fn set(&self, path: &str, status: u16, document: Value) {
        lock(&self.state).documents.insert(path.to_owned(), (status, document));
    }

    /// What is answered at this path, to be changed.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<()> {
        let mut state = lock(&self.state);
        let (_, document) = state.documents.get_mut(path).with_context(|| format!("{path} is not set"))?;
        change(document);
        Ok(())
    }

    /// Method and path of every call so far.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.state).calls.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn reply(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let _ = body.collect().await; // to its end: the connection is used again
    let mut state = lock(&state);
    state.calls.push(format!("{} {}", head.method, head.uri.path()));
    let absent = (404, serde_json::json!({"error": {"code": 404}}));
    let (status, document) = state.documents.get(head.uri.path()).cloned().unwrap_or(absent);
    let mut response = Response::new(Full::new(Bytes::from(document.to_string())));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}
