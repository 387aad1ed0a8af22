//! What an operator asks of the store. Rows of a large run come page by page along a primary key, so that each request is short
//! whatever the run's size, and no index of ours is needed.

use super::fault::Fault;
use super::rows::{self, time_out, uint};
use super::target::Targets;
use super::{pool, runs};
use crate::connect::Endpoint;
use async_trait::async_trait;
use google_cloud_spanner::client::DatabaseClient;
use google_cloud_spanner::result::{ResultSet, Row};
use google_cloud_spanner::statement::{Statement, StatementBuilder};
use google_cloud_spanner::types;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tasuki_relay::books::{Books, Each, FailureRow, LoadedParts, ResultRow};
use tasuki_relay::ddl::{Table, quoted};
use tasuki_relay::names::RunId;
use tasuki_relay::pipeline::{KeyType, Pipeline};
use tasuki_relay::ports::{RecordsError, RunRow};
use tasuki_relay::record::Key;

/// Rows of one request: about 10 MB of answers at 1 KB each.
const PAGE: u64 = 10_000;
/// One request may take so long: where few rows of a large table are the run's, a page reads much of the table.
const PAGE_TIME: Duration = Duration::from_secs(300);

/// [`Books`] on a Spanner database: reads only.
#[derive(Debug)]
pub struct SpannerBooks {
    client: DatabaseClient,
    targets: Targets,
}

impl SpannerBooks {
    /// Opens `database` (`projects/…/instances/…/databases/…`), as the fine-grained role `role` if one is given.
    ///
    /// # Errors
    /// `Systemic` says what to do; `Unknown` when Spanner does not answer in 20 s.
    pub async fn connect(database: &str, endpoint: Endpoint, role: Option<&str>) -> Result<SpannerBooks, RecordsError> {
        let spanner = pool::spanner(endpoint).await?;
        let client = pool::client(&spanner, database, role).await.map_err(Fault::from)?;
        Ok(SpannerBooks { client, targets: Targets::default() })
    }

    /// Whether the pipeline's target table can take its answers; `false` when there is none that this account may see.
    ///
    /// # Errors
    /// `Systemic` when it does not fit: says how, and the mend.
    pub async fn fits(&self, pipeline: &Pipeline) -> Result<bool, RecordsError> {
        Ok(self.targets.look(&self.client, pipeline).await?.is_some())
    }

    /// The table of this name as the database has it; `None` when there is none that this account may see.
    pub async fn table(&self, name: &str) -> Result<Option<Table>, RecordsError> {
        Ok(super::target::find(&self.client, name).await?.map(|found| found.table))
    }

    async fn ask(&self, statement: StatementBuilder) -> Result<ResultSet, Fault> {
        let statement = statement.with_retry_policy(pool::patience_of(PAGE_TIME)).with_attempt_timeout(PAGE_TIME);
        Ok(self.client.single_use().build().execute_query(statement.build()).await?)
    }

    /// One page of failures behind `after`.
    async fn page_of_failures(&self, run: &RunId, after: Option<i64>, most: u64) -> Result<Vec<FailureRow>, Fault> {
        let sql = "SELECT ordinal, key, reason, message, attempts FROM Failures \
                   WHERE run = @run AND ordinal > @after ORDER BY ordinal LIMIT @most";
        let statement = Statement::builder(sql).add_param("run", run.to_string());
        let statement = statement.add_param("after", after.unwrap_or(-1)).add_param("most", rows::int(most));
        let (mut found, mut page) = (self.ask(statement).await?, Vec::new());
        while let Some(row) = found.next().await.transpose()? {
            page.push(FailureRow {
                ordinal: uint(row.get("ordinal")?),
                key: row.get::<Option<String>>("key")?.map(Key::Text),
                reason: row.get("reason")?,
                message: row.get("message")?,
                attempts: u32::try_from(row.get::<i64>("attempts")?).unwrap_or(u32::MAX),
            });
        }
        Ok(page)
    }

