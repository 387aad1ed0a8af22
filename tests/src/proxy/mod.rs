//! A proxy between a service and what it calls, over HTTP/1.1 or HTTP/2 without TLS. It passes everything on; on demand it loses
//! replies after their requests have had their effect, refuses connections, or hangs.

mod wire;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tasuki_relay::clock::Chance;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::{Doomed, Replies, Requests};

/// Below the ports that the system gives to outgoing connections: nobody takes one while the proxy refuses.
const PORTS: std::ops::Range<u64> = 10_000..20_000;
const BIND_AGAIN_AFTER: Duration = Duration::from_millis(20);
const PIECE: usize = 64 << 10;

/// Whether anything gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Connections are taken, and nothing is passed on.
    Hanging,
    /// Nobody listens, and connections are broken.
    Refusing,
}

/// A running proxy. Stops when dropped, with all its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    target: String,
    way: watch::Sender<Way>,
    losses: Mutex<BTreeMap<&'static [u8], Loss>>,
}

/// Of the requests that hold a marker.
#[derive(Clone, Copy, Debug, Default)]
struct Loss {
    /// Replies that are still to be lost.
    left: u32,
    /// Replies that were, or are as soon as the server has answered.
    lost: u32,
    /// Requests that came.
    seen: u32,
}

impl Proxy {
    /// A proxy to `target` (`host:port`), within the current runtime.
    pub async fn start(target: impl Into<String>) -> anyhow::Result<Proxy> {
        let listener = listen().await;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let (way, losses) = (watch::Sender::new(Way::Open), Mutex::default());
        let shared = Arc::new(Shared { address, target: target.into(), way, losses });
        let accepting = accept(listener, shared.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Ok(Proxy { shared, _stop: stop.drop_guard() })
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// The replies to the next `times` requests whose bytes hold `marker` are lost: when the server has answered, the connection
    /// is cut instead. Over HTTP/2 only bodies are looked at, and a request counts once.
    pub fn lose(&self, marker: &'static [u8], times: u32) {
        self.shared.losses().entry(marker).or_default().left = times;
    }

    /// Replies to requests with this marker of [`Proxy::lose`] that were lost so far.
    pub fn lost(&self, marker: &[u8]) -> u32 {
        self.shared.losses().get(marker).map_or(0, |loss| loss.lost)
    }

    /// Requests with this marker so far, also those whose replies came through.
    pub fn seen(&self, marker: &[u8]) -> u32 {
        self.shared.losses().get(marker).map_or(0, |loss| loss.seen)
    }

    /// From now on connections are taken and nothing is passed on. What is under way goes on when it is open again.
    pub fn hang(&self) {
        self.shared.way.send_replace(Way::Hanging);
    }

    /// From now on nobody listens, and all connections are broken.
    pub fn refuse(&self) {
        self.shared.way.send_replace(Way::Refusing);
    }

    /// Everything is passed on again.
    pub fn open(&self) {
        self.shared.way.send_replace(Way::Open);
    }
}

impl Shared {
    fn losses(&self) -> MutexGuard<'_, BTreeMap<&'static [u8], Loss>> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn until(&self, way: impl FnMut(&Way) -> bool) {
        let _ = self.way.subscribe().wait_for(way).await;
    }
}

async fn listen() -> TcpListener {
    let chance = Chance::system();
    loop {
        let port = (PORTS.start + chance.below(PORTS.end - PORTS.start)) as u16;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return listener;
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut listener = Some(listener);
    loop {
        let Some(listens) = &listener else {
            shared.until(|way| *way != Way::Refusing).await;
            listener = TcpListener::bind(shared.address).await.ok();
            tokio::time::sleep(BIND_AGAIN_AFTER).await;
            continue;
        };
        tokio::select! {
            biased;
            () = shared.until(|way| *way == Way::Refusing) => listener = None,
            accepted = listens.accept() => {
                let Ok((client, _)) = accepted else { continue };
                let (shared, stop) = (shared.clone(), stop.clone());
                tokio::spawn(stop.run_until_cancelled_owned(async move {
                    tokio::select! {
                        biased;
                        () = shared.until(|way| *way == Way::Refusing) => (),
                        _ = pass(client, &shared) => (),
                    }
                }));
            }
        }
    }
}

/// One connection, until a side ends it or a reply is lost. The client speaks first: its first bytes tell which HTTP it is.
async fn pass(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    shared.until(|way| *way == Way::Open).await;
    let server = TcpStream::connect(&shared.target).await?;
    let ((mut from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut first = Vec::new();
    while first.len() < wire::TELLING {
        if from_client.read_buf(&mut first).await? == 0 {
            return Ok(());
        }
    }
    let (requests, doomed) = (Requests::new(&first), Mutex::new(Doomed::default()));
    let replies = Replies::new(requests.is_http_2());
    tokio::select! {
        ended = forth((from_client, to_server), first, requests, &doomed, shared) => ended,
        ended = back((from_server, to_client), replies, &doomed, shared) => ended,
    }
}

async fn forth(
    (mut from, mut to): (OwnedReadHalf, OwnedWriteHalf),
    first: Vec<u8>,
    mut requests: Requests,
    doomed: &Mutex<Doomed>,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut bytes = first;
    while !bytes.is_empty() {
        {
            // Before the server can answer.
            let mut losses = shared.losses();
            let markers: Vec<_> = losses.keys().copied().collect();
            for (request, marker) in requests.holding(&bytes, &markers) {
                let loss = losses.entry(marker).or_default();
                loss.seen += 1;
                if loss.left > 0 {
                    (loss.left, loss.lost) = (loss.left - 1, loss.lost + 1);
                    doomed.lock().unwrap_or_else(PoisonError::into_inner).insert(request);
                }
            }
        }
        shared.until(|way| *way == Way::Open).await;
        to.write_all(&bytes).await?;
        bytes.clear();
        bytes.reserve(PIECE);
        from.read_buf(&mut bytes).await?;
    }
    Ok(())
}

async fn back(
    (mut from, mut to): (OwnedReadHalf, OwnedWriteHalf),
    mut replies: Replies,
    doomed: &Mutex<Doomed>,
    shared: &Shared,
) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(PIECE);
    while from.read_buf(&mut bytes).await? > 0 {
        let passing = replies.before_end_of(&bytes, &doomed.lock().unwrap_or_else(PoisonError::into_inner));
        bytes.clear();
        let Some(passing) = passing else { return Ok(()) };
        shared.until(|way| *way == Way::Open).await;
        to.write_all(&passing).await?;
    }
    Ok(())
}
