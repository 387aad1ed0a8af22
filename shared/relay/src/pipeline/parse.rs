use super::columns;
use super::problems::{Problem, Problems, place};
use super::read::{Reader, Section};
use super::settings;
use super::{AnswerColumn, KeyType, Pipeline, RESERVED_COLUMNS, ValueType};
use crate::answer;
use crate::limits::{
    ANSWER_BYTES_MAX, COMMIT_BYTES_MAX, KEY_BYTES_MAX, MUTATIONS_MAX, PIPELINE_BYTES_MAX, ROWS_PER_SHARD,
};
use crate::names::is_pipeline_name;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::DeTable;

const TOP: &[&str] = &["name", "key", "key_type", "prompt", "answer", "model", "run", "target"];
const PROMPT: &[&str] = &["system", "template"];
const ANSWER: &[&str] = &["type", "count", "distinct", "max_chars", "one_of", "pattern", "description"];
const TARGET: &[&str] = &["table"];

const KEY_TYPES: &[(&str, KeyType)] = &[("string", KeyType::String), ("integer", KeyType::Integer)];
const VALUE_TYPES: &[(&str, ValueType)] = &[
    ("string", ValueType::String),
    ("integer", ValueType::Integer),
    ("number", ValueType::Number),
    ("boolean", ValueType::Boolean),
];
/// Tables of the store that are Tasuki's own (protocol.md, section 5).
const RESERVED_TABLES: &[&str] = &["runs", "ledger", "counters", "failures", "outbox"];
/// How SQLite's own tables begin, in small or capital letters (its documentation of CREATE TABLE).
const SQLITE_TABLES: &str = "sqlite_";

/// Most values of one answer, over all columns and counts: that many are sure to fit into [`ANSWER_BYTES_MAX`] with
/// names of 128 characters and 100 bytes a value.
pub const VALUES_MAX: u32 = 256;

/// Most choices of `one_of`: the API refuses schemas that are too complex (peers.md 5.4), and each is sent with every call.
pub const CHOICES_MAX: usize = 200;

/// Mutations of a commit that are not rows: the ledger's row, a counter, the run and its notice, with their indexes.
pub const MUTATIONS_PER_PART: usize = 200;

// A shard's rows are bounded by mutations alone: even the largest answers fit a commit's bytes.
const _: () = assert!(*ROWS_PER_SHARD.end() as usize * (ANSWER_BYTES_MAX + KEY_BYTES_MAX + 1_024) < COMMIT_BYTES_MAX);

impl Pipeline {
    /// Reads a pipeline file (TOML). Tells every mistake at once, each with its place and its mend.
    ///
    /// A text that is not TOML tells its syntax errors alone: what else it says is a guess.
    pub fn parse(text: &str) -> Result<Pipeline, Problems> {
        if text.len() > PIPELINE_BYTES_MAX {
            let message = format!("the pipeline has {} bytes, at most {PIPELINE_BYTES_MAX} are read", text.len());
            return Err(Problems(vec![Problem { line: 1, column: 1, message }]));
        }
        let reader = Reader::new(text);
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            reader.problem(error.span().map_or(0, |span| span.start), format_args!("not TOML: {}", error.message()));
        }
        let pipeline = if errors.is_empty() { pipeline(&reader, document.get_ref()) } else { None };
        let problems = reader.problems();
        pipeline.filter(|_| problems.0.is_empty()).ok_or(problems)
    }
}

/// `None` only when a problem was noted.
fn pipeline(reader: &Reader<'_>, document: &DeTable<'_>) -> Option<Pipeline> {
    let top = reader.root(document, TOP);
    top.needs("name", "name = \"themes\"");
    let name = top.string("name");
    if let Some(name) = name.as_ref().filter(|name| !is_pipeline_name(name.get_ref())) {
        top.problem(
            name.span().start,
            format_args!("name cannot be {:?}: a lower-case letter, then at most 30 of a-z, 0-9 and -", name.get_ref()),
        );
    }
    top.needs("key", "key = \"id\", the column that identifies a row");
    let key = top.string("key");
    if let Some(key) = &key {
        check_column(&top, "key", key);
    }
    let key_type = top.choice("key_type", KEY_TYPES);
    let prompt = prompt(reader, &top);
    let answer = answer(&top, key.as_ref().map(|key| *key.get_ref()));
    let model = settings::model(&top);
    let run = settings::run(&top, answer.len(), &model);
    top.needs("target", "[target] with table = \"row_themes\"");
    let table = top.section("target", TARGET).and_then(|target| table(&target));
    let (system, template, columns) = prompt?;
    Some(Pipeline {
        name: (*name?.get_ref()).to_owned(),
        key: (*key?.get_ref()).to_owned(),
        key_type: key_type.map_or(KeyType::String, Spanned::into_inner),
        system,
        template,
        columns,
        answer,
        model,
        run,
        table: table?,
    })
}

