use super::read::Reader;
use std::fmt;
use toml::de::DeTable;

/// One mistake in a file that a user writes: where, what, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and how to mend it.
    pub message: String,
}

/// Every mistake in a file that a user writes, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

/// A field of a pipeline: its names from the top, and which item of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub &'static [&'static str], pub Option<usize>);

impl Field {
    /// Where it stands, or else what it would stand in.
    fn offset(self, document: &DeTable<'_>) -> usize {
        let (mut table, mut at) = (Some(document), 0);
        for name in self.0 {
            let Some((key, value)) = table.and_then(|table| table.get_key_value(*name)) else { break };
            table = value.get_ref().as_table();
            let item = self.1.and_then(|item| value.get_ref().as_array()?.get(item));
            at = match table {
                Some(_) => key.span().start,
                None => item.unwrap_or(value).span().start,
            };
        }
        at
    }
}

impl Problems {
    /// Mistakes in a valid pipeline of this text, which only those know who know models and deployments. `None` without any.
    pub fn at(text: &str, found: Vec<(Field, String)>) -> Option<Problems> {
        if found.is_empty() {
            return None;
        }
        let reader = Reader::new(text);
        let (document, _) = DeTable::parse_recoverable(text);
        for (field, message) in found {
            reader.problem(field.offset(document.get_ref()), message);
        }
        Some(reader.problems())
    }

    /// One line per mistake: `themes.toml:3:1: …`.
    pub fn in_file(&self, file: &str) -> String {
        self.lines(|problem| format!("{file}:{problem}"))
    }

    fn lines(&self, line: impl Fn(&Problem) -> String) -> String {
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines(Problem::to_string))
    }
}

/// Line and column of the byte at `offset`, both from 1.
pub(crate) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (1 + before.matches('\n').count(), 1 + before[line_start..].chars().count())
}

/// `: did you mean "x"?` when one of `known` is spelled nearly so, then all of them.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    // One slip in three letters is a typing error; more is another word.
    let most = name.chars().count().div_ceil(3);
    let nearest = known
        .iter()
        .map(|each| (strsim::damerau_levenshtein(&name.to_lowercase(), each), each))
        .min()
        .filter(|(distance, _)| *distance <= most);
    let mean = nearest.map(|(_, each)| format!(": did you mean {each:?}?")).unwrap_or_else(|| ".".to_owned());
    format!("{mean} Allowed: {}", known.join(", "))
}