    /// One page of answers behind `after`. A column of the pipeline that the table lacks is NULL.
    async fn page_of_results(
        &self,
        (pipeline, there): (&Pipeline, &Table),
        run: &RunId,
        after: Option<&Key>,
        most: u64,
    ) -> Result<Vec<ResultRow>, Fault> {
        let key = quoted(&pipeline.key);
        let answers: String = pipeline
            .answer
            .iter()
            .filter(|column| there.column(&column.name).is_some())
            .map(|column| format!(", {}", quoted(&column.name)))
            .collect();
        let behind = if after.is_some() { format!("AND {key} > @after") } else { String::new() };
        let sql = format!(
            "SELECT model, ordinal, {key}{answers} FROM {} WHERE run = @run {behind} ORDER BY {key} LIMIT @most",
            quoted(&pipeline.table)
        );
        let statement = Statement::builder(sql).add_param("run", run.to_string()).add_param("most", rows::int(most));
        let statement = match after {
            Some(after) => statement.add_param("after", rows::key_out(after)),
            None => statement,
        };
        let (mut found, mut page) = (self.ask(statement).await?, Vec::new());
        while let Some(row) = found.next().await.transpose()? {
            page.push(result(pipeline, there, run, &row)?);
        }
        Ok(page)
    }

    /// Who answered one page of answers behind `after`, and its last key; no row leaves the database.
    async fn page_of_answerers(
        &self,
        pipeline: &Pipeline,
        run: &RunId,
        after: Option<&Key>,
    ) -> Result<(Vec<(String, u64)>, Option<Key>), Fault> {
        let (key, table) = (quoted(&pipeline.key), quoted(&pipeline.table));
        let behind = if after.is_some() { format!("AND {key} > @after") } else { String::new() };
        // The count goes by its place: any name might be the key's.
        let sql = format!(
            "SELECT model, COUNT(*), MAX({key}) AS {key} \
             FROM (SELECT model, {key} FROM {table} WHERE run = @run {behind} ORDER BY {key} LIMIT {PAGE}) GROUP BY model"
        );
        let statement = Statement::builder(sql).add_param("run", run.to_string());
        let statement = match after {
            Some(after) => statement.add_param("after", rows::key_out(after)),
            None => statement,
        };
        let (mut found, mut answerers, mut last) = (self.ask(statement).await?, Vec::new(), None);
        while let Some(row) = found.next().await.transpose()? {
            answerers.push((row.get("model")?, uint(row.get(1_usize)?)));
            last = last.max(Some(rows::key_in(pipeline, &row)?));
        }
        Ok((answerers, last))
    }
}

fn result(pipeline: &Pipeline, there: &Table, run: &RunId, row: &Row) -> Result<ResultRow, Fault> {
    let mut values = Vec::with_capacity(pipeline.answer.len());
    for column in &pipeline.answer {
        let value = match there.column(&column.name) {
            Some(_) => rows::answer_in(column, row)?,
            None => serde_json::Value::Null,
        };
        values.push((column.name.clone(), value));
    }
    let key = rows::key_in(pipeline, row)?;
    Ok(ResultRow { key, values, run: run.clone(), model: row.get("model")?, ordinal: uint(row.get("ordinal")?) })
}

#[async_trait(?Send)]
impl Books for SpannerBooks {
    async fn runs(&self) -> Result<Vec<RunRow>, RecordsError> {
        let found = self.ask(runs::ask_all()).await?;
        Ok(runs::all(found).await.map_err(Fault::from)?)
    }

    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError> {
        let found = self.client.single_use().build().execute_query(runs::ask(run)).await.map_err(Fault::from)?;
        Ok(runs::standing(found).await.map_err(Fault::from)?.map(|standing| standing.row))
    }

    async fn loaded_parts(&self, run: &RunId) -> Result<LoadedParts, RecordsError> {
        let found = self.ask(runs::ask_loaded_parts(run)).await?;
        Ok(runs::loaded_parts(found).await.map_err(Fault::from)?)
    }

