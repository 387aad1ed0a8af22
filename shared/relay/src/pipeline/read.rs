//! Reading a TOML document field by field: a mistake is noted with its place, and reading goes on.

use super::problems::{Problem, Problems, place, suggestion};
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// A text and the mistakes found in it so far, by byte offset.
pub(crate) struct Reader<'t> {
    text: &'t str,
    found: RefCell<Vec<(usize, String)>>,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        Reader { text, found: RefCell::default() }
    }

    pub(crate) fn problem(&self, offset: usize, message: impl Display) {
        self.found.borrow_mut().push((offset, message.to_string()));
    }

    /// The mistakes, in the order of their places.
    pub(crate) fn problems(self) -> Problems {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(offset, _)| *offset);
        let problem = |(offset, message)| {
            let (line, column) = place(self.text, offset);
            Problem { line, column, message }
        };
        Problems(found.into_iter().map(problem).collect())
    }

    /// The top level of the document.
    pub(crate) fn root<'r>(&'r self, table: &'r DeTable<'r>, fields: &[&str]) -> Section<'r> {
        self.section(table, String::new(), 0, fields)
    }

    fn section<'r>(&'r self, table: &'r DeTable<'r>, name: String, at: usize, fields: &[&str]) -> Section<'r> {
        let section = Section { reader: self, name, at, table };
        for (key, _) in table.iter().filter(|(key, _)| !fields.contains(&key.get_ref().as_ref())) {
            let within = if section.name.is_empty() { String::new() } else { format!(" in {}", section.name) };
            let what = suggestion(key.get_ref(), fields);
            self.problem(key.span().start, format_args!("unknown field {:?}{within}{what}", key.get_ref()));
        }
        section
    }

    /// The source text of a value, quotes included.
    pub(crate) fn source<T>(&self, value: &Spanned<T>) -> &'t str {
        self.text.get(value.span()).unwrap_or_default()
    }
}

/// A table whose unknown fields are noted.
pub(crate) struct Section<'r> {
    reader: &'r Reader<'r>,
    /// As the user writes it, `[model]`; empty for the top level.
    name: String,
    /// Where its name stands.
    pub(crate) at: usize,
    table: &'r DeTable<'r>,
}

impl<'r> Section<'r> {
    pub(crate) fn problem(&self, offset: usize, message: impl Display) {
        self.reader.problem(offset, message);
    }

    /// Notes that `field` is needed, when it is absent. `like` shows how to write it.
    pub(crate) fn needs(&self, field: &str, like: &str) {
        if !self.table.contains_key(field) {
            let subject = if self.name.is_empty() { "the pipeline" } else { &self.name };
            self.problem(self.at, format_args!("{subject} needs {field}: write {like}"));
        }
    }

