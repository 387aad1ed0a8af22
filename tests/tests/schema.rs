//! The store's own tables: the same in SQLite and in Spanner.

use rusqlite::Connection;
use std::collections::BTreeMap;
use tasuki::store::Store;
use tasuki_google::records::schema;
use tasuki_relay::clock::Clock;
use tasuki_relay::ddl;

/// Columns by table: name, type, may not be NULL.
type Tables = BTreeMap<String, Vec<(String, String, bool)>>;

fn in_sqlite() -> Tables {
    let folder = tempfile::tempdir().expect("makes a folder");
    let path = folder.path().join("tasuki.db");
    drop(Store::open(&path, Clock::system()).expect("opens"));
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

/// A type of Spanner as SQLite has it: a time is text there, and a failed row's key is of either type.
fn as_sqlite(table: &str, column: &str, kind: &str) -> &'static str {
    match kind.split('(').next() {
        Some("STRING") if (table, column) == ("Failures", "key") => "ANY",
        Some("STRING" | "TIMESTAMP") => "TEXT",
        Some("INT64") => "INTEGER",
        _ => panic!("{table}.{column} is {kind}: say here what SQLite has for it"),
    }
}

#[test]
fn both_stores_have_the_same_tables_and_columns() {
    let tables = ddl::tables(&(schema::statements().join(";\n")));
    let in_spanner: Tables = tables
        .into_iter()
        .map(|table| {
            let columns = table.columns.into_iter();
            let columns =
                columns.map(|c| (c.name.clone(), as_sqlite(&table.name, &c.name, &c.kind).to_owned(), c.required));
            (table.name.clone(), columns.collect())
        })
        .collect();
    assert_eq!(in_sqlite(), in_spanner);
    assert_eq!(in_spanner.len(), 5);
}
