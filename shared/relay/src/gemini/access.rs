use crate::calls::Key;
use crate::pipeline::ModelSettings;
use crate::ports::Fault;
use crate::prices::Tier;
use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName};
use std::fmt;

/// One of the services that take Gemini's messages: where its models are, and how a call says who makes it.
#[async_trait]
pub trait Access: fmt::Debug + Send + Sync {
    /// The path of the model below the service's address, from its slash to the model's name, which is part of it as it is.
    /// Refuses, as no row's fault, settings that the service cannot honour.
    fn path(&self, model: &ModelSettings) -> Result<String, Fault>;
    /// The body of `countTokens` for a body of `generateContent`: Vertex AI takes it as it is.
    fn count_body(&self, _: &ModelSettings, body: Vec<u8>) -> Vec<u8> {
        body
    }
    /// The headers that say who calls. Asked again after a 401: other headers than before are then tried once.
    async fn authorise(&self) -> Result<HeaderMap, Fault>;
    /// How a call of this tier says so. Not asked of the standard one.
    fn tier(&self, tier: Tier) -> Said;
    /// What a person does about a systemic fault: a status of 400 to 404, and the reason (`google.rpc.ErrorInfo`) if it has one.
    fn advice(&self, status: u16, reason: Option<&str>) -> &'static str;
}

/// Where a call says its tier.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// As `service_tier`.
    InBody,
    /// Here.
    InHeaders(HeaderMap),
}

/// The Gemini API (<https://ai.google.dev/api>).
#[derive(Debug)]
pub(super) struct GeminiApi(pub(super) Key);

const API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

#[async_trait]
impl Access for GeminiApi {
    /// A location is refused: who writes one wants the rows to stay there, and the Gemini API promises no place.
    fn path(&self, model: &ModelSettings) -> Result<String, Fault> {
        if let Some(location) = &model.location {
            return Err(Fault::Systemic(format!(
                "the location {location} of {} ([model] location, or what follows @ in fallback) is for Vertex AI: the Gemini API \
                 has no locations. Remove it, or deploy with Vertex AI",
                model.name
            )));
        }
        Ok(format!("/v1beta/models/{}", model.name))
    }

    /// Wrapped, with the model's name once more: else the system instruction is not counted
    /// (<https://ai.google.dev/api/tokens>, `generateContentRequest`).
    fn count_body(&self, model: &ModelSettings, body: Vec<u8>) -> Vec<u8> {
        // The name is a part of a path by now, and so without a quote; the body is an object with members.
        let start = format!("{{\"generateContentRequest\":{{\"model\":\"models/{}\",", model.name);
        [start.as_bytes(), &body[1..], b"}"].concat()
    }

    fn tier(&self, _: Tier) -> Said {
        Said::InBody
    }

    async fn authorise(&self) -> Result<HeaderMap, Fault> {
        Ok(HeaderMap::from_iter([(API_KEY, self.0.header())]))
    }

    fn advice(&self, status: u16, reason: Option<&str>) -> &'static str {
        match (status, reason) {
            (_, Some("API_KEY_INVALID" | "CREDENTIALS_MISSING")) | (401, _) => {
                "the API key is not accepted: set GEMINI_API_KEY (or GOOGLE_API_KEY) to a valid key from https://aistudio.google.com/apikey"
            }
            (_, Some("BILLING_DISABLED")) | (402, _) => {
                "billing is off: turn billing on for the project of the API key"
            }
            (_, Some("SERVICE_DISABLED")) => "the Gemini API is off: enable it for the project of the API key",
            (_, Some("CONSUMER_SUSPENDED")) => {
                "the project of the API key is suspended: look at it in the Google Cloud console"
            }
            (403, _) | (_, Some(_)) => {
                "access is denied: check what the API key is restricted to, and that its project may use the Gemini API and this model"
            }
            (404, _) => {
                "the model is not known: check [model] name in the pipeline, and GOOGLE_GEMINI_BASE_URL if it is set"
            }
            _ => {
                "the Gemini API is not open to this project as it is: check its billing, and that its country is served"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn what_is_counted_is_the_whole_question_with_its_models_name() {
        let api = GeminiApi(Key::new("k").expect("a key"));
        let model = ModelSettings { name: "m-1".to_owned(), ..ModelSettings::default() };
        let question = json!({ "contents": [{ "parts": [{ "text": "\"茶\"" }] }], "systemInstruction": {} });
        let body: Value = serde_json::from_slice(&api.count_body(&model, question.to_string().into_bytes())).unwrap();
        let mut wrapped = question;
        wrapped["model"] = json!("models/m-1");
        assert_eq!(body, json!({ "generateContentRequest": wrapped }));
    }
}
