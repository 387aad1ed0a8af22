//! The SQL of a snapshot. Names are valid (`tasuki_relay::source`) and stand between backticks; a query and a condition stand in
//! parentheses on lines of their own, so that a comment at their end ends with its line.

use super::settings::DatasetName;
use tasuki_relay::names;
use tasuki_relay::ports::Order;
use tasuki_relay::source::{Selection, Source};

/// How every name begins that a snapshot adds to the source's: none of its columns may.
pub const PREFIX: &str = "tasuki_";
/// The column of a snapshot that says which part a row is in.
pub const PART: &str = "tasuki_part";
/// The column that says where in its part.
pub const POS: &str = "tasuki_pos";
/// A snapshot outlives its run: shards, answers and ledger are kept 45 days (protocol.md 6).
const EXPIRES_AFTER_DAYS: u32 = 45;

/// The source as one SELECT: what is run dry, and then read.
pub fn select(source: &Source) -> String {
    match &source.rows {
        // A semicolon may end a statement, but not a part of one.
        Selection::Query(query) => query.trim_end_matches([';', ' ', '\t', '\r', '\n']).to_owned(),
        Selection::Table { table, columns, condition } => {
            let quoted: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
            let columns = if columns.is_empty() { "*".to_owned() } else { quoted.join(", ") };
            let condition = condition.as_ref().map(|text| format!("\nWHERE (\n{text}\n)")).unwrap_or_default();
            format!("SELECT {columns} FROM `{table}`{condition}")
        }
    }
}

/// A snapshot's table has its job's name, so that no two attempts share one.
pub fn table(staging: &DatasetName, job: &str) -> String {
    format!("{staging}.{}", table_id(job))
}

/// The table's own name.
pub fn table_id(job: &str) -> String {
    job.replace('-', "_")
}

/// What the job of an order runs: it takes the rows from the source, or from an earlier attempt's snapshot, and cuts them into
/// parts. The rows of one key are in one part; the order of equal keys is that of a hash of the whole row, so that the same rows
/// always stand in the same order. Each part is sorted on its own.
pub fn job(staging: &DatasetName, order: &Order) -> String {
    let table_of = |attempt| table(staging, &names::snapshot_job(&order.run, attempt));
    let source = match order.again {
        Some(attempt) => format!("SELECT * EXCEPT ({PART}, {POS}) FROM `{}`", table_of(attempt)),
        None => select(&order.source),
    };
    let (table, key, parts) = (table_of(order.attempt), &order.key, order.parts);
    format!(
        "CREATE TABLE `{table}`
PARTITION BY RANGE_BUCKET({PART}, GENERATE_ARRAY(0, {parts}, 1))
CLUSTER BY {POS}
OPTIONS (expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL {EXPIRES_AFTER_DAYS} DAY))
AS
SELECT *, ROW_NUMBER() OVER (
  PARTITION BY {PART} ORDER BY tasuki_t.`{key}`, FARM_FINGERPRINT(TO_JSON_STRING(tasuki_t))
) - 1 AS {POS}
FROM (
  SELECT tasuki_s.*, ABS(MOD(COALESCE(FARM_FINGERPRINT(CAST(tasuki_s.`{key}` AS STRING)), 0), {parts})) AS {PART}
  FROM (
{source}
  ) AS tasuki_s
) AS tasuki_t"
    )
}

/// Counts a snapshot's rows by part.
pub fn count(staging: &DatasetName, job: &str) -> String {
    format!("SELECT {PART}, COUNT(*) FROM `{}` GROUP BY {PART}", table(staging, job))
}

/// The rows of a part whose positions are in `rows`, as the Storage Read API's row restriction.
pub fn restriction(part: u32, rows: &std::ops::Range<u64>) -> String {
    format!("{PART} = {part} AND {POS} >= {} AND {POS} < {}", rows.start, rows.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tasuki_relay::names::RunId;

    fn source(text: &str) -> Source {
        Source::parse(text).unwrap()
    }

    #[test]
    fn a_table_is_selected_with_quoted_names() {
        let all = source("[source]\ntable = \"p.d.t\"\n");
        assert_eq!(select(&all), "SELECT * FROM `p.d.t`");
        let some = source("[source]\ntable = \"p.d.t\"\ncolumns = [\"id\", \"a b\"]\nwhere = \"x = 1 -- one\"\n");
        assert_eq!(select(&some), "SELECT `id`, `a b` FROM `p.d.t`\nWHERE (\nx = 1 -- one\n)");
    }

    #[test]
    fn a_query_may_end_in_a_comment_or_a_semicolon() {
        let run = RunId::of("b", "n", 1);
        let order = Order {
            run: run.clone(),
            attempt: 2,
            again: None,
            source: source("[source]\nquery = \"SELECT 1 AS id -- all\\n; \\n\"\n"),
            parts: 7,
            key: "id".into(),
        };
        let sql = job(&"p.staging".parse().unwrap(), &order);
        assert!(sql.contains("\nSELECT 1 AS id -- all\n  ) AS tasuki_s"), "{sql}");
        assert!(sql.contains(&format!("CREATE TABLE `p.staging.run_{}_snap_2`", order.run)), "{sql}");
        assert!(sql.contains("GENERATE_ARRAY(0, 7, 1)") && sql.contains("INTERVAL 45 DAY"), "{sql}");

        let again = job(&"p.staging".parse().unwrap(), &Order { again: Some(1), ..order });
        let rows = format!("SELECT * EXCEPT (tasuki_part, tasuki_pos) FROM `p.staging.run_{}_snap_1`\n", run);
        assert!(again.contains(&rows) && !again.contains("SELECT 1"), "{again}");
    }
}
