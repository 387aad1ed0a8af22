//! Plays Eventarc and Cloud Scheduler: at least once, duplicates, late, lost; connections that are closed at an ack deadline;
//! backoff; again on everything but 2xx.

use crate::oidc::{Signed, claims, token};
use crate::storage_server::Finalized;
use reqwest::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_google::objects::Buckets;
use tasuki_google::settings::Role;
use tasuki_relay::clock::Chance;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Whom the services let in.
pub const CALLER: &str = "eventarc@tasuki-test.iam.gserviceaccount.com";
/// The first and the longest pause before an event is delivered again (Pub/Sub's are 10 s and 600 s: tests are in a hurry).
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How events are delivered.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The connection is closed after so long.
    pub ack_deadline: Duration,
    /// Of a hundred events so many are lost.
    pub lost: u64,
    /// And so many delivered twice at once.
    pub doubled: u64,
    /// `/sweep` of each service is called so often.
    pub sweep_every: Duration,
    /// Chance's seed.
    pub seed: u64,
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery {
            ack_deadline: Duration::from_secs(10),
            lost: 0,
            doubled: 0,
            sweep_every: Duration::from_secs(60),
            seed: 1,
        }
    }
}

/// What calls the services. Ends when dropped.
pub struct Eventarc {
    counts: Arc<Counts>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Counts {
    events: AtomicU64,
    lost: AtomicU64,
    delivered: AtomicU64,
    again: AtomicU64,
    sweeps: AtomicU64,
    statuses: Mutex<BTreeMap<String, u64>>,
    /// What the services said.
    bodies: Mutex<BTreeSet<String>>,
}

impl Eventarc {
    /// Delivers every object that is finalized to the service of its bucket, and calls each service's sweep. A service is one
    /// process or several (`host:port` of each), which are called in turn.
    pub fn start(
        mut finalized: UnboundedReceiver<Finalized>,
        buckets: &Buckets,
        services: Vec<(Role, Vec<String>)>,
        delivery: Delivery,
    ) -> Eventarc {
        let stop = CancellationToken::new();
        let counts = Arc::new(Counts::default());
        let mut routes = BTreeMap::new();
        for (role, hosts) in services {
            let caller = Caller::new(hosts, delivery.clone(), &counts);
            routes.insert(buckets.name(role.listens_to()).to_owned(), caller.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(async move { caller.sweep().await }));
        }
        let (chance, until, counted) = (Chance::seeded(delivery.seed), stop.clone(), counts.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Some(event) = finalized.recv().await {
                let Some(caller) = routes.get(&event.bucket) else { continue };
                counted.events.fetch_add(1, Relaxed);
                let copies = match chance.below(100) {
                    n if n < delivery.lost => 0,
                    n if n < delivery.lost + delivery.doubled => 2,
                    _ => 1,
                };
                counted.lost.fetch_add(u64::from(copies == 0), Relaxed);
                for _ in 0..copies {
                    let (caller, event) = (caller.clone(), event.clone());
                    tokio::spawn(until.clone().run_until_cancelled_owned(async move { caller.deliver(event).await }));
                }
            }
        }));
        Eventarc { counts, _stop: stop.drop_guard() }
    }

    /// Events that were lost on purpose.
    pub fn lost(&self) -> u64 {
        self.counts.lost.load(Relaxed)
    }

    /// Deliveries that were not acknowledged and came again.
    pub fn again(&self) -> u64 {
        self.counts.again.load(Relaxed)
    }

    /// Every reply of the services until now, each text once: headers and body.
    pub fn replies(&self) -> String {
        self.counts.bodies.lock().expect("nobody panics with it").iter().map(|body| format!("{body}\n")).collect()
    }

    /// For a test that failed.
    pub fn summary(&self) -> String {
        let of = |count: &AtomicU64| count.load(Relaxed);
        let counts = &self.counts;
        format!(
            "{} events, {} lost, {} delivered, {} times again, {} sweeps, replies {:?}",
            of(&counts.events),
            of(&counts.lost),
            of(&counts.delivered),
            of(&counts.again),
            of(&counts.sweeps),
            counts.statuses.lock().expect("nobody panics with it")
        )
    }
}

/// Calls one service.
#[derive(Clone)]
struct Caller {
    hosts: Arc<[String]>,
    /// Calls so far.
    turn: Arc<AtomicUsize>,
    client: Client,
    delivery: Delivery,
    counts: Arc<Counts>,
}

impl Caller {
    fn new(hosts: Vec<String>, delivery: Delivery, counts: &Arc<Counts>) -> Caller {
        Caller { hosts: hosts.into(), turn: Arc::default(), client: Client::new(), delivery, counts: counts.clone() }
    }

    async fn post(&self, path: &str, event: Option<&Finalized>) -> bool {
        let host = &self.hosts[self.turn.fetch_add(1, Relaxed) % self.hosts.len()];
        let audience = format!("https://{host}{path}");
        let token = token(&claims(&audience, CALLER, 3_600), Signed::Rightly);
        let mut request = self.client.post(format!("http://{host}{path}")).bearer_auth(token);
        if let Some(event) = event {
            request = request
                .header("ce-specversion", "1.0")
                .header("ce-type", "google.cloud.storage.object.v1.finalized")
                .header("ce-id", format!("{}/{}", event.name.len(), event.generation))
                .header("content-type", "application/json")
                .body(event.resource.to_string());
        }
        // A dropped future closes the connection, as a push that is cut does.
        let sent = tokio::time::timeout(self.delivery.ack_deadline, request.send()).await;
        let (status, is_good) = match &sent {
            Ok(Ok(response)) => (response.status().as_u16().to_string(), response.status().is_success()),
            Ok(Err(_)) => ("no connection".to_owned(), false),
            Err(_) => ("cut".to_owned(), false),
        };
        *self.counts.statuses.lock().expect("nobody panics with it").entry(format!("{path} {status}")).or_default() +=
            1;
        if let Ok(Ok(response)) = sent {
            let headers = format!("{:?}", response.headers());
            let body = format!("{headers} {}", response.text().await.unwrap_or_default());
            self.counts.bodies.lock().expect("nobody panics with it").insert(body);
        }
        is_good
    }

    async fn deliver(&self, event: Finalized) {
        let mut pause = PAUSES.0;
        while !self.post("/events", Some(&event)).await {
            self.counts.again.fetch_add(1, Relaxed);
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSES.1);
        }
        self.counts.delivered.fetch_add(1, Relaxed);
    }

    async fn sweep(&self) {
        loop {
            tokio::time::sleep(self.delivery.sweep_every).await;
            self.post("/sweep", None).await;
            self.counts.sweeps.fetch_add(1, Relaxed);
        }
    }
}
