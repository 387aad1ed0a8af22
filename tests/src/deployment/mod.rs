//! A whole deployment on this machine: the three services as processes, the storage stand-in, Google's emulators of Spanner
//! and Pub/Sub, the scripted model server, and a relay of events that plays Eventarc and Cloud Scheduler.

mod bigquery;
mod chaos;
mod command;
mod eventarc;
mod notices;
mod service;
mod splitters;

pub use bigquery::Dataset;
pub use chaos::Chaos;
pub use command::{Desk, Done, ended};
pub use eventarc::{CALLER, Delivery, Eventarc};
pub use service::Service;
pub use splitters::Splitters;

use crate::emulators::Needs;
use crate::model_server::{ModelServer, Script};
use crate::oidc::Issuer;
use crate::proxy::Proxy;
use crate::spanner::Database;
use crate::storage_server::{StorageServer, fresh_buckets};
use anyhow::{Context, Result, bail, ensure};
use notices::Topic;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tasuki_google::objects::Buckets;
use tasuki_google::settings::Role;
use tasuki_relay::ddl;
use tasuki_relay::names::{self, RunId};
use tasuki_relay::pipeline::Pipeline;

/// A run that is not at its end after so long will not come to it. A limit against hanging, no measurement.
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The pipeline of these tests: two words for each row.
pub const PIPELINE: &str = r#"
name = "words"
key = "id"
[prompt]
template = "Two words for {{ text }}"
[answer.words]
type = "string"
count = 2
distinct = true
[run]
rows_per_shard = 20
[target]
table = "row_words"
"#;

/// How a deployment is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// How events are delivered.
    pub delivery: Delivery,
    /// With the Spanner emulator that aborts transactions at random.
    pub spanner_faults: bool,
    /// The splitter finds the store, which only pipelines with `only_changed` ask for. Elsewhere nobody listens where it is.
    pub splitter_reads_the_store: bool,
    /// Processes of the generator beside the first.
    pub more_generators: usize,
    /// Variables for all services beside the usual ones.
    pub variables: Vec<(&'static str, String)>,
}

fn lines(rows: impl Iterator<Item = u64>) -> String {
    rows.map(|row| format!("{{\"id\":\"k{row:06}\",\"text\":\"entry {row}\"}}\n")).collect()
}

/// What stands between the services and what they call.
pub struct Proxies {
    /// Spanner's emulator.
    pub spanner: Proxy,
    /// Pub/Sub's emulator.
    pub pubsub: Proxy,
    /// The model server.
    pub model: Proxy,
}

/// A deployment at work. Its processes end with it.
pub struct Deployment {
    /// The buckets.
    pub storage: StorageServer,
    /// Their names.
    pub buckets: Buckets,
    /// The store.
    pub database: Database,
    /// Between the services and the store, Pub/Sub, the model.
    pub proxies: Proxies,
    /// The model.
    pub model: ModelServer,
    /// The services, in the order of [`Role::ALL`].
    pub services: BTreeMap<&'static str, Service>,
    /// See [`Setup::more_generators`].
    pub generators: Vec<Service>,
    /// What calls them.
    pub eventarc: Eventarc,
    topic: Topic,
}

