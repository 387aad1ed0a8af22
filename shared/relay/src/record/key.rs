use serde::{Deserialize, Serialize};
use std::fmt;

/// What identifies a row of a target table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Key {
    /// `key_type = "integer"`.
    Integer(i64),
    /// `key_type = "string"`, at most [`crate::limits::KEY_BYTES_MAX`] bytes.
    Text(String),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Integer(number) => number.fmt(f),
            Key::Text(text) => f.write_str(text),
        }
    }
}