    pub(crate) fn string(&self, field: &str) -> Option<Spanned<&'r str>> {
        let value = self.value(field)?;
        let string = value.get_ref().as_str().map(|text| Spanned::new(value.span(), text));
        self.typed(field, value, string, "a string")
    }

    /// An array of strings; what else is in it is noted.
    pub(crate) fn strings(&self, field: &str) -> Option<Vec<Spanned<&'r str>>> {
        let value = self.value(field)?;
        let array = self.typed(field, value, value.get_ref().as_array(), "an array of strings")?;
        let string = |item: &'r Spanned<DeValue<'r>>| {
            let text = item.get_ref().as_str().map(|text| Spanned::new(item.span(), text));
            self.typed(field, item, text, "an array of strings")
        };
        Some(array.iter().filter_map(string).collect())
    }

    /// Where a field's name stands; `None` when it is absent.
    pub(crate) fn place(&self, field: &str) -> Option<usize> {
        self.table.get_key_value(field).map(|(key, _)| key.span().start)
    }

    pub(crate) fn boolean(&self, field: &str) -> Option<Spanned<bool>> {
        let value = self.value(field)?;
        let boolean = value.get_ref().as_bool().map(|boolean| Spanned::new(value.span(), boolean));
        self.typed(field, value, boolean, "true or false")
    }

    pub(crate) fn integer(&self, field: &str, range: RangeInclusive<u32>) -> Option<Spanned<u32>> {
        let value = self.value(field)?;
        let integer = value.get_ref().as_integer().map(|digits| i64::from_str_radix(digits.as_str(), digits.radix()));
        let integer = self.typed(field, value, integer, "an integer")?;
        let within = integer.ok().and_then(|n| u32::try_from(n).ok()).filter(|n| range.contains(n));
        self.within(field, value, within, format_args!("{} to {}", range.start(), range.end()))
    }

    pub(crate) fn number(&self, field: &str, range: RangeInclusive<f64>) -> Option<Spanned<f64>> {
        self.amount(field, range, "")
    }

    /// A number of something: `unit` ends what is said of one out of range.
    pub(crate) fn amount(&self, field: &str, range: RangeInclusive<f64>, unit: &str) -> Option<Spanned<f64>> {
        let value = self.value(field)?;
        let digits = match value.get_ref() {
            DeValue::Integer(digits) if digits.radix() == 10 => Some(digits.as_str()),
            DeValue::Float(digits) => Some(digits.as_str()),
            _ => None,
        };
        let number = self.typed(field, value, digits.map(str::parse::<f64>), "a number")?;
        let within = number.ok().filter(|n| range.contains(n));
        self.within(field, value, within, format_args!("{} to {}{unit}", range.start(), range.end()))
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&self, field: &str, choices: &[(&str, T)]) -> Option<Spanned<T>> {
        let word = self.string(field)?;
        let chosen = choices.iter().find(|(name, _)| name == word.get_ref());
        if chosen.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let what = suggestion(word.get_ref(), &names);
            self.problem(word.span().start, format_args!("{field} cannot be {:?}{what}", word.get_ref()));
        }
        chosen.map(|(_, value)| Spanned::new(word.span(), *value))
    }

    /// A table within this one; `fields` are all that it may have.
    pub(crate) fn section(&self, field: &str, fields: &[&str]) -> Option<Section<'r>> {
        let (key, value) = self.table.get_key_value(field)?;
        self.subsection(key, value, fields)
    }

    /// The tables within this table, whatever their names, in the order of the file.
    pub(crate) fn sections(&self, fields: &[&str]) -> Vec<(Spanned<&'r str>, Option<Section<'r>>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let section = |(key, value): (&'r Spanned<DeString<'r>>, &'r Spanned<DeValue<'r>>)| {
            (Spanned::new(key.span(), key.get_ref().as_ref()), self.subsection(key, value, fields))
        };
        entries.into_iter().map(section).collect()
    }

    /// A table whose fields are the user's to name.
    pub(crate) fn open_section(&self, field: &str) -> Option<Section<'r>> {
        let (key, value) = self.table.get_key_value(field)?;
        let names = value.get_ref().as_table().into_iter().flat_map(|table| table.keys());
        let names: Vec<&str> = names.map(|key| key.get_ref().as_ref()).collect();
        self.subsection(key, value, &names)
    }

    fn subsection(
        &self,
        key: &'r Spanned<DeString<'r>>,
        value: &'r Spanned<DeValue<'r>>,
        fields: &[&str],
    ) -> Option<Section<'r>> {
        let name = format!("{}.{}", self.name.trim_matches(['[', ']']), key.get_ref());
        let name = format!("[{}]", name.trim_start_matches('.'));
        let table = self.typed(key.get_ref(), value, value.get_ref().as_table(), &format!("a table {name}"))?;
        Some(self.reader.section(table, name, key.span().start, fields))
    }

    fn value(&self, field: &str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.table.get(field)
    }

    fn typed<T>(&self, field: &str, value: &Spanned<DeValue<'_>>, read: Option<T>, expected: &str) -> Option<T> {
        if read.is_none() {
            let found = type_name(value.get_ref());
            self.problem(value.span().start, format_args!("{field} must be {expected}, not {found}"));
        }
        read
    }

    fn within<T>(
        &self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
        read: Option<T>,
        range: impl Display,
    ) -> Option<Spanned<T>> {
        if read.is_none() {
            self.problem(value.span().start, format_args!("{field} must be {range}"));
        }
        read.map(|read| Spanned::new(value.span(), read))
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