impl Deployment {
    /// Starts everything, with an empty store.
    pub async fn start(script: Script, setup: Setup) -> Result<Deployment> {
        let buckets = fresh_buckets();
        let names = [&buckets.inbox, &buckets.shards, &buckets.answers, &buckets.state].map(String::as_str);
        let storage = StorageServer::start(&names).await?;
        let needs = if setup.spanner_faults { Needs::SpannerWithFaults } else { Needs::Spanner };
        let database = Database::fresh(needs).await?;
        let pipeline = Pipeline::parse(PIPELINE).context("the tests' pipeline")?;
        database.apply(&ddl::target(&pipeline).ddl()).await?;
        storage.put(&buckets.state, &names::pipeline("words"), PIPELINE)?;
        let (model, issuer, topic) = (ModelServer::start(script).await?, Issuer::start().await?, Topic::fresh().await?);
        let proxies = Proxies {
            spanner: Proxy::start(database.host.clone()).await?,
            pubsub: Proxy::start(std::env::var("PUBSUB_EMULATOR_HOST")?).await?,
            model: Proxy::start(format!("127.0.0.1:{}", model.port())).await?,
        };
        let variables = [
            ("TASUKI_INBOX_BUCKET", buckets.inbox.clone()),
            ("TASUKI_SHARDS_BUCKET", buckets.shards.clone()),
            ("TASUKI_ANSWERS_BUCKET", buckets.answers.clone()),
            ("TASUKI_STATE_BUCKET", buckets.state.clone()),
            ("TASUKI_SPANNER_DATABASE", database.name.clone()),
            ("TASUKI_COMPLETED_TOPIC", topic.name.clone()),
            ("TASUKI_OIDC_EMAILS", eventarc::CALLER.to_owned()),
            ("TASUKI_OIDC_JWKS", issuer.jwks.clone()),
            ("GOOGLE_CLOUD_PROJECT", "tasuki-test".to_owned()),
            ("STORAGE_EMULATOR_HOST", storage.host()),
            ("SPANNER_EMULATOR_HOST", proxies.spanner.host()),
            ("PUBSUB_EMULATOR_HOST", proxies.pubsub.host()),
            ("GOOGLE_GEMINI_BASE_URL", format!("http://{}", proxies.model.host())),
        ];
        let variables: Vec<_> = variables.into_iter().chain(setup.variables).collect();
        let mut services = BTreeMap::new();
        for role in Role::ALL {
            let mut variables = variables.clone();
            if role == Role::Splitter && !setup.splitter_reads_the_store {
                variables.push(("SPANNER_EMULATOR_HOST", "127.0.0.1:1".to_owned()));
            }
            services.insert(role.as_str(), Service::start(role, &variables).await?);
        }
        let mut generators = Vec::new();
        for _ in 0..setup.more_generators {
            generators.push(Service::start(Role::Generator, &variables).await?);
        }
        let hosts = Role::ALL.map(|role| {
            let more = generators.iter().filter(|_| role == Role::Generator).map(Service::host);
            (role, std::iter::once(services[role.as_str()].host()).chain(more).collect())
        });
        let eventarc = Eventarc::start(storage.finalized(), &buckets, hosts.into(), setup.delivery);
        Ok(Deployment { storage, buckets, database, proxies, model, services, generators, eventarc, topic })
    }

    /// Drops a file in the inbox. Returns the run that it starts.
    pub fn drop_rows(&self, file: &str, rows: impl Iterator<Item = u64>) -> Result<RunId> {
        self.drop_file(file, lines(rows))
    }

    /// The same with any file.
    pub fn drop_file(&self, file: &str, text: String) -> Result<RunId> {
        let name = format!("words/{file}");
        let generation = self.storage.put(&self.buckets.inbox, &name, text)?;
        Ok(RunId::of(&self.buckets.inbox, &name, generation))
    }

