//! The store of the embedded relay: one SQLite file. [`Store`] writes it, [`Reader`] looks at it meanwhile.

mod fault;
mod load;
mod reader;
mod rows;
mod runs;
mod target;

pub use reader::Reader;

use async_trait::async_trait;
use fault::Fault;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::names::{RunId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Announcement, Fingerprints, Generation, Loaded, Part, Records, RecordsError, RunRow};
use tasuki_relay::record::{Header, Key};
use tokio::sync::Mutex;

/// How long a call waits for another process that writes: longer than any transaction of ours.
const BUSY: Duration = Duration::from_secs(10);

/// Prepared statements kept: about twenty of ours and three for each target table.
const STATEMENTS: usize = 64;

/// The version of `schema.sql`, in the file's `user_version`; 0 is a file without it.
const SCHEMA: i64 = 2;

/// [`Records`] on a SQLite file. One connection: SQLite has one writer at a time anyway.
#[derive(Debug)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    clock: Clock,
}

impl Store {
    /// Opens the store at `path`, or makes it; its folder must exist.
    pub fn open(path: &Path, clock: Clock) -> Result<Store, RecordsError> {
        let connection = connect(path).map_err(|Fault(error)| error)?;
        Ok(Store { connection: Arc::new(Mutex::new(connection)), clock })
    }

    /// Makes the pipeline's target table, or the columns that it lacks.
    ///
    /// # Errors
    /// Where the table cannot take the pipeline's answers: says why, and the mend.
    pub async fn prepare(&self, pipeline: &Pipeline) -> Result<(), RecordsError> {
        let pipeline = pipeline.clone();
        self.transact(move |transaction, _| target::ensure(transaction, &pipeline)).await
    }

    /// One transaction, on a thread that may wait for the disk; rolled back if `work` fails.
    async fn transact<T, W>(&self, work: W) -> Result<T, RecordsError>
    where
        T: Send + 'static,
        W: FnOnce(&Transaction<'_>, Millis) -> Result<T, Fault> + Send + 'static,
    {
        self.blocking(|connection, now| {
            // IMMEDIATE: a transaction that reads first and writes later would fail if another wrote in between.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&transaction, now)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }

    async fn blocking<T, W>(&self, work: W) -> Result<T, RecordsError>
    where
        T: Send + 'static,
        W: FnOnce(&mut Connection, Millis) -> Result<T, Fault> + Send + 'static,
    {
        // Waiting here, not on the thread: hundreds of parts may queue.
        let mut connection = self.connection.clone().lock_owned().await;
        let now = self.clock.now();
        let done = tokio::task::spawn_blocking(move || work(&mut connection, now)).await;
        done.map_err(|_| RecordsError::Unknown("the store's thread ended early".into()))?.map_err(|Fault(error)| error)
    }
}

fn connect(path: &Path) -> Result<Connection, Fault> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A crash of the process loses nothing. A loss of power may lose the last parts, and the sweep loads them again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    if version(&connection)? < SCHEMA {
        // Within the transaction it is looked at again: another process may have been first.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        match version(&transaction)? {
            0 => transaction.execute_batch(include_str!("schema.sql"))?,
            1 => transaction.execute_batch(include_str!("schema_2.sql"))?,
            _ => (),
        }
        transaction.commit()?;
    }
    Ok(connection)
}

/// The file's schema: 0 for none yet, at most [`SCHEMA`].
fn version(connection: &Connection) -> Result<i64, Fault> {
    let version = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0..=SCHEMA => Ok(version),
        other => Err(Fault(RecordsError::Systemic(format!(
            "the store's file has schema {other}, this Tasuki knows {SCHEMA}: use the version that wrote it, or another directory"
        )))),
    }
}

#[async_trait]
impl Records for Store {
    async fn load(&self, part: &Part) -> Result<Loaded, RecordsError> {
        let part = part.clone();
        self.transact(move |transaction, now| load::load(transaction, &part, now)).await
    }

    async fn finish(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError> {
        let run = run.clone();
        self.transact(move |transaction, now| runs::finish(transaction, &run, now)).await
    }

    async fn ledgered(&self, run: &RunId, shards: &[ShardIndex]) -> Result<BTreeSet<ShardIndex>, RecordsError> {
        let (run, shards) = (run.clone(), shards.to_vec());
        self.blocking(move |connection, _| Ok(runs::ledgered(connection, &run, &shards)?)).await
    }

    async fn park(&self, header: &Header, marker: Generation) -> Result<(), RecordsError> {
        let header = header.clone();
        self.transact(move |transaction, now| Ok(runs::park(transaction, &header, marker, now)?)).await
    }

    async fn resume(&self, run: &RunId) -> Result<(), RecordsError> {
        let run = run.clone();
        self.transact(move |transaction, _| Ok(runs::resume(transaction, &run)?)).await
    }

    async fn unpublished(&self, run: Option<&RunId>) -> Result<Vec<Announcement>, RecordsError> {
        let run = run.cloned();
        self.blocking(move |connection, _| runs::unpublished(connection, run.as_ref())).await
    }

    async fn mark_published(&self, event_id: &str) -> Result<(), RecordsError> {
        let event_id = event_id.to_owned();
        self.blocking(move |connection, now| {
            // The run's `open/` object goes next and no sweep looks at the run again: from here its end must survive
            // a loss of power, and with it all that was committed before.
            connection.pragma_update(None, "synchronous", "FULL")?;
            let marked = connection
                .prepare_cached("UPDATE Outbox SET published_at = ? WHERE event_id = ? AND published_at IS NULL")?
                .execute(params![now.to_string(), event_id]);
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            marked?;
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Fingerprints for Store {
    async fn fingerprints(&self, pipeline: &Pipeline, keys: &[Key]) -> Result<BTreeMap<Key, String>, RecordsError> {
        let (pipeline, keys) = (pipeline.clone(), keys.to_vec());
        self.blocking(move |connection, _| rows::fingerprints(connection, &pipeline, keys)).await
    }
}
