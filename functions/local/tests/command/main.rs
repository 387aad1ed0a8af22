//! The `tasuki` command as a process: what it prints, how it ends, what it pays for.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may unwrap and look at the machine's clock"
)]

mod answers;
mod bill;
mod budget;
mod classes;
mod control;
mod mistakes;
mod openai;
mod paying;
mod plan;
mod run;
mod schema;
mod serve;
mod stop;

use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use tasuki_tests::model_server::{Act, CallInfo, ModelServer, Script};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// No command of these tests takes longer, unless it is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory to work in, and the environment of its commands.
struct Desk {
    dir: TempDir,
    model: Option<(String, String)>,
    /// `OPENAI_BASE_URL`.
    chat: Option<String>,
}

/// A command that has ended.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    /// With the stand-in model.
    fn new() -> Desk {
        Desk { dir: tempfile::tempdir().unwrap(), model: None, chat: None }
    }

    /// With a key, and a server that answers as `act` says.
    async fn asking(script: Script) -> (Desk, ModelServer) {
        let server = ModelServer::start(script).await.unwrap();
        let desk = Desk { model: Some((server.base(), "a-key".to_owned())), ..Desk::new() };
        (desk, server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// `rows.jsonl` with ids 0, 1, … and the pipeline file `p.toml`.
    fn with_rows(self, rows: u64, run: &str) -> Desk {
        self.write("rows.jsonl", lines(0..rows));
        self.write("p.toml", pipeline(run));
        self
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tasuki"));
        let unset = [
            "GEMINI_API_KEY",
            "GOOGLE_API_KEY",
            "GOOGLE_GEMINI_BASE_URL",
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "OPENAI_RESPONSE_FORMAT",
            "TASUKI_DIR",
            "TASUKI_DEPLOYMENT",
            "TASUKI_LOG",
        ];
        for name in unset {
            command.env_remove(name);
        }
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        if let Some((base, key)) = &self.model {
            command.env("GOOGLE_GEMINI_BASE_URL", base).env("GEMINI_API_KEY", key);
        }
        if let Some(base) = &self.chat {
            command.env("OPENAI_BASE_URL", base);
        }
        command.current_dir(self.dir.path()).args(words).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn start(&self, words: &[&str]) -> Child {
        self.command(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    async fn tasuki(&self, words: &[&str]) -> Done {
        ended(self.start(words)).await
    }

    /// `tasuki run` of [`Desk::with_rows`].
    async fn run(&self) -> Done {
        self.tasuki(RUN).await
    }

    /// The newest run as `tasuki status --json` tells it.
    async fn newest(&self) -> Value {
        let mut status: Value = serde_json::from_str(&self.tasuki(&["status", "--json"]).await.out).unwrap();
        status["runs"][0].take()
    }
}

const RUN: &[&str] = &["run", "rows.jsonl", "--pipeline", "p.toml"];

async fn ended(child: Child) -> Done {
    let Output { status, stdout, stderr } =
        tokio::time::timeout(PATIENCE, child.wait_with_output()).await.expect("the command ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done { code: status.code(), out: text(stdout), err: text(stderr) }
}

fn lines(ids: std::ops::Range<u64>) -> String {
    ids.map(|id| format!("{{\"id\":\"{id}\",\"text\":\"words of row {id};\"}}\n")).collect()
}

/// A pipeline named p; `run` is what stands under `[run]`.
fn pipeline(run: &str) -> String {
    format!(
        "name = \"p\"\nkey = \"id\"\n[prompt]\ntemplate = \"{{{{ text }}}}\"\n[answer.theme]\ntype = \"string\"\n\
         [target]\ntable = \"themes\"\n[run]\n{run}\n"
    )
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Waits until `holds`.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "{what} does not come to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the server was called so often.
async fn until_called(server: &ModelServer, calls: u64) {
    until("a call", || server.tally().calls() >= calls).await;
}

/// Runs whose end is in the store.
async fn count_ended(desk: &Desk, state: &str) -> usize {
    let status = desk.tasuki(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&status.out).unwrap_or_default();
    status["runs"].as_array().map_or(0, |runs| runs.iter().filter(|run| run["state"] == state).count())
}
