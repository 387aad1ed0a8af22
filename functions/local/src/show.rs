//! Numbers, tables and lines for people and for programs. Everything goes through a writer: a closed pipe is an error, no panic.

use anyhow::Result;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Row, Table};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use tasuki_relay::books::{FailureRow, ResultRow};

/// Width of a table that goes to a file or a pipe.
const WIDTH: u16 = 120;
/// A terminal that says it is narrower is not one that a person looks at: some say 0.
const WIDTH_MIN: u16 = 20;

/// 1234567 as 1,234,567.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `$14.40`, `$0.0021`, `$0.00000035`: small sums as well.
pub(crate) fn dollars(sum: f64) -> String {
    let mut digits = match sum {
        0.0 | 0.1.. => 2,
        0.001..0.1 => 4,
        // Two digits that say something, of picodollars at least.
        _ => (1.0 - sum.log10().floor()).clamp(4.0, 12.0) as usize,
    };
    let mut text = format!("${sum:.digits$}");
    while digits > 2 && text.ends_with('0') {
        text.pop();
        digits -= 1;
    }
    text
}

/// `1 row`, `1,000 failed rows`; `which` is empty or ends in a space.
pub(crate) fn rows(count: u64, which: &str) -> String {
    format!("{} {which}row{}", number(count), if count == 1 { "" } else { "s" })
}

/// `300 ms`, `1.2 s`, `3m 20s`.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

/// A table of one line a row: what is too wide for the terminal is cut, by the width that it has on the screen.
pub(crate) fn table(head: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    lines(head, rows, Some(1)).to_string()
}

/// A table in which nothing is cut: what is too wide goes on in the next line.
pub(crate) fn whole_table(head: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    lines(head, rows, None).to_string()
}

/// A table of numbers, each row with its name first.
pub(crate) fn number_table(head: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = lines(head, rows, None);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.to_string()
}

fn lines(head: Vec<String>, rows: impl IntoIterator<Item = Vec<String>>, height: Option<usize>) -> Table {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(head);
    if table.width().is_none_or(|width| width < WIDTH_MIN) {
        table.set_width(WIDTH);
    }
    for row in rows {
        // A line break or a control character of an answer must not reach the terminal.
        let cells = row.into_iter().map(|cell| cell.replace(char::is_control, " "));
        let mut row = Row::from(cells.collect::<Vec<_>>());
        if let Some(height) = height {
            row.max_height(height);
        }
        table.add_row(row);
    }
    table
}

/// A value for people: an array as its parts.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(" · "),
        other => other.to_string(),
    }
}

/// A value in a CSV field: text as it is, the rest as JSON.
fn field(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One JSON text and a line break.
pub(crate) fn json_line(out: &mut dyn Write, value: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(out.write_all(b"\n")?)
}

/// One answer as a JSON object: the key column, the answer columns in the pipeline's order, `run`, `model`.
pub(crate) struct ResultLine<'a> {
    pub(crate) key: &'a str,
    pub(crate) row: &'a ResultRow,
}

impl Serialize for ResultLine<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry(self.key, &self.row.key)?;
        for (name, value) in &self.row.values {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("run", &self.row.run)?;
        map.serialize_entry("model", &self.row.model)?;
        map.end()
    }
}

/// The fields of one answer, in the order of [`ResultLine`].
pub(crate) fn result_fields(row: &ResultRow) -> Vec<String> {
    let key = std::iter::once(row.key.to_string());
    let values = row.values.iter().map(|(_, value)| field(value));
    key.chain(values).chain([row.run.to_string(), row.model.clone()]).collect()
}

/// One failure as a JSON object.
pub(crate) fn failure_json(row: &FailureRow) -> Value {
    serde_json::json!({
        "key": row.key, "ordinal": row.ordinal, "reason": row.reason, "message": row.message, "attempts": row.attempts,
    })
}

/// A word of a command line as a person would type it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// A command line of ours as a person would type it.
pub(crate) fn line<W: AsRef<str>>(dir: &Path, words: &[W]) -> String {
    let mut line = String::from("tasuki");
    if dir != Path::new(".tasuki") {
        line += &format!(" --dir {}", quoted(&dir.to_string_lossy()));
    }
    for word in words {
        line = line + " " + &quoted(word.as_ref());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!((rows(1, "failed "), rows(1_000, "")), ("1 failed row".into(), "1,000 rows".into()));
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_small_sum_is_not_told_as_nothing() {
        let sums = [0.0, 14.4, 0.1, 0.05, 0.0021, 0.00031, 0.00000035, 1e-12].map(dollars);
        assert_eq!(
            sums,
            ["$0.00", "$14.40", "$0.10", "$0.05", "$0.0021", "$0.00031", "$0.00000035", "$0.000000000001"]
        );
    }

    #[test]
    fn a_row_of_a_table_is_one_line_whatever_is_in_it() {
        let text = "とても長い説明です。".repeat(40) + "\n\x1b[31m";
        let table = table(vec!["id".into(), "text".into()], [vec!["1".into(), text]]);
        assert_eq!(table.lines().count(), 5, "{table}");
        assert!(!table.contains('\x1b'));
        let whole = whole_table(vec!["message".into()], [vec!["word ".repeat(100) + "and the mend"]]);
        assert!(whole.lines().count() > 5 && whole.contains("mend"), "{whole}");
        // A wide character takes two cells: half as many fit.
        assert!(table.lines().all(|line| line.chars().filter(|letter| ('ぁ'..='龠').contains(letter)).count() <= 60));
    }

    #[test]
    fn values_read_well() {
        assert_eq!(plain(&serde_json::json!(["a", 1, true])), "a · 1 · true");
        assert_eq!(field(&serde_json::json!(["a", 1])), r#"["a",1]"#);
        assert_eq!(
            (time(Duration::from_millis(300)), time(Duration::from_secs(200))),
            ("300 ms".into(), "3m 20s".into())
        );
    }
}
