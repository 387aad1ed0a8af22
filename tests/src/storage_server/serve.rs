use super::call::{self, Call, Op};
use super::fault::{Fault, Faults};
use super::multipart;
use super::reply::{self, Cut, Reply};
use super::store::{Insert, Progress, Refused, Sent, Store};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tasuki_relay::clock::Clock;

/// Names on a page at most, as the service has it.
const PAGE_MAX: usize = 1_000;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Served {
    address: SocketAddr,
    store: Mutex<Store>,
    pub(super) faults: Faults,
    calls: Mutex<BTreeMap<Op, u64>>,
}

impl Served {
    pub(super) fn new(address: SocketAddr, clock: Clock) -> Served {
        Served { address, store: Mutex::new(Store::new(clock)), faults: Faults::default(), calls: Mutex::default() }
    }

    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn calls(&self, op: Op) -> u64 {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(&op).copied().unwrap_or(0)
    }

    fn count(&self, op: Op) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(op).or_default() += 1;
    }
}

pub(super) async fn reply(served: Arc<Served>, request: Request<Incoming>) -> Result<Reply, Cut> {
    let (head, body) = request.into_parts();
    let Some(mut call) = Call::read(&head) else {
        return Ok(reply::error(StatusCode::NOT_IMPLEMENTED, &call::named(&head.method, &head.uri)));
    };
    served.count(call.op);
    // To its end, also of a request that will be refused: a connection is not used again before.
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    if let Some((bucket, name)) = call.get("upload_id").and_then(|id| served.store().target(id).ok()) {
        (call.bucket, call.name) = (bucket, name);
    }
    let fault = served.faults.meet(&call);
    match fault {
        Some(Fault::Status(status)) => return Ok(told(status)),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Late(by)) => tokio::time::sleep(by).await,
        _ => {}
    }
    let reply = served.answer(&call, &head, body, fault);
    match fault {
        Some(Fault::LostReply) => Err(Cut),
        Some(Fault::DoneThenHang) => std::future::pending().await,
        Some(Fault::DoneThenStatus(status)) => Ok(told(status)),
        Some(Fault::CutBody(bytes)) => Ok(reply::cut(reply, bytes).await),
        _ => Ok(reply),
    }
}

fn told(status: u16) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply::error(status, "on demand")
}

impl Served {
    fn answer(&self, call: &Call, head: &Parts, body: Bytes, fault: Option<Fault>) -> Reply {
        let answered = match call.op {
            Op::Insert => self.insert(call, head, &body),
            Op::Open => self.open(call, &body),
            Op::Append => self.append(call, head, &body),
            Op::Progress => self.progress(call),
            Op::Read => self.read(call, head, fault),
            Op::Stat => self.stat(call),
            Op::List => self.list(call),
            Op::Remove => self.remove(call),
            Op::MakeBucket => self.make_bucket(&body),
        };
        answered.unwrap_or_else(|status| reply::error(status, status.canonical_reason().unwrap_or_default()))
    }

    fn insert(&self, call: &Call, head: &Parts, body: &Bytes) -> Result<Reply, Refused> {
        let content_type = header(head, "content-type").unwrap_or_default();
        let (sent, media) = multipart::read(content_type, body).ok_or(StatusCode::BAD_REQUEST)?;
        let stored = self.store().write(target(call, sent)?, media)?;
        Ok(reply::json_reply(&stored.json()))
    }

    fn open(&self, call: &Call, body: &Bytes) -> Result<Reply, Refused> {
        let sent = serde_json::from_slice(body).map_err(|_| StatusCode::BAD_REQUEST)?;
        let id = self.store().open(target(call, sent)?)?;
        // By the own address: Google's client sends a Host without the port.
        let (address, bucket) = (self.address, &call.bucket);
        let to = format!("http://{address}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}");
        Ok(reply::whole(Response::builder().header("location", to), ""))
    }

