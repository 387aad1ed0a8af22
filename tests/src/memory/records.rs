//! The records port in memory: each call happens whole, under one lock, and everything can be looked at.

use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::names::{RunId, ShardId, ShardIndex};
use tasuki_relay::pipeline::{Pipeline, Values};
use tasuki_relay::ports::{
    Announcement, Fingerprints, Generation, Loaded, Part, Records, RecordsError, RunRow, RunState,
};
use tasuki_relay::record::{Counts, Header, Key, Totals, Usage};
use tasuki_relay::settle::{self, Existing, Failure, Upsert, settle};

/// [`Records`] in memory.
#[derive(Debug)]
pub struct MemoryRecords {
    clock: Clock,
    state: Mutex<State>,
}

/// All that the store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Runs. Their counts are not kept here: [`State::run`] sums the counters.
    pub runs: BTreeMap<RunId, Run>,
    /// Parts that are loaded.
    pub ledger: BTreeMap<ShardId, Entry>,
    /// Target rows by table and key.
    pub targets: BTreeMap<String, BTreeMap<Key, TargetRow>>,
    /// Failed rows by run and ordinal.
    pub failures: BTreeMap<(RunId, u64), Failure>,
    /// Counts by run and slot.
    pub counters: BTreeMap<(RunId, u32), Counts>,
    /// Notices by event id.
    pub outbox: BTreeMap<String, Notice>,
    /// Keys that a constraint of the target rejects with code `CHECK`.
    pub rejected: BTreeSet<Key>,
}

/// A row of Runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The row as [`State::run`] gives it, with empty counts.
    pub row: RunRow,
    /// The greatest shard that refuses the run.
    pub refused_shard: Option<ShardIndex>,
}

/// A row of Ledger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// The generation of the answers object that was loaded.
    pub generation: Generation,
    /// What came of its rows.
    pub counts: Counts,
}

/// A row of a target table.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetRow {
    /// Answer columns. Those of earlier pipelines stay.
    pub values: Values,
    /// The run that wrote or confirmed it last.
    pub run: RunId,
    /// See [`tasuki_relay::record::Header::run_time`].
    pub run_time: Millis,
    /// Its position in that run's source.
    pub ordinal: u64,
    /// See [`tasuki_relay::record::Header::source_time`].
    pub source_time: Millis,
    /// The version of the model that answered.
    pub model: String,
    /// Hash of all that was asked.
    pub fingerprint: String,
    /// Tokens.
    pub usage: Usage,
    /// Picodollars, where known.
    pub cost: Option<u64>,
    /// When the answer was written.
    pub committed_at: Millis,
}

/// A row of Outbox.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The run that ended.
    pub run: RunId,
    /// When it was published first.
    pub published_at: Option<Millis>,
}

impl MemoryRecords {
    /// An empty store.
    pub fn new(clock: Clock) -> MemoryRecords {
        MemoryRecords { clock, state: Mutex::default() }
    }

