//! BigQuery's REST API on 127.0.0.1, as far as a snapshot uses it, with what bqemulator has not: dry runs that tell tables and
//! bytes, one job per id, jobs that take long or fail, and replies that are lost.

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The project and the datasets' location.
pub const PROJECT: &str = "tasuki-test";
/// Where every dataset lies, and so every job: looked for elsewhere, a job is not found.
pub const LOCATION: &str = "asia-northeast1";
/// Part of every message of an error: it must show up nowhere.
pub const CANARY: &str = "canary-7f3a";
/// When every job began, in milliseconds since 1970.
pub const STARTED: u64 = 1_763_620_000_123;
/// When every job ended.
pub const ENDED: u64 = STARTED + 5_000;

/// What becomes of an insertion.
#[derive(Clone, Debug)]
pub enum Insert {
    /// The job runs for so many looks, and then succeeds.
    Runs(u32),
    /// The job fails with this reason.
    Fails(&'static str),
    /// The job succeeds, but the connection breaks before the reply.
    Lost,
    /// No job: this status and reason.
    Refused(u16, &'static str),
    /// Somebody else inserted the same job just before.
    Raced,
}

/// What the server says.
#[derive(Clone, Debug)]
pub struct Script {
    /// `statistics` of a dry run; or a status and a reason.
    pub dry_run: Result<Value, (u16, &'static str)>,
    /// What becomes of the next insertions, in turn; those after them succeed at once.
    pub inserts: VecDeque<Insert>,
    /// Replies of `jobs.query`: (complete, rows by part).
    pub counts: (bool, Vec<u64>),
    /// Bytes of every snapshot's table.
    pub bytes: u64,
    /// The staging dataset can be read.
    pub has_staging: bool,
}

/// A call that came.
#[derive(Clone, Debug)]
pub struct Call {
    /// `GET /datasets/staging`: method, and path below the project with its query.
    pub what: String,
    /// Its body; null when it had none.
    pub body: Value,
}

/// A running server. Stops when dropped.
#[derive(Debug)]
pub struct BigQueryServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct State {
    script: Script,
    calls: Vec<Call>,
    /// By id: what becomes of it, and looks so far.
    jobs: BTreeMap<String, (Insert, u32)>,
}

impl BigQueryServer {
    /// Starts within the current runtime.
    pub async fn start(script: Script) -> anyhow::Result<BigQueryServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let state = Arc::new(Mutex::new(State { script, calls: Vec::new(), jobs: BTreeMap::new() }));
        let (served, until) = (state.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = served.clone();
                let service = service_fn(move |request| reply(state.clone(), request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(until.clone().run_until_cancelled_owned(connection));
            }
        }));
        Ok(BigQueryServer { address, state, _stop: stop.drop_guard() })
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.state).calls.clone()
    }

    /// The ids of the jobs that exist.
    pub fn jobs(&self) -> Vec<String> {
        lock(&self.state).jobs.keys().cloned().collect()
    }

    /// Changes what the server says from now on.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut lock(&self.state).script);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Breaks the connection.
#[derive(Debug, thiserror::Error)]
#[error("the script breaks the connection")]
struct Broken;

async fn reply(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Broken> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str());
    let path = path.strip_prefix(&format!("/bigquery/v2/projects/{PROJECT}")).unwrap_or("/not/of/the/project");
    let mut state = lock(&state);
    state.calls.push(Call { what: format!("{} {path}", head.method), body: body.clone() });
    let (status, text) = match (&head.method, path) {
        (&Method::GET, "/datasets/staging") if state.script.has_staging => (200, json!({"location": LOCATION})),
        (&Method::GET, path) if path.starts_with("/datasets/staging/tables/") => {
            (200, json!({"numBytes": state.script.bytes.to_string()}))
        }
        (&Method::POST, "/queries") => (200, state.count()),
        (&Method::POST, "/jobs") if body["configuration"]["dryRun"] == true => match &state.script.dry_run {
            Ok(statistics) => (200, json!({"status": {"state": "DONE"}, "statistics": statistics})),
            Err((status, reason)) => (*status, error(reason)),
        },
        (&Method::POST, "/jobs") => state.insert(&body)?,
        (&Method::GET, path) => match path.strip_prefix("/jobs/").and_then(|rest| rest.split_once("?location=")) {
            Some((id, LOCATION)) => state.look(id),
            _ => (404, error("notFound")),
        },
        _ => (404, error("notFound")),
    };
    let response = Response::builder().status(status).body(Full::new(Bytes::from(text.to_string())));
    response.map_err(|_| Broken)
}

fn error(reason: &str) -> Value {
    let message = format!("{CANARY} at [1:7]");
    json!({"error": {"code": 400, "message": message, "errors": [{"reason": reason, "message": message}]}})
}

impl State {
    fn insert(&mut self, body: &Value) -> Result<(u16, Value), Broken> {
        let id = body["jobReference"]["jobId"].as_str().unwrap_or_default().to_owned();
        if self.jobs.contains_key(&id) {
            return Ok((409, error("duplicate")));
        }
        let insert = self.script.inserts.pop_front().unwrap_or(Insert::Runs(0));
        if let Insert::Refused(status, reason) = insert {
            return Ok((status, error(reason)));
        }
        self.jobs.insert(id.clone(), (insert.clone(), 0));
        match insert {
            Insert::Lost => Err(Broken),
            Insert::Raced => Ok((409, error("duplicate"))),
            _ => Ok(self.look(&id)),
        }
    }

    fn look(&mut self, id: &str) -> (u16, Value) {
        let Some((insert, looks)) = self.jobs.get_mut(id) else { return (404, error("notFound")) };
        *looks += 1;
        let times = |ended: bool| {
            let mut times = json!({"creationTime": (STARTED - 50).to_string(), "startTime": STARTED.to_string()});
            if ended {
                times["endTime"] = ENDED.to_string().into();
            }
            times
        };
        let status = match insert {
            Insert::Runs(most) if *looks <= *most => {
                return (200, json!({"status": {"state": "RUNNING"}, "statistics": times(false)}));
            }
            Insert::Fails(reason) => json!({"state": "DONE", "errorResult": error(reason)["error"]["errors"][0]}),
            _ => json!({"state": "DONE"}),
        };
        (200, json!({"status": status, "statistics": times(true)}))
    }

    fn count(&self) -> Value {
        let (complete, counts) = &self.script.counts;
        if !complete {
            return json!({"jobComplete": false});
        }
        let counts = counts.iter().enumerate().filter(|(_, rows)| **rows > 0);
        let rows: Vec<Value> =
            counts.map(|(part, rows)| json!({"f": [{"v": part.to_string()}, {"v": rows.to_string()}]})).collect();
        json!({"jobComplete": true, "totalRows": rows.len().to_string(), "rows": rows})
    }
}
