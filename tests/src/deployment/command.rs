//! The `tasuki` command against the deployment, as an operator gives it.

use super::Deployment;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;
use tasuki_google::settings::Role;
use tokio::process::{Child, Command};

/// No command of these tests takes longer, unless it is wrong.
const PATIENCE: Duration = Duration::from_secs(240);

/// A folder with `tasuki.json`, and the environment of its commands.
pub struct Desk {
    /// Where commands are given.
    pub dir: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Done {
    /// Its exit code.
    pub code: Option<i32>,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl Deployment {
    /// `tasuki.json` as Terraform writes it.
    pub fn file(&self) -> Value {
        let each = |of: &dyn Fn(&str) -> Value| {
            Value::Object(Role::ALL.iter().map(|role| (role.as_str().to_owned(), of(role.as_str()))).collect())
        };
        let uri = |role: &str| self.services.get(role).map(|service| format!("http://{}", service.host()));
        json!({
            "version": 1, "project": "tasuki-test", "region": "europe-west1",
            "inbox_bucket": self.buckets.inbox, "shards_bucket": self.buckets.shards,
            "answers_bucket": self.buckets.answers, "state_bucket": self.buckets.state,
            "spanner_database": self.database.name, "spanner_role": "", "completed_topic": self.topic.name,
            "model_location": "global",
            "services": each(&|role| json!({
                "name": format!("tasuki-{role}"), "uri": uri(role), "account": format!("{role}@tasuki-test.iam.gserviceaccount.com"),
            })),
            "subscriptions": each(&|role| format!("projects/tasuki-test/subscriptions/eventarc-{role}").into()),
            "trigger_account": super::eventarc::CALLER, "dead_letter_subscription": "projects/tasuki-test/subscriptions/dead",
            "ack_deadline_seconds": 600, "max_delivery_attempts": 100, "bigquery_sources": [], "bigquery_staging": "",
            "schedulers": Role::ALL.map(|role| format!("tasuki-sweep-{}", role.as_str())),
        })
    }

    /// A folder with the deployment's file and the pipeline's.
    pub fn desk(&self) -> Result<Desk> {
        let dir = tempfile::tempdir()?;
        let variables =
            vec![("STORAGE_EMULATOR_HOST", self.storage.host()), ("SPANNER_EMULATOR_HOST", self.database.host.clone())];
        let desk = Desk { dir, variables };
        desk.write("tasuki.json", &self.file().to_string())?;
        desk.write("words.toml", super::PIPELINE)?;
        Ok(desk)
    }
}

impl Desk {
    /// The path of a file.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.path(name), text)?)
    }

    /// Rows like those of [`Deployment::drop_rows`].
    pub fn write_rows(&self, name: &str, rows: impl Iterator<Item = u64>) -> Result<()> {
        self.write(name, &super::lines(rows))
    }

    /// One more variable for its commands.
    pub fn set(&mut self, name: &'static str, value: String) {
        self.variables.push((name, value));
    }

    /// Starts `tasuki --deployment tasuki.json …`.
    pub fn start(&self, words: &[&str]) -> Result<Child> {
        let mut command = Command::new(program()?);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(["--deployment", "tasuki.json"]).args(words).current_dir(self.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn().context("tasuki cannot be started")
    }

    /// `tasuki --deployment tasuki.json …`, to its end.
    pub async fn tasuki(&self, words: &[&str]) -> Result<Done> {
        ended(self.start(words)?).await
    }
}

/// Waits for a command's end.
pub async fn ended(child: Child) -> Result<Done> {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.context("the command does not end")?;
    let Output { status, stdout, stderr } = output?;
    Ok(Done { code: status.code(), out: String::from_utf8(stdout)?, err: String::from_utf8(stderr)? })
}

/// Where `tests/run` has built it: beside the folder of this test's own program.
fn program() -> Result<impl AsRef<std::ffi::OsStr>> {
    let own = std::env::current_exe()?;
    let program = own.parent().and_then(Path::parent).context("a test's program is in target/…/deps")?.join("tasuki");
    anyhow::ensure!(program.exists(), "{} is not built: tests/run builds it", program.display());
    Ok(program)
}
