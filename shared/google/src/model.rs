//! Gemini on Vertex AI: the relay's Gemini client with Vertex's addresses, and with tokens of Google's credentials.

use crate::connect::Endpoint;
use async_trait::async_trait;
use google_cloud_auth::credentials::{CacheableResource, Credentials};
use google_cloud_gax::error::CredentialsError;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tasuki_relay::calls::{ConfigError, call_limit};
use tasuki_relay::gemini::{Access, Gemini, GeminiConfig, Said};
use tasuki_relay::pipeline::ModelSettings;
use tasuki_relay::ports::{Ask, CountTokens, Fault, Model, Reply};
use tasuki_relay::prices::Tier;

/// Where Vertex AI is and who calls it.
#[derive(Clone, Debug)]
pub struct VertexConfig {
    /// The project that is charged.
    pub project: String,
    /// Of pipelines that name none: see [`tasuki_relay::pipeline::is_location`].
    pub location: String,
    /// The address is that of a test server (`GOOGLE_GEMINI_BASE_URL`), for every location, or none.
    pub endpoint: Endpoint,
    /// Calls in flight that the connections to one location must carry, at least 1; more wait.
    pub max_in_flight: u32,
    /// Certificates in PEM that are trusted beside the system's.
    pub cert_file: Option<PathBuf>,
}

/// Vertex AI behind the model port: one client, and so one pool of connections, for each location that is asked for. One for
/// a process.
#[derive(Debug)]
pub struct VertexModel {
    config: VertexConfig,
    clients: Mutex<BTreeMap<String, Arc<Gemini>>>,
}

impl VertexModel {
    /// Opens nothing yet. Fails when the address is none or the trusted certificates cannot be read.
    pub fn new(config: VertexConfig) -> Result<VertexModel, ConfigError> {
        let first = Arc::new(client(&config, &config.location)?);
        let clients = Mutex::new(BTreeMap::from([(config.location.clone(), first)]));
        Ok(VertexModel { config, clients })
    }

    fn client(&self, location: &str) -> Result<Arc<Gemini>, Fault> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(location) {
            return Ok(known.clone());
        }
        let new = client(&self.config, location).map_err(|error| Fault::Systemic(error.to_string()))?;
        Ok(clients.entry(location.to_owned()).or_insert(Arc::new(new)).clone())
    }
}

#[async_trait]
impl Model for VertexModel {
    async fn ask(&self, ask: &Ask) -> Result<Reply, Fault> {
        let model = &ask.pipeline.model;
        let location = model.location.as_deref().unwrap_or(&self.config.location);
        if model.tier != Tier::Standard && location != GLOBAL {
            return Err(elsewhere(model.tier));
        }
        self.client(location)?.ask(ask).await
    }
}

#[async_trait]
impl CountTokens for VertexModel {
    async fn count_tokens(&self, ask: &Ask) -> Result<u64, Fault> {
        let location = ask.pipeline.model.location.as_deref().unwrap_or(&self.config.location);
        self.client(location)?.count_tokens(ask).await
    }
}

/// The one place where Vertex AI serves flex and priority
/// (<https://docs.cloud.google.com/gemini-enterprise-agent-platform/models/flex-paygo> and `…/priority-paygo`). Elsewhere it
/// passes over the tier and charges the whole price.
const GLOBAL: &str = "global";

/// A deployment's location is where its rows may go: a tier is no reason to send them elsewhere.
fn elsewhere(tier: Tier) -> Fault {
    Fault::Systemic(format!(
        "tier = \"{}\" is served in the location global alone, and TASUKI_MODEL_LOCATION is another: write [model] location = \"global\" if the rows may go there, or remove the tier",
        tier.as_str()
    ))
}

fn client(config: &VertexConfig, location: &str) -> Result<Gemini, ConfigError> {
    let base = config.endpoint.url.clone().unwrap_or_else(|| address(location));
    let access = Vertex {
        models: format!("/v1/projects/{}/locations/{location}/publishers/google/models/", config.project),
        credentials: config.endpoint.credentials.clone(),
    };
    let mut gemini = GeminiConfig::new(&base, Arc::new(access), config.max_in_flight)?;
    gemini.server.cert_file = config.cert_file.clone();
    Gemini::new(gemini)
}

/// The address of a location. Hosts of the multi-regions `us` and `eu`, and of regions and `global`, as in
/// <https://docs.cloud.google.com/gemini-enterprise-agent-platform/resources/locations>.
pub fn address(location: &str) -> String {
    match location {
        "global" => "https://aiplatform.googleapis.com".to_owned(),
        "us" | "eu" => format!("https://aiplatform.{location}.rep.googleapis.com"),
        region => format!("https://{region}-aiplatform.googleapis.com"),
    }
}

