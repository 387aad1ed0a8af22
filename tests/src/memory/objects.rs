use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Event, Generation, Meta, Object, Objects, ObjectsError};

/// The four buckets in memory. Versioned: an overwritten or removed version can still be read by its generation.
#[derive(Debug)]
pub struct MemoryObjects {
    clock: Clock,
    store: Mutex<Store>,
}

#[derive(Debug, Default)]
struct Store {
    /// The live versions' generations.
    live: BTreeMap<(Bucket, String), Generation>,
    /// Every version ever written.
    versions: BTreeMap<(Bucket, String, Generation), Object>,
    last: Generation,
    last_created: Millis,
    events: VecDeque<Event>,
}

impl MemoryObjects {
    /// Empty buckets; `clock` stamps what is created.
    pub fn new(clock: Clock) -> MemoryObjects {
        MemoryObjects { clock, store: Mutex::default() }
    }

    /// The oldest event that was not taken yet: one for every create and replace outside [`Bucket::State`].
    pub fn pop_event(&self) -> Option<Event> {
        self.store().events.pop_front()
    }

    /// All events that were not taken yet, oldest first.
    pub fn take_events(&self) -> Vec<Event> {
        self.store().events.drain(..).collect()
    }

    /// Every version ever written to a bucket, in order of names and generations.
    pub fn versions(&self, bucket: Bucket) -> Vec<Object> {
        let store = self.store();
        let of = store.versions.iter().filter(|((at, _, _), _)| *at == bucket);
        of.map(|(_, object)| object.clone()).collect()
    }

    /// Removes every version of the objects whose names start with `prefix`: not even a pinned read finds them.
    pub fn purge(&self, bucket: Bucket, prefix: &str) {
        let mut store = self.store();
        store.live.retain(|(at, name), _| *at != bucket || !name.starts_with(prefix));
        store.versions.retain(|(at, name, _), _| *at != bucket || !name.starts_with(prefix));
    }

    /// The live versions in a bucket, in order of names.
    pub fn live(&self, bucket: Bucket) -> Vec<Object> {
        let store = self.store();
        let of = store.live.iter().filter(|((at, _), _)| *at == bucket);
        of.filter_map(|((_, name), generation)| store.object(bucket, name, Some(*generation)).cloned()).collect()
    }

    /// The live version, between two calls.
    pub fn find(&self, bucket: Bucket, name: &str) -> Option<Meta> {
        self.store().object(bucket, name, None).map(|object| object.meta.clone())
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, bucket: Bucket, name: &str, body: Bytes, expected: Option<Generation>) -> Result<Meta, ObjectsError> {
        let mut store = self.store();
        if store.live_generation(bucket, name) != expected {
            return Err(ObjectsError::Precondition);
        }
        store.last += 1;
        store.last_created = self.clock.now().max(store.last_created);
        let generation = store.last;
        let meta = Meta { name: name.to_owned(), generation, created: store.last_created, size: body.len() as u64 };
        store.live.insert((bucket, name.to_owned()), generation);
        store.versions.insert((bucket, name.to_owned(), generation), Object { meta: meta.clone(), body });
        if bucket != Bucket::State {
            store.events.push_back(Event { bucket, name: name.to_owned(), generation });
        }
        Ok(meta)
    }
}

impl Store {
    fn live_generation(&self, bucket: Bucket, name: &str) -> Option<Generation> {
        self.live.get(&(bucket, name.to_owned())).copied()
    }

    fn object(&self, bucket: Bucket, name: &str, generation: Option<Generation>) -> Option<&Object> {
        let generation = generation.or_else(|| self.live_generation(bucket, name))?;
        self.versions.get(&(bucket, name.to_owned(), generation))
    }
}

#[async_trait]
impl Objects for MemoryObjects {
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError> {
        self.put(bucket, name, body, None)
    }

    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError> {
        self.put(bucket, name, body, Some(expected))
    }

    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError> {
        let mut store = self.store();
        match store.live_generation(bucket, name) {
            Some(live) if expected.is_some_and(|expected| expected != live) => Err(ObjectsError::Precondition),
            _ => {
                store.live.remove(&(bucket, name.to_owned()));
                Ok(())
            }
        }
    }

    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError> {
        Ok(self.store().object(bucket, name, None).map(|object| object.meta.clone()))
    }

    async fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError> {
        Ok(self.store().object(bucket, name, generation).cloned())
    }

    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        Ok(self.store().object(bucket, name, Some(generation)).map(|Object { body, .. }| {
            let from = usize::try_from(offset).map_or(body.len(), |offset| offset.min(body.len()));
            body.slice(from..body.len().min(from.saturating_add(most)))
        }))
    }

    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError> {
        let store = self.store();
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded((bucket, after.to_owned())),
            _ => Bound::Included((bucket, prefix.to_owned())),
        };
        Ok(store
            .live
            .range((from, Bound::Unbounded))
            .take_while(|((at, name), _)| *at == bucket && name.starts_with(prefix))
            .take(most)
            .filter_map(|((_, name), generation)| store.object(bucket, name, Some(*generation)))
            .map(|object| object.meta.clone())
            .collect())
    }
}
