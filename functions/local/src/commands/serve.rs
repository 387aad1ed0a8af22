//! `tasuki serve`

use super::watch::Watch;
use super::{Exit, drive, line, runs};
use crate::cli;
use crate::home::Home;
use crate::model;
use crate::relay::{News, Plan, Relay};
use crate::show::number;
use crate::signals::Stop;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tasuki_relay::names::{self, Bucket, Dropped};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Ended, Meta, Objects};
use tasuki_relay::stand_in::StandIn;
use tokio::time::{MissedTickBehavior, interval};

/// Calls in flight over all pipelines.
const MAX_IN_FLIGHT: u32 = 5_000;
/// How often inbox and pipelines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A file that was moved here keeps its old time. It counts as dropped now: its time says which answers are newer.
const OLD: Duration = Duration::from_secs(60);

pub(crate) async fn serve(dir: &Path, args: cli::Serve) -> Result<Exit> {
    rlimit::increase_nofile_limit(u64::MAX).ok(); // fewer connections are then all there is
    let (pipelines, problems) = read(&args.pipelines)?;
    if !problems.is_empty() {
        bail!("nothing was started:\n{}", problems.join("\n"));
    }
    if pipelines.is_empty() {
        bail!("{}: holds no pipeline: put one or more .toml files there", args.pipelines.display());
    }
    let chosen = model::choose(MAX_IN_FLIGHT)?;
    let home = Home::open(dir)?;
    let lock = match home.lock("serve").await? {
        Ok(lock) => lock,
        Err(holder) => bail!("{} is in use by {holder}: wait until it is done, or stop it", dir.display()),
    };
    let mut stop = Stop::listen().context("signals cannot be listened for")?;
    let mut server = Server {
        home: home.clone(),
        dir: args.pipelines,
        stored: BTreeMap::new(),
        told: BTreeSet::new(),
        stopped: None,
    };
    server.store(pipelines).await?;
    let plan = Plan { only: None, max_in_flight: MAX_IN_FLIGHT as usize, rows_per_shard: None };
    let mut relay = Relay::start(&home, lock, chosen.model, plan)?;
    if chosen.stand_in {
        eprintln!("{}", StandIn::NOTE);
    }
    for name in server.stored.keys() {
        eprintln!("drop files for {name} into {}", home.dir.join("inbox").join(name).display());
    }
    let (mut watch, mut ticks) = (Watch::default(), interval(LOOK_EVERY));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.asked() => break,
            news = relay.news.recv() => match news {
                Some(news) => server.tell(news),
                None => break,
            },
            _ = ticks.tick() => {
                server.reload().await;
                for meta in server.whole(&mut watch).await {
                    relay.announce(meta.name, meta.generation);
                }
            }
        }
    }
    eprintln!("stopping: calls in flight may still bring their answers home");
    relay.stop().await;
    eprintln!("stopped; the same command goes on with what is not done");
    Ok(Exit::Done)
}

/// The file and the text of each pipeline, by its name.
type Pipelines = BTreeMap<String, (PathBuf, String)>;

/// The pipelines of a folder, and everything that is wrong with its files.
fn read(dir: &Path) -> Result<(Pipelines, Vec<String>)> {
    let (mut pipelines, mut problems) = (Pipelines::new(), Vec::new());
    let entries = fs::read_dir(dir).with_context(|| format!("{}: the pipelines cannot be read", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "toml") && file.is_file());
    files.sort();
    for file in files {
        let shown = file.display().to_string();
        let parsed = super::run::read_pipeline(&file).map_err(|error| format!("{error:#}")).and_then(|text| {
            Pipeline::parse(&text).map_err(|problems| problems.in_file(&shown)).map(|pipeline| (pipeline.name, text))
        });
        match parsed {
            Err(what) => problems.push(what),
            Ok((name, text)) => {
                if let Some((other, _)) = pipelines.get(&name) {
                    problems.push(format!("{shown}: {} has the name {name} too: rename one of them", other.display()));
                } else {
                    pipelines.insert(name, (file, text));
                }
            }
        }
    }
    Ok((pipelines, problems))
}

struct Server {
    home: Home,
    dir: PathBuf,
    /// The text of each pipeline as it is stored.
    stored: BTreeMap<String, String>,
    /// What was said already.
    told: BTreeSet<String>,
    /// What stops the model now.
    stopped: Option<String>,
}