    /// Waits until the run is at its end and its notice is out, and returns its state.
    pub async fn end_of(&self, run: &RunId) -> Result<String> {
        let clock = tasuki_relay::clock::Clock::system();
        let (start, open) = (clock.instant(), names::open(run));
        loop {
            for service in self.services.values() {
                service.is_alive()?;
            }
            let state = self.state(run).await?;
            let closed = !self.storage.names(&self.buckets.state).contains(&open);
            if let (Some(state), true) = (&state, closed)
                && state != "RUNNING"
            {
                return Ok(state.clone());
            }
            if clock.instant().duration_since(start) > PATIENCE {
                let objects: Vec<usize> = [&self.buckets.inbox, &self.buckets.shards, &self.buckets.answers]
                    .iter()
                    .map(|bucket| self.storage.names(bucket).len())
                    .collect();
                bail!(
                    "run {run} is {state:?} after {PATIENCE:?}; files, shards, answers: {objects:?}; {}\n{}",
                    self.eventarc.summary(),
                    self.logs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The state of a run in the store; `None` before anything of it is loaded.
    pub async fn state(&self, run: &RunId) -> Result<Option<String>> {
        let rows = self.database.query(&format!("SELECT state FROM Runs WHERE run = '{run}'")).await?;
        Ok(rows.first().and_then(|row| Some(row[0].as_str()?.to_owned())))
    }

    /// Sums over the counters of a run.
    pub async fn numbers<const N: usize>(&self, run: &RunId, sums: &str) -> Result<[u64; N]> {
        let rows = self.database.query(&format!("SELECT {sums} FROM Counters WHERE run = '{run}'")).await?;
        let row = rows.first().and_then(Value::as_array).context("sums are one row")?;
        let numbers = row.iter().map(|sum| sum.as_str().map_or(Ok(0), str::parse));
        let numbers: Vec<u64> = numbers.collect::<Result<_, _>>()?;
        numbers.try_into().ok().with_context(|| format!("{sums} are not {N}"))
    }

    /// The notices of a run that came until now.
    pub async fn notices(&self, run: &RunId) -> Result<Vec<Value>> {
        self.topic.of(run).await
    }

    /// The invariants that hold at a run's end, whatever went wrong on the way: every row in the store once, or in failures
    /// once; what was promised; one completion notice, by its id.
    pub async fn check_end(&self, run: &RunId, rows: u64) -> Result<()> {
        let one = async |sql: String| -> Result<i64> {
            let rows = self.database.query(&sql).await?;
            let number = rows.first().and_then(|row| row[0].as_str()?.parse().ok());
            number.with_context(|| format!("{sql} gives no number"))
        };
        let rows = i64::try_from(rows)?;
        let loaded = one(format!("SELECT COUNT(*) FROM row_words WHERE run = '{run}'")).await?;
        let failed = one(format!("SELECT COUNT(*) FROM Failures WHERE run = '{run}'")).await?;
        let both = one(format!(
            "SELECT COUNT(*) FROM row_words t JOIN Failures f ON t.ordinal = f.ordinal WHERE t.run = '{run}' AND f.run = '{run}'"
        ));
        ensure!(both.await? == 0, "rows are loaded and failed");
        let sum = |what| one(format!("SELECT SUM({what}) FROM Counters WHERE run = '{run}'"));
        ensure!(sum("loaded").await? == loaded, "the counters have another number of loaded rows than the table");
        ensure!(sum("failed").await? == failed, "the counters have another number of failures than the table");
        ensure!(loaded + failed == rows, "{loaded} loaded and {failed} failed of {rows}\n{}", self.logs());
        let shards = one(format!("SELECT COUNT(*) FROM Ledger WHERE run = '{run}'")).await?;
        ensure!(sum("shards").await? == shards, "the counters have another number of shards than the ledger");
        let notices = self.notices(run).await?;
        let ids: BTreeSet<&str> = notices.iter().filter_map(|notice| notice["attributes"]["ce-id"].as_str()).collect();
        ensure!(ids.len() == 1, "completion notices of the run: {notices:?}");
        Ok(())
    }

    /// All that may be read outside of the buckets and the store: what the services wrote and replied, notices, and of every
    /// object what an event of it tells.
    pub async fn texts_of(&self, runs: &[&RunId]) -> Result<Vec<(String, String)>> {
        let mut texts = vec![("the replies".to_owned(), self.eventarc.replies())];
        texts.extend(self.services.iter().map(|(role, service)| (format!("the {role}"), service.output())));
        for run in runs {
            texts.push((format!("the notice of {run}"), format!("{:?}", self.notices(run).await?)));
        }
        let buckets = [&self.buckets.inbox, &self.buckets.shards, &self.buckets.answers, &self.buckets.state];
        for bucket in buckets {
            texts.push((format!("names in {bucket}"), self.storage.resources(bucket)));
        }
        Ok(texts)
    }

    /// What the services said until now, for a test that failed.
    pub fn logs(&self) -> String {
        self.services.iter().map(|(role, service)| format!("--- {role}\n{}", service.tail())).collect()
    }
}
