//! Starting a service: settings, TLS, adapters, signals, the server. What the `main` of a leg calls.

use crate::bigquery::{self, BigQuery};
use crate::connect::{self, Endpoint};
use crate::http::{Callers, Server, serve};
use crate::model::{VertexConfig, VertexModel};
use crate::notice::PubSubNotice;
use crate::objects::{Buckets, GoogleObjects};
use crate::records::SpannerRecords;
use crate::settings::{self, Role, Settings};
use crate::telemetry;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::calls::ConfigError;
use tasuki_relay::claims::{GUARD, Timing};
use tasuki_relay::clock::{Chance, Clock};
use tasuki_relay::files_only::FilesOnly;
use tasuki_relay::gemini::{Gemini, GeminiConfig};
use tasuki_relay::leg::Leg;
use tasuki_relay::names::Bucket;
use tasuki_relay::openai::{self, OpenAi, OpenAiConfig};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Fingerprints, Model, Notice, Objects, Records, RecordsError, Snapshots};
use tasuki_relay::record::Key;
use tasuki_relay::router::{Nobody, Router};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// A claim is renewed so often within its lease: three renewals may fail.
const HEARTBEATS_PER_LEASE: u32 = 4;
/// The last spans and metrics are sent within so long, or not at all: a stop takes 8 s at most.
const TELEMETRY_WITHIN: Duration = Duration::from_secs(1);
/// Work that goes on after the server has stopped is given up after so long.
const END_WITHIN: Duration = Duration::from_millis(500);

/// Why a service does not start. Says what to mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// What a leg is built from.
pub struct Platform {
    /// Its settings.
    pub settings: Settings,
    /// The machine's clock.
    pub clock: Clock,
    /// The machine's chance.
    pub chance: Chance,
}

impl Platform {
    /// How claims keep time.
    pub fn timing(&self) -> Timing {
        let lease = self.settings.lease;
        Timing { lease, heartbeat: lease / HEARTBEATS_PER_LEASE, guard: GUARD, others_are_dead: false }
    }

    /// The four buckets.
    pub async fn objects(&self) -> Result<Arc<dyn Objects>, StartError> {
        let name = |bucket| self.settings.bucket(bucket).to_owned();
        let buckets = Buckets {
            inbox: name(Bucket::Inbox),
            shards: name(Bucket::Shards),
            answers: name(Bucket::Answers),
            state: name(Bucket::State),
        };
        let endpoint = self.endpoint("STORAGE_EMULATOR_HOST")?;
        let objects = GoogleObjects::new(&endpoint, buckets, Arc::new(telemetry::current_traceparent)).await;
        Ok(Arc::new(objects.map_err(|error| StartError(error.to_string()))?))
    }

    /// BigQuery as a source; a splitter that was given none reads files only.
    pub async fn snapshots(&self) -> Result<Arc<dyn Snapshots>, StartError> {
        let Some(given) = &self.settings.bigquery else { return Ok(Arc::new(FilesOnly)) };
        let wrong = |name: &str| StartError(format!("{name} cannot be read"));
        let sources = given.sources.iter().map(|source| source.parse()).collect::<Result<_, _>>();
        let settings = bigquery::Settings {
            project: given.project.clone(),
            sources: sources.map_err(|_| wrong("TASUKI_BIGQUERY_SOURCES"))?,
            staging: given.staging.parse().map_err(|_| wrong("TASUKI_BIGQUERY_STAGING"))?,
            bytes_max: given.bytes_max,
        };
        let rest = self.endpoint("BIGQUERY_EMULATOR_HOST")?;
        let storage = self.endpoint("BIGQUERY_STORAGE_EMULATOR_HOST")?;
        let adapter = BigQuery::new(settings, rest, storage).await;
        Ok(Arc::new(adapter.map_err(|error| StartError(error.to_string()))?))
    }