impl Server {
    async fn store(&mut self, pipelines: Pipelines) -> Result<()> {
        for (name, (_, text)) in pipelines {
            if self.stored.get(&name) != Some(&text) {
                drive::store_pipeline(&self.home, &name, &text).await?;
                let inbox = self.home.dir.join("inbox").join(&name);
                fs::create_dir_all(&inbox).with_context(|| inbox.display().to_string())?;
                if self.stored.insert(name.clone(), text).is_some() {
                    eprintln!("pipeline {name} was edited: it counts for the files that are dropped from now on");
                }
            }
        }
        Ok(())
    }

    /// Takes over what was edited. Where that is wrong, the version before counts.
    async fn reload(&mut self) {
        let stored = match read(&self.dir) {
            Ok((pipelines, problems)) => {
                problems.into_iter().for_each(|what| self.say(format!("{what}\n  the version before still counts")));
                self.store(pipelines).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            self.say(format!("{error:#}: the versions before still count"));
        }
    }

    /// The files that are to be split now.
    async fn whole(&mut self, watch: &mut Watch) -> Vec<Meta> {
        let mut whole = Vec::new();
        match runs::list(&self.home, Bucket::Inbox, "").await {
            Ok(listed) => {
                for (dropped, meta) in watch.look(listed, self.home.clock.instant()) {
                    match self.is_wanted(&dropped, &meta).await {
                        Ok(true) => whole.push(meta),
                        Ok(false) => (),
                        Err(error) => self.say(format!("{}: {error:#}: drop it again", meta.name)),
                    }
                }
            }
            Err(error) => self.say(format!("the inbox cannot be read: {error:#}")),
        }
        whole
    }

    /// Whether the file is to be split now: it was not yet, it has a pipeline, and it has its time.
    async fn is_wanted(&mut self, dropped: &Dropped, meta: &Meta) -> Result<bool> {
        let (run, objects) = (runs::run_of(meta), &self.home.objects);
        for begun in [names::plan(&run), names::open(&run)] {
            if objects.stat(Bucket::State, &begun).await?.is_some() {
                return Ok(false);
            }
        }
        if objects.stat(Bucket::State, &names::pipeline(&dropped.pipeline)).await?.is_none() {
            let (dir, name) = (self.dir.display(), &dropped.pipeline);
            let mend = format!("put {name}.toml into {dir}, and drop the file again");
            self.say(format!("{}: there is no pipeline {name}: {mend}", meta.name));
            return Ok(false);
        }
        Ok(!self.make_new(meta))
    }

    /// Gives an old file the time of now, after which it is looked at again; false where that is not needed or not possible.
    fn make_new(&self, meta: &Meta) -> bool {
        let now = self.home.clock.now();
        let path = self.home.dir.join("inbox").join(&meta.name);
        let touch = || File::options().append(true).open(path)?.set_modified(UNIX_EPOCH + Duration::from_millis(now.0));
        now.since(meta.created) > OLD && touch().is_ok()
    }

    fn tell(&mut self, news: News) {
        match news {
            News::Ended(ended) if self.told.insert(ended.event_id.clone()) => {
                self.stopped = None;
                // Whoever read our lines may be gone: the work goes on.
                let _ = writeln!(stdout(), "{}", self.ended(&ended));
            }
            News::Stopped(what) if self.stopped.as_ref() != Some(&what) => {
                eprintln!("stopped: {what}\n  nothing failed; it is tried again every minute");
                self.stopped = Some(what);
            }
            News::Waiting(what) => self.say(format!("waiting: {what}")),
            News::Ended(_) | News::Stopped(_) => (),
        }
    }

    fn ended(&self, Ended { run, .. }: &Ended) -> String {
        let (counts, home) = (run.counts, &self.home);
        let input = home.input_of(&run.run).unwrap_or_else(|| run.input.clone());
        let short = &run.run.as_str()[..runs::SHORT];
        let text = format!("{}  {input}, run {short}", run.state.as_str());
        if let Some(refused) = &run.refused {
            return format!("{text}: {refused}");
        }
        let text = format!("{text}: {} loaded, {} failed", number(counts.loaded), number(counts.failed));
        let command = if counts.failed > 0 { "failures" } else { "results" };
        format!("{text}; see {}", line(&home.dir, &[command, short]))
    }

    fn say(&mut self, what: String) {
        if self.told.insert(what.clone()) {
            eprintln!("{what}");
        }
    }
}
