use super::table::{EMULATORS, Kind, Unset, VARIABLES, Variable};
use super::{BigQuery, Callers, Model, Role, Settings};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tasuki_relay::names::Bucket;

const DAY: u64 = 24 * 3_600;
const GIB: u64 = 1 << 30;
/// How like a known variable an unknown one must be to be taken for it, from 0 to 1.
const LIKE: f64 = 0.85;
/// Cloud Run sets it ("Container runtime contract" of its documentation).
const ON_CLOUD_RUN: &str = "K_SERVICE";

/// Everything that is wrong with an environment. Shows no value: one of them is a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} settings to mend:", self.0.len())?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// Reads the settings of a service from its environment. An empty variable is an unset one.
pub fn read(role: Role, environment: impl IntoIterator<Item = (String, String)>) -> Result<Settings, Mistakes> {
    let environment = environment.into_iter().filter(|(_, value)| !value.trim().is_empty());
    let mut reader = Reader { role, set: environment.collect(), mistakes: Vec::new() };
    reader.unknown();
    let settings = reader.settings();
    reader.contradictions(&settings);
    if reader.mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(reader.mistakes)) }
}

struct Reader {
    role: Role,
    set: BTreeMap<String, String>,
    mistakes: Vec<String>,
}

impl Reader {
    fn settings(&mut self) -> Settings {
        let bigquery = self.bigquery();
        let model = (self.role == Role::Generator).then(|| self.model());
        self.text("OPENAI_RESPONSE_FORMAT");
        Settings {
            role: self.role,
            port: self.number("PORT") as u16,
            buckets: ["TASUKI_INBOX_BUCKET", "TASUKI_SHARDS_BUCKET", "TASUKI_ANSWERS_BUCKET", "TASUKI_STATE_BUCKET"]
                .map(|name| self.text(name)),
            database: self.optional("TASUKI_SPANNER_DATABASE"),
            database_role: self.optional("TASUKI_SPANNER_ROLE"),
            topic: self.text("TASUKI_COMPLETED_TOPIC"),
            bigquery,
            model,
            openai: ["OPENAI_BASE_URL", "OPENAI_API_KEY"].map(|name| self.optional(name).is_some()).contains(&true),
            max_in_flight: self.number("TASUKI_MAX_IN_FLIGHT") as usize,
            instances: u32::try_from(self.number("TASUKI_INSTANCES")).unwrap_or(u32::MAX),
            concurrency: self.number("TASUKI_CONCURRENCY") as usize,
            ack_deadline: Duration::from_secs(self.number("TASUKI_ACK_DEADLINE")),
            lease: Duration::from_secs(self.number("TASUKI_LEASE")),
            inbox_retention: Duration::from_secs(self.number("TASUKI_INBOX_RETENTION").saturating_mul(DAY)),
            callers: self.callers(),
            project: self.optional("GOOGLE_CLOUD_PROJECT"),
            log: self.optional("TASUKI_LOG"),
            otlp: self.optional("OTEL_EXPORTER_OTLP_ENDPOINT"),
            emulators: EMULATORS.iter().filter_map(|name| Some((*name, self.optional(name)?))).collect(),
        }
    }

    fn bigquery(&mut self) -> Option<BigQuery> {
        let (sources, staging) = (self.optional("TASUKI_BIGQUERY_SOURCES"), self.optional("TASUKI_BIGQUERY_STAGING"));
        if sources.is_some() != staging.is_some() {
            self.mistake("TASUKI_BIGQUERY_SOURCES and TASUKI_BIGQUERY_STAGING go together: set both or none");
        }
        let bytes_max = self.number("TASUKI_BIGQUERY_GIB_MAX").saturating_mul(GIB);
        let (sources, staging) = (list(&sources?), staging?);
        let project = self.project_for("BigQuery");
        Some(BigQuery { project, sources, staging, bytes_max })
    }

    fn model(&mut self) -> Model {
        let key = ["GEMINI_API_KEY", "GOOGLE_API_KEY"].iter().any(|name| self.optional(name).is_some());
        if key {
            if self.set.contains_key("TASUKI_MODEL_LOCATION") {
                self.mistake(
                    "TASUKI_MODEL_LOCATION is for Vertex AI, and an API key asks the Gemini API: unset one of them",
                );
            }
            return Model::Gemini;
        }
        let project = self.project_for("Vertex AI (or set GEMINI_API_KEY)");
        Model::Vertex { project, location: self.text("TASUKI_MODEL_LOCATION") }
    }

