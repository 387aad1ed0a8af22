//! The model server as a process: a fixed answer after a fixed time, over TLS and HTTP/2.

use crate::Options;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tasuki_tests::model_server::{ModelServer, Quota, Script};

/// Fits the example pipeline.
const ANSWER: &str = r#"{"themes":["a rainy afternoon","a gift for a cook","slow mornings","copper and linen","雨の午後","手作りの器"]}"#;

/// Serves until stdin ends. Says its base and its certificate's file, and its counts of calls and of rejected ones for every line that it reads.
pub fn serve(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let script = Script::fixed(ANSWER).https().latency(Duration::from_millis(options.latency_ms));
    let rejects_in = Duration::from_millis(options.reject_ms);
    let quota = |per_second| Quota { per_second: f64::from(per_second), rejects_in };
    let script = options.quota.map_or(script.clone(), |per_second| script.quota(quota(per_second)));
    let server = runtime.block_on(ModelServer::start(script))?;
    crate::say(&format!("{}\n{}", server.base(), server.ca_pem_path().display()))?;
    for line in std::io::stdin().lines() {
        line?;
        crate::say(&format!("{} {}", server.tally().calls(), server.tally().rejections()))?;
    }
    Ok(())
}

/// A model server that runs.
pub struct Server {
    process: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
    /// For `GOOGLE_GEMINI_BASE_URL`.
    pub base: String,
    /// For `SSL_CERT_FILE`.
    pub certificate: String,
}

impl Server {
    /// Starts one.
    pub fn start(options: &Options) -> Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(options.arguments()).arg("model").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let (ask, told) = (process.stdin.take(), process.stdout.take());
        let (ask, told) = ask.zip(told).context("pipes were asked for")?;
        let mut server =
            Server { process, ask, told: BufReader::new(told), base: String::new(), certificate: String::new() };
        (server.base, server.certificate) = (server.line()?, server.line()?);
        Ok(server)
    }

    /// Ends it, and tells how many calls came, and how many of them it rejected.
    pub fn calls(mut self) -> Result<(u64, u64)> {
        self.ask.write_all(b"\n")?;
        let line = self.line()?;
        let (calls, rejected) = line.split_once(' ').context("two numbers")?;
        let calls = (calls.parse()?, rejected.parse()?);
        drop(self.ask);
        self.process.wait()?;
        Ok(calls)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}