/// Calls of one project in one location.
#[derive(Debug)]
struct Vertex {
    /// The path before a model's name.
    models: String,
    credentials: Credentials,
}

const REQUEST_TYPE: HeaderName = HeaderName::from_static("x-vertex-ai-llm-request-type");
const SHARED_TYPE: HeaderName = HeaderName::from_static("x-vertex-ai-llm-shared-request-type");
/// Seconds.
const SERVER_TIMEOUT: HeaderName = HeaderName::from_static("x-server-timeout");

#[async_trait]
impl Access for Vertex {
    fn path(&self, model: &ModelSettings) -> Result<String, Fault> {
        Ok(format!("{}{}", self.models, model.name))
    }

    /// Only what is paid by use: provisioned throughput, which is used first otherwise, is another price.
    fn tier(&self, tier: Tier) -> Said {
        let mut headers = HeaderMap::from_iter([
            (REQUEST_TYPE, HeaderValue::from_static("shared")),
            (SHARED_TYPE, HeaderValue::from_static(tier.as_str())),
        ]);
        if tier == Tier::Flex {
            headers.insert(SERVER_TIMEOUT, HeaderValue::from(call_limit(tier).as_secs()));
        }
        Said::InHeaders(headers)
    }

    /// The credentials keep their token and renew it minutes before it runs out. They cannot be told that it was refused: a
    /// call is worth another try only if they have another one by then.
    async fn authorise(&self) -> Result<HeaderMap, Fault> {
        match self.credentials.headers(Extensions::new()).await {
            Ok(CacheableResource::New { data, .. }) => Ok(data),
            Ok(CacheableResource::NotModified) => Err(Fault::Unavailable("no token was given".to_owned())),
            Err(error) => Err(no_token(&error)),
        }
    }

    fn advice(&self, status: u16, reason: Option<&str>) -> &'static str {
        match (status, reason) {
            (_, Some("BILLING_DISABLED")) | (402, _) => "billing is off: turn billing on for GOOGLE_CLOUD_PROJECT",
            (_, Some("SERVICE_DISABLED")) => {
                "Vertex AI is off: enable aiplatform.googleapis.com for GOOGLE_CLOUD_PROJECT"
            }
            (_, Some("CONSUMER_SUSPENDED" | "CONSUMER_INVALID")) => {
                "GOOGLE_CLOUD_PROJECT is suspended or not a project: look at it in the Google Cloud console"
            }
            (401, _) => "Vertex AI does not accept the service account's token: check that the account is there and on",
            (403, _) => {
                "Vertex AI denies access: give the generator's service account a role with aiplatform.endpoints.predict"
            }
            (404, _) => {
                "the model is not known in this location: check [model] name and location, or TASUKI_MODEL_LOCATION"
            }
            _ => {
                "Vertex AI does not take calls of this project as it is: check its billing and its organisation policies"
            }
        }
    }
}

/// A token is no row's fault. What the error says is not passed on: it may quote the reply of whoever gives tokens.
fn no_token(error: &CredentialsError) -> Fault {
    if error.is_transient() {
        return Fault::Unavailable("no token can be had now".to_owned());
    }
    Fault::Systemic(
        "no token can be had for Vertex AI: check the service account of the generator, or the application default credentials"
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_location_has_its_host() {
        let hosts = ["global", "us", "eu", "europe-west4"].map(address);
        assert_eq!(
            hosts,
            [
                "https://aiplatform.googleapis.com",
                "https://aiplatform.us.rep.googleapis.com",
                "https://aiplatform.eu.rep.googleapis.com",
                "https://europe-west4-aiplatform.googleapis.com",
            ]
        );
    }

    #[test]
    fn a_lasting_lack_of_tokens_stops_the_machine_and_a_passing_one_does_not() {
        let fault = |transient| no_token(&CredentialsError::from_msg(transient, "canary"));
        assert!(matches!(fault(true), Fault::Unavailable(_)) && matches!(fault(false), Fault::Systemic(_)));
        assert!([true, false].iter().all(|transient| !format!("{:?}", fault(*transient)).contains("canary")));
    }

    #[test]
    fn advice_speaks_of_vertex_and_never_of_keys() {
        let vertex = Vertex { models: String::new(), credentials: Endpoint::emulator("x").credentials };
        for status in 400..=404 {
            for reason in [None, Some("SERVICE_DISABLED"), Some("API_KEY_INVALID"), Some("IAM_PERMISSION_DENIED")] {
                let advice = vertex.advice(status, reason);
                assert!(!advice.contains("GEMINI_API_KEY"), "{status} {reason:?}: {advice}");
            }
        }
    }
}
