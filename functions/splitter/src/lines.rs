//! Source rows as shard lines: keys read and checked. Pure but for the set of keys seen.

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use tasuki_relay::limits::KEY_BYTES_MAX;
use tasuki_relay::pipeline::{KeyType, Pipeline};
use tasuki_relay::ports::{RowFault, SourceRow};
use tasuki_relay::record::{Content, Failed, Key, ShardLine};

/// Gives rows their ordinals and keys; remembers the keys seen as 128-bit hashes (the first occurrence wins).
pub struct Lines<'a> {
    pipeline: &'a Pipeline,
    next: u64,
    seen: BTreeSet<u128>,
}

impl<'a> Lines<'a> {
    /// Lines from the ordinal `first` on.
    pub fn new(pipeline: &'a Pipeline, first: u64) -> Lines<'a> {
        Lines { pipeline, next: first, seen: BTreeSet::new() }
    }

    /// The line of the next ordinal.
    pub fn line(&mut self, source: SourceRow) -> ShardLine {
        let ordinal = self.next;
        self.next += 1;
        let row = match source.row {
            Ok(row) => row,
            Err(RowFault { reason, message, key }) => {
                let key = key.and_then(|key| read_key(self.pipeline, &key).ok());
                return failed(ordinal, key, reason, message);
            }
        };
        let (column, place) = (&self.pipeline.key, source.place);
        let key = match row.get(column) {
            None => return failed(ordinal, None, "missing_key", format!("{place} has no column {column:?}, the key")),
            Some(Value::Null) => {
                return failed(ordinal, None, "null_key", format!("{place}: the key {column:?} is null"));
            }
            Some(value) => match read_key(self.pipeline, value) {
                Ok(key) => key,
                Err(what) => return failed(ordinal, None, "bad_key", format!("{place}: the key {column:?} {what}")),
            },
        };
        if !self.seen.insert(hash(&key)) {
            return failed(
                ordinal,
                Some(key),
                "duplicate_key",
                format!("{place}: its key was used by an earlier row, which is used"),
            );
        }
        if let Some(absent) = self.pipeline.columns.iter().find(|column| !row.contains_key(*column)) {
            return failed(
                ordinal,
                Some(key),
                "missing_column",
                format!("{place} has no column {absent:?}, which the template names"),
            );
        }
        ShardLine { ordinal, key: Some(key), content: Content::Row(Arc::new(row)) }
    }
}

fn failed(ordinal: u64, key: Option<Key>, reason: &str, message: String) -> ShardLine {
    ShardLine { ordinal, key, content: Content::Failed(Failed { reason: reason.to_owned(), message }) }
}

/// A row's key, or what is wrong with it: never its text.
fn read_key(pipeline: &Pipeline, value: &Value) -> Result<Key, String> {
    match (pipeline.key_type, value) {
        (KeyType::String, Value::String(text)) if text.is_empty() => Err("is empty".into()),
        (KeyType::String, Value::String(text)) if text.len() > KEY_BYTES_MAX => {
            Err(format!("has {} bytes; at most {KEY_BYTES_MAX} are allowed", text.len()))
        }
        (KeyType::String, Value::String(text)) => Ok(Key::Text(text.clone())),
        (KeyType::String, Value::Number(_)) => {
            Err("is a number: write it as a string, or set key_type = \"integer\"".into())
        }
        (KeyType::Integer, Value::Number(number)) => {
            number.as_i64().map(Key::Integer).ok_or_else(|| "is not a whole number of 64 bits".into())
        }
        // The values of a CSV file are strings.
        (KeyType::Integer, Value::String(text)) => text
            .trim()
            .parse()
            .map(Key::Integer)
            .map_err(|_| "is not a whole number of 64 bits: mend it, or set key_type = \"string\"".into()),
        (_, other) => Err(format!("is {}, which cannot be a key", kind(other))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn hash(key: &Key) -> u128 {
    let digest = match key {
        Key::Integer(number) => Sha256::digest(number.to_le_bytes()),
        Key::Text(text) => Sha256::digest(text),
    };
    u128::from_le_bytes(digest[..16].try_into().expect("a SHA-256 digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pipeline(key_type: &str) -> Pipeline {
        Pipeline::parse(&format!(
            "name = \"p\"\nkey = \"id\"\nkey_type = \"{key_type}\"\n[prompt]\ntemplate = \"{{{{ a }}}}\"\n[answer.x]\ntype = \"string\"\n[target]\ntable = \"t\"\n"
        ))
        .unwrap()
    }

    fn reasons(pipeline: &Pipeline, rows: &[Value]) -> Vec<String> {
        let mut lines = Lines::new(pipeline, 0);
        let source = |row: &Value| SourceRow { place: "line 1".into(), row: Ok(row.as_object().unwrap().clone()) };
        let reason = |line: ShardLine| match line.content {
            Content::Failed(failed) => failed.reason,
            _ => line.key.unwrap().to_string(),
        };
        rows.iter().map(|row| reason(lines.line(source(row)))).collect()
    }

    #[test]
    fn a_row_without_a_usable_key_fails_alone_and_the_first_of_two_wins() {
        let rows = [
            json!({"id": "a", "a": 1}),
            json!({"id": "a", "a": 2}),
            json!({"a": 1}),
            json!({"id": null, "a": 1}),
            json!({"id": "", "a": 1}),
            json!({"id": 5, "a": 1}),
            json!({"id": "b"}),
            json!({"id": "c", "a": null}),
        ];
        let expected = ["a", "duplicate_key", "missing_key", "null_key", "bad_key", "bad_key", "missing_column", "c"];
        assert_eq!(reasons(&pipeline("string"), &rows), expected);
    }

    #[test]
    fn integer_keys_are_read_from_numbers_and_from_the_strings_of_csv() {
        let rows = [
            json!({"id": 7, "a": 1}),
            json!({"id": " 7 ", "a": 1}),
            json!({"id": 1.5, "a": 1}),
            json!({"id": "x", "a": 1}),
        ];
        assert_eq!(reasons(&pipeline("integer"), &rows), ["7", "duplicate_key", "bad_key", "bad_key"]);
    }

    #[test]
    fn a_key_may_have_1024_bytes_and_not_one_more() {
        let row = |bytes: usize| json!({"id": "k".repeat(bytes), "a": 1});
        let reasons =
            reasons(&pipeline("string"), &[row(KEY_BYTES_MAX - 1), row(KEY_BYTES_MAX), row(KEY_BYTES_MAX + 1)]);
        assert_eq!(reasons.iter().filter(|reason| *reason == "bad_key").count(), 1);
        assert_eq!(reasons[2], "bad_key");
    }
}
