//! A `*.run.toml` in the inbox: rows of BigQuery, named by a table or a query. A value that exists is valid.
//!
//! ```toml
//! [source]
//! table = "project.dataset.products"       # or query = "SELECT id, description FROM …"
//! columns = ["id", "description"]          # of a table; all when absent
//! where = "updated_at >= '2026-01-01'"     # of a table
//! max_rows = 1000
//! ```
//!
//! Names are checked and quoted. A query and a condition are whatever the author writes: what they may read is decided by the
//! adapter's dry run and its list of allowed tables, not here.

use crate::limits::{COLUMNS_MAX, PIPELINE_BYTES_MAX};
use crate::pipeline::read::{Reader, Section};
use crate::pipeline::{Problem, Problems};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::str::FromStr;
use toml::Spanned;
use toml::de::DeTable;

/// How the name of a source file ends.
pub const SUFFIX: &str = ".run.toml";

const TOP: &[&str] = &["source"];
const SOURCE: &[&str] = &["table", "query", "columns", "where", "max_rows"];
const LIKE: &str = "table = \"project.dataset.table\", or query = \"SELECT …\"";

/// Longest name of a column, in characters (BigQuery, "Specifying a schema": 300).
const COLUMN_CHARS_MAX: usize = 300;
/// Longest name of a dataset or table, in bytes (BigQuery, "Table naming": 1,024).
const NAME_BYTES_MAX: usize = 1_024;

/// Rows of BigQuery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Which.
    pub rows: Selection,
    /// So many at most: the first by (part, position) of the snapshot, which is the same choice whoever makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rows: Option<u32>,
}

/// A table or a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Rows of one table.
    Table {
        /// Which.
        table: TableName,
        /// Its columns, without repetition; empty = all.
        #[serde(default)]
        columns: Vec<String>,
        /// A condition in SQL, as its author wrote it.
        #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
        condition: Option<String>,
    },
    /// A SELECT, as its author wrote it.
    Query(String),
}

/// `project.dataset.table`. No part holds a backtick, a backslash, a wildcard or a control character.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    /// Its project.
    pub project: String,
    /// Its dataset.
    pub dataset: String,
    /// Its own name.
    pub table: String,
}

impl Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.project, self.dataset, self.table)
    }
}

/// A text that is not the name of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a table is named project.dataset.table, without quotes or wildcards")]
pub struct NotATable;

impl FromStr for TableName {
    type Err = NotATable;
    fn from_str(text: &str) -> Result<TableName, NotATable> {
        // From the right: an old project may be "example.com:name".
        let mut parts = text.rsplitn(3, '.');
        let (Some(table), Some(dataset), Some(project)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NotATable);
        };
        if !(is_project(project) && is_dataset(dataset) && is_table(table)) {
            return Err(NotATable);
        }
        Ok(TableName { project: project.to_owned(), dataset: dataset.to_owned(), table: table.to_owned() })
    }
}

impl TryFrom<String> for TableName {
    type Error = NotATable;
    fn try_from(text: String) -> Result<TableName, NotATable> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(table: TableName) -> String {
        table.to_string()
    }
}

/// `name`, or `example.com:name` of old.
pub fn is_project(text: &str) -> bool {
    let is_name = |name: &str, more: &str| {
        (1..=63).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c))
    };
    match text.split_once(':') {
        Some((domain, name)) => is_name(domain, "-.") && is_name(name, "-"),
        None => is_name(text, "-"),
    }
}

/// Letters, digits and `_`.
pub fn is_dataset(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Letters and digits of any script, `_`, `-` and spaces.
fn is_table(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.trim() == text
        && text.chars().all(|c| c.is_alphanumeric() || "_- ".contains(c))
}

/// What stands between backticks without ending them.
fn is_column(text: &str) -> bool {
    (1..=COLUMN_CHARS_MAX).contains(&text.chars().count()) && !text.chars().any(|c| c.is_control() || "`\\".contains(c))
}

impl Source {
    /// Reads a source file (TOML). Tells every mistake at once, each with its place and its mend.
    pub fn parse(text: &str) -> Result<Source, Problems> {
        if text.len() > PIPELINE_BYTES_MAX {
            let message = format!("the file has {} bytes, at most {PIPELINE_BYTES_MAX} are read", text.len());
            return Err(Problems(vec![Problem { line: 1, column: 1, message }]));
        }
        let reader = Reader::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            reader.problem(error.span().map_or(0, |span| span.start), format_args!("not TOML: {}", error.message()));
        }
        let source = if errors.is_empty() { source(&reader, document.get_ref()) } else { None };
        let problems = reader.problems();
        source.filter(|_| problems.0.is_empty()).ok_or(problems)
    }
}

/// `None` only when a problem was noted.
fn source(reader: &Reader<'_>, document: &DeTable<'_>) -> Option<Source> {
    let top = reader.root(document, TOP);
    if top.place("source").is_none() {
        top.problem(0, format_args!("the file needs [source]: write [source] with {LIKE}"));
    }
    let section = top.section("source", SOURCE)?;
    let max_rows = section.integer("max_rows", 1..=u32::MAX).map(Spanned::into_inner);
    let rows = match (section.place("table"), section.place("query")) {
        (Some(_), Some(query)) => {
            section.problem(query, "query and table exclude each other: remove one");
            None
        }
        (None, None) => {
            section.problem(section.at, format_args!("[source] needs {LIKE}"));
            None
        }
        (Some(_), None) => table(&section),
        (None, Some(_)) => query(&section),
    };
    Some(Source { rows: rows?, max_rows })
}