    fn append(&self, call: &Call, head: &Parts, body: &Bytes) -> Result<Reply, Refused> {
        let range = header(head, "content-range").and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
        let (range, total) = range.ok_or(StatusCode::BAD_REQUEST)?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| StatusCode::BAD_REQUEST);
        let offset = range.split_once('-').map_or(Ok(0), |(first, _)| number(first))?;
        let id = call.get("upload_id").ok_or(StatusCode::BAD_REQUEST)?;
        let progress = self.store().append(id, offset, body, number(total)?)?;
        Ok(progressed(progress))
    }

    fn progress(&self, call: &Call) -> Result<Reply, Refused> {
        let id = call.get("upload_id").ok_or(StatusCode::BAD_REQUEST)?;
        Ok(progressed(self.store().progress(id)?))
    }

    fn read(&self, call: &Call, head: &Parts, fault: Option<Fault>) -> Result<Reply, Refused> {
        let store = self.store();
        let stored = store.find(&call.bucket, &call.name, call.number("generation")?)?;
        Ok(reply::media(stored, head, fault))
    }

    fn stat(&self, call: &Call) -> Result<Reply, Refused> {
        let store = self.store();
        let stored = store.find(&call.bucket, &call.name, call.number("generation")?)?;
        Ok(reply::json_reply(&reply::picked(stored.json(), call.get("fields"))))
    }

    fn list(&self, call: &Call) -> Result<Reply, Refused> {
        let most = call.get("maxResults").map_or(Ok(PAGE_MAX), str::parse).map_err(|_| StatusCode::BAD_REQUEST)?;
        // A token names the last object of the page before; the next name in order is that name and a NUL.
        let token = call.get("pageToken").map(|token| BASE64URL_NOPAD.decode(token.as_bytes()));
        let token = token.transpose().ok().map(|token| token.and_then(|token| String::from_utf8(token).ok()));
        let behind = token.ok_or(StatusCode::BAD_REQUEST)?.map(|last| last + "\0");
        let from = behind.as_deref().or(call.get("startOffset")).unwrap_or("");
        let fields = call.get("fields").and_then(|fields| fields.split_once("items(")?.1.strip_suffix(')'));
        let store = self.store();
        let prefix = call.get("prefix").unwrap_or("");
        let (page, more) = store.list(&call.bucket, prefix, from, most.min(PAGE_MAX))?;
        let items: Vec<Value> = page.iter().map(|stored| reply::picked(stored.json(), fields)).collect();
        let mut reply = json!({ "kind": "storage#objects" });
        if !items.is_empty() {
            reply["items"] = items.into();
        }
        if let Some(last) = page.last().filter(|_| more) {
            reply["nextPageToken"] = BASE64URL_NOPAD.encode(last.name.as_bytes()).into();
        }
        Ok(reply::json_reply(&reply))
    }

    fn remove(&self, call: &Call) -> Result<Reply, Refused> {
        self.store().remove(&call.bucket, &call.name, call.number("ifGenerationMatch")?)?;
        Ok(reply::whole(Response::builder().status(StatusCode::NO_CONTENT), ""))
    }

    fn make_bucket(&self, body: &Bytes) -> Result<Reply, Refused> {
        let wanted: Value = serde_json::from_slice(body).map_err(|_| StatusCode::BAD_REQUEST)?;
        let name = wanted["name"].as_str().ok_or(StatusCode::BAD_REQUEST)?;
        self.store().make_bucket(name)?;
        Ok(reply::json_reply(&json!({ "kind": "storage#bucket", "name": name })))
    }
}

fn target(call: &Call, sent: Sent) -> Result<Insert, Refused> {
    let if_generation = call.number("ifGenerationMatch")?;
    Ok(Insert { bucket: call.bucket.clone(), name: call.name.clone(), if_generation, sent })
}

fn progressed(progress: Progress) -> Reply {
    match progress {
        Progress::Done(stored) => reply::json_reply(&stored.json()),
        Progress::Partial(received) => reply::incomplete(received),
    }
}

fn header<'a>(head: &'a Parts, name: &str) -> Option<&'a str> {
    head.headers.get(name)?.to_str().ok()
}
