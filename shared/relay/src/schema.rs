//! The answer's form, as Gemini's `responseSchema` says it and as JSON Schema does.

use crate::pipeline::{AnswerColumn, Pipeline, ValueType};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// The `responseSchema` of a pipeline: an OBJECT with one property per answer column, in the order of the file.
///
/// Rules that the API has no keyword for (longest text, no value twice, a pattern) are told in the descriptions. The keywords are
/// those of the API's `Schema` (peers.md 5.4).
pub fn response_schema(pipeline: &Pipeline) -> Value {
    let names: Vec<&str> = pipeline.answer.iter().map(|column| column.name.as_str()).collect();
    let properties = pipeline.answer.iter().map(|column| (column.name.clone(), property(column)));
    json!({
        "type": "OBJECT",
        "properties": Value::Object(properties.collect()),
        "required": names,
        "propertyOrdering": names,
    })
}

/// The JSON Schema of a pipeline, in what all structured outputs understand: an object with one property per answer column, all
/// required and no other (strict mode of <https://platform.openai.com/docs/guides/structured-outputs>). Serialized, its properties
/// have the order of the file: models answer in the order of the schema, and a column may build on the one before it.
pub fn json_schema(pipeline: &Pipeline) -> impl Serialize {
    JsonSchema {
        kind: "object",
        properties: Properties(&pipeline.answer),
        required: pipeline.answer.iter().map(|column| column.name.as_str()).collect(),
        additional_properties: false,
    }
}

#[derive(Serialize)]
struct JsonSchema<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    properties: Properties<'a>,
    required: Vec<&'a str>,
    #[serde(rename = "additionalProperties")]
    additional_properties: bool,
}

struct Properties<'a>(&'a [AnswerColumn]);

impl Serialize for Properties<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|column| (&column.name, described(column, &JSON_TYPES, None))))
    }
}

/// Names of types: of text, whole numbers, numbers, truth values, lists.
type Types = [&'static str; 5];
const GEMINI_TYPES: Types = ["STRING", "INTEGER", "NUMBER", "BOOLEAN", "ARRAY"];
const JSON_TYPES: Types = ["string", "integer", "number", "boolean", "array"];

fn property(column: &AnswerColumn) -> Value {
    described(column, &GEMINI_TYPES, Some("enum"))
}

/// `format` is that of a text with a choice of values.
fn described(column: &AnswerColumn, [string, integer, number, boolean, array]: &Types, format: Option<&str>) -> Value {
    let value_type = match column.value_type {
        ValueType::String => string,
        ValueType::Integer => integer,
        ValueType::Number => number,
        ValueType::Boolean => boolean,
    };
    let mut value = json!({"type": value_type});
    if let Some(choices) = &column.one_of {
        value["enum"] = json!(choices);
        if let Some(format) = format {
            value["format"] = format.into();
        }
    }
    let mut property = match column.count {
        Some(count) => json!({"type": array, "items": value, "minItems": count, "maxItems": count}),
        None => value,
    };
    if let Some(description) = description(column) {
        property["description"] = description.into();
    }
    property
}

/// The user's words and the rules, as sentences.
pub(crate) fn description(column: &AnswerColumn) -> Option<String> {
    let values = match (column.count, column.distinct) {
        (Some(count), true) => Some(format!("Exactly {count} values, no two equal.")),
        (Some(count), false) => Some(format!("Exactly {count} values.")),
        (None, _) => None,
    };
    let each = if column.count.is_some() { "Each at most" } else { "At most" };
    let longest = column.max_chars.map(|most| format!("{each} {most} characters."));
    let form = column.pattern.as_ref().map(|pattern| format!("Each value must match the regular expression {pattern}"));
    let rules = values.into_iter().chain(longest).chain(form);
    let sentences: Vec<String> = column.description.clone().into_iter().chain(rules).collect();
    (!sentences.is_empty()).then(|| sentences.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_pipeline_has_this_schema() {
        let pipeline = Pipeline::parse(include_str!("../../../examples/themes.toml")).unwrap();
        let themes = json!({
            "type": "ARRAY",
            "items": {"type": "STRING"},
            "minItems": 6,
            "maxItems": 6,
            "description": "Short theme names, from the most specific to the most general. \
                            Exactly 6 values, no two equal. Each at most 40 characters.",
        });
        let expected = json!({
            "type": "OBJECT",
            "properties": {"themes": themes},
            "required": ["themes"],
            "propertyOrdering": ["themes"],
        });
        assert_eq!(response_schema(&pipeline), expected);
    }

    #[test]
    fn every_type_has_its_name_and_properties_keep_the_order_of_the_file() {
        let text = r#"
            name = "all"
            key = "id"
            [prompt]
            template = "{{ text }}"
            [answer.z]
            type = "integer"
            [answer.y]
            type = "number"
            count = 2
            [answer.x]
            type = "boolean"
            [answer.w]
            type = "string"
            max_chars = 9
            [target]
            table = "t"
        "#;
        let schema = response_schema(&Pipeline::parse(text).unwrap());
        assert_eq!(schema["propertyOrdering"], json!(["z", "y", "x", "w"]));
        assert_eq!(schema["required"], schema["propertyOrdering"]);
        assert_eq!(schema["properties"]["z"], json!({"type": "INTEGER"}));
        assert_eq!(schema["properties"]["y"]["items"], json!({"type": "NUMBER"}));
        assert_eq!(schema["properties"]["x"], json!({"type": "BOOLEAN"}));
        assert_eq!(schema["properties"]["w"], json!({"type": "STRING", "description": "At most 9 characters."}));
    }

    #[test]
    fn json_schema_says_the_same_in_small_letters_and_keeps_the_order_of_the_file() {
        let text = r#"
            name = "all"
            key = "id"
            [prompt]
            template = "{{ text }}"
            [answer.why]
            type = "string"
            count = 2
            description = "Reasons."
            [answer.mood]
            type = "string"
            one_of = ["good", "bad"]
            [answer.score]
            type = "integer"
            [target]
            table = "t"
        "#;
        let schema = serde_json::to_string(&json_schema(&Pipeline::parse(text).unwrap())).unwrap();
        let expected = r#"{"type":"object","properties":{"#.to_owned()
            + r#""why":{"description":"Reasons. Exactly 2 values.","items":{"type":"string"},"maxItems":2,"minItems":2,"type":"array"},"#
            + r#""mood":{"enum":["good","bad"],"type":"string"},"score":{"type":"integer"}},"#
            + r#""required":["why","mood","score"],"additionalProperties":false}"#;
        assert_eq!(schema, expected);
    }
}
