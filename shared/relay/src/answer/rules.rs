//! What one value must be.

use crate::pipeline::{AnswerColumn, Pipeline, ValueType};
use crate::schema;
use regex_lite::Regex;
use serde_json::{Number, Value};
use std::collections::BTreeSet;
use unicode_normalization::UnicodeNormalization;

/// A sentence of the instruction with fewer characters may well be an answer.
const ECHO_CHARS_MIN: usize = 12;
/// What ends a sentence, in the scripts that pipelines were written in so far. A list of choices has none.
const ENDS: &[char] = &['.', '!', '?', ':', '。', '！', '？', '：'];

const COLONS: &[char] = &[':', '：'];

/// The form in which texts are compared: compatibility composed (NFKC: half and full width are one), spaces as one.
pub(crate) fn normal(text: &str) -> String {
    let folded: String = text.nfkc().collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Spaces, and what has neither width nor ink (`Default_Ignorable_Code_Point` of Unicode's DerivedCoreProperties.txt).
fn is_unseen(char: char) -> bool {
    let ignorable = matches!(char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}');
    ignorable || char.is_whitespace()
}

/// What makes two values of a column equal.
pub(super) fn identity(value: &Value) -> String {
    match value {
        Value::String(text) => normal(text),
        // Within one type, equal values have equal JSON text.
        other => other.to_string(),
    }
}

/// The pattern of a whole value. Alone it is one, too: a bracket that it leaves open or closes would be one of ours.
pub(crate) fn whole(pattern: &str) -> Result<Regex, regex_lite::Error> {
    Regex::new(pattern)?;
    Regex::new(&format!("^(?:{pattern})$"))
}

/// The rules of one column, ready to use.
#[derive(Debug)]
pub(super) struct Rules {
    pub column: AnswerColumn,
    pattern: Option<Regex>,
    /// [`normal`] form → as the pipeline writes it.
    choices: Option<Vec<(String, String)>>,
}

impl Rules {
    pub fn of(column: &AnswerColumn) -> Rules {
        let choices = column.one_of.as_ref();
        Rules {
            column: column.clone(),
            // A pipeline that was parsed has patterns that compile.
            pattern: column.pattern.as_deref().and_then(|pattern| whole(pattern).ok()),
            choices: choices.map(|words| words.iter().map(|word| (normal(word), word.clone())).collect()),
        }
    }

    /// A value, trimmed and in its type's one form, or which rule it breaks.
    pub fn check(&self, value: &Value, echoes: &Echoes) -> Result<Value, String> {
        match (self.column.value_type, value) {
            (ValueType::String, Value::String(text)) => self.string(text.trim(), echoes),
            (ValueType::Integer, Value::Number(number)) if number.is_i64() => Ok(value.clone()),
            (ValueType::Integer, _) => Err("must be an integer of 64 bits".to_owned()),
            // Adding zero makes -0 the same value as 0.
            (ValueType::Number, Value::Number(number)) => {
                let finite = number.as_f64().and_then(|float| Number::from_f64(float + 0.0));
                finite.map(Value::Number).ok_or_else(|| "must be a finite number".to_owned())
            }
            (ValueType::Boolean, Value::Bool(_)) => Ok(value.clone()),
            (ValueType::String, _) => Err("must be a string".to_owned()),
            (ValueType::Number, _) => Err("must be a number".to_owned()),
            (ValueType::Boolean, _) => Err("must be true or false".to_owned()),
        }
    }

    fn string(&self, text: &str, echoes: &Echoes) -> Result<Value, String> {
        if text.chars().all(is_unseen) {
            return Err("must not be empty".to_owned());
        }
        if let Some(choices) = &self.choices {
            let text = normal(text);
            let chosen = choices.iter().find(|(normal, _)| *normal == text);
            return chosen.map(|(_, word)| word.as_str().into()).ok_or_else(|| "must be one of one_of".to_owned());
        }
        if let Some(most) = self.column.max_chars.filter(|most| text.chars().nth(*most as usize).is_some()) {
            return Err(format!("must have at most {most} characters"));
        }
        if let (Some(pattern), Some(written)) = (&self.pattern, &self.column.pattern)
            && !pattern.is_match(text)
        {
            return Err(format!("must match pattern {written}"));
        }
        if echoes.has(text) {
            return Err("must not repeat the instruction".to_owned());
        }
        Ok(text.into())
    }
}

/// The sentences of the instruction: a model that gives one of them as a value has answered nothing.
#[derive(Debug)]
pub(super) struct Echoes(BTreeSet<String>);

impl Echoes {
    pub fn of(pipeline: &Pipeline) -> Echoes {
        let told = pipeline.answer.iter().filter_map(schema::description);
        let whole: Vec<String> = pipeline.system.clone().into_iter().chain(told).collect();
        let literal = pipeline.template.split(['{', '}']).map(str::to_owned);
        let sentences = whole.iter().cloned().chain(literal);
        let sentences: Vec<String> = sentences.flat_map(|text| sentences_of(&text)).collect();
        let all = whole.iter().map(|text| bare(text)).chain(sentences);
        Echoes(all.filter(|text| text.chars().count() >= ECHO_CHARS_MIN).collect())
    }

    fn has(&self, text: &str) -> bool {
        self.0.contains(&bare(text))
    }
}

/// In normal form, without what ends a sentence.
fn bare(text: &str) -> String {
    normal(text).trim_end_matches(ENDS).to_owned()
}

/// What follows a colon is left out: it may be the very words that the model is to answer with.
fn sentences_of(text: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let parts: Vec<&str> = line.split_inclusive(ENDS).collect();
        let prescribed = |at: usize| at > 0 && parts[at - 1].ends_with(COLONS);
        let whole = parts.iter().enumerate().filter(|(at, part)| part.ends_with(ENDS) && !prescribed(*at));
        whole.map(|(_, part)| bare(part)).collect::<Vec<_>>()
    };
    text.lines().flat_map(of_line).collect()
}
