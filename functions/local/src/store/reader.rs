//! What the operator's commands ask of the store, also while another process writes it.

use super::fault::Fault;
use super::rows;
use super::runs::{self, int, parsed, uint};
use super::target::{self, quoted};
use super::{BUSY, SCHEMA, version};
use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, Row, params};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tasuki_relay::books::{Books, Each, FailureRow, LoadedParts, ResultRow};
use tasuki_relay::names::RunId;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{RecordsError, RunRow};
use tasuki_relay::record::Key;

/// A store to look at. A file that is not there yet is an empty store.
///
/// Each question opens the file anew, so that a reader can be kept while the file comes to be.
#[derive(Clone, Debug)]
pub struct Reader {
    path: PathBuf,
}

impl Reader {
    /// A reader of the store at `path`.
    pub fn open(path: &Path) -> Reader {
        Reader { path: path.to_owned() }
    }

    /// All runs, newest first.
    pub fn runs(&self) -> Result<Vec<RunRow>, RecordsError> {
        self.ask(|connection| Ok(runs::runs(connection, "TRUE", [])?))
    }

    /// One run, if any part of it is loaded.
    pub fn run(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError> {
        self.ask(|connection| Ok(runs::run(connection, run)?))
    }

    /// See [`Books::loaded_parts`].
    pub fn loaded_parts(&self, run: &RunId) -> Result<LoadedParts, RecordsError> {
        self.ask(|connection| Ok(runs::loaded_parts(connection, run)?))
    }

    /// The failed rows of a run in their order, `limit` at most. Stops early when `each` says so.
    pub fn failures(
        &self,
        run: &RunId,
        limit: u64,
        mut each: impl FnMut(FailureRow) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        let read = |row: &Row<'_>| {
            Ok(FailureRow {
                ordinal: uint(row.get("ordinal")?),
                key: rows::key_in(row.get_ref("key")?),
                reason: row.get("reason")?,
                message: row.get("message")?,
                attempts: row.get("attempts")?,
            })
        };
        self.ask(|connection| {
            let mut select = connection.prepare("SELECT * FROM Failures WHERE run = ? ORDER BY ordinal LIMIT ?")?;
            for row in select.query_map(params![run.as_str(), int(limit)], read)? {
                if each(row?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// How many rows of a run failed for which reason, the most frequent first.
    pub fn failure_reasons(&self, run: &RunId) -> Result<Vec<(String, u64)>, RecordsError> {
        self.ask(|connection| {
            let mut select = connection.prepare(
                "SELECT reason, COUNT(*) FROM Failures WHERE run = ? GROUP BY reason ORDER BY COUNT(*) DESC, reason",
            )?;
            let read = |row: &Row<'_>| Ok((row.get(0)?, uint(row.get(1)?)));
            Ok(select.query_map([run.as_str()], read)?.collect::<Result<_, _>>()?)
        })
    }

    /// The rows of the pipeline's target table in order of ordinals, `limit` at most: those that `run` wrote or
    /// confirmed last, or all. Stops early when `each` says so.
    pub fn results(
        &self,
        pipeline: &Pipeline,
        run: Option<&RunId>,
        limit: u64,
        mut each: impl FnMut(ResultRow) -> ControlFlow<()>,
    ) -> Result<(), RecordsError> {
        self.ask(|connection| {
            let Some(known) = target::known(connection, pipeline)? else { return Ok(()) };
            let key = quoted(&pipeline.key);
            let answers: String = known.iter().map(|column| format!(", {}", quoted(&column.name))).collect();
            let sql = format!(
                "SELECT run, model, ordinal, {key}{answers} FROM {} WHERE ?1 IS NULL OR run = ?1 \
                 ORDER BY ordinal, {key} LIMIT ?2",
                quoted(&pipeline.table)
            );
            let mut select = connection.prepare(&sql)?;
            let mut found = select.query(params![run.map(RunId::as_str), int(limit)])?;
            while let Some(row) = found.next()? {
                let mut values = Vec::with_capacity(pipeline.answer.len());
                for column in &pipeline.answer {
                    let at = known.iter().position(|known| known.name == column.name);
                    let value = at.map(|at| row.get_ref(4 + at)).transpose()?;
                    values
                        .push((column.name.clone(), value.map_or(Value::Null, |value| rows::answer_in(column, value))));
                }
                let Some(key) = rows::key_in(row.get_ref(3)?) else { continue };
                let (run, model, ordinal) = (parsed(row, "run")?, row.get(1)?, uint(row.get(2)?));
                if each(ResultRow { key, values, run, model, ordinal }).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// See [`Books::answerers`].
    pub fn answerers(&self, pipeline: &Pipeline, run: &RunId) -> Result<Vec<(String, u64)>, RecordsError> {
        self.ask(|connection| {
            if target::known(connection, pipeline)?.is_none() {
                return Ok(Vec::new());
            }
            let sql = format!(
                "SELECT model, COUNT(*) FROM {} WHERE run = ? GROUP BY model ORDER BY COUNT(*) DESC, model",
                quoted(&pipeline.table)
            );
            let read = |row: &Row<'_>| Ok((row.get(0)?, uint(row.get(1)?)));
            Ok(connection.prepare(&sql)?.query_map([run.as_str()], read)?.collect::<Result<_, _>>()?)
        })
    }

    /// How many rows of the pipeline's target table hold the answer of another model than `model`.
    ///
    /// # Errors
    /// Also where the table cannot take the pipeline's answers.
    pub fn answers_of_others(&self, pipeline: &Pipeline, model: &str) -> Result<u64, RecordsError> {
        self.ask(|connection| {
            if target::known(connection, pipeline)?.is_none() {
                return Ok(0);
            }
            let sql = format!("SELECT COUNT(*) FROM {} WHERE model <> ?", quoted(&pipeline.table));
            Ok(uint(connection.query_row(&sql, [model], |row| row.get(0))?))
        })
    }

    /// What the answers were asked that the pipeline's target table holds to these keys: see [`tasuki_relay::prompt`].
    ///
    /// # Errors
    /// Also where the table cannot take the pipeline's answers.
    pub fn fingerprints(&self, pipeline: &Pipeline, keys: Vec<Key>) -> Result<BTreeMap<Key, String>, RecordsError> {
        self.ask(|connection| rows::fingerprints(connection, pipeline, keys))
    }

    /// See [`Books::answered_since`].
    pub fn answered_since(
        &self,
        pipeline: &Pipeline,
        run: &RunRow,
        but: Option<&str>,
    ) -> Result<BTreeSet<u64>, RecordsError> {
        self.ask(|connection| {
            if target::known(connection, pipeline)?.is_none() {
                return Ok(BTreeSet::new());
            }
            let sql = format!(
                "SELECT Failures.ordinal FROM Failures JOIN {} AS target ON target.{} = Failures.key \
                 WHERE Failures.run = ?1 AND (target.source_time, target.run_time) > (?2, ?3) AND (?4 IS NULL OR target.model <> ?4)",
                quoted(&pipeline.table),
                quoted(&pipeline.key)
            );
            let (source, time) = (run.source_time.to_string(), run.run_time.to_string());
            let mut select = connection.prepare(&sql)?;
            let read = |row: &Row<'_>| Ok(uint(row.get(0)?));
            let found = select.query_map(params![run.run.as_str(), source, time, but], read)?;
            Ok(found.collect::<Result<_, _>>()?)
        })
    }

    /// The default where there is no store yet.
    fn ask<T: Default>(&self, question: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, RecordsError> {
        let ask = || match self.connect()? {
            Some(connection) => question(&connection),
            None => Ok(T::default()),
        };
        ask().map_err(|Fault(error)| match error {
            RecordsError::Systemic(what) => RecordsError::Systemic(format!("{}: {what}", self.path.display())),
            other => other,
        })
    }

    fn connect(&self) -> Result<Option<Connection>, Fault> {
        if !self.path.exists() {
            return Ok(None);
        }
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY)?;
        match version(&connection)? {
            0 => Ok(None),
            SCHEMA => Ok(Some(connection)),
            // Of an earlier version: it gets its new columns first.
            _ => super::connect(&self.path).map(Some),
        }
    }
}

/// A file on this machine answers at once: nothing is waited for.
#[async_trait(?Send)]
impl Books for Reader {
    async fn runs(&self) -> Result<Vec<RunRow>, RecordsError> {
        self.runs()
    }
    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError> {
        self.run(run)
    }
    async fn loaded_parts(&self, run: &RunId) -> Result<LoadedParts, RecordsError> {
        self.loaded_parts(run)
    }
    async fn failures(&self, run: &RunId, limit: u64, each: Each<'_, FailureRow>) -> Result<(), RecordsError> {
        self.failures(run, limit, each)
    }
    async fn failure_reasons(&self, run: &RunId) -> Result<Vec<(String, u64)>, RecordsError> {
        self.failure_reasons(run)
    }
    async fn results(
        &self,
        pipeline: &Pipeline,
        run: &RunId,
        limit: u64,
        each: Each<'_, ResultRow>,
    ) -> Result<(), RecordsError> {
        self.results(pipeline, Some(run), limit, each)
    }
    async fn answerers(&self, pipeline: &Pipeline, run: &RunId) -> Result<Vec<(String, u64)>, RecordsError> {
        self.answerers(pipeline, run)
    }
    async fn answered_since(
        &self,
        pipeline: &Pipeline,
        run: &RunRow,
        but: Option<&str>,
    ) -> Result<BTreeSet<u64>, RecordsError> {
        self.answered_since(pipeline, run, but)
    }
}