    /// Looks at everything, between two calls.
    pub fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state())
    }

    /// From now on a constraint of every target table rejects `key`.
    pub fn reject(&self, key: Key) {
        self.state().rejected.insert(key);
    }

    /// A wrong store, for the tests of the tests: the rows of a part in a transaction of their own, without its ledger row.
    pub fn load_rows_only(&self, part: &Part) -> Result<Loaded, RecordsError> {
        let mut state = self.state();
        let loaded = state.load(part, self.clock.now());
        state.ledger.remove(&part.id);
        loaded
    }

    /// The other half of [`MemoryRecords::load_rows_only`].
    pub fn write_ledger_only(&self, part: &Part, counts: Counts) {
        self.state().ledger.insert(part.id.clone(), Entry { generation: part.generation, counts });
    }

    /// A wrong store, for the tests of the tests: takes a run to its end state whatever its state is.
    pub fn finish_whatever(&self, run: &RunId) -> Option<RunRow> {
        let mut state = self.state();
        if let Some(run) = state.runs.get_mut(run) {
            run.row.state = RunState::Running;
        }
        state.finish(run, self.clock.now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked while it looked has changed nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A run with the sum of its counters.
    pub fn run(&self, run: &RunId) -> Option<RunRow> {
        let mut row = self.runs.get(run)?.row.clone();
        for slot in 0..settle::SLOTS {
            row.counts += self.counters.get(&(run.clone(), slot)).copied().unwrap_or_default();
        }
        Some(row)
    }

    fn existing(&self, part: &Part) -> BTreeMap<Key, Existing> {
        let Some(table) = self.targets.get(&part.pipeline.table) else { return BTreeMap::new() };
        let row = |key: Key| {
            let row = table.get(&key)?;
            let TargetRow { source_time, run_time, run, fingerprint, .. } = row.clone();
            Some((key, Existing { source_time, run_time, run, fingerprint }))
        };
        settle::keys_to_read(part).into_iter().filter_map(row).collect()
    }

    fn load(&mut self, part: &Part, now: Millis) -> Result<Loaded, RecordsError> {
        if self.ledger.contains_key(&part.id) {
            return Ok(Loaded::Already);
        }
        settle::check_commit(part, 0)?;
        let existing = self.existing(part);
        let settled = settle(part, &existing);
        let written = settled.upserts.iter().map(|row| (row.ordinal, row.key));
        let written = written.chain(settled.touches.iter().map(|row| (row.ordinal, row.key)));
        let rejected: Vec<_> = written
            .filter(|(_, key)| self.rejected.contains(key))
            .map(|(ordinal, _)| (ordinal, "CHECK".to_owned()))
            .collect();
        if !rejected.is_empty() {
            return Err(RecordsError::Rejected(rejected));
        }

        // From here nothing fails: that is the commit.
        self.book_run(part, now);
        self.ledger.insert(part.id.clone(), Entry { generation: part.generation, counts: settled.counts });
        let run = &part.id.run;
        *self.counters.entry((run.clone(), settle::slot(part.id.shard))).or_default() += settled.counts;
        let table = self.targets.entry(part.pipeline.table.clone()).or_default();
        for row in &settled.upserts {
            upsert(table, part, row, now);
        }
        for touch in &settled.touches {
            if let Some(row) = table.get_mut(touch.key) {
                (row.source_time, row.run_time) = (part.header.source_time, part.header.run_time);
                (row.run, row.ordinal) = (run.clone(), touch.ordinal);
            }
        }
        self.failures.extend(settled.failures.into_iter().map(|failure| ((run.clone(), failure.ordinal), failure)));
        Ok(Loaded::Now(settled.counts))
    }

    /// The run of `header`, which is known from now on.
    fn open(&mut self, header: &Header, now: Millis) -> &mut Run {
        let new = || RunRow {
            run: header.run.clone(),
            pipeline: header.pipeline.clone(),
            input: header.input.clone(),
            source_time: header.source_time,
            run_time: header.run_time,
            state: RunState::Running,
            refused: None,
            expected_rows: None,
            expected_shards: None,
            opened_at: now,
            ended_at: None,
            counts: Counts::default(),
        };
        self.runs.entry(header.run.clone()).or_insert_with(|| Run { row: new(), refused_shard: None })
    }

    fn book_run(&mut self, part: &Part, now: Millis) {
        let header = &part.header;
        let run = self.open(header, now);
        if let Some(Totals { shards, rows }) = header.totals {
            (run.row.expected_shards, run.row.expected_rows) = (Some(shards), Some(rows));
        }
        if header.refused.is_some() && run.refused_shard < Some(part.id.shard) {
            (run.row.refused, run.refused_shard) = (header.refused.clone(), Some(part.id.shard));
        }
    }

    fn finish(&mut self, id: &RunId, now: Millis) -> Option<RunRow> {
        let mut row = self.run(id)?;
        let run = self.runs.get_mut(id)?;
        if !row.state.has_ended() {
            let totals = row.expected_shards.zip(row.expected_rows).map(|(shards, rows)| Totals { shards, rows });
            if let Some(state) = settle::end_state(run.refused_shard, totals, &row.counts) {
                (row.state, row.ended_at) = (state, Some(now));
                (run.row.state, run.row.ended_at) = (state, Some(now));
                let notice = Notice { run: id.clone(), published_at: None };
                self.outbox.insert(settle::event_id(id, state), notice);
            }
        }
        Some(row)
    }
}

fn upsert(table: &mut BTreeMap<Key, TargetRow>, part: &Part, row: &Upsert<'_>, now: Millis) {
    let mut values = table.remove(row.key).map(|before| before.values).unwrap_or_default();
    values.extend(row.answer.values.clone());
    let after = TargetRow {
        values,
        run: part.id.run.clone(),
        run_time: part.header.run_time,
        ordinal: row.ordinal,
        source_time: part.header.source_time,
        model: row.answer.model.clone(),
        fingerprint: row.answer.fingerprint.clone(),
        usage: row.spent.usage,
        cost: row.spent.known_cost(),
        committed_at: now,
    };
    table.insert(row.key.clone(), after);
}

#[async_trait]
impl Records for MemoryRecords {
    async fn load(&self, part: &Part) -> Result<Loaded, RecordsError> {
        self.state().load(part, self.clock.now())
    }

    async fn finish(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError> {
        Ok(self.state().finish(run, self.clock.now()))
    }

    async fn ledgered(&self, run: &RunId, shards: &[ShardIndex]) -> Result<BTreeSet<ShardIndex>, RecordsError> {
        let state = self.state();
        let there = |shard: &ShardIndex| state.ledger.contains_key(&ShardId { run: run.clone(), shard: *shard });
        Ok(shards.iter().copied().filter(there).collect())
    }

    async fn park(&self, header: &Header, marker: Generation) -> Result<(), RecordsError> {
        let mut state = self.state();
        let row = &mut state.open(header, self.clock.now()).row;
        if !row.state.has_ended() {
            row.state = RunState::Parked;
            let id = settle::parked_id(&header.run, marker);
            state.outbox.entry(id).or_insert(Notice { run: header.run.clone(), published_at: None });
        }
        Ok(())
    }

    async fn resume(&self, run: &RunId) -> Result<(), RecordsError> {
        if let Some(run) = self.state().runs.get_mut(run)
            && run.row.state == RunState::Parked
        {
            run.row.state = RunState::Running;
        }
        Ok(())
    }

    async fn unpublished(&self, run: Option<&RunId>) -> Result<Vec<Announcement>, RecordsError> {
        let state = self.state();
        let due = state
            .outbox
            .iter()
            .filter(|(_, notice)| notice.published_at.is_none() && run.is_none_or(|run| *run == notice.run));
        Ok(due.filter_map(|(id, notice)| settle::announcement(id.clone(), state.run(&notice.run)?)).collect())
    }

    async fn mark_published(&self, event_id: &str) -> Result<(), RecordsError> {
        let now = self.clock.now();
        if let Some(notice) = self.state().outbox.get_mut(event_id) {
            notice.published_at.get_or_insert(now);
        }
        Ok(())
    }
}

#[async_trait]
impl Fingerprints for MemoryRecords {
    async fn fingerprints(&self, pipeline: &Pipeline, keys: &[Key]) -> Result<BTreeMap<Key, String>, RecordsError> {
        let state = self.state();
        let Some(table) = state.targets.get(&pipeline.table) else { return Ok(BTreeMap::new()) };
        let found = |key: &Key| Some((key.clone(), table.get(key)?.fingerprint.clone()));
        Ok(keys.iter().filter_map(found).collect())
    }
}
