//! The store in Google Cloud: [`SpannerRecords`], and [`SpannerBooks`] to look at it, on Tasuki's own tables ([`schema`]) and one target table per
//! pipeline.

mod fault;
mod load;
mod pool;
mod reader;
mod rejects;
mod rows;
mod runs;
pub mod schema;
mod target;

pub use reader::SpannerBooks;

use crate::connect::Endpoint;
use async_trait::async_trait;
use fault::Fault;
use futures::FutureExt;
use futures::future::try_join_all;
use google_cloud_spanner::client::DatabaseClient;
use google_cloud_spanner::key::KeySet;
use google_cloud_spanner::read::ReadRequest;
use google_cloud_spanner::transaction::ReadWriteTransaction;
use pool::Pool;
use runs::Standing;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use target::Targets;
use tasuki_relay::names::{RunId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Announcement, Fingerprints, Generation, Loaded, Part, Records, RecordsError, RunRow};
use tasuki_relay::record::{Header, Key};
use tasuki_relay::settle;

/// Keys of one read: 1 MB at most, of the 10 MiB that a request may have (Spanner quotas page).
const KEYS_AT_ONCE: usize = 1_000;

/// [`Records`] on a Spanner database.
#[derive(Debug)]
pub struct SpannerRecords {
    transactions: Arc<Pool>,
    /// For reads of one request, which disturb nobody: any number at once.
    reads: DatabaseClient,
    targets: Targets,
}

impl SpannerRecords {
    /// Opens `database` (`projects/…/instances/…/databases/…`), as the fine-grained role `role` if one is given. At
    /// most `transactions_at_once` transactions run at once, at least one; the others wait. Each has a session of its
    /// own.
    ///
    /// # Errors
    /// `Systemic` says what to do; `Unknown` when Spanner does not answer in 20 s.
    pub async fn connect(
        database: &str,
        endpoint: Endpoint,
        transactions_at_once: usize,
        role: Option<&str>,
    ) -> Result<SpannerRecords, RecordsError> {
        let spanner = pool::spanner(endpoint).await?;
        let clients = (0..=transactions_at_once.max(1)).map(|_| pool::client(&spanner, database, role));
        let mut clients = try_join_all(clients).await.map_err(Fault::from)?;
        let reads = clients.pop().expect("there are at least two");
        Ok(SpannerRecords { transactions: Pool::new(clients), reads, targets: Targets::default() })
    }

    /// [`Records::load`], but for the ledger's last word.
    async fn try_load(&self, part: &Part) -> Result<Loaded, RecordsError> {
        let indexed = match settle::keys_to_read(part).is_empty() {
            true => 0,
            false => self.targets.fitting(&self.reads, &part.pipeline).await?.indexed,
        };
        settle::check_commit(part, indexed)?;
        let part = Arc::new(part.clone());
        let loaded = {
            let (client, part) = (self.transactions.lend().await, part.clone());
            let attempt = move |transaction: ReadWriteTransaction| load::attempt(transaction, part.clone()).boxed();
            client.transaction("tasuki-load").run(attempt).await.map_err(Fault::from)
        };
        match loaded {
            Ok(loaded) => loaded.result,
            Err(fault @ (Fault::Passing(_) | Fault::Denied(_))) => Err(fault.into()),
            Err(fault @ (Fault::Absent | Fault::Refused(_))) => Err(self.explain(&part, fault).await?),
        }
    }

    /// Why Spanner refused the part: its table has changed, or some of its rows breach a constraint.
    async fn explain(&self, part: &Arc<Part>, fault: Fault) -> Result<RecordsError, RecordsError> {
        self.targets.forget(&part.pipeline);
        if !settle::keys_to_read(part).is_empty() {
            self.targets.fitting(&self.reads, &part.pipeline).await?;
        }
        let Fault::Refused(code) = fault else {
            return Ok(RecordsError::Unknown("Spanner: NOT_FOUND, though the tables are there".into()));
        };
        let rejected = rejects::find(&self.transactions, part).await?;
        Ok(match rejected.is_empty() {
            false => RecordsError::Rejected(rejected),
            true => RecordsError::Systemic(format!(
                "Spanner refuses shard {} as a whole and none of its rows alone ({code}): lower `rows_per_shard` under [run] in \
                 pipeline {}, or look for what table {} demands of several rows at once",
                part.id, part.pipeline.name, part.pipeline.table
            )),
        })
    }

    async fn standing(&self, run: &RunId) -> Result<Option<Standing>, Fault> {
        Ok(runs::standing(self.reads.single_use().build().execute_query(runs::ask(run)).await?).await?)
    }
}

#[async_trait]
impl Records for SpannerRecords {
    async fn load(&self, part: &Part) -> Result<Loaded, RecordsError> {
        match self.try_load(part).await {
            // Loaded is loaded, whatever became of the table since, and whatever a repeated commit was told.
            Err(error @ (RecordsError::Systemic(_) | RecordsError::Rejected(_))) => {
                let ledger = self.ledgered(&part.id.run, &[part.id.shard]).await?;
                if ledger.is_empty() { Err(error) } else { Ok(Loaded::Already) }
            }
            other => other,
        }
    }

