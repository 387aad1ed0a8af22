//! A stand-in for Cloud Storage on 127.0.0.1: the requests that Google's client and Tasuki send, with faults on demand.
//!
//! In memory. Versions are not kept: an overwritten or removed generation is gone, as in a bucket without versioning.
//! Anything else than those requests, with those parameters, is answered 501 and named. It speaks HTTP/1.1 and HTTP/2 without
//! TLS, to this process and to others.
//!
//! What it does not prove: rights, quotas (one change a second of one name), what the service makes of idempotency tokens,
//! uploads that break in the middle of a body (here nothing of such a body has come).

mod call;
mod client;
mod fault;
mod multipart;
mod reply;
mod serve;
mod store;

pub use call::Op;
pub use client::{fresh_buckets, make_buckets, objects_on, traced_objects_on};
pub use fault::{Fault, On};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use store::{Insert, Sent, Stored};
use tasuki_relay::clock::Clock;
use tasuki_relay::ports::Generation;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// An object was written: what an event of Cloud Storage tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finalized {
    /// Its bucket's real name.
    pub bucket: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub generation: Generation,
    /// Its custom metadata.
    pub metadata: BTreeMap<String, String>,
    /// The object as the JSON API has it: the data of a CloudEvent.
    pub resource: serde_json::Value,
}

impl Finalized {
    fn of(stored: &Stored) -> Finalized {
        Finalized {
            bucket: stored.bucket.clone(),
            name: stored.name.clone(),
            generation: stored.generation,
            metadata: stored.metadata.clone(),
            resource: stored.json(),
        }
    }
}

/// A running server. Stops when dropped, with all its connections.
#[derive(Debug)]
pub struct StorageServer {
    address: SocketAddr,
    served: Arc<serve::Served>,
    stop: DropGuard,
    accepting: JoinHandle<Option<()>>,
}

impl StorageServer {
    /// Starts on a free port of 127.0.0.1 with these empty buckets, within the current runtime.
    pub async fn start(buckets: &[&str]) -> anyhow::Result<StorageServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let served = Arc::new(serve::Served::new(address, Clock::system()));
        for bucket in buckets {
            served.store().make_bucket(bucket).map_err(|_| anyhow!("bucket {bucket} twice"))?;
        }
        let stop = CancellationToken::new();
        let (until, serving) = (stop.clone(), served.clone());
        let accepting = tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                // An error concerns one connection; the pause keeps a lack of descriptors from spinning.
                let Ok((stream, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                tokio::spawn(until.clone().run_until_cancelled_owned(connection(stream, serving.clone())));
            }
        }));
        Ok(StorageServer { address, served, stop: stop.drop_guard(), accepting })
    }

    /// Stops it: then its port is free.
    pub async fn stop(self) {
        drop(self.stop);
        let _ = self.accepting.await;
    }

    /// What `STORAGE_EMULATOR_HOST` is set to.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// From now on large bodies are kept in files, for as long as the server runs.
    pub fn on_disk(&self) -> anyhow::Result<()> {
        self.served.store().folder = Some(tempfile::tempdir()?);
        Ok(())
    }

    /// Tells of every object that is written from now on, in order, also of those whose writer never hears of it.
    pub fn finalized(&self) -> UnboundedReceiver<Finalized> {
        let (listener, events) = unbounded_channel();
        self.served.store().listeners.push(listener);
        events
    }

    /// From now on what is written to this bucket says to be so old: sweeps go by age.
    pub fn age(&self, bucket: &str, age: Duration) {
        self.served.store().aged.insert(bucket.to_owned(), age);
    }

    /// The next `times` requests of this kind go wrong (`u32::MAX`: until [`StorageServer::heal`]). Of several faults for one
    /// request the one that was set first is met.
    pub fn fault(&self, on: On, times: u32, fault: Fault) {
        self.served.faults.add(on, times, fault);
    }

    /// No fault is to come any more.
    pub fn heal(&self) {
        self.served.faults.clear();
    }

    /// How many faults have not been met yet.
    pub fn faults_left(&self) -> u64 {
        self.served.faults.left()
    }

    /// How many requests of a kind have come, also those that went wrong.
    pub fn calls(&self, op: Op) -> u64 {
        self.served.calls(op)
    }

    /// Writes an object, whatever is there: as a user drops a file.
    pub fn put(&self, bucket: &str, name: &str, body: impl Into<Bytes>) -> anyhow::Result<Generation> {
        self.write(bucket, name, body.into(), Sent::default())
    }

    /// The same, said to be packed: as `gcloud storage cp --gzip-local` does it (`Content-Encoding: gzip`).
    pub fn put_gzip(&self, bucket: &str, name: &str, body: impl Into<Bytes>) -> anyhow::Result<Generation> {
        self.write(bucket, name, body.into(), Sent { content_encoding: Some("gzip".to_owned()), ..Sent::default() })
    }

    fn write(&self, bucket: &str, name: &str, body: Bytes, sent: Sent) -> anyhow::Result<Generation> {
        let (bucket, name) = (bucket.to_owned(), name.to_owned());
        let written = self.served.store().write(Insert { bucket, name, if_generation: None, sent }, body);
        written.map(|stored| stored.generation).map_err(|status| anyhow!("not written: {status}"))
    }

    /// The live body of an object.
    pub fn body(&self, bucket: &str, name: &str) -> Option<Bytes> {
        self.served.store().find(bucket, name, None).ok().map(|stored| stored.body.bytes())
    }

    /// The custom metadata of an object.
    pub fn metadata(&self, bucket: &str, name: &str) -> Option<BTreeMap<String, String>> {
        self.served.store().find(bucket, name, None).ok().map(|stored| stored.metadata.clone())
    }

    /// What events tell of the objects in a bucket.
    pub fn resources(&self, bucket: &str) -> String {
        let store = self.served.store();
        store
            .bucket(bucket)
            .map(|objects| objects.values().map(|stored| format!("{}\n", stored.json())).collect())
            .unwrap_or_default()
    }

    /// The names in a bucket, in their order.
    pub fn names(&self, bucket: &str) -> Vec<String> {
        self.served.store().bucket(bucket).map(|objects| objects.keys().cloned().collect()).unwrap_or_default()
    }
}

async fn connection(stream: TcpStream, served: Arc<serve::Served>) {
    let _ = stream.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let service = service_fn(move |request| serve::reply(served.clone(), request));
    // A connection that breaks is what some faults are about.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}
