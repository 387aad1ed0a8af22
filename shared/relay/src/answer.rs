//! Is a reply's text the answer that the pipeline asks for?

use crate::limits::ANSWER_BYTES_MAX;
use crate::pipeline::{AnswerColumn, Pipeline, ValueType, Values};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Number, Value};
use std::collections::BTreeSet;
use std::fmt;

/// Why it is not: the column and the rule, never the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Takes a reply's text for the answer: a JSON object with exactly the answer columns, each within its rules. Texts come
/// back trimmed, numbers as floats.
pub fn validate(pipeline: &Pipeline, text: &str) -> Result<Values, Invalid> {
    let invalid = |message: String| Err(Invalid(message));
    if text.len() > ANSWER_BYTES_MAX {
        return invalid(format!("the answer is longer than {ANSWER_BYTES_MAX} bytes"));
    }
    let Ok(Fields(fields)) = serde_json::from_str(text) else {
        return invalid("the answer is not a JSON object".to_owned());
    };
    let mut values = Values::new();
    for (name, value) in fields {
        let Some(column) = pipeline.answer.iter().find(|column| column.name == name) else {
            return invalid("the answer has a field that was not asked for".to_owned());
        };
        let value = column_value(column, value).map_err(|rule| Invalid(format!("{name}: {rule}")))?;
        if values.insert(name, value).is_some() {
            return invalid(format!("{}: it is there twice", column.name));
        }
    }
    match pipeline.answer.iter().find(|column| !values.contains_key(&column.name)) {
        Some(absent) => invalid(format!("{}: it is missing", absent.name)),
        None => Ok(values),
    }
}

fn column_value(column: &AnswerColumn, value: Value) -> Result<Value, String> {
    let Some(count) = column.count else { return scalar(column, value) };
    let Value::Array(items) = value else { return Err("must be an array".to_owned()) };
    if items.len() != count as usize {
        return Err(format!("must have {count} values, not {}", items.len()));
    }
    let items = items.into_iter().map(|item| scalar(column, item)).collect::<Result<Vec<_>, _>>()?;
    // Within one type, equal values have equal JSON text.
    if column.distinct && items.iter().map(Value::to_string).collect::<BTreeSet<_>>().len() < items.len() {
        return Err("no two values may be equal".to_owned());
    }
    Ok(Value::Array(items))
}

fn scalar(column: &AnswerColumn, value: Value) -> Result<Value, String> {
    match (column.value_type, value) {
        (ValueType::String, Value::String(text)) => string(column.max_chars, text.trim()),
        (ValueType::Integer, value @ Value::Number(_)) if value.is_i64() => Ok(value),
        (ValueType::Integer, _) => Err("must be an integer of 64 bits".to_owned()),
        // Adding zero makes -0 the same value as 0.
        (ValueType::Number, Value::Number(number)) => {
            let finite = number.as_f64().and_then(|float| Number::from_f64(float + 0.0));
            finite.map(Value::Number).ok_or_else(|| "must be a finite number".to_owned())
        }
        (ValueType::Boolean, value @ Value::Bool(_)) => Ok(value),
        (ValueType::String, _) => Err("must be a string".to_owned()),
        (ValueType::Number, _) => Err("must be a number".to_owned()),
        (ValueType::Boolean, _) => Err("must be true or false".to_owned()),
    }
}

fn string(max_chars: Option<u32>, text: &str) -> Result<Value, String> {
    match max_chars {
        _ if text.is_empty() => Err("must not be empty".to_owned()),
        Some(most) if text.chars().nth(most as usize).is_some() => Err(format!("must have at most {most} characters")),
        _ => Ok(text.into()),
    }
}

/// An object's fields as written, with names that are there twice.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pipeline(answer: &str) -> Pipeline {
        let text = format!(
            "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{{{ text }}}}\"\n[target]\ntable = \"t\"\n{answer}"
        );
        Pipeline::parse(&text).unwrap()
    }

    fn themes() -> Pipeline {
        pipeline("[answer.themes]\ntype = \"string\"\ncount = 2\ndistinct = true\nmax_chars = 3")
    }

    fn why(pipeline: &Pipeline, text: &str) -> String {
        validate(pipeline, text).unwrap_err().0
    }

    #[test]
    fn a_valid_answer_comes_back_trimmed() {
        let values = validate(&themes(), " {\"themes\": [\" 茶の香\", \"tea \"]} ").unwrap();
        assert_eq!(Value::Object(values), json!({"themes": ["茶の香", "tea"]}));
    }

    #[test]
    fn each_rule_is_named_with_its_column() {
        let themes = themes();
        assert_eq!(why(&themes, r#"{"themes": ["a"]}"#), "themes: must have 2 values, not 1");
        assert_eq!(why(&themes, r#"{"themes": ["a", " a"]}"#), "themes: no two values may be equal");
        assert_eq!(why(&themes, r#"{"themes": ["a", "  "]}"#), "themes: must not be empty");
        assert_eq!(why(&themes, r#"{"themes": ["a", "茶の香り"]}"#), "themes: must have at most 3 characters");
        assert_eq!(why(&themes, r#"{"themes": ["a", 1]}"#), "themes: must be a string");
        assert_eq!(why(&themes, r#"{"themes": "a"}"#), "themes: must be an array");
        assert_eq!(why(&themes, "{}"), "themes: it is missing");
        assert_eq!(why(&themes, r#"{"themes": ["a", "b"], "themes": ["c", "d"]}"#), "themes: it is there twice");
    }

    #[test]
    fn what_is_not_the_object_asked_for_is_refused_without_its_text() {
        let themes = themes();
        for text in ["", "secret", "[\"secret\"]", "```json\n{}\n```", r#"{"themes": ["a", "b"]} secret"#] {
            assert_eq!(why(&themes, text), "the answer is not a JSON object");
        }
        let extra = why(&themes, r#"{"themes": ["a", "b"], "secret": 1}"#);
        assert_eq!(extra, "the answer has a field that was not asked for");
    }

    #[test]
    fn an_integer_has_64_bits_and_no_fraction() {
        let age = pipeline("[answer.age]\ntype = \"integer\"");
        assert_eq!(validate(&age, r#"{"age": -9223372036854775808}"#).unwrap()["age"], json!(i64::MIN));
        for text in [r#"{"age": 9223372036854775808}"#, r#"{"age": 1.0}"#, r#"{"age": "1"}"#, r#"{"age": null}"#] {
            assert_eq!(why(&age, text), "age: must be an integer of 64 bits");
        }
    }

    #[test]
    fn equal_numbers_are_equal_however_they_are_written() {
        let pair = pipeline("[answer.n]\ntype = \"number\"\ncount = 2\ndistinct = true");
        assert_eq!(why(&pair, r#"{"n": [1, 1.0]}"#), "n: no two values may be equal");
        assert_eq!(why(&pair, r#"{"n": [0, -0.0]}"#), "n: no two values may be equal");
        assert_eq!(validate(&pair, r#"{"n": [1, 2.5]}"#).unwrap()["n"], json!([1.0, 2.5]));
    }

    #[test]
    fn an_answer_of_exactly_the_greatest_size_is_read() {
        let note = pipeline("[answer.note]\ntype = \"string\"");
        let answer = |size: usize| format!("{{\"note\":\"{}\"}}", "a".repeat(size - r#"{"note":""}"#.len()));
        assert!(validate(&note, &answer(ANSWER_BYTES_MAX)).is_ok());
        assert!(validate(&note, &answer(ANSWER_BYTES_MAX + 1)).is_err());
    }
}
