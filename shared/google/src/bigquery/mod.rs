//! BigQuery as a source: a dry run, one job that copies the rows into a staging table in parts, and the Storage Read API.

mod fault;
mod job;
mod json;
mod read;
mod rest;
mod settings;
mod sql;
mod wall;

pub use settings::{Allowed, BYTES_MAX_DEFAULT, DatasetName, NotAName, STREAMS, Settings};

use crate::connect::Endpoint;
use async_trait::async_trait;
use fault::{About, Failure, JobFault};
use job::{Job, Standing};
use read::Reading;
use rest::{QUERY_TIMEOUT, Rest};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::ops::Range;
use tasuki_relay::clock::Millis;
use tasuki_relay::names;
use tasuki_relay::ports::{Checked, Order, PartRow, RowsError, Snapshots, Taking};
use tasuki_relay::record::Snapshot;
use tasuki_relay::source::Source;
use tokio::sync::OnceCell;

/// Snapshots of BigQuery's tables.
#[derive(Debug)]
pub struct BigQuery {
    settings: Settings,
    rest: Rest,
    reading: Reading,
    /// Where the staging dataset lies: a job is found only there.
    location: OnceCell<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("BigQuery's clients cannot be made: {0}")]
pub struct NoClient(&'static str);

impl BigQuery {
    /// `rest` is BigQuery's REST API, `storage` its Storage Read API (gRPC).
    pub async fn new(settings: Settings, rest: Endpoint, storage: Endpoint) -> Result<BigQuery, NoClient> {
        let rest = Rest::new(rest).map_err(|_| NoClient("REST"))?;
        let reading = Reading::new(storage, &settings).await.map_err(|_| NoClient("Storage Read API"))?;
        Ok(BigQuery { settings, rest, reading, location: OnceCell::new() })
    }

    async fn location(&self) -> Result<&str, RowsError> {
        #[derive(Deserialize)]
        struct Dataset {
            location: String,
        }
        let staging = &self.settings.staging;
        let path = format!("{}/datasets/{}", staging.project, staging.dataset);
        let dataset = || async {
            let dataset = self.rest.get::<Dataset>(&path).await;
            dataset.map(|dataset| dataset.location).map_err(|failure| failure.rows_error(About::Setup))
        };
        self.location.get_or_try_init(dataset).await.map(String::as_str)
    }

    /// The job of this id; `None` when there is none.
    async fn job(&self, id: &str, location: &str) -> Result<Option<Job>, RowsError> {
        match self.rest.get(&format!("{}/jobs/{id}?location={location}", self.settings.project)).await {
            Ok(job) => Ok(Some(job)),
            Err(Failure { status: Some(404), .. }) => Ok(None),
            Err(failure) => Err(failure.rows_error(About::Setup)),
        }
    }

    async fn insert(&self, id: &str, location: &str, order: &Order) -> Result<Job, RowsError> {
        let body = json!({
            "jobReference": self.reference(Some(id), location),
            "configuration": {
                "labels": {"tasuki-run": order.run},
                "query": {
                    "query": sql::job(&self.settings.staging, order),
                    "useLegacySql": false,
                    "maximumBytesBilled": self.settings.bytes_max.to_string(),
                },
            },
        });
        match self.rest.post(&self.path("jobs"), &body).await {
            Ok(job) => Ok(job),
            // It is there since we looked, or since an insertion whose reply was lost.
            Err(Failure { status: Some(409), .. }) => {
                let found = self.job(id, location).await?;
                found.ok_or_else(|| RowsError::Unknown("the job is said to exist, yet absent".into()))
            }
            Err(failure) => Err(failure.rows_error(About::Setup)),
        }
    }

    fn path(&self, collection: &str) -> String {
        format!("{}/{collection}", self.settings.project)
    }

    fn reference(&self, id: Option<&str>, location: &str) -> Value {
        let mut reference = json!({"projectId": self.settings.project, "location": location});
        if let Some(id) = id {
            reference["jobId"] = id.into();
        }
        reference
    }

    /// Bytes of a snapshot's table.
    async fn size(&self, job: &str) -> Result<u64, RowsError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Table {
            #[serde(default)]
            num_bytes: String,
        }
        let staging = &self.settings.staging;
        let path = format!("{}/datasets/{}/tables/{}", staging.project, staging.dataset, sql::table_id(job));
        let table: Table = self.rest.get(&path).await.map_err(|failure| failure.rows_error(About::Setup))?;
        // A number that is absent is no size: the rows alone decide then.
        Ok(table.num_bytes.parse().unwrap_or(0))
    }

    /// Rows by part.
    async fn count(&self, job: &str, location: &str, parts: u32) -> Result<Vec<u64>, RowsError> {
        let body = json!({
            "query": sql::count(&self.settings.staging, job),
            "useLegacySql": false,
            "timeoutMs": QUERY_TIMEOUT.as_millis() as u64,
            "location": location,
        });
        let counted: Counted =
            self.rest.post(&self.path("queries"), &body).await.map_err(|failure| failure.rows_error(About::Setup))?;
        counted.by_part(parts).ok_or_else(|| RowsError::Unknown("the snapshot's rows are not counted yet".into()))
    }
}

