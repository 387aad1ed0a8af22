//! Target tables in Spanner: what a pipeline wants of its table, as GoogleSQL, and how two such tables differ. Pure:
//! the `tasuki` command writes it, and the adapter holds the table that it finds against it.
//!
//! ```text
//! CREATE TABLE IF NOT EXISTS `<table>` (`<key>` …, `<answers>` …, run …, committed_at …) PRIMARY KEY (`<key>`);
//! ALTER TABLE `<table>` ADD COLUMN IF NOT EXISTS `<answer>` …;      -- for a table that was there before the answer
//! GRANT SELECT, INSERT, UPDATE ON TABLE `<table>` TO ROLE loader;
//! GRANT SELECT ON TABLE `<table>` TO ROLE splitter, reader;
//! ```

mod compare;
mod merge;
mod read;

pub use compare::{Difference, differences};
pub use merge::merge;
pub use read::{statements, tables};

use crate::pipeline::{AnswerColumn, KeyType, Pipeline, ValueType};
use std::fmt::Write;

/// The loader's fine-grained role (infra/schema).
pub const LOADER_ROLE: &str = "loader";
/// The splitter's, for pipelines with `only_changed`.
pub const SPLITTER_ROLE: &str = "splitter";
/// The operator's.
pub const READER_ROLE: &str = "reader";

/// A table as its DDL declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name; Spanner compares names without case.
    pub name: String,
    /// In the order of the statement.
    pub columns: Vec<Column>,
    /// The columns of the primary key.
    pub key: Vec<String>,
}

/// A column as its DDL declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name; Spanner compares names without case.
    pub name: String,
    /// As `information_schema.columns.spanner_type` writes it: `ARRAY<STRING(MAX)>`.
    pub kind: String,
    /// It may not be NULL.
    pub required: bool,
}

/// Columns that Tasuki writes itself, in the order of [`crate::pipeline::RESERVED_COLUMNS`]. A run's name has 27
/// characters ([`crate::names::RunId`]).
const OURS: [(&str, &str, bool); 12] = [
    ("run", "STRING(27)", true),
    ("run_time", "TIMESTAMP", true),
    ("ordinal", "INT64", true),
    ("source_time", "TIMESTAMP", true),
    ("model", "STRING(MAX)", true),
    ("fingerprint", "STRING(MAX)", true),
    ("prompt_tokens", "INT64", true),
    ("output_tokens", "INT64", true),
    ("thought_tokens", "INT64", true),
    ("cached_tokens", "INT64", true),
    ("cost", "FLOAT64", false), // NULL: unknown until prices exist
    (COMMITTED_AT, "TIMESTAMP", true),
];

/// The column that holds the commit's time.
pub const COMMITTED_AT: &str = "committed_at";

/// A name between backticks: reserved words are names like any other then. Valid names hold no backtick.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', ""))
}

/// What `pipeline` wants of its target table. Answer columns may be NULL: rows of earlier pipelines do not have them.
pub fn target(pipeline: &Pipeline) -> Table {
    let key = match pipeline.key_type {
        KeyType::String => "STRING(1024)", // characters, of KEY_BYTES_MAX bytes at most
        KeyType::Integer => "INT64",
    };
    let column = |name: &str, kind: &str, required| Column { name: name.into(), kind: kind.into(), required };
    let answer = |answer: &AnswerColumn| column(&answer.name, &kind(answer), false);
    let columns = std::iter::once(column(&pipeline.key, key, true))
        .chain(pipeline.answer.iter().map(answer))
        .chain(OURS.iter().map(|(name, kind, required)| column(name, kind, *required)));
    Table { name: pipeline.table.clone(), columns: columns.collect(), key: vec![pipeline.key.clone()] }
}

fn kind(answer: &AnswerColumn) -> String {
    let one = match answer.value_type {
        ValueType::String => "STRING(MAX)",
        ValueType::Integer => "INT64",
        ValueType::Number => "FLOAT64",
        ValueType::Boolean => "BOOL",
    };
    if answer.count.is_some() { format!("ARRAY<{one}>") } else { one.to_owned() }
}

impl Table {
    /// The statements that make the table, or bring an earlier one up to date, each ended by a semicolon and a newline.
    /// Running them again changes nothing.
    pub fn ddl(&self) -> String {
        let table = quoted(&self.name);
        let mut text = format!("CREATE TABLE IF NOT EXISTS {table} (\n");
        for column in &self.columns {
            let options = if column.name == COMMITTED_AT { " OPTIONS (allow_commit_timestamp = true)" } else { "" };
            put(&mut text, format_args!("  {}{options},\n", declared(column)));
        }
        let key: Vec<String> = self.key.iter().map(|name| quoted(name)).collect();
        put(&mut text, format_args!(") PRIMARY KEY ({});\n\n", key.join(", ")));
        for column in self.columns.iter().filter(|column| self.is_answer(column)) {
            put(&mut text, format_args!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {};\n", declared(column)));
        }
        put(&mut text, format_args!("\nGRANT SELECT, INSERT, UPDATE ON TABLE {table} TO ROLE {LOADER_ROLE};\n"));
        put(&mut text, format_args!("GRANT SELECT ON TABLE {table} TO ROLE {SPLITTER_ROLE}, {READER_ROLE};\n"));
        text
    }

    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    fn is_answer(&self, column: &Column) -> bool {
        let same = |name: &str| name.eq_ignore_ascii_case(&column.name);
        !self.key.iter().any(|key| same(key)) && !OURS.iter().any(|(name, ..)| same(name))
    }
}

fn declared(column: &Column) -> String {
    let required = if column.required { " NOT NULL" } else { "" };
    format!("{} {}{required}", quoted(&column.name), column.kind)
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes any text");
}

#[cfg(test)]
mod tests;
