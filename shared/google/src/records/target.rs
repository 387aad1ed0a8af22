//! The target table as it stands in the database, held against what the pipeline wants.

use super::fault::Fault;
use super::pool;
use google_cloud_spanner::client::DatabaseClient;
use google_cloud_spanner::result::ResultSet;
use google_cloud_spanner::statement::Statement;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tasuki_relay::ddl::{self, COMMITTED_AT, Column, Difference, Table};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::RecordsError;

/// `required`: NOT NULL, and Spanner does not fill it in. `stamped`: it takes the commit's time.
const COLUMNS: &str = "\
SELECT c.column_name, c.spanner_type,
  c.is_nullable = 'NO' AND c.column_default IS NULL AND c.is_generated = 'NEVER' AS required,
  EXISTS (SELECT 1 FROM information_schema.column_options AS o
    WHERE o.table_schema = c.table_schema AND o.table_name = c.table_name AND o.column_name = c.column_name
      AND o.option_name = 'allow_commit_timestamp' AND o.option_value = 'TRUE') AS stamped
FROM information_schema.columns AS c
WHERE c.table_schema = '' AND LOWER(c.table_name) = LOWER(@table) ORDER BY c.ordinal_position";

const INDEXES: &str = "\
SELECT index_type, column_name FROM information_schema.index_columns
WHERE table_schema = '' AND LOWER(table_name) = LOWER(@table) ORDER BY index_name, ordinal_position";

/// A table that is there.
#[derive(Debug)]
pub(super) struct Found {
    /// As the database has it.
    pub(super) table: Table,
    /// Its columns that take the commit's time.
    stamped: Vec<String>,
    /// Mutations that one row takes in its indexes: an entry is removed and another made, each with the table's key.
    pub(super) indexed: usize,
}

/// Target tables, looked at once, and again whenever Spanner refuses what was written by that. At most one for each
/// pipeline.
#[derive(Debug, Default)]
pub(super) struct Targets(Mutex<BTreeMap<String, Arc<Found>>>);

impl Targets {
    /// The pipeline's table; `None` when there is none that this account may see.
    ///
    /// # Errors
    /// `Systemic` when it does not fit the pipeline.
    pub(super) async fn look(
        &self,
        client: &DatabaseClient,
        pipeline: &Pipeline,
    ) -> Result<Option<Arc<Found>>, RecordsError> {
        let known = self.known().get(&pipeline.table).cloned();
        let found = match known {
            Some(found) => found,
            None => match find(client, &pipeline.table).await? {
                Some(found) => Arc::new(found),
                None => return Ok(None),
            },
        };
        let problems = problems(&found, pipeline);
        if !problems.is_empty() {
            self.forget(pipeline);
            return Err(unfit(pipeline, &problems));
        }
        self.known().insert(pipeline.table.clone(), found.clone());
        Ok(Some(found))
    }

    /// The pipeline's table, which must be there to be written.
    pub(super) async fn fitting(
        &self,
        client: &DatabaseClient,
        pipeline: &Pipeline,
    ) -> Result<Arc<Found>, RecordsError> {
        self.look(client, pipeline).await?.ok_or_else(|| absent(pipeline))
    }

    /// Looks at the pipeline's table anew the next time.
    pub(super) fn forget(&self, pipeline: &Pipeline) {
        self.known().remove(&pipeline.table);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Found>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn find(client: &DatabaseClient, name: &str) -> Result<Option<Found>, Fault> {
    let (mut columns, mut stamped) = (Vec::new(), Vec::new());
    let mut rows = ask(client, COLUMNS, name).await?;
    while let Some(row) = rows.next().await.transpose()? {
        let name: String = row.get("column_name")?;
        if row.get("stamped")? {
            stamped.push(name.clone());
        }
        columns.push(Column { name, kind: row.get("spanner_type")?, required: row.get("required")? });
    }
    let (mut key, mut entries) = (Vec::new(), 0);
    let mut rows = ask(client, INDEXES, name).await?;
    while let Some(row) = rows.next().await.transpose()? {
        match row.get::<String>("index_type")?.as_str() {
            "PRIMARY_KEY" => key.push(row.get("column_name")?),
            _ => entries += 1,
        }
    }
    let indexed = 2 * entries * (1 + key.len());
    let table = Table { name: name.to_owned(), columns, key };
    Ok((!table.columns.is_empty()).then_some(Found { table, stamped, indexed }))
}

async fn ask(client: &DatabaseClient, sql: &str, table: &str) -> Result<ResultSet, Fault> {
    let statement = Statement::builder(sql).add_param("table", table.to_owned()).with_retry_policy(pool::patience());
    Ok(client.single_use().build().execute_query(statement.build()).await?)
}

/// Why no row of `pipeline` could be written into the table; nothing when it fits. Columns of the user's own may be
/// there, if they need no value.
fn problems(found: &Found, pipeline: &Pipeline) -> Vec<String> {
    let (there, wanted) = (&found.table, ddl::target(pipeline));
    let differences = ddl::differences(there, &wanted).into_iter();
    let mut problems: Vec<String> = differences
        .filter(|difference| !matches!(difference, Difference::Unwanted { .. }))
        .map(|difference| difference.to_string())
        .collect();
    // `cost` is always NULL as yet.
    let unwritten =
        |column: &&Column| column.required && (wanted.column(&column.name).is_none() || column.name == "cost");
    let unwritten = there.columns.iter().filter(unwritten);
    problems.extend(unwritten.map(|column| format!("its column {} is NOT NULL and never written", column.name)));
    if there.column(COMMITTED_AT).is_some() && !found.stamped.iter().any(|name| name.eq_ignore_ascii_case(COMMITTED_AT))
    {
        problems.push(format!("its column {COMMITTED_AT} lacks OPTIONS (allow_commit_timestamp = true)"));
    }
    problems
}

fn absent(pipeline: &Pipeline) -> RecordsError {
    RecordsError::Systemic(format!(
        "Spanner has no table {}: apply what `tasuki schema` writes for pipeline {}",
        pipeline.table, pipeline.name
    ))
}

fn unfit(pipeline: &Pipeline, problems: &[String]) -> RecordsError {
    RecordsError::Systemic(format!(
        "table {} in Spanner does not fit pipeline {}: {}. Apply what `tasuki schema` writes for it, or name another [target] table",
        pipeline.table,
        pipeline.name,
        problems.join("; ")
    ))
}