/// A reply of `jobs.query` with rows of (part, rows).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counted {
    #[serde(default)]
    job_complete: bool,
    #[serde(default)]
    total_rows: String,
    #[serde(default)]
    rows: Vec<Row>,
    #[serde(default)]
    errors: Vec<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Row {
    f: [Cell; 2],
}

#[derive(Debug, Deserialize)]
struct Cell {
    v: String,
}

impl Counted {
    /// `None` when the reply does not hold every count once.
    fn by_part(&self, parts: u32) -> Option<Vec<u64>> {
        let mut counts = vec![0; parts as usize];
        if !self.job_complete || !self.errors.is_empty() || self.total_rows != self.rows.len().to_string() {
            return None;
        }
        for Row { f: [part, rows] } in &self.rows {
            *counts.get_mut(part.v.parse::<usize>().ok()?)? = rows.v.parse().ok()?;
        }
        Some(counts)
    }
}

#[async_trait]
impl Snapshots for BigQuery {
    async fn check(&self, source: &Source) -> Result<Checked, RowsError> {
        #[derive(Deserialize)]
        struct Dry {
            #[serde(default)]
            statistics: wall::Statistics,
        }
        let select = sql::select(source);
        let location = self.location().await?;
        let query = json!({"query": select, "useLegacySql": false});
        let body = json!({
            "jobReference": self.reference(None, location),
            "configuration": {"dryRun": true, "query": query},
        });
        let dry: Dry =
            self.rest.post(&self.path("jobs"), &body).await.map_err(|failure| failure.rows_error(About::Source))?;
        wall::pass(&self.settings, &select, dry.statistics).map_err(RowsError::Refused)
    }

    async fn take(&self, order: &Order) -> Result<Taking, RowsError> {
        let (id, location) = (names::snapshot_job(&order.run, order.attempt), self.location().await?);
        let job = match self.job(&id, location).await? {
            Some(job) => job,
            None => self.insert(&id, location, order).await?,
        };
        let standing = job.standing().ok_or_else(|| RowsError::Unknown("a job does not say when it ran".into()))?;
        match standing {
            Standing::Running => Ok(Taking::Pending),
            Standing::Failed(JobFault::Passes(reason), ended) => Ok(Taking::Failed { ended, reason }),
            Standing::Failed(JobFault::Refused(words), _) => {
                Err(RowsError::Refused(format!("BigQuery did not take the snapshot: {words}: mend the source")))
            }
            Standing::Done(source_time) => {
                let rows = self.count(&id, location, order.parts).await?;
                let bytes = self.size(&id).await?;
                Ok(Taking::Ready { snapshot: snapshot(order, id, source_time, rows), bytes })
            }
        }
    }

    async fn read(&self, snapshot: &Snapshot, part: u32, rows: Range<u64>) -> Result<Vec<PartRow>, RowsError> {
        self.reading.read(&snapshot.job, part, rows).await
    }
}

fn snapshot(order: &Order, job: String, source_time: Millis, rows: Vec<u64>) -> Snapshot {
    Snapshot { run: order.run.clone(), job, source_time, rows }
}
