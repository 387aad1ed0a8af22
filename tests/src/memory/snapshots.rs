use async_trait::async_trait;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::limits::PART_BYTES_AIMED;
use tasuki_relay::names;
use tasuki_relay::pipeline::KeyType;
use tasuki_relay::ports::{Checked, Order, PartRow, RowsError, Snapshots, SourceColumn, Taking};
use tasuki_relay::record::Snapshot;
use tasuki_relay::source::Source;

/// What becomes of a job.
#[derive(Clone, Debug)]
pub enum Act {
    /// It succeeds after so long.
    Takes(Duration),
    /// It succeeds at once, but nobody hears that it was started.
    Lost,
    /// It fails at once, for a reason that passes.
    Fails(&'static str),
    /// It fails at once, for good.
    Refused(&'static str),
}

/// The same rows for every source, in as many parts as are asked for. Clones share jobs and rows; each has a name.
#[derive(Clone, Debug)]
pub struct MemorySnapshots {
    name: &'static str,
    clock: Clock,
    rows: Arc<Vec<Map<String, Value>>>,
    key: &'static str,
    parts: u32,
    state: Arc<Mutex<State>>,
    /// Time that each reading takes.
    pub latency: Duration,
    /// What the snapshot comes to, where that is told.
    pub bytes: Option<u64>,
    /// Rows that fit into memory at once.
    pub fit: u64,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Act>,
    jobs: BTreeMap<String, (Act, Millis)>,
    orders: Vec<Order>,
    reads: Vec<(&'static str, u32)>,
    gone: bool,
}

impl MemorySnapshots {
    /// A source that holds `rows`, by the column `key`, of a size that comes to `parts` parts.
    pub fn new(clock: Clock, rows: Vec<Map<String, Value>>, key: &'static str, parts: u32) -> MemorySnapshots {
        let (rows, state) = (Arc::new(rows), Arc::default());
        MemorySnapshots {
            name: "first",
            clock,
            rows,
            key,
            parts,
            state,
            latency: Duration::ZERO,
            bytes: None,
            fit: u64::MAX,
        }
    }

    /// What becomes of the next jobs, in turn; those after them succeed at once.
    pub fn script(self, acts: impl IntoIterator<Item = Act>) -> MemorySnapshots {
        self.state().script.extend(acts);
        self
    }

    /// The same source, as another process sees it.
    pub fn named(&self, name: &'static str) -> MemorySnapshots {
        MemorySnapshots { name, ..self.clone() }
    }

    /// Deletes every snapshot.
    pub fn delete(&self) {
        self.state().gone = true;
    }

    /// The ids of all jobs that were started, in order of their names.
    pub fn jobs(&self) -> Vec<String> {
        self.state().jobs.keys().cloned().collect()
    }

    /// Every order that was given, once.
    pub fn orders(&self) -> Vec<Order> {
        self.state().orders.clone()
    }

    /// Who read which part, in order.
    pub fn reads(&self) -> Vec<(&'static str, u32)> {
        self.state().reads.clone()
    }

    /// The rows of every part, in order.
    pub fn parts(&self, parts: u32) -> Vec<Vec<Map<String, Value>>> {
        let mut by_part = vec![Vec::new(); parts as usize];
        for row in self.rows.iter() {
            let key = row.get(self.key).map(Value::to_string).unwrap_or_default();
            let hash = key.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
            by_part[(hash % parts) as usize].push((key, row.clone()));
        }
        let sorted = |mut part: Vec<(String, Map<String, Value>)>| {
            part.sort_by_key(|(key, row)| (key.clone(), Value::Object(row.clone()).to_string()));
            part.into_iter().map(|(_, row)| row).collect()
        };
        by_part.into_iter().map(sorted).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Snapshots for MemorySnapshots {
    async fn check(&self, _source: &Source) -> Result<Checked, RowsError> {
        let names = self.rows.iter().flatten().map(|(name, _)| (name.clone(), None));
        let mut columns: BTreeMap<_, _> = names.collect();
        columns.insert(self.key.to_owned(), Some(KeyType::String));
        let columns = columns.into_iter().map(|(name, key)| SourceColumn { name, key }).collect();
        Ok(Checked { columns, bytes: u64::from(self.parts) * PART_BYTES_AIMED })
    }

    async fn take(&self, order: &Order) -> Result<Taking, RowsError> {
        let id = names::snapshot_job(&order.run, order.attempt);
        let now = self.clock.now();
        let mut state = self.state();
        let next = state.script.pop_front();
        let is_new = !state.jobs.contains_key(&id);
        if is_new {
            state.orders.push(order.clone());
        }
        match next {
            Some(act) if is_new => drop(state.jobs.insert(id.clone(), (act, now))),
            Some(act) => state.script.push_front(act),
            None if is_new => drop(state.jobs.insert(id.clone(), (Act::Takes(Duration::ZERO), now))),
            None => (),
        }
        let (act, started) = state.jobs[&id].clone();
        match act {
            Act::Takes(long) if now < started + long => return Ok(Taking::Pending),
            Act::Lost if is_new => return Err(RowsError::Unknown("lost".into())),
            Act::Fails(reason) => return Ok(Taking::Failed { ended: started, reason: reason.into() }),
            Act::Refused(why) => return Err(RowsError::Refused(why.into())),
            Act::Takes(_) | Act::Lost => (),
        }
        let rows = self.parts(order.parts).iter().map(|part| part.len() as u64).collect();
        let snapshot = Snapshot { run: order.run.clone(), job: id, source_time: started, rows };
        Ok(Taking::Ready { snapshot, bytes: self.bytes.unwrap_or(0) })
    }

    async fn read(&self, snapshot: &Snapshot, part: u32, rows: Range<u64>) -> Result<Vec<PartRow>, RowsError> {
        self.state().reads.push((self.name, part));
        tokio::time::sleep(self.latency).await;
        if self.state().gone {
            return Err(RowsError::Gone);
        }
        if rows.end - rows.start > self.fit.max(1) {
            return Err(RowsError::TooLarge);
        }
        let parts = self.parts(snapshot.rows.len() as u32);
        let row = |(pos, row): (usize, &Map<String, Value>)| PartRow { pos: pos as u64, row: Ok(row.clone()) };
        let all = parts[part as usize].iter().enumerate().map(row).filter(|row| rows.contains(&row.pos));
        Ok(all.collect::<Vec<_>>().into_iter().rev().collect()) // no order is promised
    }
}