    /// The store of the loader.
    pub async fn records(&self) -> Result<Arc<dyn Records>, StartError> {
        let database = self.settings.database.as_deref().unwrap_or_default();
        let store = self.store(self.settings.concurrency).await;
        Ok(Arc::new(store.map_err(|error| StartError(format!("{database}: {error}")))?))
    }

    /// The store of a splitter, connected when it is first asked.
    pub fn stored(self: &Arc<Platform>) -> Arc<dyn Fingerprints> {
        Arc::new(LateStore { platform: self.clone(), store: OnceCell::new() })
    }

    async fn store(&self, transactions_at_once: usize) -> Result<SpannerRecords, RecordsError> {
        let endpoint = self.endpoint("SPANNER_EMULATOR_HOST").map_err(|error| RecordsError::Systemic(error.0))?;
        let database = self.settings.database.as_deref().unwrap_or_default();
        SpannerRecords::connect(database, endpoint, transactions_at_once, self.settings.database_role.as_deref()).await
    }

    /// Where the end of a run is announced.
    pub async fn notice(&self) -> Result<Arc<dyn Notice>, StartError> {
        let notice = PubSubNotice::new(&self.settings.topic, self.endpoint("PUBSUB_EMULATOR_HOST")?).await;
        Ok(Arc::new(notice.map_err(|_| StartError("the Pub/Sub client cannot be set up".to_owned()))?))
    }

    /// The models: Google's, and chat completions. A deployed leg never falls back to the stand-in.
    pub fn model(&self) -> Result<Arc<dyn Model>, StartError> {
        Ok(Arc::new(Router { google: self.google()?, openai: self.openai()? }))
    }

    fn openai(&self) -> Result<Arc<dyn Model>, StartError> {
        if !self.settings.openai {
            return Ok(Arc::new(Nobody(openai::NOT_SET)));
        }
        let model = OpenAiConfig::from_env(variable, self.max_in_flight()).and_then(OpenAi::new);
        Ok(Arc::new(model.map_err(wrong)?))
    }

    fn google(&self) -> Result<Arc<dyn Model>, StartError> {
        let max_in_flight = self.max_in_flight();
        match &self.settings.model {
            Some(settings::Model::Vertex { project, location }) => {
                let config = VertexConfig {
                    project: project.clone(),
                    location: location.clone(),
                    endpoint: endpoint(variable("GOOGLE_GEMINI_BASE_URL").as_deref())?,
                    max_in_flight,
                    cert_file: variable("SSL_CERT_FILE").map(Into::into),
                };
                Ok(Arc::new(VertexModel::new(config).map_err(wrong)?))
            }
            Some(settings::Model::Gemini) => {
                let config = GeminiConfig::from_env(variable, max_in_flight).map_err(wrong)?;
                Ok(Arc::new(Gemini::new(config).map_err(wrong)?))
            }
            None => Err(StartError("only the generator asks a model".to_owned())),
        }
    }

    fn max_in_flight(&self) -> u32 {
        u32::try_from(self.settings.max_in_flight).unwrap_or(u32::MAX)
    }

