use super::request::{Dialect, Form};
use crate::calls::{self, ConfigError, Key, Server};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use std::path::PathBuf;

/// Where OpenAI's own API is.
const BASE: &str = "https://api.openai.com/v1";
/// OpenAI's hosts (its regions have names of their own before it), and those that Azure serves its models at.
const OWN_HOSTS: [&str; 2] = [".openai.com", ".openai.azure.com"];

/// Where the chat completions are and who calls them. It is the process's environment that says so, never a pipeline: who may
/// write a pipeline must not choose where rows go, nor to whom a key is shown.
#[derive(Clone, Debug)]
pub struct OpenAiConfig {
    /// The server; `/chat/completions` is below its address.
    pub server: Server,
    /// Servers of one's own often want none.
    pub key: Option<Key>,
    /// How it is told the form of answers.
    pub form: Form,
}

impl OpenAiConfig {
    /// Whether one of the variables is set that [`OpenAiConfig::from_env`] needs.
    pub fn is_meant(get: impl Fn(&str) -> Option<String>) -> bool {
        let get = calls::set(get);
        get("OPENAI_API_KEY").or_else(|| get("OPENAI_BASE_URL")).is_some()
    }

    /// From `OPENAI_API_KEY`, `OPENAI_BASE_URL` (either is enough), `OPENAI_RESPONSE_FORMAT` and `SSL_CERT_FILE`; `get` looks a variable up. An empty
    /// variable is an unset one. Proxies are read from the environment where connections are opened.
    pub fn from_env(get: impl Fn(&str) -> Option<String>, max_in_flight: u32) -> Result<OpenAiConfig, ConfigError> {
        let get = calls::set(get);
        let (key, base) = (get("OPENAI_API_KEY"), get("OPENAI_BASE_URL"));
        if key.is_none() && base.is_none() {
            return Err(ConfigError(NOT_SET.to_owned()));
        }
        let key = key.map(|key| {
            let no_key = || ConfigError("OPENAI_API_KEY is not a key: it must be one line of plain text".to_owned());
            Key::bearer(&key).ok_or_else(no_key)
        });
        let mut server = Server::new(base.as_deref().unwrap_or(BASE), "OPENAI_BASE_URL", BASE, max_in_flight)?;
        server.cert_file = get("SSL_CERT_FILE").map(PathBuf::from);
        let form = get("OPENAI_RESPONSE_FORMAT").map(|word| {
            let no_form = || ConfigError("OPENAI_RESPONSE_FORMAT must be json_schema or text".to_owned());
            Form::parse(&word).ok_or_else(no_form)
        });
        Ok(OpenAiConfig { server, key: key.transpose()?, form: form.transpose()?.unwrap_or_default() })
    }

    pub(super) fn address(&self) -> String {
        self.server.address("/chat/completions")
    }

    pub(super) fn headers(&self) -> HeaderMap {
        self.key.iter().map(|key| (AUTHORIZATION, key.header())).collect()
    }

    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn dialect(&self) -> Dialect {
        let host = self.server.base.host_str().unwrap_or_default();
        match OWN_HOSTS.iter().any(|own| host.ends_with(own)) {
            true => Dialect::OpenAi,
            false => Dialect::Compatible,
        }
    }
}

/// What is to be done where nothing says where a pipeline's endpoint is.
pub const NOT_SET: &str = "no endpoint for [model] provider = \"openai\": set OPENAI_API_KEY for OpenAI itself, or OPENAI_BASE_URL (and OPENAI_API_KEY, if it wants one) for another server";

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> Result<OpenAiConfig, ConfigError> {
        let get = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        OpenAiConfig::from_env(get, 1)
    }

    #[test]
    fn a_key_alone_is_openais_and_a_base_needs_no_key() {
        let own = config(&[("OPENAI_API_KEY", "k")]).unwrap();
        assert_eq!(
            (own.address().as_str(), own.dialect()),
            ("https://api.openai.com/v1/chat/completions", Dialect::OpenAi)
        );
        assert_eq!(own.headers()[AUTHORIZATION], "Bearer k");
        let other = config(&[("OPENAI_API_KEY", ""), ("OPENAI_BASE_URL", "http://127.0.0.1:11434/v1/")]).unwrap();
        assert_eq!(other.address(), "http://127.0.0.1:11434/v1/chat/completions");
        assert_eq!((other.dialect(), other.headers().len()), (Dialect::Compatible, 0));
    }

    #[test]
    fn a_host_that_only_sounds_like_openai_is_another() {
        let dialect = |base| config(&[("OPENAI_BASE_URL", base)]).unwrap().dialect();
        assert_eq!(dialect("https://eu.api.openai.com/v1"), Dialect::OpenAi);
        assert_eq!(dialect("https://name.openai.azure.com/openai/v1"), Dialect::OpenAi);
        assert_eq!(dialect("https://openai.com.example.org/v1"), Dialect::Compatible);
        assert_eq!(dialect("https://notopenai.com/v1"), Dialect::Compatible);
    }

    #[test]
    fn an_error_names_the_variables_and_not_their_values() {
        let missing = config(&[]).unwrap_err().to_string();
        assert!(missing.contains("OPENAI_API_KEY") && missing.contains("OPENAI_BASE_URL"), "{missing}");
        let broken = config(&[("OPENAI_API_KEY", "sec\nret")]).unwrap_err().to_string();
        assert!(broken.contains("OPENAI_API_KEY") && !broken.contains("sec"), "{broken}");
        let form = config(&[("OPENAI_API_KEY", "k"), ("OPENAI_RESPONSE_FORMAT", "xml")]).unwrap_err().to_string();
        assert!(form.contains("OPENAI_RESPONSE_FORMAT") && form.contains("json_schema or text"), "{form}");
        for base in ["localhost:80", "ftp://host", "http://host/?key=secret"] {
            let broken = config(&[("OPENAI_BASE_URL", base)]).unwrap_err().to_string();
            assert!(broken.contains("OPENAI_BASE_URL") && !broken.contains("secret"), "{broken}");
        }
    }

    #[test]
    fn the_key_is_never_shown() {
        assert!(!format!("{:?}", config(&[("OPENAI_API_KEY", "secret")]).unwrap()).contains("secret"));
    }
}
