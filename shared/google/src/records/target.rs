//! The target table as it stands in the database, held against what the pipeline wants.

use super::fault::Fault;
use super::pool;
use google_cloud_spanner::client::DatabaseClient;
use google_cloud_spanner::result::ResultSet;
use google_cloud_spanner::statement::Statement;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tasuki_relay::ddl::{self, Column, Difference, Table};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::RecordsError;

/// `required`: NOT NULL, and Spanner does not fill it in.
const COLUMNS: &str = "\
SELECT c.column_name, c.spanner_type,
  c.is_nullable = 'NO' AND c.column_default IS NULL AND c.is_generated = 'NEVER' AS required
FROM information_schema.columns AS c
WHERE c.table_schema = '' AND LOWER(c.table_name) = LOWER(@table) ORDER BY c.ordinal_position";

const INDEXES: &str = "\
SELECT index_type, column_name FROM information_schema.index_columns
WHERE table_schema = '' AND LOWER(table_name) = LOWER(@table) ORDER BY index_name, ordinal_position";

/// A table that is there.
#[derive(Debug)]
pub(super) struct Found {
    table: Table,
    /// Mutations that one row takes in its indexes: an entry is removed and another made, each with the table's key.
    pub(super) indexed: usize,
}

/// Target tables, looked at once and again whenever a commit fails. At most one for each pipeline.
#[derive(Debug, Default)]
pub(super) struct Targets(Mutex<BTreeMap<String, Arc<Found>>>);

impl Targets {
    /// The pipeline's table, if it fits.
    pub(super) async fn fitting(
        &self,
        client: &DatabaseClient,
        pipeline: &Pipeline,
    ) -> Result<Arc<Found>, RecordsError> {
        let known = self.known().get(&pipeline.table).cloned();
        let found = match known {
            Some(found) => found,
            None => {
                let found = Arc::new(find(client, &pipeline.table).await?.ok_or_else(|| absent(pipeline))?);
                self.known().insert(pipeline.table.clone(), found.clone());
                found
            }
        };
        let problems = problems(&found.table, pipeline);
        match problems.is_empty() {
            true => Ok(found),
            false => {
                self.forget(pipeline);
                Err(unfit(pipeline, &problems))
            }
        }
    }

    /// Looks at the pipeline's table anew the next time.
    pub(super) fn forget(&self, pipeline: &Pipeline) {
        self.known().remove(&pipeline.table);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Found>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table as it stands; `None` when there is none that this account may see.
pub(super) async fn find(client: &DatabaseClient, name: &str) -> Result<Option<Found>, Fault> {
    let mut columns = Vec::new();
    let mut rows = ask(client, COLUMNS, name).await?;
    while let Some(row) = rows.next().await.transpose()? {
        columns.push(Column {
            name: row.get("column_name")?,
            kind: row.get("spanner_type")?,
            required: row.get("required")?,
        });
    }
    let (mut key, mut indexed) = (Vec::new(), 0);
    let mut rows = ask(client, INDEXES, name).await?;
    while let Some(row) = rows.next().await.transpose()? {
        match row.get::<String>("index_type")?.as_str() {
            "PRIMARY_KEY" => key.push(row.get("column_name")?),
            _ => indexed += 1,
        }
    }
    let indexed = 2 * indexed * (1 + key.len());
    Ok((!columns.is_empty()).then(|| Found { table: Table { name: name.to_owned(), columns, key }, indexed }))
}

async fn ask(client: &DatabaseClient, sql: &str, table: &str) -> Result<ResultSet, Fault> {
    let statement = Statement::builder(sql).add_param("table", table.to_owned()).with_retry_policy(pool::patience());
    Ok(client.single_use().build().execute_query(statement.build()).await?)
}

/// Why no row of `pipeline` could be written into `there`; nothing when it fits. Other columns may be there, if they may be NULL.
fn problems(there: &Table, pipeline: &Pipeline) -> Vec<String> {
    let wanted = ddl::target(pipeline);
    let hinders = |difference: &Difference| !matches!(difference, Difference::Unwanted { .. });
    let found = ddl::differences(there, &wanted).into_iter().filter(hinders).map(|difference| difference.to_string());
    let unwritten = |column: &&Column| {
        column.required && !wanted.column(&column.name).is_some_and(|c| c.required || c.name != "cost")
    };
    let unwritten = there.columns.iter().filter(unwritten);
    found.chain(unwritten.map(|column| format!("its column {} is NOT NULL and never written", column.name))).collect()
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
