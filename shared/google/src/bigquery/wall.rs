//! What a dry run must say before anything is paid for. Spec authors may write any SQL and inherit the splitter's rights: this,
//! the list of allowed tables and the account's rights are the wall (protocol.md 9).

use super::settings::Settings;
use super::sql::PREFIX;
use serde::Deserialize;
use tasuki_relay::limits::COLUMNS_MAX;
use tasuki_relay::pipeline::KeyType;
use tasuki_relay::ports::{Checked, SourceColumn};
use tasuki_relay::source::TableName;

/// From so many referenced tables on the list may be incomplete (REST reference, JobStatistics2.referencedTables).
const TABLES_MAX: usize = 50;
/// Words that reach what a dry run does not list as tables: names and queries of others, and databases behind a connection.
const REFUSED_WORDS: &[&str] = &["INFORMATION_SCHEMA", "EXTERNAL_QUERY"];

/// `statistics` of a job that was run dry.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Statistics {
    total_bytes_processed: Option<String>,
    query: QueryStatistics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct QueryStatistics {
    statement_type: Option<String>,
    total_bytes_processed: Option<String>,
    referenced_tables: Vec<TableReference>,
    referenced_routines: Vec<serde::de::IgnoredAny>,
    schema: Schema,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TableReference {
    project_id: String,
    dataset_id: String,
    table_id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Schema {
    fields: Vec<Field>,
}

#[derive(Debug, Deserialize)]
struct Field {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    mode: Option<String>,
}

impl Field {
    fn column(self) -> SourceColumn {
        let repeated = self.mode.as_deref() == Some("REPEATED");
        let key = match self.kind.as_str() {
            "STRING" if !repeated => Some(KeyType::String),
            "INTEGER" | "INT64" if !repeated => Some(KeyType::Integer),
            _ => None,
        };
        SourceColumn { name: self.name, key }
    }
}

/// What the source gives, or why it is not read.
pub fn pass(settings: &Settings, select: &str, statistics: Statistics) -> Result<Checked, String> {
    let Statistics { total_bytes_processed: bytes, query } = statistics;
    let bytes = bytes.or(query.total_bytes_processed).and_then(|bytes| bytes.parse().ok());
    let bytes = bytes.ok_or("the dry run does not tell how much is read")?;
    let kind = query.statement_type.unwrap_or_default();
    if kind != "SELECT" {
        return Err(format!("the source is {kind}: only one SELECT is read"));
    }
    let upper = select.to_ascii_uppercase();
    if let Some(word) = REFUSED_WORDS.iter().find(|word| upper.contains(*word)) {
        return Err(format!("the source may not use {word}"));
    }
    if !query.referenced_routines.is_empty() {
        return Err("the source may not call stored functions: write them out".into());
    }
    if query.referenced_tables.len() >= TABLES_MAX {
        return Err(format!("the source reads {TABLES_MAX} tables or more: read fewer"));
    }
    for TableReference { project_id: project, dataset_id: dataset, table_id: table } in query.referenced_tables {
        let name = TableName { project, dataset, table };
        if !settings.allows(&name) {
            return Err(format!(
                "the source reads {name}, which this deployment does not allow (TASUKI_BIGQUERY_SOURCES)"
            ));
        }
    }
    if bytes > settings.bytes_max {
        let most = settings.bytes_max;
        return Err(format!(
            "the source would read {bytes} bytes; at most {most} are allowed: select fewer columns or rows"
        ));
    }
    let columns: Vec<SourceColumn> = query.schema.fields.into_iter().map(Field::column).collect();
    if columns.len() > COLUMNS_MAX {
        return Err(format!("the source has {} columns; at most {COLUMNS_MAX} are allowed", columns.len()));
    }
    let reserved = |column: &&SourceColumn| column.name.to_ascii_lowercase().starts_with(PREFIX);
    if let Some(column) = columns.iter().find(reserved) {
        return Err(format!(
            "the source has a column {:?}; {PREFIX} begins the snapshot's own: name it otherwise",
            column.name
        ));
    }
    Ok(Checked { columns, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn dry_run(change: impl FnOnce(&mut Value)) -> Result<Checked, String> {
        let fields = json!([
            {"name": "id", "type": "STRING"},
            {"name": "n", "type": "INTEGER", "mode": "NULLABLE"},
            {"name": "tags", "type": "STRING", "mode": "REPEATED"},
        ]);
        let mut statistics = json!({
            "totalBytesProcessed": "1000",
            "query": {
                "statementType": "SELECT",
                "referencedTables": [{"projectId": "p", "datasetId": "open", "tableId": "t"}],
                "schema": {"fields": fields},
            },
        });
        change(&mut statistics);
        let mut settings = Settings::new("p", vec!["p.open".parse().unwrap()], "p.staging".parse().unwrap());
        settings.bytes_max = 1_000;
        let text = statistics["query"]["text"].as_str().unwrap_or("SELECT 1").to_owned();
        pass(&settings, &text, serde_json::from_value(statistics).unwrap())
    }

    #[test]
    fn an_allowed_select_passes_with_its_columns_and_bytes() {
        let checked = dry_run(|_| ()).unwrap();
        let keys: Vec<_> = checked.columns.iter().map(|column| (column.name.as_str(), column.key)).collect();
        assert_eq!(keys, [("id", Some(KeyType::String)), ("n", Some(KeyType::Integer)), ("tags", None)]);
        assert_eq!(checked.bytes, 1_000);
    }

    #[test]
    fn whatever_is_no_allowed_select_is_refused() {
        type Change = fn(&mut Value);
        let cases: &[(Change, &str)] = &[
            (|s| s["query"]["statementType"] = json!("DELETE"), "DELETE"),
            (|s| s["query"]["statementType"] = json!("SCRIPT"), "SCRIPT"),
            (|s| s["query"]["statementType"] = Value::Null, "only one SELECT"),
            (|s| s["query"]["referencedTables"][0]["datasetId"] = json!("closed"), "p.closed.t"),
            (|s| s["query"]["referencedTables"][0]["projectId"] = json!("q"), "q.open.t"),
            (
                |s| s["query"]["referencedTables"] = json!(vec![s["query"]["referencedTables"][0].clone(); 50]),
                "50 tables",
            ),
            (|s| s["query"]["referencedRoutines"] = json!([{"routineId": "f"}]), "stored functions"),
            (|s| s["totalBytesProcessed"] = json!("1001"), "1001 bytes"),
            (|s| s["totalBytesProcessed"] = Value::Null, "how much"),
            (|s| s["query"]["schema"]["fields"][1]["name"] = json!("Tasuki_Pos"), "Tasuki_Pos"),
            (|s| s["query"]["text"] = json!("SELECT * FROM open.information_schema.TABLES"), "INFORMATION_SCHEMA"),
            (|s| s["query"]["text"] = json!("SELECT * FROM External_Query('c', 'x')"), "EXTERNAL_QUERY"),
        ];
        for (change, expected) in cases {
            let why = dry_run(change).expect_err(expected);
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn a_source_of_49_tables_passes() {
        let passed = dry_run(|s| {
            s["query"]["referencedTables"] = json!(vec![s["query"]["referencedTables"][0].clone(); TABLES_MAX - 1]);
        });
        assert!(passed.is_ok());
    }
}
