//! A process: one leg over ports that meet the world's faults. A dead process never gets another reply.

use super::faults::{Fault, SLOW, STALL};
use super::wrong::Wrong;
use super::{Leg, World};
use crate::memory::MemorySnapshots;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tasuki_relay::names::{Bucket, RunId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{
    Announcement, Ask, Checked, Fingerprints, Generation, Loaded, Meta, Model, Notice, Object, Objects, ObjectsError,
    Order, Part, PartRow, Records, RecordsError, Reply, RowsError, RunRow, Snapshots, Taking,
};
use tasuki_relay::record::{Header, Key, Snapshot};
use tasuki_relay::source::Source;
use tokio::time::sleep;

/// A process of a leg.
pub struct Process {
    /// Where it runs.
    pub world: Arc<World>,
    /// Which leg it is.
    pub leg: Leg,
    dead: AtomicBool,
    leaving: AtomicBool,
    stalled: Mutex<Option<tokio::time::Instant>>,
    /// Calls of the model that it waits for.
    pub in_flight: AtomicU64,
    /// Calls of the model that it made.
    pub asked: AtomicU64,
    /// What a wrong variant remembers.
    pub memory: Mutex<BTreeSet<String>>,
}

impl Process {
    /// A new one.
    pub fn new(world: Arc<World>, leg: Leg) -> Arc<Process> {
        Arc::new(Process {
            world,
            leg,
            dead: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            stalled: Mutex::default(),
            in_flight: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            memory: Mutex::default(),
        })
    }

    /// It died.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    /// Kills it, as `kill -9` does.
    pub fn kill(&self) {
        if !self.dead.swap(true, Relaxed) {
            self.world.count_death(self);
        }
    }

    /// It takes no new work.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// It takes no new work, and dies when `drained` is over or 8 s have passed. Who was given time to save has wasted nothing.
    pub fn leave(self: &Arc<Self>, drained: impl Future<Output = ()> + Send + 'static) {
        let process = self.clone();
        process.leaving.store(true, Relaxed);
        tokio::spawn(async move {
            let in_time = tokio::time::timeout(Duration::from_secs(8), drained).await.is_ok();
            if in_time { process.dead.store(true, Relaxed) } else { process.kill() }
        });
    }

    async fn gate(&self) {
        let stalled = *self.stalled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = stalled {
            tokio::time::sleep_until(until).await;
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    fn stall(&self) {
        let until = self.world.clock.instant() + STALL;
        *self.stalled.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.world.count_stall(self);
    }

    /// One port call: its latency, its fault, its effect, and a look at the invariants.
    pub(super) async fn port<T: Send + 'static, E: Send + 'static>(
        self: &Arc<Self>,
        what: &str,
        unknown: E,
        effect: impl FnOnce() -> BoxFuture<'static, Result<T, E>>,
    ) -> Result<T, E> {
        let kind = format!("{} {what}", self.leg.name());
        self.gate().await;
        sleep(self.world.chance.up_to(Duration::from_millis(60))).await;
        self.gate().await;
        let effect = effect();
        let world = self.world.clone();
        let fault = world.faults.next(&kind);
        if let Some(fault) = fault {
            world.met(&kind, fault, self);
        }
        let happen = async move {
            let result = effect.await;
            world.check();
            result
        };
        match fault {
            None => return happen.await,
            Some(Fault::Slow) => {
                sleep(SLOW).await;
                self.gate().await;
                return happen.await;
            }
            Some(Fault::Stops) => {
                self.world.stop(self);
                return happen.await;
            }
            Some(Fault::Fails) => return Err(unknown),
            Some(Fault::Lost) => {
                happen.await.ok();
                return Err(unknown);
            }
            Some(Fault::Hangs) => drop(happen),
            Some(Fault::HangsAfter) => drop(happen.await),
            Some(Fault::Late) => drop(tokio::spawn(async move {
                sleep(STALL).await;
                happen.await.ok();
            })),
            Some(Fault::DiesBefore) => self.kill(),
            Some(Fault::DiesAfter) => {
                happen.await.ok();
                self.kill();
            }
            Some(Fault::Stalls) => {
                self.stall();
                self.gate().await;
                return happen.await;
            }
        }
        std::future::pending().await
    }

    pub(super) fn is(&self, wrong: Wrong) -> bool {
        self.world.setup.wrong == Some(wrong)
    }

    pub(super) fn remember(&self, what: String) -> bool {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).insert(what)
    }

    pub(super) fn remembers(&self, what: &str) -> bool {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).contains(what)
    }
}

/// What an object is, by its name.
pub fn kind(bucket: Bucket, name: &str) -> &'static str {
    match bucket {
        Bucket::Inbox => "inbox",
        Bucket::Shards => "shards",
        Bucket::Answers => "answers",
        Bucket::State => ["plans", "open", "splits", "claims", "ckpt", "control", "pipelines"]
            .into_iter()
            .find(|prefix| name.starts_with(prefix))
            .unwrap_or("state"),
    }
}

