//! Claims: leases that keep two processes from paying for the same shard. They only save money; safety never rests on them.
//!
//! A claim is an object of the state bucket, created by who works and overwritten by generation with each heartbeat. Its
//! generation is the fence: who finds another one has lost it.

use crate::clock::{Chance, Clock};
use crate::names::Bucket;
use crate::ports::{Generation, Meta, Objects, ObjectsError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A claim that was not renewed for so long, by the server's clock, may be taken over.
pub const LEASE: Duration = Duration::from_secs(120);
/// How often a claim is renewed: three renewals may fail before the lease ends.
pub const HEARTBEAT: Duration = Duration::from_secs(30);
/// A paid call may start only so long before the lease ends: clocks differ, and a renewal takes time to be seen.
pub const GUARD: Duration = Duration::from_secs(10);
/// Takeovers without progress after which a shard is suspected of killing its process.
pub const DEATHS_SUSPECT: u32 = 4;

/// How claims keep time.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// See [`LEASE`].
    pub lease: Duration,
    /// See [`HEARTBEAT`].
    pub heartbeat: Duration,
    /// See [`GUARD`].
    pub guard: Duration,
    /// The embedded relay holds its folder's lock, which proves that every other owner is dead: no lease is waited for.
    pub others_are_dead: bool,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing { lease: LEASE, heartbeat: HEARTBEAT, guard: GUARD, others_are_dead: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Held,
    Released,
    Ended,
}

/// What a claim object holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimBody {
    owner: String,
    /// Drawn anew for each attempt, so that a writer whose reply was lost knows its own write.
    attempt: String,
    /// Grows with each holder.
    epoch: u32,
    state: State,
    /// Its rows are being asked: only then can it be a row that kills the process.
    #[serde(default)]
    working: bool,
    /// Takeovers from holders that died without a checkpoint.
    deaths: u32,
    /// The last checkpoint when the claim was taken.
    last_segment: Option<String>,
}

/// How a claim stands for somebody who looks at it.
#[derive(Debug)]
pub enum Standing {
    /// Somebody else's, alive.
    Live,
    /// The work is over; never expires.
    Ended,
    /// Released, expired, or its owner is known to be dead.
    Free(Stale),
}

/// A claim that may be taken over.
#[derive(Debug)]
pub struct Stale {
    body: ClaimBody,
    generation: Generation,
}

/// What an attempt to claim came to.
#[derive(Debug)]
pub enum Claimed {
    /// Ours now. Read again what may have been finished meanwhile before working.
    Won(Claim),
    /// Another process works on it.
    Live,
    /// The work is over.
    Ended,
    /// [`Claims::take_over`] may follow.
    Free(Stale),
}

/// Takes claims in the name of one process.
#[derive(Clone)]
pub struct Claims {
    objects: Arc<dyn Objects>,
    clock: Clock,
    chance: Chance,
    timing: Timing,
    owner: Arc<str>,
}

impl Claims {
    /// Claims for a new owner.
    pub fn new(objects: Arc<dyn Objects>, clock: Clock, chance: Chance, timing: Timing) -> Claims {
        let owner = chance.identity().into();
        Claims { objects, clock, chance, timing, owner }
    }

    /// Creates the claim, or tells how it stands. The caller makes sure that this process does not hold it already.
    pub async fn take(&self, name: &str) -> Result<Claimed, ObjectsError> {
        let body = self.body(1, 0, None);
        let sent = self.clock.instant();
        let error = match self.objects.create(Bucket::State, name, encode(&body)).await {
            Ok(meta) => return Ok(Claimed::Won(self.hold(name, body, meta.generation, sent))),
            Err(error) => error,
        };
        match self.read(name).await? {
            Some((found, meta)) if found == body => Ok(Claimed::Won(self.hold(name, body, meta.generation, sent))),
            Some((found, meta)) => Ok(match self.standing_of(found, &meta) {
                Standing::Live => Claimed::Live,
                Standing::Ended => Claimed::Ended,
                Standing::Free(stale) => Claimed::Free(stale),
            }),
            None => Err(error),
        }
    }

    /// Takes over a free claim at the generation that was seen. `last_segment` is the shard's last checkpoint now.
    pub async fn take_over(
        &self,
        name: &str,
        stale: Stale,
        last_segment: Option<String>,
    ) -> Result<Claimed, ObjectsError> {
        let deaths = deaths(&stale.body, last_segment.as_deref());
        let body = self.body(stale.body.epoch + 1, deaths, last_segment);
        let sent = self.clock.instant();
        let error = match self.objects.replace(Bucket::State, name, encode(&body), stale.generation).await {
            Ok(meta) => return Ok(Claimed::Won(self.hold(name, body, meta.generation, sent))),
            Err(error) => error,
        };
        match self.read(name).await? {
            Some((found, meta)) if found == body => Ok(Claimed::Won(self.hold(name, body, meta.generation, sent))),
            Some((_, meta)) if meta.generation != stale.generation => Ok(Claimed::Live),
            _ => Err(error),
        }
    }

    /// How a claim stands; `None` when there is none.
    pub async fn standing(&self, name: &str) -> Result<Option<Standing>, ObjectsError> {
        Ok(self.read(name).await?.map(|(body, meta)| self.standing_of(body, &meta)))
    }

    fn standing_of(&self, body: ClaimBody, meta: &Meta) -> Standing {
        let dead = self.timing.others_are_dead || body.owner == *self.owner;
        match body.state {
            State::Ended => Standing::Ended,
            State::Held if !dead && self.clock.now().since(meta.created) < self.timing.lease => Standing::Live,
            State::Held | State::Released => Standing::Free(Stale { body, generation: meta.generation }),
        }
    }

