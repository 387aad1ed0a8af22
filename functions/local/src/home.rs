//! The folder of an embedded relay: four buckets, the store, the lock.
//!
//! ```text
//! inbox/ shards/ answers/ state/    the buckets
//! tasuki.db                         the store
//! lock                              held (flock) by the one process that drives runs; its text names it, and who answers
//! commands/<run>                    for people: the command that resumes the run, and what they call its input
//! answerers/<run>                   who answers the run: Gemini or the stand-in, as it was begun
//! ```

use crate::folder::FolderObjects;
use crate::model::{Answerer, Answerers};
use crate::store::{Reader, Store};
use anyhow::{Context, Result, anyhow, bail};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::clock::Clock;
use tasuki_relay::names::RunId;

/// A lock that is only looked at is given up at once; a dying process gives it up a little later.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

const DATABASE: &str = "tasuki.db";

/// The folder of an embedded relay.
#[derive(Clone, Debug)]
pub struct Home {
    /// Where it is, as the user wrote it.
    pub dir: PathBuf,
    /// The four buckets.
    pub objects: Arc<FolderObjects>,
    /// The machine's clock.
    pub clock: Clock,
    /// The store, for whom no lock matters.
    pub reader: Reader,
    /// What the legs call the inbox.
    pub inbox: String,
}

/// The right to drive runs in a folder. Given up when dropped, and by the system when the process dies.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// Who drives runs in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// run, serve, retry, resume or cancel.
    pub command: String,
    /// Its process.
    pub pid: String,
    /// Who answers the rows of any run, if it serves.
    pub answerers: Option<Answerers>,
}

impl Holder {
    /// Whether it drives all runs of the folder, and not only its own.
    pub fn serves(&self) -> bool {
        self.command == "serve"
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`tasuki {}` (process {})", self.command, self.pid)
    }
}

impl Home {
    /// Opens the folder, and makes it if it is absent.
    pub fn open(dir: &Path) -> Result<Home> {
        let clock = Clock::system();
        let objects = FolderObjects::open(dir, clock.clone())
            .with_context(|| format!("{} cannot hold the relay's files", dir.display()))?;
        let reader = Reader::open(&dir.join(DATABASE));
        let inbox = tasuki_splitter::Settings::default().inbox;
        Ok(Home { dir: dir.to_owned(), objects: Arc::new(objects), clock, reader, inbox })
    }

    /// Opens a folder that is there.
    pub fn existing(dir: &Path) -> Result<Home> {
        if !dir.is_dir() {
            bail!(
                "{} is not there: no run was started in it yet (`tasuki run INPUT --pipeline FILE`), or give its place with --dir",
                dir.display()
            );
        }
        Home::open(dir)
    }

    /// Where the store is.
    pub fn database(&self) -> PathBuf {
        self.dir.join(DATABASE)
    }

    /// The store. For the holder of the lock.
    pub fn store(&self, _: &Lock) -> Result<Store> {
        Store::open(&self.database(), self.clock.clone()).with_context(|| self.database().display().to_string())
    }

    /// Takes the lock in the name of `command`, or tells who has it.
    pub async fn lock(&self, command: &str, answerers: Option<Answerers>) -> Result<Result<Lock, Holder>> {
        let path = self.dir.join("lock");
        let mut file = self.lock_file()?;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => {
                    file.set_len(0).and_then(|()| file.rewind()).with_context(|| path.display().to_string())?;
                    let words = answerers
                        .map_or_else(String::new, |Answerers { google, openai }| format!(" {google} {openai}"));
                    writeln!(file, "{command} {}{words}", std::process::id())
                        .with_context(|| path.display().to_string())?;
                    return Ok(Ok(Lock(file)));
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("{} cannot be locked", path.display()));
                }
            }
        }
        Ok(Err(told(&mut file)))
    }

    /// Who has the lock now.
    pub fn holder(&self) -> Result<Option<Holder>> {
        let mut file = self.lock_file()?;
        Ok(match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(told(&mut file)),
            Ok(()) | Err(TryLockError::Error(_)) => None,
        })
    }

    /// Why a command cannot work here now.
    pub fn in_use(&self, holder: &Holder) -> anyhow::Error {
        anyhow!("{} is in use by {holder}: wait until it is done, or stop it", self.dir.display())
    }

    fn lock_file(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        opened.with_context(|| path.display().to_string())
    }

    /// Notes what a person calls the run's input, and how they resume it. Only told, never relied on.
    pub fn note(&self, run: &RunId, input: &str, command: &str) {
        let folder = self.dir.join("commands");
        let text = format!("{command}\n{input}\n");
        let written = fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(run.as_str()), text));
        if let Err(error) = written {
            tracing::debug!("the command of run {run} is not noted: {error}");
        }
    }

    /// How a person resumes the run, where that was noted.
    pub fn command_of(&self, run: &RunId) -> Option<String> {
        self.noted(run, 0)
    }

    /// What a person calls the run's input, where that was noted.
    pub fn input_of(&self, run: &RunId) -> Option<String> {
        self.noted(run, 1)
    }

    /// Notes who answers a run that is begun now; returns who answered it from the beginning.
    pub fn begun_by(&self, run: &RunId, answerer: Answerer) -> Result<Answerer> {
        let folder = self.dir.join("answerers");
        let path = folder.join(run.as_str());
        let written = fs::create_dir_all(&folder).and_then(|()| File::create_new(&path));
        match written.and_then(|mut file| writeln!(file, "{answerer}")) {
            Ok(()) => Ok(answerer),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(self.answerer_of(run).unwrap_or(answerer)),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    /// Who answers the run, if it was begun.
    pub fn answerer_of(&self, run: &RunId) -> Option<Answerer> {
        let text = fs::read_to_string(self.dir.join("answerers").join(run.as_str())).ok()?;
        Answerer::parse(text.trim())
    }

    fn noted(&self, run: &RunId, line: usize) -> Option<String> {
        let text = fs::read_to_string(self.dir.join("commands").join(run.as_str())).ok()?;
        text.lines().nth(line).map(str::to_owned)
    }
}

fn told(file: &mut File) -> Holder {
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let mut words = text.split_whitespace();
    let mut word = || words.next().unwrap_or("?").to_owned();
    let (command, pid) = (word(), word());
    let mut answerer = || words.next().and_then(Answerer::parse);
    let answerers = answerer().zip(answerer()).map(|(google, openai)| Answerers { google, openai });
    Holder { command, pid, answerers }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_is_refused_and_learns_who_has_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.holder().unwrap(), None);
        let answerers = Some(Answerers { google: Answerer::StandIn, openai: Answerer::OpenAi });
        let lock = home.lock("serve", answerers).await.unwrap().unwrap();
        let holder = Holder { command: "serve".into(), pid: std::process::id().to_string(), answerers };
        assert_eq!(home.lock("run", None).await.unwrap().unwrap_err(), holder);
        assert_eq!(home.holder().unwrap(), Some(holder));
        drop(lock);
        assert_eq!(home.holder().unwrap(), None);
        assert!(home.lock("run", None).await.unwrap().is_ok());
    }

    #[test]
    fn who_answers_a_run_is_who_began_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let run = RunId::of("inbox", "p/a.csv", 1);
        assert_eq!(home.answerer_of(&run), None);
        for later in [Answerer::Gemini, Answerer::StandIn, Answerer::OpenAi] {
            assert_eq!(home.begun_by(&run, later).unwrap(), Answerer::Gemini);
        }
    }
}
