//! The settings of a service, from its environment: all mistakes at once, and nothing starts with one.

mod read;
mod table;

pub use read::{Mistakes, read};
pub use table::{EMULATORS, Kind, Unset, VARIABLES, Variable};

use std::time::Duration;
use tasuki_relay::names::Bucket;

/// Which leg a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A dropped file → shards.
    Splitter,
    /// A shard → answers.
    Generator,
    /// Answers → the store.
    Loader,
}

impl Role {
    /// All three.
    pub const ALL: [Role; 3] = [Role::Splitter, Role::Generator, Role::Loader];

    /// As it stands in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Splitter => "splitter",
            Role::Generator => "generator",
            Role::Loader => "loader",
        }
    }

    /// As the service is called in traces, and its program.
    pub fn service(self) -> &'static str {
        match self {
            Role::Splitter => "tasuki-splitter",
            Role::Generator => "tasuki-generator",
            Role::Loader => "tasuki-loader",
        }
    }

    /// The bucket whose events call it.
    pub fn listens_to(self) -> Bucket {
        match self {
            Role::Splitter => Bucket::Inbox,
            Role::Generator => Bucket::Shards,
            Role::Loader => Bucket::Answers,
        }
    }
}

/// What BigQuery may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigQuery {
    /// Who pays for its jobs.
    pub project: String,
    /// `project.dataset` or `project.dataset.table`.
    pub sources: Vec<String>,
    /// `project.dataset`.
    pub staging: String,
    /// What one query may read.
    pub bytes_max: u64,
}

/// Which model is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Model {
    /// The Gemini API, with the key that the environment holds.
    Gemini,
    /// Vertex AI, as the service's account.
    Vertex {
        /// Who pays.
        project: String,
        /// Where, unless the pipeline says.
        location: String,
    },
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callers {
    /// Their verified e-mail addresses.
    pub emails: Vec<String>,
    /// Where the public keys are, if not at Google.
    pub jwks: Option<String>,
}

/// The settings of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which leg it is.
    pub role: Role,
    /// Where it listens.
    pub port: u16,
    /// The real names of the buckets, in the order of [`Bucket::ALL`].
    pub buckets: [String; 4],
    /// The store.
    pub database: Option<String>,
    /// The role in the store.
    pub database_role: Option<String>,
    /// Where the end of a run is announced; empty unless it is the loader.
    pub topic: String,
    /// BigQuery as a source.
    pub bigquery: Option<BigQuery>,
    /// Google's model; the generator has one.
    pub model: Option<Model>,
    /// The environment says where pipelines of provider "openai" are answered.
    pub openai: bool,
    /// Calls in flight at most.
    pub max_in_flight: usize,
    /// Instances of the service at most.
    pub instances: u32,
    /// Jobs at once.
    pub concurrency: usize,
    /// How long a request waits for its job.
    pub ack_deadline: Duration,
    /// See [`tasuki_relay::claims::LEASE`].
    pub lease: Duration,
    /// How long the inbox keeps files.
    pub inbox_retention: Duration,
    /// Who may call; `None` = everybody.
    pub callers: Option<Callers>,
    /// The project.
    pub project: Option<String>,
    /// What is logged.
    pub log: Option<String>,
    /// Where spans and metrics go.
    pub otlp: Option<String>,
    /// Test servers, by the variable that names them.
    pub emulators: std::collections::BTreeMap<&'static str, String>,
}

impl Settings {
    /// The bucket's real name.
    pub fn bucket(&self, bucket: Bucket) -> &str {
        &self.buckets[Bucket::ALL.iter().position(|each| *each == bucket).unwrap_or_default()]
    }

    /// The test server that this variable of [`EMULATORS`] names.
    pub fn emulator(&self, variable: &str) -> Option<&str> {
        self.emulators.get(variable).map(String::as_str)
    }
}
