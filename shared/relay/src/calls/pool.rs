use super::{ConfigError, Server, fault, tls};
use crate::ports::Fault;
use crate::prices::Tier;
use reqwest::{Client, ClientBuilder, Url, Version, redirect};
use rustls::ClientConfig;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tower::limit::ConcurrencyLimitLayer;

/// Calls on one HTTP/2 connection: what Google's front ends allow. A client holds one connection, so more would queue in it
/// unseen.
const CALLS_PER_CONNECTION: usize = 100;

/// HTTP/1.1 connections that are being opened at a time: a cold start with thousands overruns the listen queue.
const OPENING_MAX: usize = 256;

/// A connection that is not there by then is not coming.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A silent connection is asked so often whether it lives; without an answer within [`PING_TIMEOUT`] its calls fail.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections to one server.
#[derive(Debug)]
pub(super) struct Pool {
    base: Url,
    connector: Connector,
    /// Whether the server speaks HTTP/2: over http it does not, over https it is asked once.
    h2: OnceLock<bool>,
    /// Held while the server is asked; why that failed last.
    asking: Mutex<Option<Fault>>,
    failures: AtomicU64,
    /// One client with a connection per call in flight, for HTTP/1.1.
    plain: OnceLock<Client>,
    /// HTTP/2 clients, each made when those before it are full.
    slots: Vec<Slot>,
    /// Where the next one waits that finds every slot full.
    next: AtomicUsize,
}

#[derive(Debug)]
struct Slot {
    client: OnceLock<Client>,
    permits: Semaphore,
}

/// A client that may carry one more call, until this is dropped.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    client: &'a Client,
    _permit: Option<SemaphorePermit<'a>>,
}

impl Lease<'_> {
    pub(super) fn client(&self) -> &Client {
        self.client
    }
}

impl Pool {
    /// Opens nothing yet.
    pub(super) fn new(server: &Server) -> Result<Pool, ConfigError> {
        let connector = Connector {
            tls: tls::config(server.cert_file.as_deref())?,
            connect_timeout: (server.timeout)(Tier::Standard).min(CONNECT_TIMEOUT),
        };
        let full = (server.max_in_flight as usize).div_ceil(CALLS_PER_CONNECTION).max(1);
        // A fifth more than needed: while one connection is being replaced its calls go elsewhere.
        let slots = (0..full + full.div_ceil(5))
            .map(|_| Slot { client: OnceLock::new(), permits: Semaphore::new(CALLS_PER_CONNECTION) });
        Ok(Pool {
            base: server.base.clone(),
            connector,
            h2: if server.base.scheme() == "https" { OnceLock::new() } else { OnceLock::from(false) },
            asking: Mutex::new(None),
            failures: AtomicU64::new(0),
            plain: OnceLock::new(),
            slots: slots.collect(),
            next: AtomicUsize::new(0),
        })
    }

    /// A client with room for a call; waits while there is none.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, Fault> {
        if !self.speaks_h2().await? {
            let client = made(&self.plain, || self.connector.http1())?;
            return Ok(Lease { client, _permit: None });
        }
        let (slot, permit) = self.place().await?;
        let client = made(&slot.client, || self.connector.http2())?;
        Ok(Lease { client, _permit: Some(permit) })
    }

    /// The first slot with room: few calls need few connections.
    async fn place(&self) -> Result<(&Slot, SemaphorePermit<'_>), Fault> {
        let free = self.slots.iter().find_map(|slot| Some((slot, slot.permits.try_acquire().ok()?)));
        if let Some(found) = free {
            return Ok(found);
        }
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()];
        let permit = slot.permits.acquire().await.map_err(|_| unmade())?;
        Ok((slot, permit))
    }

    /// Asks the server once per process; while it cannot be asked every call is unavailable.
    async fn speaks_h2(&self) -> Result<bool, Fault> {
        if let Some(known) = self.h2.get() {
            return Ok(*known);
        }
        let failures = self.failures.load(Ordering::Acquire);
        let mut last = self.asking.lock().await;
        if let Some(known) = self.h2.get() {
            return Ok(*known);
        }
        if self.failures.load(Ordering::Acquire) != failures {
            // Who waited for an attempt that failed shares its outcome, or thousands would try one after another.
            return Err(last.clone().unwrap_or_else(|| Fault::Unavailable("no connection".to_owned())));
        }
        let version = self.probe().await.inspect_err(|fault| {
            *last = Some(fault.clone());
            self.failures.fetch_add(1, Ordering::Release);
        })?;
        Ok(*self.h2.get_or_init(|| version == Version::HTTP_2))
    }

    /// Any answer tells the version. No key, no row.
    async fn probe(&self) -> Result<Version, Fault> {
        let client = self.connector.either().build().map_err(|_| unmade())?;
        let answer = client.head(self.base.clone()).send().await;
        answer.map(|answer| answer.version()).map_err(|error| fault::transport(&error, &fault::Sent::default()))
    }
}

/// Makes clients.
#[derive(Debug)]
struct Connector {
    tls: ClientConfig,
    connect_timeout: Duration,
}

impl Connector {
    /// A connection per call in flight.
    fn http1(&self) -> ClientBuilder {
        self.settings(&[b"http/1.1"]).http1_only().connector_layer(ConcurrencyLimitLayer::new(OPENING_MAX))
    }

    /// One connection. With prior knowledge, so that the first calls wait for it instead of opening one each.
    fn http2(&self) -> ClientBuilder {
        self.settings(&[b"h2"])
            .http2_prior_knowledge()
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
    }

    /// For one request, in the version that the server likes best.
    fn either(&self) -> ClientBuilder {
        self.settings(&[b"h2", b"http/1.1"]).timeout(self.connect_timeout)
    }

    /// What every client has. Proxies are the environment's (`HTTPS_PROXY`, `NO_PROXY`), which reqwest reads.
    fn settings(&self, alpn: &[&[u8]]) -> ClientBuilder {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("tasuki/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(self.connect_timeout)
    }
}

/// The client in `cell`, made now if it is the first time.
fn made(cell: &OnceLock<Client>, settings: impl FnOnce() -> ClientBuilder) -> Result<&Client, Fault> {
    match cell.get() {
        Some(client) => Ok(client),
        None => {
            let client = settings().build().map_err(|_| unmade())?;
            Ok(cell.get_or_init(|| client))
        }
    }
}

fn unmade() -> Fault {
    Fault::Unavailable("the HTTP client cannot be set up".to_owned())
}