    async fn failures(&self, run: &RunId, limit: u64, each: Each<'_, FailureRow>) -> Result<(), RecordsError> {
        let (mut left, mut after) = (limit, None);
        while left > 0 {
            let most = left.min(PAGE);
            let page = self.page_of_failures(run, after, most).await?;
            let (count, last) = (page.len() as u64, page.last().map(|row| rows::int(row.ordinal)));
            if page.into_iter().try_for_each(&mut *each).is_break() || count < most {
                break;
            }
            (left, after) = (left - count, last);
        }
        Ok(())
    }

    async fn failure_reasons(&self, run: &RunId) -> Result<Vec<(String, u64)>, RecordsError> {
        let sql = "SELECT reason, COUNT(*) AS failed FROM Failures WHERE run = @run GROUP BY reason ORDER BY failed DESC, reason";
        let reasons = async {
            let mut found = self.ask(Statement::builder(sql).add_param("run", run.to_string())).await?;
            let mut reasons = Vec::new();
            while let Some(row) = found.next().await.transpose()? {
                reasons.push((row.get::<String>("reason")?, uint(row.get("failed")?)));
            }
            Ok::<_, Fault>(reasons)
        };
        Ok(reasons.await?)
    }

    async fn results(
        &self,
        pipeline: &Pipeline,
        run: &RunId,
        limit: u64,
        each: Each<'_, ResultRow>,
    ) -> Result<(), RecordsError> {
        let Some(there) = self.table(&pipeline.table).await? else { return Ok(()) };
        let (mut left, mut after) = (limit, None);
        while left > 0 {
            let most = left.min(PAGE);
            let page = self.page_of_results((pipeline, &there), run, after.as_ref(), most).await?;
            let (count, last) = (page.len() as u64, page.last().map(|row| row.key.clone()));
            if page.into_iter().try_for_each(&mut *each).is_break() || count < most {
                break;
            }
            (left, after) = (left - count, last);
        }
        Ok(())
    }

    async fn answerers(&self, pipeline: &Pipeline, run: &RunId) -> Result<Vec<(String, u64)>, RecordsError> {
        if self.table(&pipeline.table).await?.is_none() {
            return Ok(Vec::new());
        }
        let (mut answerers, mut after) = (BTreeMap::<String, u64>::new(), None);
        loop {
            let (page, last) = self.page_of_answerers(pipeline, run, after.as_ref()).await?;
            let rows: u64 = page.iter().map(|(_, rows)| rows).sum();
            page.into_iter().for_each(|(model, rows)| *answerers.entry(model).or_default() += rows);
            if rows < PAGE {
                break;
            }
            after = last;
        }
        let mut answerers: Vec<(String, u64)> = answerers.into_iter().collect();
        answerers.sort_by_key(|(_, rows)| Reverse(*rows));
        Ok(answerers)
    }

    async fn answered_since(
        &self,
        pipeline: &Pipeline,
        run: &RunRow,
        but: Option<&str>,
    ) -> Result<BTreeSet<u64>, RecordsError> {
        if self.table(&pipeline.table).await?.is_none() {
            return Ok(BTreeSet::new());
        }
        // Failures have an integer as its digits; the table's side stays as it is, so that its key finds the row.
        let key = match pipeline.key_type {
            KeyType::String => "f.key",
            KeyType::Integer => "SAFE_CAST(f.key AS INT64)",
        };
        let sql = format!(
            "SELECT f.ordinal FROM Failures AS f JOIN {} AS t ON t.{} = {key} WHERE f.run = @run \
             AND (t.source_time > @source OR t.source_time = @source AND t.run_time > @time) \
             AND (@but IS NULL OR t.model <> @but)",
            quoted(&pipeline.table),
            quoted(&pipeline.key)
        );
        let statement = Statement::builder(sql)
            .add_param("run", run.run.to_string())
            .add_param("source", time_out(run.source_time))
            .add_param("time", time_out(run.run_time))
            .add_typed_param("but", but.map(str::to_owned), types::string());
        let answered = async {
            let (mut found, mut answered) = (self.ask(statement).await?, BTreeSet::new());
            while let Some(row) = found.next().await.transpose()? {
                answered.insert(uint(row.get("ordinal")?));
            }
            Ok::<_, Fault>(answered)
        };
        Ok(answered.await?)
    }
}