    fn endpoint(&self, emulator: &str) -> Result<Endpoint, StartError> {
        endpoint(self.settings.emulator(emulator))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn wrong(error: ConfigError) -> StartError {
    StartError(error.to_string())
}

fn endpoint(emulator: Option<&str>) -> Result<Endpoint, StartError> {
    Endpoint::of(emulator).map_err(|_| {
        StartError("no credentials: on Cloud Run the service's account has them; elsewhere run `gcloud auth application-default login`".to_owned())
    })
}

/// Runs a service until SIGTERM or SIGINT. Exit code 1: it did not start, and said why.
pub fn run<F>(role: Role, leg: impl FnOnce(Arc<Platform>) -> F) -> ExitCode
where
    F: Future<Output = Result<Arc<dyn Leg>, StartError>>,
{
    let settings = match settings::read(role, environment()) {
        Ok(settings) => settings,
        Err(mistakes) => return refused(role, &mistakes.to_string()),
    };
    connect::install_tls();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refused(role, &format!("no threads to work with: {}", error.kind())),
    };
    let served = runtime.block_on(async {
        let telemetry = start_telemetry(&settings)?;
        let served = start(settings, leg).await;
        tokio::time::timeout(TELEMETRY_WITHIN, telemetry.stop()).await.ok();
        served
    });
    runtime.shutdown_timeout(END_WITHIN);
    served.map_or_else(|error| refused(role, &error.to_string()), |()| ExitCode::SUCCESS)
}

/// A value that is no text cannot be right: it is read as what is left of it.
fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

async fn start<F>(settings: Settings, leg: impl FnOnce(Arc<Platform>) -> F) -> Result<(), StartError>
where
    F: Future<Output = Result<Arc<dyn Leg>, StartError>>,
{
    let stop = CancellationToken::new();
    stop_on_signals(&stop)?;
    let (role, port) = (settings.role, settings.port);
    // Listening comes first: what comes while the adapters are made waits instead of being refused.
    let listener = TcpListener::bind(("0.0.0.0", port)).await;
    let listener = listener.map_err(|error| StartError(format!("PORT {port}: {}", error.kind())))?;
    let platform = Arc::new(Platform { settings, clock: Clock::system(), chance: Chance::system() });
    let leg = leg(platform.clone()).await?;
    let settings = &platform.settings;
    let server = Server {
        role,
        leg,
        bucket: settings.bucket(role.listens_to()).to_owned(),
        ack_deadline: settings.ack_deadline,
        callers: settings
            .callers
            .as_ref()
            .map(|callers| Callers::new(callers, reqwest::Client::new(), platform.clock.clone())),
        stop,
    };
    if server.callers.is_none() {
        tracing::warn!("TASUKI_OIDC is off: callers are not asked who they are");
    }
    tracing::info!(port, "the {} listens", role.as_str());
    serve(listener, server).await.map_err(|error| StartError(format!("the server: {}", error.kind())))
}

fn start_telemetry(settings: &Settings) -> Result<telemetry::Telemetry, StartError> {
    let collector = settings.otlp.as_deref().map(telemetry::collector).transpose();
    let telemetry = telemetry::Settings {
        name: settings.role.service(),
        project: settings.project.clone(),
        filter: settings.log.clone(),
        otlp: collector.map_err(|_| StartError("OTEL_EXPORTER_OTLP_ENDPOINT: no credentials for it".to_owned()))?,
    };
    telemetry::start(&telemetry).map_err(|error| StartError(error.to_string()))
}

fn stop_on_signals(stop: &CancellationToken) -> Result<(), StartError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(|error| StartError(format!("signals: {}", error.kind())))?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(())
}

/// One line for Cloud Logging, whatever was set up by then.
fn refused(role: Role, why: &str) -> ExitCode {
    let line = serde_json::json!({
        "severity": "ERROR",
        "message": format!("the {} does not start: {why}", role.as_str()),
    });
    eprintln!("{line}");
    ExitCode::FAILURE
}

/// The store of a splitter: looked at when the first pipeline with `only_changed` asks, so that a deployment without such
/// pipelines needs to give no right to it, and a store that is away holds up nobody else.
struct LateStore {
    platform: Arc<Platform>,
    store: OnceCell<SpannerRecords>,
}

const NO_STORE: &str = "the splitter has no store: set TASUKI_SPANNER_DATABASE, which only_changed needs";

#[async_trait]
impl Fingerprints for LateStore {
    async fn fingerprints(&self, pipeline: &Pipeline, keys: &[Key]) -> Result<BTreeMap<Key, String>, RecordsError> {
        if self.platform.settings.database.is_none() {
            return Err(RecordsError::Systemic(NO_STORE.to_owned()));
        }
        let store = self.store.get_or_try_init(|| self.platform.store(1)).await?; // it only reads
        store.fingerprints(pipeline, keys).await
    }
}
