//! The store's own tables: the same in SQLite and in Spanner.

use rusqlite::Connection;
use std::collections::BTreeMap;
use tasuki::store::Store;
use tasuki_google::records::schema;
use tasuki_relay::clock::Clock;
use tasuki_relay::ddl::{self, Column, Table};
use tasuki_relay::names::ShardIndex;
use tasuki_relay::pipeline::ValueType;
use tasuki_relay::ports::{Part, Records};
use tasuki_relay::record::Outcome;
use tasuki_tests::build;

/// Columns by table: name, type, may not be NULL.
type Tables = BTreeMap<String, Vec<(String, String, bool)>>;

/// Of a new store, in which `part` was loaded if there is one.
async fn in_sqlite(part: Option<Part>) -> Tables {
    let folder = tempfile::tempdir().expect("makes a folder");
    let path = folder.path().join("tasuki.db");
    let store = Store::open(&path, Clock::system()).expect("opens");
    if let Some(part) = part {
        store.load(&part).await.expect("loads");
    }
    let connection = Connection::open(&path).expect("opens");
    let mut select = connection
        .prepare(
            "SELECT t.name, c.name, c.type, c.\"notnull\" FROM pragma_table_list AS t, pragma_table_info(t.name) AS c \
             WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite%' ORDER BY t.name, c.cid",
        )
        .expect("asks");
    let mut tables = Tables::new();
    let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)));
    for row in select.query_map([], read).expect("answers") {
        let (table, column): (String, _) = row.expect("reads");
        tables.entry(table).or_default().push(column);
    }
    tables
}

/// A type of Spanner as SQLite has it: a time and an array are text there, and a failed row's key is of either type.
fn as_sqlite(table: &str, column: &str, kind: &str) -> &'static str {
    match kind.split(['(', '<']).next() {
        Some("STRING") if (table, column) == ("Failures", "key") => "ANY",
        Some("STRING" | "TIMESTAMP") => "TEXT",
        Some("INT64") => "INTEGER",
        Some("FLOAT64") => "REAL",
        Some("BOOL") => "BOOLEAN",
        Some("ARRAY") => "JSON",
        _ => panic!("{table}.{column} is {kind}: say here what SQLite has for it"),
    }
}

fn in_spanner(tables: Vec<Table>) -> Tables {
    let columns = |table: &Table| {
        let columns = table.columns.iter();
        let column = |column: &Column| {
            let kind = as_sqlite(&table.name, &column.name, &column.kind);
            (column.name.clone(), kind.to_owned(), column.required)
        };
        columns.map(column).collect()
    };
    tables.iter().map(|table| (table.name.clone(), columns(table))).collect()
}

#[tokio::test]
async fn both_stores_have_the_same_tables_and_columns() {
    let books = in_spanner(ddl::tables(&schema::statements().join(";\n")));
    assert_eq!(in_sqlite(None).await, books);
    assert_eq!(books.len(), 5);
}

#[tokio::test]
async fn a_target_table_has_the_same_columns_in_both_stores() {
    let mut pipeline = build::pipeline("row_themes");
    pipeline.answer.push(build::column("good", ValueType::Boolean, None));
    let Outcome::Answer(mut answer) = build::answer("f") else { panic!("an answer") };
    answer.values.insert("good".into(), true.into());
    let part = build::part(&pipeline, 1, ShardIndex(0), vec![(1, Outcome::Answer(answer))]);
    let wanted = in_spanner(vec![ddl::target(&pipeline)]);
    assert_eq!(in_sqlite(Some(part)).await.get("row_themes"), wanted.get("row_themes"));
}
