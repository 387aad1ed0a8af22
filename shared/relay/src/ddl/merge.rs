use super::{Difference, Table, differences};

/// One table for each target that the pipelines name, in the order of their names; pipelines of one target share its
/// table, which has the answers of all. Each table comes with the name of its pipeline.
///
/// # Errors
/// Every contradiction, as a sentence: another key, another type of the same column.
pub fn merge<'p>(tables: impl IntoIterator<Item = (&'p str, Table)>) -> Result<Vec<Table>, Vec<String>> {
    let mut merged: Vec<Table> = Vec::new();
    let mut problems = Vec::new();
    for (pipeline, table) in tables {
        let Some(first) = merged.iter_mut().find(|first| first.name.eq_ignore_ascii_case(&table.name)) else {
            merged.push(table);
            continue;
        };
        for difference in differences(first, &table) {
            match &difference {
                Difference::Key { .. } | Difference::Kind { .. } => problems.push(format!(
                    "pipeline {pipeline} shares table {} with another one, but of that table {difference}: name another [target] table",
                    table.name
                )),
                Difference::Missing { column } => {
                    // Before Tasuki's own columns, which come last.
                    let at = first.columns.iter().rposition(|column| first.is_answer(column)).map_or(1, |last| last + 1);
                    first.columns.splice(at..at, table.column(column).cloned());
                }
                Difference::Unwanted { .. } => (),
            }
        }
    }
    merged.sort_by(|a, b| a.name.cmp(&b.name));
    if problems.is_empty() { Ok(merged) } else { Err(problems) }
}
