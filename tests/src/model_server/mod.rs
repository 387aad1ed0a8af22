//! A model behind HTTP that does what a script says: `generateContent` of the Gemini API and of Vertex AI, and chat completions as
//! OpenAI has them, on 127.0.0.1. The path of a call says which.

mod act;
mod answer;
mod chat;
mod quota;
mod tally;
mod tls;

pub use act::{Act, CallInfo, RetryEncoding};
pub use quota::Quota;
pub use tally::Tally;

use act::Bodies;
use anyhow::Context;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use quota::Bucket;
use serde_json::{Value, json};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tls::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What a server does. Starts as: http, any port, 100 streams a connection, no latency, valid answers.
#[derive(Clone)]
pub struct Script {
    port: u16,
    authority: Option<Arc<Authority>>,
    max_streams: u32,
    latency: Duration,
    quota: Option<Quota>,
    behaviour: Behaviour,
}

#[derive(Clone)]
enum Behaviour {
    /// One body for every call of Gemini's, one for every chat completion, and no look at the call: for benches.
    Fixed(Bytes, Bytes),
    Scripted(Arc<dyn Fn(&CallInfo) -> Act + Send + Sync>),
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("authority", &self.authority)
            .field("latency", &self.latency)
            .finish_non_exhaustive()
    }
}

impl Default for Script {
    fn default() -> Script {
        Script::acting(|_| Act::Auto)
    }
}

impl Script {
    /// Each call is answered as `act` says.
    pub fn acting(act: impl Fn(&CallInfo) -> Act + Send + Sync + 'static) -> Script {
        Script::with(Behaviour::Scripted(Arc::new(act)))
    }

    /// Valid answers whose tokens are log-normal: half of them take more than `median`, with the logarithm's deviation `sigma`; at
    /// most `most`. The same for the same prompt and seed.
    pub fn log_normal(median: f64, sigma: f64, most: u64, seed: u64) -> Script {
        Script::acting(move |call| Act::Long(answer::log_normal(&call.prompt, median, sigma, seed).min(most)))
    }

    /// Each call gets the same answer text, rendered once; calls are counted but not read.
    pub fn fixed(text: &str) -> Script {
        let chat = chat::body(Some(text), "STOP", &serde_json::Value::Null, "fixed", answer::FIXED_USAGE);
        Script::with(Behaviour::Fixed(answer::fixed(text).into(), chat.into()))
    }

    fn with(behaviour: Behaviour) -> Script {
        Script { port: 0, authority: None, max_streams: 100, latency: Duration::ZERO, quota: None, behaviour }
    }

    /// On this port instead of a free one.
    pub fn port(self, port: u16) -> Script {
        Script { port, ..self }
    }

    /// Over TLS, with a certificate of an authority made now: servers of clones of this script share it.
    pub fn https(self) -> Script {
        Script { authority: Some(Arc::new(Authority::new(&[b"h2", b"http/1.1"]))), ..self }
    }

    /// Over TLS without HTTP/2.
    pub fn https1(self) -> Script {
        Script { authority: Some(Arc::new(Authority::new(&[b"http/1.1"]))), ..self }
    }

    /// HTTP/2 streams that a connection may have open at a time.
    pub fn max_streams(self, max_streams: u32) -> Script {
        Script { max_streams, ..self }
    }

    /// Rejects what is beyond this quota, before all else.
    pub fn quota(self, quota: Quota) -> Script {
        Script { quota: Some(quota), ..self }
    }

    /// Time before each reply.
    pub fn latency(self, latency: Duration) -> Script {
        Script { latency, ..self }
    }
}

/// A running model server. Stops when dropped, with all its connections.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    authority: Option<Arc<Authority>>,
    tally: Arc<Tally>,
    stop: DropGuard,
    accepting: JoinHandle<Option<()>>,
}

