//! Every variable that a service reads, with its meaning, unit, range and default. There is no other place.

use super::Role;
use super::Role::{Generator, Loader, Splitter};
use crate::bigquery::{Allowed, DatasetName};

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number in a unit, from … to ….
    Number(&'static str, u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text of a form: what it looks like, and whether this is it.
    Text(&'static str, fn(&str) -> bool),
    /// Several of them, with commas between.
    List(&'static str, fn(&str) -> bool),
}

/// What holds when a variable is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// The service does not start.
    Refused,
    /// This value.
    Is(&'static str),
    /// Something is not used, as the meaning says.
    Nothing,
}

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Who reads it. The others ignore it: one environment does for all three.
    pub roles: &'static [Role],
    /// What it means.
    pub meaning: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What holds without it.
    pub unset: Unset,
}

const ALL: &[Role] = &Role::ALL;
const BUCKET: Kind = Kind::Text("a bucket's name: 3 to 63 of a-z 0-9 - _ .", is_bucket);
const HOST: Kind = Kind::Text("host:port, or an http(s) address", is_host);

const fn variable(
    name: &'static str,
    roles: &'static [Role],
    kind: Kind,
    unset: Unset,
    meaning: &'static str,
) -> Variable {
    Variable { name, roles, meaning, kind, unset }
}

/// The table.
pub const VARIABLES: &[Variable] = &[
    variable(
        "PORT",
        ALL,
        Kind::Number("port", 1, 65_535),
        Unset::Is("8080"),
        "where the service listens; Cloud Run sets it",
    ),
    variable("TASUKI_INBOX_BUCKET", ALL, BUCKET, Unset::Refused, "dropped files; part of every run's identity"),
    variable("TASUKI_SHARDS_BUCKET", ALL, BUCKET, Unset::Refused, "shards"),
    variable("TASUKI_ANSWERS_BUCKET", ALL, BUCKET, Unset::Refused, "answers"),
    variable("TASUKI_STATE_BUCKET", ALL, BUCKET, Unset::Refused, "pipelines, plans, claims, checkpoints, control"),
    variable(
        "TASUKI_SPANNER_DATABASE",
        &[Splitter, Loader],
        Kind::Text("projects/P/instances/I/databases/D", |text| is_path(text, &["projects", "instances", "databases"])),
        Unset::Nothing,
        "the store. The loader needs it; the splitter only for pipelines with only_changed",
    ),
    variable(
        "TASUKI_SPANNER_ROLE",
        &[Splitter, Loader],
        Kind::Text("a name of letters, digits and _", |text| is_word(text, "_")),
        Unset::Nothing,
        "the database role to work as; without it the account's own rights count",
    ),
    variable(
        "TASUKI_COMPLETED_TOPIC",
        &[Loader],
        Kind::Text("projects/P/topics/T", |text| is_path(text, &["projects", "topics"])),
        Unset::Refused,
        "where the end of a run is announced",
    ),
    variable(
        "TASUKI_BIGQUERY_SOURCES",
        &[Splitter],
        Kind::List("project.dataset or project.dataset.table", |text| text.parse::<Allowed>().is_ok()),
        Unset::Nothing,
        "what run files may read; without it BigQuery is no source",
    ),
    variable(
        "TASUKI_BIGQUERY_STAGING",
        &[Splitter],
        Kind::Text("project.dataset", |text| text.parse::<DatasetName>().is_ok()),
        Unset::Nothing,
        "where snapshots are written; goes with TASUKI_BIGQUERY_SOURCES",
    ),
    variable(
        "TASUKI_BIGQUERY_GIB_MAX",
        &[Splitter],
        Kind::Number("GiB", 1, 1_000_000),
        Unset::Is("1000"),
        "what one run's query may read at most, by its dry run",
    ),
    variable(
        "TASUKI_MODEL_LOCATION",
        &[Generator],
        Kind::Text("global, us, eu or a region", |text| is_word(text, "-")),
        Unset::Is("global"),
        "where Vertex AI is asked, unless the pipeline says; not used with an API key",
    ),
    variable(
        "TASUKI_MAX_IN_FLIGHT",
        &[Generator],
        Kind::Number("calls", 1, 50_000),
        Unset::Is("1000"),
        "calls in flight of this instance at most",
    ),
    variable(
        "TASUKI_INSTANCES",
        &[Generator],
        Kind::Number("instances", 1, 1_000),
        Unset::Is("1"),
        "instances of this service at most: pipelines' ceilings are shared by so many",
    ),
    variable(
        "TASUKI_CONCURRENCY",
        ALL,
        Kind::Number("jobs", 1, 1_000),
        Unset::Is("16"),
        "files, shards or parts that this instance works on at once; more are answered 503",
    ),
    variable(
        "TASUKI_ACK_DEADLINE",
        ALL,
        Kind::Number("s", 30, 600),
        Unset::Is("600"),
        "how long a request waits for its work: a little below the ack deadline of the subscription that calls (Pub/Sub: 600 at most)",
    ),
    variable(
        "TASUKI_LEASE",
        ALL,
        Kind::Number("s", 30, 600),
        Unset::Is("120"),
        "a claim that was not renewed for so long is taken over; renewed four times as often",
    ),
    variable(
        "TASUKI_INBOX_RETENTION",
        &[Splitter],
        Kind::Number("days", 2, 3_650),
        Unset::Is("45"),
        "how long the inbox keeps files: older ones are not started late",
    ),
    variable(
        "TASUKI_OIDC",
        ALL,
        Kind::Word(&["on", "off"]),
        Unset::Is("on"),
        "off: callers are not asked who they are (tests, or another wall)",
    ),
    variable(
        "TASUKI_OIDC_EMAILS",
        ALL,
        Kind::List("an e-mail address", |text| text.split('@').filter(|part| !part.is_empty()).count() == 2),
        Unset::Nothing,
        "service accounts that may call; needed unless TASUKI_OIDC is off",
    ),
    variable(
        "TASUKI_OIDC_JWKS",
        ALL,
        Kind::Text("an http(s) address", |text| text.contains("://") && is_host(text)),
        Unset::Nothing,
        "where the public keys of the tokens are; without it Google's",
    ),
    variable(
        "TASUKI_LOG",
        ALL,
        Kind::Text("directives of tracing's EnvFilter", |_| true),
        Unset::Nothing,
        "what is logged; without it warn,tasuki=info",
    ),
    variable(
        "GOOGLE_CLOUD_PROJECT",
        ALL,
        Kind::Text("a project", |text| is_word(text, "-:.")),
        Unset::Nothing,
        "bills Vertex AI and BigQuery, and names traces",
    ),
    variable(
        "GEMINI_API_KEY",
        &[Generator],
        Kind::Text("one line", |text| !text.contains('\n')),
        Unset::Nothing,
        "asks the Gemini API with this key instead of Vertex AI",
    ),
    variable(
        "GOOGLE_API_KEY",
        &[Generator],
        Kind::Text("one line", |text| !text.contains('\n')),
        Unset::Nothing,
        "the same, if the first is not set",
    ),
    variable("GOOGLE_GEMINI_BASE_URL", &[Generator], HOST, Unset::Nothing, "asks the model there instead"),
    variable(
        "OPENAI_BASE_URL",
        &[Generator],
        Kind::Text("an http(s) address", |text| text.contains("://") && is_host(text)),
        Unset::Nothing,
        "where pipelines with provider = \"openai\" are answered: a server with chat completions; without it OpenAI itself, if there is a key",
    ),
    variable(
        "OPENAI_API_KEY",
        &[Generator],
        Kind::Text("one line", |text| !text.contains('\n')),
        Unset::Nothing,
        "the key for it; a server of one's own may want none",
    ),
    variable(
        "OPENAI_RESPONSE_FORMAT",
        &[Generator],
        Kind::Word(&["json_schema", "text"]),
        Unset::Is("json_schema"),
        "how it is told the form of answers; text: in words, for a server that refuses a schema",
    ),
    variable("OTEL_EXPORTER_OTLP_ENDPOINT", ALL, HOST, Unset::Nothing, "where spans and metrics go by OTLP"),
    variable(
        "STORAGE_EMULATOR_HOST",
        ALL,
        HOST,
        Unset::Nothing,
        "a test server instead of Cloud Storage, without credentials",
    ),
    variable(
        "SPANNER_EMULATOR_HOST",
        &[Splitter, Loader],
        HOST,
        Unset::Nothing,
        "an emulator instead of Spanner, without credentials",
    ),
    variable(
        "PUBSUB_EMULATOR_HOST",
        &[Loader],
        HOST,
        Unset::Nothing,
        "an emulator instead of Pub/Sub, without credentials",
    ),
    variable(
        "BIGQUERY_EMULATOR_HOST",
        &[Splitter],
        HOST,
        Unset::Nothing,
        "an emulator of BigQuery's REST API, without credentials",
    ),
    variable(
        "BIGQUERY_STORAGE_EMULATOR_HOST",
        &[Splitter],
        HOST,
        Unset::Nothing,
        "an emulator of BigQuery's Storage Read API (gRPC), without credentials",
    ),
];

/// The variables that send a service elsewhere than to Google: refused on Cloud Run.
pub const EMULATORS: &[&str] = &[
    "STORAGE_EMULATOR_HOST",
    "SPANNER_EMULATOR_HOST",
    "PUBSUB_EMULATOR_HOST",
    "BIGQUERY_EMULATOR_HOST",
    "BIGQUERY_STORAGE_EMULATOR_HOST",
];

/// Cloud Storage's naming rules, but for names with dots that are longer ("Bucket names" of its documentation).
fn is_bucket(text: &str) -> bool {
    (3..=63).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_host(text: &str) -> bool {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    matches!(scheme, "http" | "https") && !rest.is_empty() && !rest.contains(char::is_whitespace)
}

fn is_word(text: &str, also: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

/// `projects/P/topics/T` for `["projects", "topics"]`.
fn is_path(text: &str, kinds: &[&str]) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() == 2 * kinds.len()
        && parts.chunks(2).zip(kinds).all(|(pair, kind)| pair[0] == *kind && is_word(pair[1], "-_.:~+%"))
}