    async fn finish(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError> {
        // Almost every part is not the last one: a read tells, and locks no counter.
        let standing = self.standing(run).await?;
        if standing.as_ref().is_none_or(|standing| standing.end_state().is_none()) {
            return Ok(standing.map(|standing| standing.row));
        }
        {
            let (client, run) = (self.transactions.lend().await, run.clone());
            let end = move |transaction: ReadWriteTransaction| runs::end(transaction, run.clone()).boxed();
            client.transaction("tasuki-finish").run(end).await.map_err(Fault::from)?;
        }
        Ok(self.standing(run).await?.map(|standing| standing.row))
    }

    async fn ledgered(&self, run: &RunId, shards: &[ShardIndex]) -> Result<BTreeSet<ShardIndex>, RecordsError> {
        let mut there = BTreeSet::new();
        for some in shards.chunks(KEYS_AT_ONCE) {
            there.extend(self.some_ledgered(run, some).await?);
        }
        Ok(there)
    }

    async fn park(&self, header: &Header, marker: Generation) -> Result<(), RecordsError> {
        let (client, header) = (self.transactions.lend().await, header.clone());
        let park = move |transaction: ReadWriteTransaction| runs::park(transaction, header.clone(), marker).boxed();
        client.transaction("tasuki-park").run(park).await.map_err(Fault::from)?;
        Ok(())
    }

    async fn resume(&self, run: &RunId) -> Result<(), RecordsError> {
        let (client, run) = (self.transactions.lend().await, run.clone());
        let resume = move |transaction: ReadWriteTransaction| runs::resume(transaction, run.clone()).boxed();
        client.transaction("tasuki-resume").run(resume).await.map_err(Fault::from)?;
        Ok(())
    }

    async fn unpublished(&self, run: Option<&RunId>) -> Result<Vec<Announcement>, RecordsError> {
        let mut announcements = Vec::new();
        for (event_id, run) in self.due(run).await? {
            let standing = self.standing(&run).await?;
            announcements.extend(standing.and_then(|standing| settle::announcement(event_id, standing.row)));
        }
        Ok(announcements)
    }

    async fn mark_published(&self, event_id: &str) -> Result<(), RecordsError> {
        let (client, event_id) = (self.transactions.lend().await, event_id.to_owned());
        let mark = move |transaction: ReadWriteTransaction| runs::mark(transaction, event_id.clone()).boxed();
        client.transaction("tasuki-notice").run(mark).await.map_err(Fault::from)?;
        Ok(())
    }
}

#[async_trait]
impl Fingerprints for SpannerRecords {
    async fn fingerprints(&self, pipeline: &Pipeline, keys: &[Key]) -> Result<BTreeMap<Key, String>, RecordsError> {
        // A table that does not fit is found here already, before anything is paid for.
        if self.targets.look(&self.reads, pipeline).await?.is_none() {
            return Ok(BTreeMap::new());
        }
        let mut found = BTreeMap::new();
        for some in keys.chunks(KEYS_AT_ONCE) {
            let some = self.some_fingerprints(pipeline, some).await;
            if some.is_err() {
                self.targets.forget(pipeline); // it may have changed meanwhile: the next call looks anew
            }
            found.extend(some?);
        }
        Ok(found)
    }
}

/// Calls of one request each.
impl SpannerRecords {
    async fn some_ledgered(&self, run: &RunId, shards: &[ShardIndex]) -> Result<Vec<ShardIndex>, Fault> {
        let keys = shards.iter().fold(KeySet::builder(), |set, shard| set.add_key(rows::of_run(run.as_str(), shard.0)));
        let read = ReadRequest::builder("Ledger", vec!["shard"]).with_keys(keys.build());
        let read = read.with_retry_policy(pool::patience()).build();
        let mut rows = self.reads.single_use().build().execute_read(read).await?;
        let mut there = Vec::new();
        while let Some(row) = rows.next().await.transpose()? {
            there.extend(u32::try_from(row.get::<i64>("shard")?).ok().map(ShardIndex));
        }
        Ok(there)
    }

    async fn due(&self, run: Option<&RunId>) -> Result<Vec<(String, RunId)>, Fault> {
        let found = self.reads.single_use().build().execute_query(runs::ask_unpublished(run)).await?;
        Ok(runs::unpublished(found).await?)
    }

    async fn some_fingerprints(&self, pipeline: &Pipeline, keys: &[Key]) -> Result<Vec<(Key, String)>, Fault> {
        let read = rows::read_fingerprints(pipeline, keys);
        let found = self.reads.single_use().build().execute_read(read).await?;
        Ok(rows::fingerprints(pipeline, found).await?)
    }
}
