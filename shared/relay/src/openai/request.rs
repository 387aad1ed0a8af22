use crate::ports::Ask;
use crate::prices::Tier;
use crate::schema::json_schema;
use serde::Serialize;

/// Whose fields a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI's own. Models that reason refuse `max_tokens`; and completions are kept for new accounts unless `store` says no
    /// (<https://platform.openai.com/docs/guides/migrate-to-responses>).
    OpenAi,
    /// Everybody else's. All of them read `max_tokens`, but not all `max_completion_tokens` (Ollama passes over it, and would answer
    /// without a limit), and some refuse a field that they do not know (Triton).
    Compatible,
}

/// The body of a call, as far as we use it.
#[derive(Serialize)]
struct Request<'a, S> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    response_format: ResponseFormat<S>,
    #[serde(flatten)]
    settings: Settings,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct ResponseFormat<S> {
    #[serde(rename = "type")]
    kind: &'static str,
    json_schema: Named<S>,
}

#[derive(Serialize)]
struct Named<S> {
    name: &'static str,
    strict: bool,
    schema: S,
}

/// What is left out stays as the server has it.
#[derive(Serialize)]
struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_tier: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<bool>,
}

/// The question as JSON.
pub(super) fn body(ask: &Ask, dialect: Dialect) -> Vec<u8> {
    let pipeline = &*ask.pipeline;
    let model = &pipeline.model;
    let system = pipeline.system.as_deref().map(|content| Message { role: "system", content });
    let tokens = ask.max_output_tokens.or(model.max_output_tokens);
    let is_own = dialect == Dialect::OpenAi;
    let request = Request {
        model: &model.name,
        messages: system.into_iter().chain([Message { role: "user", content: &ask.prompt }]).collect(),
        response_format: ResponseFormat {
            kind: "json_schema",
            json_schema: Named { name: "answer", strict: true, schema: json_schema(pipeline) },
        },
        settings: Settings {
            temperature: model.temperature,
            max_tokens: tokens.filter(|_| !is_own),
            max_completion_tokens: tokens.filter(|_| is_own),
            reasoning_effort: model.thinking.map(|level| level.as_str().to_lowercase()),
            service_tier: Some(model.tier).filter(|tier| *tier != Tier::Standard).map(Tier::as_str),
            store: is_own.then_some(false),
        },
    };
    // Room for the schema and the settings; a longer body grows once or twice.
    let mut body = Vec::with_capacity(ask.prompt.len() + pipeline.system.as_ref().map_or(0, String::len) + 1_024);
    serde_json::to_writer(&mut body, &request).expect("a request has string keys and is written to memory");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Pipeline;
    use serde_json::{Map, Value, json};
    use std::sync::Arc;

    fn ask(model: &str) -> Ask {
        let text = format!(
            "name = \"p\"\nkey = \"id\"\n[prompt]\nsystem = \"Be brief.\"\ntemplate = \"{{{{ text }}}}\"\n\
             [model]\nprovider = \"openai\"\nname = \"org/m:8b\"\n{model}\n\
             [answer.n]\ntype = \"integer\"\n[target]\ntable = \"t\"\n"
        );
        Ask {
            pipeline: Arc::new(Pipeline::parse(&text).unwrap()),
            prompt: "日本 \"q\"\n".to_owned(),
            row: Arc::new(Map::new()),
            max_output_tokens: None,
        }
    }

    fn sent(ask: &Ask, dialect: Dialect) -> Value {
        serde_json::from_slice(&body(ask, dialect)).unwrap()
    }

    #[test]
    fn a_request_says_all_that_the_pipeline_says() {
        let ask = ask("temperature = 0.5\nmax_output_tokens = 100\nthinking = \"low\"\ntier = \"flex\"");
        let mut expected = json!({
            "model": "org/m:8b",
            "messages": [{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "日本 \"q\"\n" }],
            "response_format": { "type": "json_schema", "json_schema": { "name": "answer", "strict": true, "schema": {
                "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"],
                "additionalProperties": false,
            } } },
            "temperature": 0.5,
            "max_tokens": 100,
            "reasoning_effort": "low",
            "service_tier": "flex",
        });
        assert_eq!(sent(&ask, Dialect::Compatible), expected);
        expected["max_completion_tokens"] = expected.as_object_mut().unwrap().remove("max_tokens").unwrap();
        expected["store"] = json!(false);
        assert_eq!(sent(&ask, Dialect::OpenAi), expected);
    }

    #[test]
    fn what_a_pipeline_leaves_open_is_not_sent() {
        let mut ask = ask("");
        Arc::make_mut(&mut ask.pipeline).system = None;
        let sent = sent(&ask, Dialect::Compatible);
        assert_eq!(sent["messages"].as_array().unwrap().len(), 1);
        let names: Vec<&String> = sent.as_object().unwrap().keys().collect();
        assert_eq!(names, ["messages", "model", "response_format"]);
    }

    #[test]
    fn an_asks_own_limit_of_tokens_goes_before_the_pipelines() {
        let more = Ask { max_output_tokens: Some(200), ..ask("max_output_tokens = 100") };
        assert_eq!(sent(&more, Dialect::Compatible)["max_tokens"], 200);
    }
}
