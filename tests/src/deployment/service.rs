//! One service as a process.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tasuki_google::settings::Role;

/// A service listens within so long, or does not start.
const STARTS_WITHIN: u32 = 200;
const STEP: Duration = Duration::from_millis(50);
/// What is shown of its output when a test fails.
const TAIL: usize = 4_000;

/// A service at work. Killed when dropped.
pub struct Service {
    role: Role,
    port: u16,
    variables: Vec<(&'static str, String)>,
    child: Mutex<Child>,
    log: tempfile::NamedTempFile,
}

impl Service {
    /// Starts it on a free port and waits until it is ready.
    pub async fn start(role: Role, variables: &[(&'static str, String)]) -> Result<Service> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = tempfile::NamedTempFile::new()?;
        let child = Mutex::new(spawn(role, port, variables, &log)?);
        let service = Service { role, port, variables: variables.to_vec(), child, log };
        service.ready().await?;
        Ok(service)
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends it a signal: TERM, KILL, STOP, CONT.
    pub fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child().id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status()?;
        if sent.success() { Ok(()) } else { bail!("{} takes no {name}", self.role.as_str()) }
    }

    /// Waits for its end and starts it again on the same port, as Cloud Run does.
    pub async fn again(&self) -> Result<()> {
        while self.child().try_wait()?.is_none() {
            tokio::time::sleep(STEP).await;
        }
        *self.child() = spawn(self.role, self.port, &self.variables, &self.log)?;
        self.ready().await
    }

    /// The most memory that its process ever had, in bytes (`VmHWM` of Linux); `None` elsewhere, and when it is gone.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child().id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
    }

    /// Its process is gone.
    pub fn has_ended(&self) -> Result<bool> {
        Ok(self.child().try_wait()?.is_some())
    }

    /// It has not given up by itself.
    pub fn is_alive(&self) -> Result<()> {
        match self.child().try_wait()? {
            // A test that ended it by a signal starts it again.
            Some(status) if status.code().is_some_and(|code| code != 0) => {
                bail!("the {} ended with {status}:\n{}", self.role.as_str(), self.tail())
            }
            _ => Ok(()),
        }
    }

    /// All that it wrote.
    pub fn output(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(self.log.path()).and_then(|mut file| file.read_to_end(&mut text));
        read.map_or_else(|error| error.to_string(), |_| String::from_utf8_lossy(&text).into_owned())
    }

    /// The end of what it wrote.
    pub fn tail(&self) -> String {
        let output = self.output();
        output[output.floor_char_boundary(output.len().saturating_sub(TAIL))..].to_owned()
    }

    async fn ready(&self) -> Result<()> {
        let client = reqwest::Client::new();
        for _ in 0..STARTS_WITHIN {
            let ready = client.get(format!("http://{}/ready", self.host())).send().await;
            if ready.is_ok_and(|ready| ready.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.child().try_wait()? {
                bail!("the {} does not start, {status}:\n{}", self.role.as_str(), self.tail());
            }
            tokio::time::sleep(STEP).await;
        }
        bail!("the {} is not ready:\n{}", self.role.as_str(), self.tail())
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().expect("nobody panics with it")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let child = self.child.get_mut().expect("nobody panics with it");
        let _ = child.kill().and_then(|()| child.wait());
    }
}

fn spawn(role: Role, port: u16, variables: &[(&str, String)], log: &tempfile::NamedTempFile) -> Result<Child> {
    let program = program(role)?;
    let log = File::options().append(true).open(log.path())?;
    let mut command = Command::new(&program);
    command.env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
    command.env("PORT", port.to_string()).env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("{} cannot be started", program.display()))
}

/// Where `tests/run` has built it: beside the folder of this test's own program.
fn program(role: Role) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(|deps| deps.parent()).context("a test's program is in target/…/deps")?;
    let program = folder.join(format!("tasuki-{}", role.as_str()));
    if program.exists() { Ok(program) } else { bail!("{} is not built: tests/run builds it", program.display()) }
}