fn query(section: &Section<'_>) -> Option<Selection> {
    for field in ["columns", "where"] {
        if let Some(at) = section.place(field) {
            section.problem(at, format_args!("{field} goes with table only: write it into the query"));
        }
    }
    text(section, "query", "a SELECT").map(Selection::Query)
}

fn table(section: &Section<'_>) -> Option<Selection> {
    let table = section.string("table");
    let name = table.and_then(|table| {
        let name = table.get_ref().parse::<TableName>();
        name.map_err(|not| section.problem(table.span().start, format_args!("table: {not}"))).ok()
    });
    let mut columns = Vec::new();
    for column in section.strings("columns").unwrap_or_default() {
        let (at, column) = (column.span().start, (*column.get_ref()).to_owned());
        if !is_column(&column) {
            section.problem(at, format_args!("columns: {column:?} cannot be the name of a column"));
        }
        if columns.iter().any(|other: &String| other.eq_ignore_ascii_case(&column)) {
            section.problem(at, format_args!("columns: {column:?} is there twice"));
        }
        columns.push(column);
    }
    if columns.len() > COLUMNS_MAX {
        section.problem(section.at, format_args!("columns: at most {COLUMNS_MAX} are read"));
    }
    let condition = section.place("where").map(|_| text(section, "where", "a condition"));
    Some(Selection::Table { table: name?, columns, condition: condition.map_or(Some(None), |text| text.map(Some))? })
}

/// A text that is not blank.
fn text(section: &Section<'_>, field: &str, what: &str) -> Option<String> {
    let text = section.string(field)?;
    if text.get_ref().trim().is_empty() {
        section.problem(text.span().start, format_args!("{field} is empty: write {what}"));
        return None;
    }
    Some((*text.get_ref()).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problems(text: &str) -> Vec<String> {
        Source::parse(text).expect_err("a mistake").0.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn a_table_with_columns_and_a_condition_is_read() {
        let text = "[source]\ntable = \"my-project.shop.商品-1\"\ncolumns = [\"id\", \"説明\"]\nwhere = \"id > 'a'\"\nmax_rows = 7\n";
        let rows = Selection::Table {
            table: "my-project.shop.商品-1".parse().unwrap(),
            columns: vec!["id".into(), "説明".into()],
            condition: Some("id > 'a'".into()),
        };
        let source = Source { rows, max_rows: Some(7) };
        assert_eq!(Source::parse(text).unwrap(), source);
        let written = serde_json::to_string(&source).unwrap();
        assert_eq!(serde_json::from_str::<Source>(&written).unwrap(), source, "{written}");
    }

    #[test]
    fn a_query_is_read_as_it_is() {
        let source = Source::parse("[source]\nquery = \"\"\"\nSELECT 1 AS id -- one\n\"\"\"\n").unwrap();
        assert_eq!(source, Source { rows: Selection::Query("SELECT 1 AS id -- one\n".into()), max_rows: None });
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_place_and_its_mend() {
        let text = "[source]\ntabel = 1\ntable = \"shop.products\"\ncolumns = [\"a`b\", 3, \"c\", \"C\"]\nwhere = \" \"\nmax_rows = 0\n[run]\n";
        let found = problems(text);
        let starts =
            ["2:1: unknown field \"tabel\" in [source]: did you mean \"table\"?", "3:9: table:", "4:12: columns:"];
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}");
        }
        let places: Vec<&str> = found.iter().map(|found| found.split(": ").next().unwrap()).collect();
        assert_eq!(places, ["2:1", "3:9", "4:12", "4:19", "4:27", "5:9", "6:12", "7:2"], "{found:?}");
    }

    #[test]
    fn a_table_and_a_query_exclude_each_other_and_one_is_needed() {
        assert!(
            problems("[source]\ntable = \"p.d.t\"\nquery = \"SELECT 1\"\n")[0]
                .starts_with("3:1: query and table exclude")
        );
        assert!(problems("[source]\nmax_rows = 3\n")[0].starts_with("1:2: [source] needs table"));
        assert!(problems("")[0].starts_with("1:1: the file needs [source]"));
        let found = problems("[source]\nquery = \"SELECT 1\"\ncolumns = []\nwhere = \"x\"\n");
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|found| found.contains("goes with table only")));
    }

    #[test]
    fn a_name_that_could_end_its_quotes_is_none() {
        for name in [
            "p.d.t`",
            "p.d.t*",
            "p.d`x.t",
            "p`.d.t",
            "d.t",
            "p.d.",
            "p.d.t\\",
            "P.d.t",
            "p.d.t$2026",
            "p.d.a/b",
            "p.d.t\n",
        ] {
            assert_eq!(name.parse::<TableName>(), Err(NotATable), "{name:?}");
        }
        for name in ["p.d.t", "example.com:old.d.t", "p-1.d_1.t-1"] {
            assert_eq!(name.parse::<TableName>().unwrap().to_string(), name);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_name_that_ends_its_quotes(text in "\\PC{0,20}\\.\\PC{0,8}\\.\\PC{0,8}") {
            if let Ok(name) = text.parse::<TableName>() {
                let (quoted, written) = (name.to_string(), text);
                prop_assert!(!quoted.contains(['`', '\\', '*', '\'', '"']));
                prop_assert_eq!(quoted, written);
            }
        }
    }
}
