//! `tasuki.json`: what a deployment consists of, as Terraform's output `deployment` tells it.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use tasuki_google::settings::Role;

/// The form of the file that is read.
const VERSION: u64 = 1;
/// How every mistake is mended: the file is made, not written.
const MEND: &str = "run `terraform output -json deployment > tasuki.json` again, where the deployment's Terraform is";

/// One of the three services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// In Cloud Run.
    pub(crate) name: String,
    /// Where its events go.
    pub(crate) uri: String,
    /// The account that it works as.
    pub(crate) account: String,
}

/// What a deployment consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Deployment {
    pub(crate) project: String,
    pub(crate) region: String,
    pub(crate) inbox_bucket: String,
    pub(crate) shards_bucket: String,
    pub(crate) answers_bucket: String,
    pub(crate) state_bucket: String,
    /// `projects/P/instances/I/databases/D`.
    pub(crate) spanner_database: String,
    /// The operator's database role; `None` = the account's own rights.
    pub(crate) spanner_role: Option<String>,
    /// `projects/P/topics/T`.
    pub(crate) completed_topic: String,
    pub(crate) model_location: String,
    /// By [`Role::as_str`].
    pub(crate) services: BTreeMap<&'static str, Service>,
    /// `projects/P/subscriptions/S` by [`Role::as_str`].
    pub(crate) subscriptions: BTreeMap<&'static str, String>,
    pub(crate) trigger_account: String,
    pub(crate) dead_letter_subscription: String,
    pub(crate) ack_deadline_seconds: u64,
    pub(crate) max_delivery_attempts: u64,
    /// `project.dataset` or `project.dataset.table`: what run files may read.
    pub(crate) bigquery_sources: Vec<String>,
    /// `project.dataset`; empty without BigQuery.
    pub(crate) bigquery_staging: String,
    /// The jobs of Cloud Scheduler that sweep.
    pub(crate) schedulers: Vec<String>,
}

impl Deployment {
    /// Reads the file.
    ///
    /// # Errors
    /// Every field that is missing or wrong, and the mend.
    pub(crate) fn read(file: &Path) -> Result<Deployment, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}: {MEND}", file.display()))?;
        Deployment::parse(&text).map_err(|problems| format!("{}: {problems}", file.display()))
    }

    fn parse(text: &str) -> Result<Deployment, String> {
        let told = |problems: &[String]| format!("{}: {MEND}", problems.join("; "));
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            return Err(told(&["it holds no JSON object".to_owned()]));
        };
        if fields.get("version").and_then(Value::as_u64) != Some(VERSION) {
            let version = fields.get("version").map_or("none".to_owned(), Value::to_string);
            let both = "and see that this tasuki is of the version that was deployed";
            return Err(format!("its version is {version}, this tasuki reads {VERSION}: {MEND}, {both}"));
        }
        let mut fields = Fields { at: String::new(), fields: &fields, problems: Vec::new() };
        let deployment = fields.deployment();
        match fields.problems.is_empty() {
            true => Ok(deployment),
            false => Err(told(&fields.problems)),
        }
    }

    /// The service of a leg.
    pub(crate) fn service(&self, role: Role) -> &Service {
        &self.services[role.as_str()]
    }
}

/// The fields of an object, and what is wrong with them.
struct Fields<'a> {
    /// Where the object stands: `services.splitter.`.
    at: String,
    fields: &'a Map<String, Value>,
    problems: Vec<String>,
}

