use super::access::{Access, GeminiApi};
use crate::calls::{self, ConfigError, Key, Server};
use crate::pipeline::ModelSettings;
use crate::ports::Fault;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the Gemini API is unless `GOOGLE_GEMINI_BASE_URL` says otherwise.
const BASE: &str = "https://generativelanguage.googleapis.com";

/// Where a model is and who calls it.
#[derive(Clone, Debug)]
pub struct GeminiConfig {
    /// The service.
    pub server: Server,
    /// Whose service it is, and who calls.
    pub access: Arc<dyn Access>,
}

impl GeminiConfig {
    /// A service at `base`, an http or https address without a query; certificates are the system's.
    pub fn new(base: &str, access: Arc<dyn Access>, max_in_flight: u32) -> Result<GeminiConfig, ConfigError> {
        Ok(GeminiConfig { server: Server::new(base, "GOOGLE_GEMINI_BASE_URL", BASE, max_in_flight)?, access })
    }

    /// The Gemini API, from `GEMINI_API_KEY` or `GOOGLE_API_KEY`, `GOOGLE_GEMINI_BASE_URL` and `SSL_CERT_FILE`; `get` looks a
    /// variable up. An empty variable is an unset one. Proxies are read from the environment where connections are opened.
    pub fn from_env(get: impl Fn(&str) -> Option<String>, max_in_flight: u32) -> Result<GeminiConfig, ConfigError> {
        let get = calls::set(get);
        let named = |name: &'static str| get(name).map(|value| (name, value));
        let (name, key) = named("GEMINI_API_KEY").or_else(|| named("GOOGLE_API_KEY")).ok_or_else(|| {
            ConfigError(
                "no API key: set GEMINI_API_KEY (or GOOGLE_API_KEY) to a key from https://aistudio.google.com/apikey"
                    .to_owned(),
            )
        })?;
        let key = Key::new(&key)
            .ok_or_else(|| ConfigError(format!("{name} is not a key: it must be one line of plain text")))?;
        let base = get("GOOGLE_GEMINI_BASE_URL");
        let mut config = GeminiConfig::new(base.as_deref().unwrap_or(BASE), Arc::new(GeminiApi(key)), max_in_flight)?;
        config.server.cert_file = get("SSL_CERT_FILE").map(PathBuf::from);
        Ok(config)
    }

    /// The address of a method of the model, like `generateContent`.
    pub(super) fn method(&self, model: &ModelSettings, method: &str) -> Result<String, Fault> {
        // The name becomes part of a path: nothing in it may lead elsewhere.
        let plain = model.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@'));
        if model.name.is_empty() || !plain {
            return Err(Fault::Systemic(
                "[model] name is not the name of a model: write one like gemini-3.5-flash-lite".to_owned(),
            ));
        }
        Ok(self.server.address(&format!("{}:{method}", self.access.path(model)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<GeminiConfig, ConfigError> {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        GeminiConfig::from_env(get, 1)
    }

    fn model(name: &str) -> ModelSettings {
        ModelSettings { name: name.to_owned(), ..ModelSettings::default() }
    }

    fn address(variables: &[(&str, &str)]) -> String {
        config(variables).unwrap().method(&model("m-1"), "generateContent").unwrap()
    }

    #[test]
    fn a_key_alone_is_enough_and_a_base_may_have_a_path() {
        let google = "https://generativelanguage.googleapis.com/v1beta/models/m-1:generateContent";
        assert_eq!(address(&[("GEMINI_API_KEY", "k")]), google);
        assert_eq!(address(&[("GEMINI_API_KEY", ""), ("GOOGLE_API_KEY", "k")]), google);
        let base = ("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:8080/gemini/");
        assert_eq!(
            address(&[("GEMINI_API_KEY", "k"), base]),
            "http://127.0.0.1:8080/gemini/v1beta/models/m-1:generateContent"
        );
    }

    #[test]
    fn an_error_names_the_variable_and_not_its_value() {
        let missing = config(&[]).unwrap_err().to_string();
        assert!(missing.contains("GEMINI_API_KEY") && missing.contains("GOOGLE_API_KEY"), "{missing}");
        let broken = config(&[("GOOGLE_API_KEY", "sec\nret")]).unwrap_err().to_string();
        assert!(broken.contains("GOOGLE_API_KEY") && !broken.contains("sec"), "{broken}");
        for base in ["localhost:80", "ftp://host", "http://host/?key=secret", "file:///etc"] {
            let broken = config(&[("GEMINI_API_KEY", "k"), ("GOOGLE_GEMINI_BASE_URL", base)]).unwrap_err().to_string();
            assert!(broken.contains("GOOGLE_GEMINI_BASE_URL") && !broken.contains("secret"), "{broken}");
        }
    }

    #[test]
    fn the_key_is_never_shown() {
        let config = config(&[("GEMINI_API_KEY", "secret")]).unwrap();
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn a_model_name_cannot_lead_elsewhere() {
        let config = config(&[("GEMINI_API_KEY", "k")]).unwrap();
        for name in ["", "../../x", "m?key=1", "m#", "a/b", "m:delete"] {
            assert!(matches!(config.method(&model(name), "generateContent"), Err(Fault::Systemic(_))), "{name}");
        }
    }
}