fn unknown() -> ObjectsError {
    ObjectsError::Unknown("fault".into())
}

/// The objects port of a process.
pub struct NodeObjects(pub Arc<Process>);

#[async_trait]
impl Objects for NodeObjects {
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError> {
        let what = format!("create {}", kind(bucket, name));
        if let Some(pretended) = super::wrong::create(&self.0, bucket, name, &body).await {
            return pretended;
        }
        let (objects, owned) = (self.0.world.objects.clone(), name.to_owned());
        let effect =
            || -> BoxFuture<'static, _> { Box::pin(async move { objects.create(bucket, &owned, body).await }) };
        let created = self.0.port(&what, unknown(), effect).await;
        super::wrong::after_create(&self.0, bucket, name).await;
        created
    }

    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError> {
        let what = format!("replace {}", kind(bucket, name));
        if self.0.is(Wrong::NoClaim) && kind(bucket, name) == "claims" {
            return Ok(Meta {
                name: name.to_owned(),
                generation: expected,
                created: self.0.world.clock.now(),
                size: 0,
            });
        }
        let (objects, owned) = (self.0.world.objects.clone(), name.to_owned());
        let effect = || -> BoxFuture<'static, _> {
            Box::pin(async move { objects.replace(bucket, &owned, body, expected).await })
        };
        match self.0.port(&what, unknown(), effect).await {
            Err(_) if super::wrong::believes_renewal(&self.0, bucket, name) => {
                Ok(Meta { name: name.to_owned(), generation: expected, created: self.0.world.clock.now(), size: 0 })
            }
            replaced => replaced,
        }
    }

    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError> {
        let what = format!("remove {}", kind(bucket, name));
        if self.0.is(Wrong::OpenNotCleared) && kind(bucket, name) == "open" {
            return Ok(());
        }
        let (objects, name) = (self.0.world.objects.clone(), name.to_owned());
        let effect =
            || -> BoxFuture<'static, _> { Box::pin(async move { objects.remove(bucket, &name, expected).await }) };
        self.0.port(&what, unknown(), effect).await
    }

    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError> {
        let what = format!("stat {}", kind(bucket, name));
        if self.0.is(Wrong::AnswersReadOnlyBeforeTheClaim)
            && bucket == Bucket::Answers
            && !self.0.remember(format!("stat {name}"))
        {
            self.0.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(&format!("stat {name}"));
            return Ok(None);
        }
        let (objects, name) = (self.0.world.objects.clone(), name.to_owned());
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { objects.stat(bucket, &name).await }) };
        self.0.port(&what, unknown(), effect).await
    }

    async fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError> {
        let what = format!("read {}", kind(bucket, name));
        let (objects, owned) = (self.0.world.objects.clone(), name.to_owned());
        let effect =
            || -> BoxFuture<'static, _> { Box::pin(async move { objects.read(bucket, &owned, generation).await }) };
        let found = self.0.port(&what, unknown(), effect).await?;
        Ok(super::wrong::after_read(&self.0, bucket, name, found))
    }

    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        let what = format!("range {}", kind(bucket, name));
        let (objects, name) = (self.0.world.objects.clone(), name.to_owned());
        let effect = || -> BoxFuture<'static, _> {
            Box::pin(async move { objects.read_range(bucket, &name, generation, offset, most).await })
        };
        self.0.port(&what, unknown(), effect).await
    }

    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError> {
        let what = format!("list {}", kind(bucket, prefix));
        let (objects, prefix, after) = (self.0.world.objects.clone(), prefix.to_owned(), after.map(str::to_owned));
        let effect = || -> BoxFuture<'static, _> {
            Box::pin(async move { objects.list(bucket, &prefix, after.as_deref(), most).await })
        };
        self.0.port(&what, unknown(), effect).await
    }
}

/// The snapshots port of a process.
pub struct NodeSnapshots(pub Arc<Process>, pub Arc<MemorySnapshots>);

fn unheard() -> RowsError {
    RowsError::Unknown("fault".into())
}

#[async_trait]
impl Snapshots for NodeSnapshots {
    async fn check(&self, source: &Source) -> Result<Checked, RowsError> {
        let (snapshots, source) = (self.1.clone(), source.clone());
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { snapshots.check(&source).await }) };
        self.0.port("check", unheard(), effect).await
    }

    async fn take(&self, order: &Order) -> Result<Taking, RowsError> {
        let (snapshots, order) = (self.1.clone(), order.clone());
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { snapshots.take(&order).await }) };
        self.0.port("take", unheard(), effect).await
    }

    async fn read(&self, snapshot: &Snapshot, part: u32, rows: Range<u64>) -> Result<Vec<PartRow>, RowsError> {
        let (snapshots, snapshot) = (self.1.clone(), snapshot.clone());
        let effect =
            || -> BoxFuture<'static, _> { Box::pin(async move { snapshots.read(&snapshot, part, rows).await }) };
        self.0.port("read part", unheard(), effect).await
    }
}

/// The records port of a process.
pub struct NodeRecords(pub Arc<Process>);