    fn project_for(&mut self, what: &str) -> String {
        self.optional("GOOGLE_CLOUD_PROJECT").unwrap_or_else(|| {
            self.mistake(format!("GOOGLE_CLOUD_PROJECT is not set: the project that pays for {what}"));
            String::new()
        })
    }

    fn callers(&mut self) -> Option<Callers> {
        let (on, emails) = (self.text("TASUKI_OIDC") != "off", self.optional("TASUKI_OIDC_EMAILS"));
        match (on, emails) {
            (true, Some(emails)) => Some(Callers { emails: list(&emails), jwks: self.optional("TASUKI_OIDC_JWKS") }),
            (true, None) => {
                self.mistake("TASUKI_OIDC_EMAILS is not set: the service accounts that may call, or TASUKI_OIDC=off");
                None
            }
            (false, Some(_)) => {
                self.mistake("TASUKI_OIDC is off, but TASUKI_OIDC_EMAILS is set: unset one of them");
                None
            }
            (false, None) => None,
        }
    }

    fn contradictions(&mut self, settings: &Settings) {
        for (at, bucket) in settings.buckets.iter().enumerate().filter(|(_, bucket)| !bucket.is_empty()) {
            if let Some(same) = settings.buckets[..at].iter().position(|each| each == bucket) {
                let [this, other] = [at, same].map(|at| Bucket::ALL[at].as_str().to_uppercase());
                self.mistake(format!(
                    "TASUKI_{this}_BUCKET is the same as TASUKI_{other}_BUCKET: each hop has a bucket of its own, or a leg would wake itself"
                ));
            }
        }
        if settings.lease > settings.ack_deadline && !settings.ack_deadline.is_zero() {
            self.mistake(format!(
                "TASUKI_LEASE ({} s) is above TASUKI_ACK_DEADLINE ({} s): a redelivery would find its own dead claim alive",
                settings.lease.as_secs(),
                settings.ack_deadline.as_secs()
            ));
        }
        if self.role == Role::Loader && settings.database.is_none() {
            self.mistake("TASUKI_SPANNER_DATABASE is not set: the store, as projects/P/instances/I/databases/D");
        }
        if self.set.contains_key(ON_CLOUD_RUN) {
            let jwks = settings.callers.as_ref().and_then(|callers| callers.jwks.as_ref()).map(|_| "TASUKI_OIDC_JWKS");
            for name in settings.emulators.keys().copied().chain(jwks) {
                self.mistake(format!("{name} is set on Cloud Run: a deployed service asks Google's services only"));
            }
            for name in ["GOOGLE_GEMINI_BASE_URL", "OPENAI_BASE_URL"] {
                if self.optional(name).is_some_and(|url| !url.starts_with("https://")) {
                    self.mistake(format!("{name} is not https: rows would be sent in the clear"));
                }
            }
        }
    }

    /// A misspelt variable is one that is missing.
    fn unknown(&mut self) {
        let ours = self.set.keys().filter(|name| name.starts_with("TASUKI_"));
        let unknown: Vec<String> = ours.filter(|name| find(name).is_none()).cloned().collect();
        for name in unknown {
            let likeness = |known: &&Variable| strsim::jaro_winkler(known.name, &name);
            let nearest = VARIABLES.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let hint = nearest.filter(|known| likeness(known) >= LIKE);
            let hint = hint.map_or_else(|| "unset it".to_owned(), |known| format!("did you mean {}?", known.name));
            self.mistake(format!("{name} is not a setting: {hint}"));
        }
    }

    fn number(&mut self, name: &str) -> u64 {
        let text = self.optional(name).or_else(|| default(name));
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// Its value, its default, or nothing: then the service does not start.
    fn text(&mut self, name: &str) -> String {
        self.optional(name).or_else(|| default(name)).unwrap_or_else(|| {
            let variable = find(name).filter(|variable| variable.roles.contains(&self.role));
            if let Some(Variable { meaning, kind, unset: Unset::Refused, .. }) = variable {
                self.mistake(format!("{name} is not set: {meaning}, as {}", form(*kind)));
            }
            String::new()
        })
    }

    fn optional(&mut self, name: &str) -> Option<String> {
        let variable = find(name).filter(|variable| variable.roles.contains(&self.role))?;
        let value = self.set.get(name)?.trim().to_owned();
        if !fits(variable.kind, &value) {
            let mistake = format!("{name} is none: it must be {}", form(variable.kind));
            if !self.mistakes.contains(&mistake) {
                self.mistake(mistake);
            }
        }
        Some(value)
    }

    fn mistake(&mut self, mistake: impl Into<String>) {
        self.mistakes.push(mistake.into());
    }
}

fn find(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name)
}