fn prompt(reader: &Reader<'_>, top: &Section<'_>) -> Option<(Option<String>, String, Vec<String>)> {
    top.needs("prompt", "[prompt] with template = \"Name themes for {{ description }}\"");
    let section = top.section("prompt", PROMPT)?;
    let system = section.string("system").map(|system| (*system.get_ref()).to_owned());
    section.needs("template", "template = \"Name themes for {{ description }}\"");
    let template = section.string("template")?;
    let text = *template.get_ref();
    // A template that stands in the file as it is has an exact place; one with escapes only that of its field.
    let verbatim = reader.source(&template).find(text).map(|at| template.span().start + at);
    let columns = columns::of(text).map_err(|mistakes| {
        for columns::Mistake { offset, message } in mistakes {
            match verbatim {
                Some(start) => section.problem(start + offset, format_args!("template: {message}")),
                None => {
                    let (line, _) = place(text, offset);
                    section.problem(template.span().start, format_args!("template, its line {line}: {message}"));
                }
            }
        }
    });
    Some((system, text.to_owned(), columns.ok()?))
}

fn answer(top: &Section<'_>, key: Option<&str>) -> Vec<AnswerColumn> {
    const LIKE: &str = "at least one table [answer.themes] with type = \"string\"";
    top.needs("answer", LIKE);
    let Some(section) = top.open_section("answer") else { return Vec::new() };
    let mut columns: Vec<AnswerColumn> = Vec::new();
    let mut values = 0;
    let tables = section.sections(ANSWER);
    if tables.is_empty() {
        section.problem(section.at, format_args!("[answer] has no column: write {LIKE}"));
    }
    for (name, table) in tables {
        check_column(&section, "an answer column", &name);
        let same = |other: &str| other.eq_ignore_ascii_case(name.get_ref());
        if key.is_some_and(same) {
            section.problem(name.span().start, format_args!("{:?} is the key: name it otherwise", name.get_ref()));
        }
        if let Some(other) = columns.iter().find(|column| same(&column.name)) {
            let message = format!("{:?} and {:?} are one column to the store", other.name, name.get_ref());
            section.problem(name.span().start, message);
        }
        if let Some(column) = table.map(|table| answer_column(&table, name.get_ref())) {
            values += column.count.unwrap_or(1);
            columns.push(column);
        }
    }
    if values > VALUES_MAX {
        let message = format!("an answer of {values} values may be cut off: ask for {VALUES_MAX} at most in all");
        section.problem(section.at, message);
    }
    columns
}

fn answer_column(table: &Section<'_>, name: &str) -> AnswerColumn {
    table.needs("type", "type = \"string\"");
    let value_type = table.choice("type", VALUE_TYPES).map(Spanned::into_inner);
    let count = table.integer("count", 1..=100).map(Spanned::into_inner);
    let distinct = table.boolean("distinct").filter(|distinct| *distinct.get_ref());
    let max_chars = table.integer("max_chars", 1..=10_000);
    if let Some(distinct) = &distinct {
        match (value_type, count) {
            (_, None) => {
                table.problem(distinct.span().start, "distinct needs count: a single value is always distinct")
            }
            (Some(ValueType::Boolean), Some(3..)) => {
                table.problem(distinct.span().start, "only 2 booleans are distinct: lower count or remove distinct")
            }
            _ => {}
        }
    }
    let one_of = table.strings("one_of");
    let pattern = table.string("pattern");
    let for_strings = [
        ("max_chars", max_chars.as_ref().map(Spanned::span)),
        ("one_of", one_of.as_ref().and_then(|_| table.place("one_of")).map(|at| at..at)),
        ("pattern", pattern.as_ref().map(Spanned::span)),
    ];
    for (field, span) in for_strings {
        if let Some(span) = span.filter(|_| !matches!(value_type, Some(ValueType::String) | None)) {
            table.problem(span.start, format_args!("{field} is for strings: remove it, or write type = \"string\""));
        }
    }
    if let Some(one_of) = &one_of {
        check_choices(table, one_of, count.filter(|_| distinct.is_some()));
        for (field, there) in [("max_chars", max_chars.is_some()), ("pattern", pattern.is_some())] {
            if let (true, Some(at)) = (there, table.place(field)) {
                table.problem(at, format_args!("{field} says nothing beside one_of: remove it"));
            }
        }
    }
    if let Some(pattern) = &pattern
        && let Err(error) = answer::pattern(pattern.get_ref())
    {
        table.problem(pattern.span().start, format_args!("pattern is no regular expression: {error}"));
    }
    AnswerColumn {
        name: name.to_owned(),
        value_type: value_type.unwrap_or(ValueType::String),
        count,
        distinct: distinct.is_some(),
        max_chars: max_chars.map(Spanned::into_inner),
        one_of: one_of.map(|words| words.iter().map(|word| (*word.get_ref()).to_owned()).collect()),
        pattern: pattern.map(|pattern| (*pattern.get_ref()).to_owned()),
        description: table.string("description").map(|text| (*text.get_ref()).to_owned()),
    }
}