fn uncertain() -> RecordsError {
    RecordsError::Unknown("fault".into())
}

#[async_trait]
impl Records for NodeRecords {
    async fn load(&self, part: &Part) -> Result<Loaded, RecordsError> {
        let (records, part) = (self.0.world.records.clone(), part.clone());
        if self.0.is(Wrong::LedgerOutsideTheTransaction) {
            return super::wrong::load_in_two(&self.0, part).await;
        }
        let (process, run) = (self.0.clone(), part.id.run.clone());
        let totals = part.header.totals.is_some();
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { records.load(&part).await }) };
        let loaded = self.0.port("load", uncertain(), effect).await;
        super::wrong::after_load(&process, &run, totals, &loaded);
        loaded
    }

    async fn finish(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError> {
        let (records, run) = (self.0.world.records.clone(), run.clone());
        if super::wrong::skips_finish(&self.0, &run) {
            return Ok(None);
        }
        let whatever = self.0.is(Wrong::EndNotConditional);
        let effect = || -> BoxFuture<'static, _> {
            Box::pin(
                async move { if whatever { Ok(records.finish_whatever(&run)) } else { records.finish(&run).await } },
            )
        };
        self.0.port("finish", uncertain(), effect).await
    }

    async fn ledgered(&self, run: &RunId, shards: &[ShardIndex]) -> Result<BTreeSet<ShardIndex>, RecordsError> {
        let (records, run, shards) = (self.0.world.records.clone(), run.clone(), shards.to_vec());
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { records.ledgered(&run, &shards).await }) };
        self.0.port("ledgered", uncertain(), effect).await
    }

    async fn park(&self, header: &Header, marker: Generation) -> Result<(), RecordsError> {
        let (records, header) = (self.0.world.records.clone(), header.clone());
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { records.park(&header, marker).await }) };
        self.0.port("park", uncertain(), effect).await
    }

    async fn resume(&self, run: &RunId) -> Result<(), RecordsError> {
        let (records, run) = (self.0.world.records.clone(), run.clone());
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { records.resume(&run).await }) };
        self.0.port("resume", uncertain(), effect).await
    }

    async fn unpublished(&self, run: Option<&RunId>) -> Result<Vec<Announcement>, RecordsError> {
        let (records, run) = (self.0.world.records.clone(), run.cloned());
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { records.unpublished(run.as_ref()).await }) };
        self.0.port("unpublished", uncertain(), effect).await
    }

    async fn mark_published(&self, event_id: &str) -> Result<(), RecordsError> {
        let (records, id) = (self.0.world.records.clone(), event_id.to_owned());
        let effect = || -> BoxFuture<'static, _> { Box::pin(async move { records.mark_published(&id).await }) };
        self.0.port("mark published", uncertain(), effect).await
    }
}

#[async_trait]
impl Fingerprints for NodeRecords {
    async fn fingerprints(&self, pipeline: &Pipeline, keys: &[Key]) -> Result<BTreeMap<Key, String>, RecordsError> {
        let (records, pipeline, keys) = (self.0.world.records.clone(), pipeline.clone(), keys.to_vec());
        let effect =
            || -> BoxFuture<'static, _> { Box::pin(async move { records.fingerprints(&pipeline, &keys).await }) };
        self.0.port("fingerprints", uncertain(), effect).await
    }
}

/// The model port of a process.
pub struct NodeModel(pub Arc<Process>);

struct Flying(Arc<Process>);

impl Drop for Flying {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[async_trait]
impl Model for NodeModel {
    async fn ask(&self, ask: &Ask) -> Result<Reply, tasuki_relay::ports::Fault> {
        let (world, prompt) = (self.0.world.clone(), ask.prompt.clone());
        self.0.in_flight.fetch_add(1, Relaxed);
        self.0.asked.fetch_add(1, Relaxed);
        world.check_parked();
        let _flying = Flying(self.0.clone());
        sleep(world.model.latency()).await;
        match super::model::act_of(&prompt) {
            "kills" => self.0.kill(),
            "hangs" => {
                world.model.charge();
                world.allow_waste(1);
                return std::future::pending().await;
            }
            _ => (),
        }
        let effect =
            || -> BoxFuture<'static, _> { Box::pin(async move { world.model.say(&prompt, world.clock.now()) }) };
        // Nobody knows whether a call that failed after sending was charged; one that failed before it was not.
        let lost = tasuki_relay::ports::Fault::Ambiguous("fault".into());
        self.0.port("ask", lost, effect).await
    }
}

/// The notice port of a process.
pub struct NodeNotice(pub Arc<Process>);

#[async_trait]
impl Notice for NodeNotice {
    async fn publish(&self, announcement: &Announcement) -> Result<(), String> {
        let (world, announcement) = (self.0.world.clone(), announcement.clone());
        let effect = || -> BoxFuture<'static, _> {
            Box::pin(async move {
                world.announce(&announcement);
                Ok(())
            })
        };
        self.0.port("publish", "fault".to_owned(), effect).await
    }
}
