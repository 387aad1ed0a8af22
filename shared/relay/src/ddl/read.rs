use super::{Column, Table};

/// The statements of a file in their order, without comments and semicolons. For DDL as this repository writes it: no
/// string in it holds `--` or a semicolon.
pub fn statements(text: &str) -> Vec<String> {
    let bare: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap_or_default().trim_end()).collect();
    bare.join("\n").split(';').map(|statement| statement.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

/// The tables that the CREATE TABLE statements of `text` declare, one column a line, with the columns that ALTER TABLE adds later.
pub fn tables(text: &str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for statement in statements(text) {
        tables.extend(table(&statement));
        let Some((name, column)) = added(&statement) else { continue };
        let lacks =
            |table: &&mut Table| table.name == name && table.columns.iter().all(|known| known.name != column.name);
        if let Some(table) = tables.iter_mut().find(lacks) {
            table.columns.push(column);
        }
    }
    tables
}

/// `ALTER TABLE <table> ADD COLUMN [IF NOT EXISTS] <column>`: the table's name, and the column.
fn added(statement: &str) -> Option<(String, Column)> {
    let (table, rest) = statement.strip_prefix("ALTER TABLE ")?.split_once(" ADD COLUMN ")?;
    Some((bare(table), column(rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest))?))
}

fn table(statement: &str) -> Option<Table> {
    let mut lines = statement.lines();
    let head = lines.next()?.trim().strip_prefix("CREATE TABLE ")?;
    let name = bare(head.strip_prefix("IF NOT EXISTS ").unwrap_or(head).trim_end_matches('('));
    let mut columns = Vec::new();
    for line in lines {
        if let Some((_, key)) = line.split_once("PRIMARY KEY (") {
            let key = key.split(')').next()?.split(',').map(bare).collect();
            return Some(Table { name, columns, key });
        }
        columns.extend(column(line.trim().trim_end_matches(',')));
    }
    None
}

/// `<name> <type> [NOT NULL] [OPTIONS (…)]`; none for a constraint.
fn column(line: &str) -> Option<Column> {
    let (name, rest) = line.split_once(' ')?;
    let kind = rest.split(' ').next()?.to_owned();
    (name != "CONSTRAINT").then(|| Column { name: bare(name), kind, required: rest.contains(" NOT NULL") })
}

fn bare(name: &str) -> String {
    name.trim().trim_matches('`').to_owned()
}
