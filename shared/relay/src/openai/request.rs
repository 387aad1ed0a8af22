use crate::pipeline::Pipeline;
use crate::ports::Ask;
use crate::prices::Tier;
use crate::schema::json_schema;
use serde::Serialize;
use std::borrow::Cow;

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

/// How the form of answers is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As `response_format`: servers that can hold the model to it.
    #[default]
    JsonSchema,
    /// In words, after the system instruction: servers that refuse a schema (Triton's OpenAI front end). Answers are judged the same.
    Text,
}

impl Form {
    /// From `json_schema` or `text`.
    pub(super) fn parse(text: &str) -> Option<Form> {
        match text {
            "json_schema" => Some(Form::JsonSchema),
            "text" => Some(Form::Text),
            _ => None,
        }
    }
}

/// The body of a call, as far as we use it.
#[derive(Serialize)]
struct Request<'a, S> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<S>>,
    #[serde(flatten)]
    settings: Settings,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: Cow<'a, str>,
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

/// The system instruction, and what stands in for a schema where the server takes none.
fn system(pipeline: &Pipeline, form: Form) -> Option<Cow<'_, str>> {
    let own = pipeline.system.as_deref();
    match form {
        Form::JsonSchema => own.map(Cow::Borrowed),
        Form::Text => {
            let schema = serde_json::to_string(&json_schema(pipeline)).expect("a schema has string keys");
            let form =
                format!("Answer with one JSON object that fits this JSON Schema, and with nothing else:\n{schema}");
            Some(own.map_or(form.clone(), |own| format!("{own}\n\n{form}")).into())
        }
    }
}

/// The question as JSON.
pub(super) fn body(ask: &Ask, dialect: Dialect, form: Form) -> Vec<u8> {
    let pipeline = &*ask.pipeline;
    let model = &pipeline.model;
    let system = system(pipeline, form).map(|content| Message { role: "system", content });
    let user = Message { role: "user", content: Cow::Borrowed(&ask.prompt) };
    let tokens = ask.max_output_tokens.or(model.max_output_tokens);
    let is_own = dialect == Dialect::OpenAi;
    let request = Request {
        model: &model.name,
        messages: system.into_iter().chain([user]).collect(),
        response_format: (form == Form::JsonSchema).then(|| ResponseFormat {
            kind: "json_schema",
            json_schema: Named { name: "answer", strict: true, schema: json_schema(pipeline) },
        }),
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
        serde_json::from_slice(&body(ask, dialect, Form::JsonSchema)).unwrap()
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
    fn a_server_that_takes_no_schema_is_told_it_in_words() {
        let sent: Value = serde_json::from_slice(&body(&ask(""), Dialect::Compatible, Form::Text)).unwrap();
        assert!(sent.get("response_format").is_none());
        let system = sent["messages"][0]["content"].as_str().unwrap();
        assert!(system.starts_with("Be brief.\n\n") && system.contains(r#""required":["n"]"#), "{system}");
    }

    #[test]
    fn an_asks_own_limit_of_tokens_goes_before_the_pipelines() {
        let more = Ask { max_output_tokens: Some(200), ..ask("max_output_tokens = 100") };
        assert_eq!(sent(&more, Dialect::Compatible)["max_tokens"], 200);
    }
}