fn default(name: &str) -> Option<String> {
    match find(name)?.unset {
        Unset::Is(value) => Some(value.to_owned()),
        Unset::Refused | Unset::Nothing => None,
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn fits(kind: Kind, value: &str) -> bool {
    match kind {
        Kind::Number(_, from, to) => value.parse().is_ok_and(|number| (from..=to).contains(&number)),
        Kind::Word(words) => words.contains(&value),
        Kind::Text(_, is) => is(value),
        Kind::List(_, is) => !list(value).is_empty() && list(value).iter().all(|part| is(part)),
    }
}

fn form(kind: Kind) -> String {
    match kind {
        Kind::Number(unit, from, to) => format!("a whole number of {unit}, {from} to {to}"),
        Kind::Word(words) => words.join(" or "),
        Kind::Text(what, _) => what.to_owned(),
        Kind::List(what, _) => format!("{what}, several with commas"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("TASUKI_INBOX_BUCKET", "p-inbox"),
        ("TASUKI_SHARDS_BUCKET", "p-shards"),
        ("TASUKI_ANSWERS_BUCKET", "p-answers"),
        ("TASUKI_STATE_BUCKET", "p-state"),
        ("TASUKI_SPANNER_DATABASE", "projects/p/instances/i/databases/d"),
        ("TASUKI_COMPLETED_TOPIC", "projects/p/topics/completed"),
        ("TASUKI_OIDC_EMAILS", "eventarc@p.iam.gserviceaccount.com, cron@p.iam.gserviceaccount.com"),
        ("GOOGLE_CLOUD_PROJECT", "p"),
    ];

    fn with(role: Role, changed: &[(&str, &str)]) -> Result<Settings, Mistakes> {
        let mut environment: BTreeMap<String, String> =
            GOOD.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        environment.extend(changed.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        read(role, environment)
    }

    fn mistakes(role: Role, changed: &[(&str, &str)]) -> Vec<String> {
        with(role, changed).map_or_else(|mistakes| mistakes.0, |_| Vec::new())
    }

    #[test]
    fn one_environment_does_for_all_three() {
        for role in Role::ALL {
            let settings = with(role, &[]).unwrap();
            assert_eq!((settings.port, settings.bucket(Bucket::State)), (8080, "p-state"));
            assert_eq!(settings.callers.unwrap().emails.len(), 2);
        }
    }

    #[test]
    fn every_mistake_is_told_at_once_and_without_its_value() {
        let changed = [
            ("TASUKI_INBOX_BUCKET", ""),
            ("TASUKI_STATE_BUCKET", "Not A Bucket"),
            ("TASUKI_CONCURENCY", "4"),
            ("TASUKI_CONCURRENCY", "0"),
            ("PORT", "http"),
        ];
        let told = mistakes(Role::Splitter, &changed).join("\n");
        for part in [
            "TASUKI_INBOX_BUCKET is not set",
            "TASUKI_STATE_BUCKET is none",
            "TASUKI_CONCURENCY is not a setting: did you mean TASUKI_CONCURRENCY?",
            "TASUKI_CONCURRENCY is none: it must be a whole number of jobs, 1 to 1000",
            "PORT is none",
        ] {
            assert!(told.contains(part), "{part} is not in:\n{told}");
        }
        assert!(!told.contains("Not A Bucket"), "{told}");
        assert_eq!(told.lines().count(), changed.len(), "{told}");
    }

    #[test]
    fn contradictions_refuse_the_start() {
        let told = |role, changed: &[(&str, &str)], part: &str| {
            let told = mistakes(role, changed).join("\n");
            assert!(told.contains(part), "{part} is not in:\n{told}");
        };
        told(
            Role::Loader,
            &[("TASUKI_STATE_BUCKET", "p-inbox")],
            "TASUKI_STATE_BUCKET is the same as TASUKI_INBOX_BUCKET",
        );
        told(
            Role::Generator,
            &[("TASUKI_LEASE", "300"), ("TASUKI_ACK_DEADLINE", "60")],
            "TASUKI_LEASE (300 s) is above",
        );
        told(Role::Loader, &[("TASUKI_OIDC", "off")], "TASUKI_OIDC is off, but");
        told(Role::Loader, &[("TASUKI_OIDC_EMAILS", "")], "TASUKI_OIDC_EMAILS is not set");
        told(Role::Loader, &[("TASUKI_SPANNER_DATABASE", "")], "TASUKI_SPANNER_DATABASE is not set");
        told(Role::Splitter, &[("TASUKI_BIGQUERY_STAGING", "p.d")], "go together");
        told(Role::Generator, &[("GOOGLE_CLOUD_PROJECT", "")], "GOOGLE_CLOUD_PROJECT is not set");
        told(Role::Generator, &[("GEMINI_API_KEY", "k"), ("TASUKI_MODEL_LOCATION", "eu")], "unset one of them");
        told(
            Role::Loader,
            &[("K_SERVICE", "loader"), ("SPANNER_EMULATOR_HOST", "127.0.0.1:1")],
            "SPANNER_EMULATOR_HOST is set on Cloud Run",
        );
        for clear in ["http://proxy.internal", "proxy.internal:443"] {
            told(
                Role::Generator,
                &[("K_SERVICE", "generator"), ("GOOGLE_GEMINI_BASE_URL", clear)],
                "GOOGLE_GEMINI_BASE_URL is not https",
            );
        }
        told(
            Role::Generator,
            &[("K_SERVICE", "generator"), ("OPENAI_BASE_URL", "http://10.0.0.2:8000/v1")],
            "OPENAI_BASE_URL is not https",
        );
        told(
            Role::Generator,
            &[("OPENAI_BASE_URL", "vllm:8000")],
            "OPENAI_BASE_URL is none: it must be an http(s) address",
        );
        let behind_tls = [("K_SERVICE", "generator"), ("GOOGLE_GEMINI_BASE_URL", "https://proxy.internal")];
        assert!(mistakes(Role::Generator, &behind_tls).is_empty());
    }

    #[test]
    fn chat_completions_are_there_when_a_key_or_an_address_is() {
        for (name, value) in [("OPENAI_API_KEY", "secret"), ("OPENAI_BASE_URL", "https://gateway.internal/v1")] {
            let settings = with(Role::Generator, &[(name, value)]).unwrap();
            assert!(settings.openai && !format!("{settings:?}").contains("secret"));
        }
        assert!(!with(Role::Generator, &[]).unwrap().openai);
    }

    #[test]
    fn another_legs_setting_is_no_mistake() {
        assert!(mistakes(Role::Generator, &[("TASUKI_BIGQUERY_SOURCES", "p.d")]).is_empty());
    }

    #[test]
    fn defaults_are_within_their_own_ranges() {
        for variable in VARIABLES {
            if let Unset::Is(value) = variable.unset {
                assert!(fits(variable.kind, value), "{}", variable.name);
            }
        }
    }

    /// A line of the table in functions/README.md.
    fn line(variable: &Variable) -> String {
        let roles = Role::ALL.iter().filter(|role| variable.roles.contains(role));
        let roles: String = roles.map(|role| role.as_str()[..1].to_uppercase()).collect::<Vec<_>>().join(" ");
        let unset = match variable.unset {
            Unset::Refused => "must be set".to_owned(),
            Unset::Is(value) => format!("`{value}`"),
            Unset::Nothing => "none".to_owned(),
        };
        format!("| `{}` | {roles} | {} | {} | {unset} |", variable.name, variable.meaning, form(variable.kind))
    }

    #[test]
    fn the_services_page_has_every_setting_as_it_is() {
        let page = include_str!("../../../../functions/README.md");
        let lines: Vec<String> = VARIABLES.iter().map(line).collect();
        let missing: Vec<&String> = lines.iter().filter(|line| !page.contains(*line)).collect();
        assert!(missing.is_empty(), "functions/README.md lacks these lines; the whole table is:\n{}", lines.join("\n"));
    }
}
