//! Several splitters as processes on one snapshot of BigQuery, all of it stand-ins: rows are made when they are read.

use super::eventarc::CALLER;
use super::{Delivery, Eventarc, PIPELINE, Service};
use crate::bigquery_server::{self, BigQueryServer, PROJECT};
use crate::oidc::Issuer;
use crate::read_api::ReadApi;
use crate::storage_server::{StorageServer, fresh_buckets};
use anyhow::Result;
use serde_json::json;
use tasuki_google::objects::Buckets;
use tasuki_google::settings::Role;
use tasuki_relay::names::{self, RunId};

/// Of the shards here.
const ROWS_PER_SHARD: u32 = 1_000;
/// Bytes of a source that the splitter plans a part for.
const PART_BYTES: u64 = 8 << 20;

/// Splitters at work. Their processes end with it.
pub struct Splitters {
    /// The buckets; large objects are on disk.
    pub storage: StorageServer,
    /// Their names.
    pub buckets: Buckets,
    /// BigQuery's REST API.
    pub bigquery: BigQueryServer,
    /// Its rows; each service is a reader.
    pub read: ReadApi,
    /// The processes.
    pub services: Vec<Service>,
    /// What calls them in turn.
    pub eventarc: Eventarc,
}

impl Splitters {
    /// Starts `count` of them; the snapshot has so many rows by part, and a claim this lease in seconds.
    pub async fn start(count: usize, rows: Vec<u64>, lease: u32, delivery: Delivery) -> Result<Splitters> {
        let buckets = fresh_buckets();
        let names = [&buckets.inbox, &buckets.shards, &buckets.answers, &buckets.state].map(String::as_str);
        let storage = StorageServer::start(&names).await?;
        storage.on_disk()?;
        let pipeline = PIPELINE.replace("rows_per_shard = 20", &format!("rows_per_shard = {ROWS_PER_SHARD}"));
        storage.put(&buckets.state, &names::pipeline("words"), pipeline)?;
        let (bigquery, read) = (BigQueryServer::start(script(rows)).await?, ReadApi::start(count).await?);
        let issuer = Issuer::start().await?;
        let variables = [
            ("TASUKI_INBOX_BUCKET", buckets.inbox.clone()),
            ("TASUKI_SHARDS_BUCKET", buckets.shards.clone()),
            ("TASUKI_ANSWERS_BUCKET", buckets.answers.clone()),
            ("TASUKI_STATE_BUCKET", buckets.state.clone()),
            ("TASUKI_BIGQUERY_SOURCES", format!("{PROJECT}.shop")),
            ("TASUKI_BIGQUERY_STAGING", format!("{PROJECT}.staging")),
            ("TASUKI_LEASE", lease.to_string()),
            ("TASUKI_OIDC_EMAILS", CALLER.to_owned()),
            ("TASUKI_OIDC_JWKS", issuer.jwks.clone()),
            ("GOOGLE_CLOUD_PROJECT", PROJECT.to_owned()),
            ("STORAGE_EMULATOR_HOST", storage.host()),
            ("BIGQUERY_EMULATOR_HOST", bigquery.host()),
        ];
        let mut services = Vec::new();
        for reader in 0..count {
            let own = ("BIGQUERY_STORAGE_EMULATOR_HOST", read.host(reader).to_owned());
            let variables: Vec<_> = variables.iter().cloned().chain([own]).collect();
            services.push(Service::start(Role::Splitter, &variables).await?);
        }
        let hosts = services.iter().map(Service::host).collect();
        let eventarc = Eventarc::start(storage.finalized(), &buckets, vec![(Role::Splitter, hosts)], delivery);
        Ok(Splitters { storage, buckets, bigquery, read, services, eventarc })
    }

    /// Drops the run file. Returns the run that it starts.
    pub fn drop_run(&self) -> Result<RunId> {
        let (name, text) = ("words/products.run.toml", format!("[source]\ntable = \"{PROJECT}.shop.products\"\n"));
        let generation = self.storage.put(&self.buckets.inbox, name, text)?;
        Ok(RunId::of(&self.buckets.inbox, name, generation))
    }

    /// Shards that are there.
    pub fn shards(&self) -> usize {
        self.storage.names(&self.buckets.shards).len()
    }

    /// The split is marked as ended.
    pub fn has_ended(&self, run: &RunId) -> bool {
        let claim = self.storage.body(&self.buckets.state, &names::split(run));
        let claim = claim.and_then(|body| serde_json::from_slice::<serde_json::Value>(&body).ok());
        claim.is_some_and(|claim| claim["state"] == "ended")
    }

    /// What the services said until now, for a test that failed.
    pub fn logs(&self) -> String {
        self.services.iter().map(|service| format!("---\n{}", service.tail())).collect()
    }
}

/// A source that is planned for as many parts as there are counts.
fn script(rows: Vec<u64>) -> bigquery_server::Script {
    let statistics = json!({
        "totalBytesProcessed": (rows.len() as u64 * PART_BYTES).to_string(),
        "query": {
            "statementType": "SELECT",
            "referencedTables": [{"projectId": PROJECT, "datasetId": "shop", "tableId": "products"}],
            "schema": {"fields": [{"name": "id", "type": "STRING"}, {"name": "text", "type": "STRING"}]},
        },
    });
    bigquery_server::Script {
        dry_run: Ok(statistics),
        inserts: Default::default(),
        bytes: rows.len() as u64 * PART_BYTES,
        counts: (true, rows),
        has_staging: true,
    }
}
