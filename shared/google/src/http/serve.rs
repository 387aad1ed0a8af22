//! The server: HTTP/1.1 and HTTP/2 without TLS (Cloud Run's front end has that), bounded in every direction.

use super::acknowledge::{Acknowledgement, acknowledge};
use super::callers::Callers;
use super::event::{self, NotAHint};
use super::first;
use super::limits::{BODY_MAX, BODY_WITHIN, CONNECTIONS_MAX, HEAD_WITHIN, IDLE_PING, STOP_WITHIN, STREAMS_MAX};
use crate::settings::Role;
use crate::telemetry;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::leg::Leg;
use tasuki_relay::ports::{Event, Verdict};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Where Eventarc delivers.
pub const EVENTS: &str = "/events";
/// Where Cloud Scheduler calls.
pub const SWEEP: &str = "/sweep";
/// For the startup probe.
pub const READY: &str = "/ready";
/// For the liveness probe.
pub const LIVE: &str = "/live";

/// What a server serves.
pub struct Server {
    /// Which leg it is.
    pub role: Role,
    /// The leg.
    pub leg: Arc<dyn Leg>,
    /// The real name of the bucket whose events it handles.
    pub bucket: String,
    /// How long a request waits for its work.
    pub ack_deadline: Duration,
    /// Who may call; `None` = everybody.
    pub callers: Option<Callers>,
    /// Cancelled when the process is to stop.
    pub stop: CancellationToken,
}

type Reply = Response<Full<Bytes>>;

/// Serves until it is stopped; then takes no more work, lets the leg save what is under way, and returns within 8 s.
pub async fn serve(listener: TcpListener, server: Server) -> io::Result<()> {
    let stop = server.stop.clone();
    let server = Arc::new(Shared { sweeping: Semaphore::new(1), server });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(IDLE_PING)
        .keep_alive_timeout(IDLE_PING)
        .max_concurrent_streams(STREAMS_MAX);
    let (graceful, connections) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
    loop {
        let taken = async {
            let permit = Arc::clone(&connections).acquire_owned().await.expect("it is never closed");
            listener.accept().await.map(|(stream, _)| (stream, permit))
        };
        let (stream, permit) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = taken => match accepted {
                Ok(taken) => taken,
                Err(error) => {
                    // Too many open files, or a connection that was gone before it was taken: neither ends the service.
                    tracing::warn!(kind = %error.kind(), "no connection taken");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let server = Arc::clone(&server);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let (watcher, builder, stop) = (graceful.watcher(), builder.clone(), stop.clone());
        tokio::spawn(async move {
            // Who has said nothing is not waited for when the process stops; who has is still served.
            let told = tokio::select! {
                biased;
                told = timeout(HEAD_WITHIN, first::told(stream)) => told,
                () = stop.cancelled() => return,
            };
            if let Ok(Ok(stream)) = told {
                // A connection that breaks is the caller's to tell: it delivers again.
                let _ = watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await;
            }
            drop(permit);
        });
    }
    drop(listener);
    let drained = async { tokio::join!(server.server.leg.drain(), graceful.shutdown()) };
    if timeout(STOP_WITHIN, drained).await.is_err() {
        tracing::warn!("stopped with work under way: what is saved is found by the next sweep");
    }
    Ok(())
}

struct Shared {
    server: Server,
    sweeping: Semaphore,
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET, LIVE) => text(StatusCode::OK, "alive"),
            (&Method::GET, READY) if self.server.stop.is_cancelled() => {
                text(StatusCode::SERVICE_UNAVAILABLE, "stopping")
            }
            (&Method::GET, READY) => text(StatusCode::OK, "ready"),
            (&Method::POST, EVENTS | "/" | SWEEP) => self.work(request, path == SWEEP).await,
            (_, EVENTS | "/" | SWEEP | LIVE | READY) => {
                text(StatusCode::METHOD_NOT_ALLOWED, "POST /events, POST /sweep, GET /ready, GET /live")
            }
            _ => text(StatusCode::NOT_FOUND, "POST /events, POST /sweep, GET /ready, GET /live"),
        }
    }

    async fn work(&self, request: Request<Incoming>, sweep: bool) -> Reply {
        if let Some(callers) = &self.server.callers
            && let Err(refused) = callers.check(request.headers(), host(&request)).await
        {
            tracing::warn!(status = refused.status().as_u16(), "a caller was turned away: {refused}");
            return text(refused.status(), "not allowed");
        }
        if sweep { self.sweep().await } else { self.event(request).await }
    }

    async fn event(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let body = match timeout(BODY_WITHIN, Limited::new(body, BODY_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                // It will not be smaller the next time.
                tracing::error!(alert = "bad_event", "an event above {BODY_MAX} bytes is acknowledged and left");
                return text(StatusCode::OK, "too large");
            }
            Ok(Err(_)) | Err(_) => return text(StatusCode::SERVICE_UNAVAILABLE, "the body did not come"),
        };
        match event::read(&head.headers, &body) {
            Ok(hint) => self.hint(hint).await,
            Err(NotAHint::OtherType) => reply(StatusCode::NO_CONTENT, Bytes::new()),
            Err(NotAHint::Malformed(what)) => {
                tracing::error!(alert = "bad_event", "an event that cannot be read is acknowledged and left: {what}");
                text(StatusCode::OK, "not an event")
            }
        }
    }

    async fn hint(&self, hint: event::Hint) -> Reply {
        if hint.bucket != self.server.bucket {
            tracing::warn!("an event of another bucket");
            return reply(StatusCode::NO_CONTENT, Bytes::new());
        }
        let bucket = self.server.role.listens_to();
        let event = Event { bucket, name: hint.name, generation: hint.generation };
        let span = tracing::info_span!("event", id = hint.id);
        telemetry::with_parent(hint.traceparent.as_deref(), &span);
        let handled = timeout(self.server.ack_deadline, self.server.leg.clone().handle(&event));
        let verdict = handled.instrument(span.clone()).await.ok();
        let Acknowledgement { status, word, why } = acknowledge(verdict);
        span.in_scope(|| match why {
            Some(why) => tracing::warn!(status = status.as_u16(), verdict = word, "{why}"),
            None => tracing::debug!(status = status.as_u16(), verdict = word, "event"),
        });
        if status == StatusCode::NO_CONTENT { reply(status, Bytes::new()) } else { text(status, word) }
    }

    /// One sweep at a time: the scheduler's next call finds the same work.
    async fn sweep(&self) -> Reply {
        let Ok(_sweeping) = self.sweeping.try_acquire() else { return text(StatusCode::OK, "under way") };
        match timeout(self.server.ack_deadline, self.server.leg.clone().sweep()).await {
            Ok(Ok(driven)) => {
                tracing::info!(driven, "swept");
                text(StatusCode::OK, &format!("driven {driven}"))
            }
            Ok(Err(why)) => {
                let Acknowledgement { word, why, .. } = acknowledge(Some(Verdict::Later(why)));
                tracing::error!(alert = "sweep", verdict = word, "the sweep did not end: {}", why.unwrap_or_default());
                text(StatusCode::SERVICE_UNAVAILABLE, word)
            }
            Err(_) => text(StatusCode::OK, "under way"),
        }
    }
}

/// The name that the front end routed by: `Host`, or HTTP/2's `:authority`.
fn host(request: &Request<Incoming>) -> &str {
    let header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(|authority| authority.as_str()).or(header).unwrap_or_default()
}

fn text(status: StatusCode, words: &str) -> Reply {
    reply(status, Bytes::from(format!("{words}\n")))
}

fn reply(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    reply
}
