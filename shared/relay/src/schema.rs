//! The answer's form, as Gemini's `responseSchema` says it.

use crate::pipeline::{AnswerColumn, Pipeline, ValueType};
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

fn property(column: &AnswerColumn) -> Value {
    let value_type = match column.value_type {
        ValueType::String => "STRING",
        ValueType::Integer => "INTEGER",
        ValueType::Number => "NUMBER",
        ValueType::Boolean => "BOOLEAN",
    };
    let mut value = json!({"type": value_type});
    if let Some(choices) = &column.one_of {
        (value["format"], value["enum"]) = ("enum".into(), json!(choices));
    }
    let mut property = match column.count {
        Some(count) => json!({"type": "ARRAY", "items": value, "minItems": count, "maxItems": count}),
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
}
