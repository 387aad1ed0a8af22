use crate::ports::Ask;
use crate::prices::Tier;
use crate::schema::response_schema;
use serde::Serialize;
use serde_json::Value;

/// The body of a `generateContent` call, as far as we use it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    contents: [Content<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    generation_config: GenerationConfig,
    /// As the Gemini API's documentation spells it (<https://ai.google.dev/gemini-api/docs/flex-inference>).
    #[serde(rename = "service_tier", skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    response_mime_type: &'static str,
    response_schema: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking_config: Option<ThinkingConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ThinkingConfig {
    thinking_level: &'static str,
}

/// The question as JSON, with the tier where that is to be said here.
pub(super) fn body(ask: &Ask, tier: Option<Tier>) -> Vec<u8> {
    let pipeline = &*ask.pipeline;
    let model = &pipeline.model;
    let request = Request {
        contents: [Content { role: Some("user"), parts: [Part { text: &ask.prompt }] }],
        system_instruction: pipeline.system.as_deref().map(|text| Content { role: None, parts: [Part { text }] }),
        generation_config: GenerationConfig {
            temperature: model.temperature,
            max_output_tokens: ask.max_output_tokens.or(model.max_output_tokens),
            response_mime_type: "application/json",
            response_schema: response_schema(pipeline),
            thinking_config: model.thinking.map(|level| ThinkingConfig { thinking_level: level.as_str() }),
        },
        service_tier: tier.map(Tier::as_str),
    };
    // Room for the schema and the settings; a longer body grows once or twice.
    let mut body = Vec::with_capacity(ask.prompt.len() + pipeline.system.as_ref().map_or(0, String::len) + 1_024);
    serde_json::to_writer(&mut body, &request).expect("a request has string keys and is written to memory");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{AnswerColumn, KeyType, ModelSettings, Pipeline, RunSettings, Thinking, ValueType};
    use serde_json::{Map, json};
    use std::sync::Arc;

    fn ask() -> Ask {
        let answer = AnswerColumn {
            name: "themes".to_owned(),
            value_type: ValueType::String,
            count: Some(6),
            distinct: true,
            max_chars: None,
            one_of: None,
            pattern: None,
            description: Some("Short".to_owned()),
        };
        let pipeline = Pipeline {
            name: "p".to_owned(),
            key: "id".to_owned(),
            key_type: KeyType::String,
            system: Some("Be brief.".to_owned()),
            template: "{{ text }}".to_owned(),
            columns: vec!["text".to_owned()],
            answer: vec![answer],
            model: ModelSettings {
                name: "m".to_owned(),
                location: None,
                temperature: Some(0.5),
                max_output_tokens: Some(100),
                retry_output_tokens: Some(200),
                thinking: Some(Thinking::Low),
                ..ModelSettings::default()
            },
            run: RunSettings::default(),
            table: "t".to_owned(),
        };
        Ask {
            pipeline: Arc::new(pipeline),
            prompt: "日本 \"q\"\n".to_owned(),
            row: Arc::new(Map::new()),
            max_output_tokens: None,
        }
    }

    fn sent(ask: &Ask) -> Value {
        serde_json::from_slice(&body(ask, None)).unwrap()
    }

    #[test]
    fn a_request_says_all_that_the_pipeline_says() {
        let schema = response_schema(&ask().pipeline);
        assert_eq!(
            sent(&ask()),
            json!({
                "contents": [{ "role": "user", "parts": [{ "text": "日本 \"q\"\n" }] }],
                "systemInstruction": { "parts": [{ "text": "Be brief." }] },
                "generationConfig": {
                    "temperature": 0.5,
                    "maxOutputTokens": 100,
                    "responseMimeType": "application/json",
                    "responseSchema": schema,
                    "thinkingConfig": { "thinkingLevel": "LOW" },
                },
            })
        );
    }

    #[test]
    fn a_tier_is_said_in_small_letters() {
        let sent: Value = serde_json::from_slice(&body(&ask(), Some(Tier::Flex))).unwrap();
        assert_eq!(sent["service_tier"], "flex");
    }

    #[test]
    fn an_asks_own_limit_of_tokens_goes_before_the_pipelines() {
        let more = Ask { max_output_tokens: Some(200), ..ask() };
        assert_eq!(sent(&more)["generationConfig"]["maxOutputTokens"], 200);
    }

    #[test]
    fn what_a_pipeline_leaves_open_is_not_sent() {
        let mut ask = ask();
        let pipeline = Arc::make_mut(&mut ask.pipeline);
        pipeline.system = None;
        (pipeline.model.temperature, pipeline.model.max_output_tokens) = (None, None);
        let sent = sent(&ask);
        assert!(sent.get("systemInstruction").is_none());
        assert!(sent["generationConfig"].get("temperature").is_none());
        assert!(sent["generationConfig"].get("maxOutputTokens").is_none());
    }
}