/// `distinct` is how many different ones an answer needs.
fn check_choices(table: &Section<'_>, words: &[Spanned<&str>], distinct: Option<u32>) {
    let at = table.place("one_of").unwrap_or(table.at);
    if !(2..=CHOICES_MAX).contains(&words.len()) {
        table.problem(at, format_args!("one_of must have 2 to {CHOICES_MAX} choices, not {}", words.len()));
    } else if let Some(count) = distinct.filter(|count| *count as usize > words.len()) {
        table.problem(at, format_args!("{count} distinct values cannot come from {} choices", words.len()));
    }
    let mut seen = BTreeMap::new();
    for word in words {
        let (text, place) = (*word.get_ref(), word.span().start);
        if text.is_empty() || text.trim() != text {
            table.problem(place, "a choice of one_of is text without spaces around it");
        }
        if let Some(other) = seen.insert(answer::normal(text), text) {
            table.problem(place, format_args!("{text:?} and {other:?} are one choice: remove one"));
        }
    }
}

/// A shard is loaded in one commit. Every row of it writes its target columns, or fewer if it fails.
pub(super) fn check_commit(top: &Section<'_>, rows: Option<&Spanned<u32>>, answer_columns: usize) {
    let columns = 1 + answer_columns + RESERVED_COLUMNS.len();
    let most = (MUTATIONS_MAX - MUTATIONS_PER_PART) / columns;
    let asked = rows.map_or(*ROWS_PER_SHARD.end(), |rows| *rows.get_ref());
    if asked as usize > most {
        let at = rows.map_or(0, |rows| rows.span().start);
        let message = format!(
            "a shard of {asked} rows of {columns} columns exceeds one commit of the store: \
             write [run] rows_per_shard = {most} or less"
        );
        top.problem(at, message);
    }
}

fn table(target: &Section<'_>) -> Option<String> {
    target.needs("table", "table = \"row_themes\"");
    let table = target.string("table")?;
    check_identifier(target, "table", &table);
    if RESERVED_TABLES.iter().any(|reserved| reserved.eq_ignore_ascii_case(table.get_ref())) {
        let reserved = RESERVED_TABLES.join(", ");
        target.problem(table.span().start, format_args!("table cannot be one of Tasuki's own: {reserved}"));
    }
    if table.get_ref().to_ascii_lowercase().starts_with(SQLITE_TABLES) {
        let message = format_args!("table cannot begin with {SQLITE_TABLES}: SQLite keeps such names for itself");
        target.problem(table.span().start, message);
    }
    Some((*table.get_ref()).to_owned())
}

/// A column of the target table, named by the user.
fn check_column(section: &Section<'_>, what: &str, name: &Spanned<&str>) {
    check_identifier(section, what, name);
    if RESERVED_COLUMNS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name.get_ref())) {
        let reserved = RESERVED_COLUMNS.join(", ");
        let message = format!("{what} cannot be {:?}: Tasuki writes the columns {reserved} itself", name.get_ref());
        section.problem(name.span().start, message);
    }
}

fn check_identifier(section: &Section<'_>, what: &str, name: &Spanned<&str>) {
    let text = name.get_ref();
    let valid = (1..=128).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !valid {
        let message = format!("{what} cannot be {text:?}: a letter, then at most 127 of A-Z, a-z, 0-9 and _");
        section.problem(name.span().start, message);
    }
}

#[cfg(test)]
mod tests;