impl ModelServer {
    /// Starts on 127.0.0.1, within the current runtime.
    pub async fn start(script: Script) -> anyhow::Result<ModelServer> {
        let authority = script.authority.clone();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, script.port)).await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let tally = Arc::new(Tally::default());
        let stop = CancellationToken::new();
        let acceptor = authority.as_ref().map(|authority| authority.acceptor());
        let bucket = script.quota.map(Bucket::new).map(Arc::new);
        let served = Served { script: Arc::new(script), bucket, tally: tally.clone() };
        let until = stop.clone();
        let accepting = tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                // An error concerns one connection; the pause keeps a lack of descriptors from spinning.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                served.tally.connected();
                let _ = stream.set_nodelay(true);
                let (served, acceptor) = (served.clone(), acceptor.clone());
                tokio::spawn(until.clone().run_until_cancelled_owned(async move {
                    match acceptor {
                        None => served.connection(stream).await,
                        Some(acceptor) => {
                            // A client that does not trust us goes away.
                            if let Ok(stream) = acceptor.accept(stream).await {
                                served.connection(stream).await;
                            }
                        }
                    }
                }));
            }
        }));
        Ok(ModelServer { address, authority, tally, stop: stop.drop_guard(), accepting })
    }

    /// Stops it: then its port is free.
    pub async fn stop(self) {
        drop(self.stop);
        let _ = self.accepting.await;
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What `GOOGLE_GEMINI_BASE_URL` is set to.
    pub fn base(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What `OPENAI_BASE_URL` is set to.
    pub fn chat_base(&self) -> String {
        format!("{}/v1", self.base())
    }

    /// What `SSL_CERT_FILE` is set to. Deleted with the server and its script.
    ///
    /// # Panics
    /// Over http there is none.
    pub fn ca_pem_path(&self) -> &Path {
        self.authority.as_ref().expect("only an https server has an authority").pem_path()
    }

    /// What was counted until now.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

#[derive(Clone)]
struct Served {
    script: Arc<Script>,
    bucket: Option<Arc<Bucket>>,
    tally: Arc<Tally>,
}

impl Served {
    async fn connection(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(self.script.max_streams);
        let service = service_fn(move |request| self.clone().reply(request));
        // A connection that breaks is what some scripts are about.
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    }

    async fn reply(self, request: Request<Incoming>) -> Result<Response<Bodies>, act::Reset> {
        let path = request.uri().path();
        let method = path.rsplit('/').next().unwrap_or_default();
        if method.ends_with(":countTokens") {
            return self.count(request.into_body()).await;
        }
        let model = method.strip_suffix(":generateContent").map(str::to_owned);
        let chat = path.ends_with(chat::PATH);
        if request.method() != Method::POST || (model.is_none() && !chat) {
            return Ok(act::response(StatusCode::NOT_FOUND, Bytes::new()));
        }
        let (n, _in_flight) = self.tally.called();
        let (head, body) = request.into_parts();
        if let Some(Err(rejects_in)) = self.bucket.as_ref().map(|bucket| bucket.take()) {
            drain(body).await;
            tokio::time::sleep(rejects_in).await;
            self.tally.rejected();
            return Ok(if chat { chat::busy(None) } else { act::busy(None, RetryEncoding::Text) });
        }
        match &self.script.behaviour {
            Behaviour::Fixed(gemini, completion) => {
                drain(body).await;
                tokio::time::sleep(self.script.latency).await;
                self.tally.answered(answer::FIXED_USAGE);
                let reply = if chat { completion } else { gemini };
                Ok(act::response(StatusCode::OK, reply.clone()))
            }
            Behaviour::Scripted(script) => {
                let body = body.collect().await.map_err(|_| act::Reset)?.to_bytes();
                let call = CallInfo::read(n, model.as_deref(), &head, &body, &self.tally);
                let act = script(&call);
                tokio::time::sleep(self.script.latency).await;
                act.perform(&call, &self.tally).await
            }
        }
    }
}

impl Served {
    /// Counts by the rule of the replies' usage. The Gemini API wraps what it counts, Vertex AI does not.
    async fn count(&self, body: Incoming) -> Result<Response<Bodies>, act::Reset> {
        let body = body.collect().await.map_err(|_| act::Reset)?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let request = body.get("generateContentRequest").unwrap_or(&body);
        self.tally.counts();
        let told = json!({ "totalTokens": answer::prompt_tokens(request) });
        Ok(act::response(StatusCode::OK, told.to_string().into()))
    }
}

/// Reads a body to its end: a connection is not used again before.
async fn drain(mut body: Incoming) {
    while let Some(Ok(_)) = body.frame().await {}
}
