use super::columns;
use super::problems::{Problem, Problems, place};
use super::read::{Reader, Section};
use super::{
    AnswerColumn, DEFAULT_MODEL, KeyType, ModelSettings, Pipeline, RESERVED_COLUMNS, RunSettings, Thinking, ValueType,
    is_location,
};
use crate::answer;
use crate::limits::{
    ANSWER_BYTES_MAX, COMMIT_BYTES_MAX, KEY_BYTES_MAX, MUTATIONS_MAX, PIPELINE_BYTES_MAX, ROWS_PER_SHARD,
};
use crate::names::is_pipeline_name;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::DeTable;

const TOP: &[&str] = &["name", "key", "key_type", "prompt", "answer", "model", "run", "target"];
const PROMPT: &[&str] = &["system", "template"];
const ANSWER: &[&str] = &["type", "count", "distinct", "max_chars", "one_of", "pattern", "description"];
const MODEL: &[&str] = &[
    "name",
    "location",
    "temperature",
    "max_output_tokens",
    "retry_output_tokens",
    "thinking",
    "requests_per_minute",
    "tokens_per_minute",
];
const RUN: &[&str] = &["rows_per_shard", "max_in_flight", "paid_retries", "give_up_after", "only_changed"];
const TARGET: &[&str] = &["table"];

const KEY_TYPES: &[(&str, KeyType)] = &[("string", KeyType::String), ("integer", KeyType::Integer)];
const VALUE_TYPES: &[(&str, ValueType)] = &[
    ("string", ValueType::String),
    ("integer", ValueType::Integer),
    ("number", ValueType::Number),
    ("boolean", ValueType::Boolean),
];
const THINKING: &[(&str, Thinking)] =
    &[("minimal", Thinking::Minimal), ("low", Thinking::Low), ("medium", Thinking::Medium), ("high", Thinking::High)];

/// Tables of the store that are Tasuki's own (protocol.md, section 5).
const RESERVED_TABLES: &[&str] = &["runs", "ledger", "counters", "failures", "outbox"];
/// How SQLite's own tables begin, in small or capital letters (its documentation of CREATE TABLE).
const SQLITE_TABLES: &str = "sqlite_";

/// What a ceiling may be: the largest is beyond any quota, and is there so that a slip of the hand is told.
const PER_MINUTE: RangeInclusive<u32> = 1..=1_000_000_000;

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
    let model = model(&top);
    let run = run(&top, answer.len());
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

fn model(top: &Section<'_>) -> ModelSettings {
    let table = top.section("model", MODEL);
    let table = table.as_ref();
    let name = table.and_then(|table| table.string("name"));
    if let (Some(table), Some(name)) = (table, name.as_ref().filter(|name| !is_model_name(name.get_ref()))) {
        let message = "the model's name is made of letters, digits, '.', '-', '_' and '@', like gemini-3.5-flash-lite";
        table.problem(name.span().start, message);
    }
    let location = table.and_then(|table| table.string("location"));
    if let (Some(table), Some(location)) = (table, location.as_ref().filter(|name| !is_location(name.get_ref()))) {
        let message = "location is \"global\", \"us\", \"eu\", or a region like \"europe-west4\"";
        table.problem(location.span().start, message);
    }
    let most = table.and_then(|table| table.integer("max_output_tokens", 1..=65_536)).map(Spanned::into_inner);
    let retry = table.and_then(|table| table.integer("retry_output_tokens", 1..=65_536));
    if let (Some(table), Some(retry)) = (table, &retry) {
        match most {
            None => table.needs("max_output_tokens", "max_output_tokens = 512, so that retry_output_tokens exceeds it"),
            Some(most) if *retry.get_ref() <= most => table.problem(
                retry.span().start,
                format_args!("retry_output_tokens must exceed max_output_tokens ({most}), or be removed"),
            ),
            Some(_) => {}
        }
    }
    let thinking = table.and_then(|table| table.choice("thinking", THINKING));
    let per_minute = |field| {
        let limit = table.and_then(|table| table.integer(field, PER_MINUTE));
        limit.map(Spanned::into_inner)
    };
    ModelSettings {
        name: name.map_or(DEFAULT_MODEL, Spanned::into_inner).to_owned(),
        location: location.map(|location| (*location.get_ref()).to_owned()),
        temperature: table.and_then(|table| table.number("temperature", 0.0..=2.0)).map(Spanned::into_inner),
        max_output_tokens: most,
        retry_output_tokens: retry.map(Spanned::into_inner),
        thinking: thinking.map_or(Thinking::Minimal, Spanned::into_inner),
        requests_per_minute: per_minute("requests_per_minute"),
        tokens_per_minute: per_minute("tokens_per_minute"),
    }
}

/// The name becomes a part of a URL's path.
fn is_model_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b))
}

fn run(top: &Section<'_>, answer_columns: usize) -> RunSettings {
    let table = top.section("run", RUN);
    let table = table.as_ref();
    let rows = table.and_then(|table| table.integer("rows_per_shard", ROWS_PER_SHARD));
    check_commit(top, rows.as_ref(), answer_columns);
    let give_up_after = table.and_then(|table| table.string("give_up_after"));
    let give_up_after = give_up_after.and_then(|text| {
        let duration = humantime::parse_duration(text.get_ref()).ok().filter(|duration| !duration.is_zero());
        if duration.is_none() {
            top.problem(text.span().start, "give_up_after must be a duration like \"6h\" or \"1h 30m\"");
        }
        duration
    });
    let integer = |field, range| table.and_then(|table| table.integer(field, range)).map(Spanned::into_inner);
    let defaults = RunSettings::default();
    RunSettings {
        rows_per_shard: rows.map(Spanned::into_inner),
        max_in_flight: integer("max_in_flight", 1..=100_000).unwrap_or(defaults.max_in_flight),
        paid_retries: integer("paid_retries", 0..=5).unwrap_or(defaults.paid_retries),
        give_up_after,
        only_changed: table.and_then(|table| table.boolean("only_changed")).is_some_and(Spanned::into_inner),
    }
}

/// A shard is loaded in one commit. Every row of it writes its target columns, or fewer if it fails.
fn check_commit(top: &Section<'_>, rows: Option<&Spanned<u32>>, answer_columns: usize) {
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