    fn body(&self, epoch: u32, deaths: u32, last_segment: Option<String>) -> ClaimBody {
        let (owner, attempt) = (self.owner.to_string(), self.chance.identity());
        ClaimBody { owner, attempt, epoch, state: State::Held, working: false, deaths, last_segment }
    }

    /// A claim whose text is not ours, or was cut, counts as expired: whoever takes it over writes a whole one.
    async fn read(&self, name: &str) -> Result<Option<(ClaimBody, Meta)>, ObjectsError> {
        let Some(object) = self.objects.read(Bucket::State, name, None).await? else { return Ok(None) };
        let body = serde_json::from_slice(&object.body).unwrap_or_else(|_| ClaimBody {
            owner: String::new(),
            attempt: String::new(),
            epoch: 0,
            state: State::Released,
            working: false,
            deaths: 0,
            last_segment: None,
        });
        Ok(Some((body, object.meta)))
    }

    fn hold(&self, name: &str, body: ClaimBody, generation: Generation, sent: Instant) -> Claim {
        let lease = Arc::new(Lease {
            clock: self.clock.clone(),
            spend_for: self.timing.lease.saturating_sub(self.timing.guard),
            confirmed: Mutex::new(sent),
            lost: AtomicBool::new(false),
            working: Notify::new(),
        });
        let (epoch, deaths) = (body.epoch, body.deaths);
        let held = Arc::new(Held {
            objects: self.objects.clone(),
            name: name.to_owned(),
            lease: lease.clone(),
            version: tokio::sync::Mutex::new((body, generation)),
        });
        let beat = tokio::spawn(beat(held.clone(), self.timing.heartbeat)).abort_handle();
        Claim { held, lease, beat, epoch, deaths }
    }
}

/// Counts a takeover: one more death when the last holder was at work, and neither released the claim nor left a checkpoint.
fn deaths(last: &ClaimBody, last_segment: Option<&str>) -> u32 {
    match last.state {
        State::Held if !last.working => last.deaths,
        State::Held if last.deaths >= DEATHS_SUSPECT => last.deaths + 1, // its markers are checkpoints, but no progress
        State::Held if last.last_segment.as_deref() == last_segment => last.deaths + 1,
        State::Held => 0,
        State::Released | State::Ended => last.deaths,
    }
}

fn encode(body: &ClaimBody) -> Bytes {
    serde_json::to_vec(body).expect("a claim is plain data").into()
}

/// A claim that is held, and renewed in the background until it is released or dropped.
#[derive(Debug)]
pub struct Claim {
    held: Arc<Held>,
    lease: Arc<Lease>,
    beat: AbortHandle,
    /// Grows with each holder of this claim. A claim that was deleted by hand starts again: see the checkpoints.
    pub epoch: u32,
    /// Takeovers without progress so far.
    pub deaths: u32,
}

impl Claim {
    /// The lease, for those who spend under it.
    pub fn lease(&self) -> Arc<Lease> {
        self.lease.clone()
    }

    /// Gives the claim back, so that the next one need not wait for its lease. Best effort: a lost reply costs a lease.
    pub async fn release(self) {
        self.held.leave(State::Released).await.ok();
    }

    /// Marks the work as over.
    pub async fn end(self) -> Result<(), ObjectsError> {
        self.held.leave(State::Ended).await
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.beat.abort();
    }
}

/// Whether money may be spent under a claim.
#[derive(Debug)]
pub struct Lease {
    clock: Clock,
    spend_for: Duration,
    confirmed: Mutex<Instant>,
    lost: AtomicBool,
    working: Notify,
}

impl Lease {
    /// A paid call may start now.
    pub fn may_spend(&self) -> bool {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        !self.lost.load(Ordering::Relaxed) && self.clock.instant() < confirmed + self.spend_for
    }

    /// The rows are being asked from now on: the claim says so as soon as it can be written.
    pub fn begin(&self) {
        self.working.notify_one();
    }

    fn confirm(&self, sent: Instant) {
        *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = sent;
    }
}

struct Held {
    objects: Arc<dyn Objects>,
    name: String,
    lease: Arc<Lease>,
    version: tokio::sync::Mutex<(ClaimBody, Generation)>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({})", self.name)
    }
}

impl Held {
    async fn renew(&self, working: bool) {
        let mut version = self.version.lock().await;
        version.0.working |= working;
        let sent = self.lease.clock.instant();
        if let Ok(generation) = self.write(&version.0, version.1).await {
            *version = (version.0.clone(), generation);
            self.lease.confirm(sent);
        }
    }

    async fn leave(&self, state: State) -> Result<(), ObjectsError> {
        let version = self.version.lock().await;
        let body = ClaimBody { state, ..version.0.clone() };
        self.write(&body, version.1).await.map(|_| ())
    }

    /// Overwrites the claim at the generation that we know. A write that was not confirmed is decided by a read.
    async fn write(&self, body: &ClaimBody, known: Generation) -> Result<Generation, ObjectsError> {
        let error = match self.objects.replace(Bucket::State, &self.name, encode(body), known).await {
            Ok(meta) => return Ok(meta.generation),
            Err(error) => error,
        };
        let found = self.objects.read(Bucket::State, &self.name, None).await?;
        match found {
            // Still as we knew it: the write had no effect, and nobody else wrote.
            Some(found) if found.meta.generation == known => Err(error),
            Some(found) if found.body == encode(body) => Ok(found.meta.generation),
            _ => {
                self.lease.lost.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }
}

async fn beat(held: Arc<Held>, every: Duration) {
    loop {
        let working = tokio::select! {
            biased;
            () = held.lease.working.notified() => true,
            () = tokio::time::sleep(every) => false,
        };
        held.renew(working).await;
    }
}