impl Fields<'_> {
    fn deployment(&mut self) -> Deployment {
        Deployment {
            project: self.text("project"),
            region: self.text("region"),
            inbox_bucket: self.text("inbox_bucket"),
            shards_bucket: self.text("shards_bucket"),
            answers_bucket: self.text("answers_bucket"),
            state_bucket: self.text("state_bucket"),
            spanner_database: self.path("spanner_database", &["projects", "instances", "databases"]),
            spanner_role: Some(self.text_or_none("spanner_role")).filter(|role| !role.is_empty()),
            completed_topic: self.path("completed_topic", &["projects", "topics"]),
            model_location: self.text("model_location"),
            services: self.by_role("services", |fields| Service {
                name: fields.text("name"),
                uri: fields.text("uri"),
                account: fields.text("account"),
            }),
            subscriptions: self.each_role("subscriptions", |fields, role| fields.path(role, SUBSCRIPTION)),
            trigger_account: self.text("trigger_account"),
            dead_letter_subscription: self.path("dead_letter_subscription", SUBSCRIPTION),
            ack_deadline_seconds: self.number("ack_deadline_seconds"),
            max_delivery_attempts: self.number("max_delivery_attempts"),
            bigquery_sources: self.list("bigquery_sources"),
            bigquery_staging: self.text_or_none("bigquery_staging"),
            schedulers: self.list("schedulers"),
        }
    }

    fn wrong<T: Default>(&mut self, name: &str, what: &str) -> T {
        self.problems.push(format!("{}{name} {what}", self.at));
        T::default()
    }

    fn get(&mut self, name: &str) -> Option<&Value> {
        let value = self.fields.get(name);
        if value.is_none() {
            self.wrong::<()>(name, "is missing");
        }
        value
    }

    fn text_or_none(&mut self, name: &str) -> String {
        match self.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(_) => self.wrong(name, "is no text"),
            None => String::new(),
        }
    }

    fn text(&mut self, name: &str) -> String {
        match self.get(name) {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(_) => self.wrong(name, "is no text, or empty"),
            None => String::new(),
        }
    }

    /// `projects/P/topics/T` for `["projects", "topics"]`.
    fn path(&mut self, name: &str, kinds: &[&str]) -> String {
        let before = self.problems.len();
        let text = self.text(name);
        let parts: Vec<&str> = text.split('/').collect();
        let fits = parts.len() == 2 * kinds.len()
            && parts.chunks(2).zip(kinds).all(|(pair, kind)| pair[0] == *kind && !pair[1].is_empty());
        if !fits && self.problems.len() == before {
            let like: Vec<String> = kinds.iter().map(|kind| format!("{kind}/…")).collect();
            self.wrong::<()>(name, &format!("is not like {}", like.join("/")));
        }
        text
    }

    fn number(&mut self, name: &str) -> u64 {
        match self.get(name).map(Value::as_u64) {
            Some(Some(number)) => number,
            Some(None) => self.wrong(name, "is no whole number"),
            None => 0,
        }
    }

    fn list(&mut self, name: &str) -> Vec<String> {
        let texts = |value: &Value| {
            value.as_array()?.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        match self.get(name).map(texts) {
            Some(Some(list)) => list,
            Some(None) => self.wrong(name, "is no list of texts"),
            None => Vec::new(),
        }
    }

    /// The object `name`, read by `read`.
    fn object<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'_>) -> T) -> T {
        let found = match self.get(name) {
            Some(Value::Object(fields)) => Some(fields.clone()),
            Some(_) => self.wrong(name, "is no object"),
            None => None,
        };
        // Of what is not there it is not said as well that all in it is missing.
        let known = found.is_some();
        let fields = found.unwrap_or_default();
        let mut inner = Fields { at: format!("{}{name}.", self.at), fields: &fields, problems: Vec::new() };
        let value = read(&mut inner);
        let problems = inner.problems;
        self.problems.extend(problems.into_iter().filter(|_| known));
        value
    }

    fn each_role<T>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Fields<'_>, &'static str) -> T,
    ) -> BTreeMap<&'static str, T> {
        self.object(name, |fields| Role::ALL.map(|role| (role.as_str(), read(fields, role.as_str()))).into())
    }

    fn by_role<T>(&mut self, name: &str, mut read: impl FnMut(&mut Fields<'_>) -> T) -> BTreeMap<&'static str, T> {
        self.each_role(name, |fields, role| fields.object(role, &mut read))
    }
}

const SUBSCRIPTION: &[&str] = &["projects", "subscriptions"];

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn example() -> Value {
        let service = |role: &str| json!({"name": format!("tasuki-{role}"), "uri": format!("https://{role}.run.app"), "account": format!("{role}@p.iam.gserviceaccount.com")});
        let subscription = |role: &str| format!("projects/p/subscriptions/eventarc-{role}");
        json!({
            "version": 1, "project": "p", "region": "europe-west1",
            "inbox_bucket": "p-inbox", "shards_bucket": "p-shards", "answers_bucket": "p-answers", "state_bucket": "p-state",
            "spanner_database": "projects/p/instances/i/databases/d", "spanner_role": "",
            "completed_topic": "projects/p/topics/completed", "model_location": "global",
            "services": {"splitter": service("splitter"), "generator": service("generator"), "loader": service("loader")},
            "subscriptions": {
                "splitter": subscription("splitter"), "generator": subscription("generator"), "loader": subscription("loader"),
            },
            "trigger_account": "trigger@p.iam.gserviceaccount.com",
            "dead_letter_subscription": "projects/p/subscriptions/dead", "ack_deadline_seconds": 600,
            "max_delivery_attempts": 100, "bigquery_sources": [], "bigquery_staging": "", "schedulers": ["sweep-splitter"],
        })
    }

    pub(crate) fn deployment() -> Deployment {
        Deployment::parse(&example().to_string()).unwrap()
    }

    #[test]
    fn a_file_is_read_whatever_else_it_holds() {
        let mut text = example();
        text["new_in_a_later_version"] = json!({"a": 1});
        let read = Deployment::parse(&text.to_string()).unwrap();
        assert_eq!(read.service(Role::Loader).uri, "https://loader.run.app");
        assert_eq!((read.spanner_role, read.ack_deadline_seconds), (None, 600));
    }

    #[test]
    fn all_that_is_missing_or_wrong_is_named_at_once_with_the_mend() {
        let mut text = example();
        text.as_object_mut().unwrap().remove("state_bucket");
        text["ack_deadline_seconds"] = json!("600");
        text["services"]["loader"]["uri"] = json!("");
        text["services"]["splitter"] = json!(3);
        text["services"]["generator"] = json!({});
        text["subscriptions"]["generator"] = json!("S");
        text["schedulers"] = json!([1]);
        let told = Deployment::parse(&text.to_string()).unwrap_err();
        for said in [
            "state_bucket is missing",
            "ack_deadline_seconds is no whole number",
            "services.loader.uri is no text, or empty",
            "services.splitter is no object",
            "services.generator.name is missing",
            "services.generator.uri is missing",
            "services.generator.account is missing",
            "subscriptions.generator is not like projects/…/subscriptions/…",
            "schedulers is no list of texts",
            "terraform output -json deployment > tasuki.json",
        ] {
            assert!(told.contains(said), "{said}: {told}");
        }
        assert_eq!(told.matches("; ").count(), 8, "nothing is told twice: {told}");
    }

    #[test]
    fn another_version_and_a_file_that_is_no_json_are_told() {
        for (text, said) in
            [("[1]", "no JSON object"), ("{", "no JSON object"), ("{\"version\":2}", "its version is 2")]
        {
            let told = Deployment::parse(text).unwrap_err();
            assert!(told.contains(said) && told.contains("terraform output"), "{told}");
        }
    }
}
