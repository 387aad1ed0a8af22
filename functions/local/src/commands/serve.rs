//! `tasuki serve`

use super::runs::Run;
use super::watch::{self, Watch};
use super::{Exit, drive, runs};
use crate::cli;
use crate::home::Home;
use crate::model::{self, Answerer, Answerers};
use crate::relay::{News, Plan, Relay};
use crate::show::number;
use crate::signals::Stop;
use crate::site::Site;
use crate::store::Store;
use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tasuki_relay::names::{self, Bucket, Dropped, RunId};
use tasuki_relay::pipeline::{Pipeline, Provider};
use tasuki_relay::ports::{Announcement, Meta, Objects, RunState};
use tasuki_relay::stand_in::StandIn;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Calls in flight over all pipelines.
const MAX_IN_FLIGHT: u32 = 5_000;
/// How often inbox and pipelines are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What stops the model is said so often at most.
const SAID_EVERY: Duration = Duration::from_secs(60);
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
    let (model, answerers) = model::choose_all(MAX_IN_FLIGHT)?;
    let home = Home::open(dir)?;
    let lock = match home.lock("serve", Some(answerers)).await? {
        Ok(lock) => lock,
        Err(holder) => return Err(home.in_use(&holder)),
    };
    let mut stop = Stop::listen().context("signals cannot be listened for")?;
    let open = to_take_over(&home, answerers).await?;
    let mut server = Server {
        home: home.clone(),
        dir: args.pipelines,
        answerers,
        tables: home.store(&lock)?,
        stored: BTreeMap::new(),
        wrong: Vec::new(),
        told: BTreeSet::new(),
        stopped: Steady::default(),
    };
    let (pipelines, problems) = server.fitting(pipelines).await;
    if !problems.is_empty() {
        bail!("nothing was started:\n{}", problems.join("\n"));
    }
    server.store(pipelines).await?;
    for (run, provider) in open {
        home.begun_by(&run, answerers.of(provider))?;
    }
    let plan = Plan { only: None, max_in_flight: MAX_IN_FLIGHT as usize, rows_per_shard: None };
    let mut relay = Relay::start(&home, lock, model, plan)?;
    let providers: BTreeSet<Provider> = server.stored.values().map(|text| provider_of(text)).collect();
    for provider in providers.into_iter().filter(|provider| answerers.of(*provider) == Answerer::StandIn) {
        eprintln!("{}", StandIn::note(provider));
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
    eprintln!("{}", relay.stopping());
    relay.stop().await;
    eprintln!("stopped; the same command goes on with what is not done");
    Ok(Exit::Done)
}

/// The begun runs of the folder. An error where some were begun with the other answerer: those would get mixed answers.
async fn to_take_over(home: &Home, answerers: Answerers) -> Result<Vec<(RunId, Provider)>> {
    let (mut open, mut others) = (Vec::new(), BTreeMap::<_, Vec<String>>::new());
    for run in runs::all(home).await?.into_iter().filter(|run| !run.is_ended()) {
        let provider = match runs::pipeline(home, &run.run).await? {
            Some(pipeline) => pipeline.model.provider,
            None => stored_provider(home, &run.pipeline).await?,
        };
        match home.answerer_of(&run.run) {
            Some(other) if other != answerers.of(provider) => {
                let line = format!("  {}  {}: {}", run.short(), run.file, home.line(&["cancel", run.short()]));
                others.entry((other.name(), other.mend(provider))).or_default().push(line);
            }
            // What nobody has planned yet is taken over when it is whole.
            _ if run.source_time.is_some() => open.push((run.run, provider)),
            _ => (),
        }
    }
    if others.is_empty() {
        return Ok(open);
    }
    let told = others.into_iter().map(|((model, mend), lines)| {
        let (dir, lines) = (home.dir.display(), lines.join("\n"));
        format!("these runs of {dir} were begun with {model} and are not finished: {mend}, or cancel them\n{lines}")
    });
    bail!("{}", told.collect::<Vec<_>>().join("\n"))
}

/// Whose the pipeline of this name is, as it is stored.
async fn stored_provider(home: &Home, pipeline: &str) -> Result<Provider> {
    let stored = home.objects.read(Bucket::State, &names::pipeline(pipeline), None).await?;
    Ok(stored.map(|stored| provider_of(&String::from_utf8_lossy(&stored.body))).unwrap_or_default())
}

/// Of a text that is no pipeline no run asks anybody.
fn provider_of(text: &str) -> Provider {
    Pipeline::parse(text).map(|pipeline| pipeline.model.provider).unwrap_or_default()
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
        let parsed = super::run::read_pipeline(&file)
            .map_err(|error| format!("{error:#}"))
            .and_then(|text| super::run::begins(&text, &shown).map(|pipeline| (pipeline.name, text)));
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
    answerers: Answerers,
    tables: Store,
    /// The text of each pipeline as it is stored.
    stored: BTreeMap<String, String>,
    /// What was wrong with the pipelines when they were last looked at.
    wrong: Vec<String>,
    /// What was said already.
    told: BTreeSet<String>,
    /// What stops the model now.
    stopped: Steady,
}

/// Something that is reported again and again: said when it changes, and at most once in [`SAID_EVERY`].
#[derive(Debug, Default)]
struct Steady {
    what: String,
    said: Option<Instant>,
    seen: Option<Instant>,
}

impl Steady {
    fn is_to_be_said(&mut self, what: &str, now: Instant) -> bool {
        let within = |then: Option<Instant>, time| then.is_some_and(|then| now.duration_since(then) < time);
        // Reported as long as it lasts, more often than once in SAID_EVERY: after a pause it is news again.
        let is_news = self.what != what || !within(self.seen, 2 * SAID_EVERY);
        self.seen = Some(now);
        if !is_news || within(self.said, SAID_EVERY) {
            return false;
        }
        (self.what, self.said) = (what.to_owned(), Some(now));
        true
    }
}

impl Server {
    /// Those whose tables can take their answers, and why the others cannot. What is stored already was looked at before.
    async fn fitting(&self, mut pipelines: Pipelines) -> (Pipelines, Vec<String>) {
        let mut problems = Vec::new();
        for (name, (file, text)) in &pipelines {
            if self.stored.get(name) == Some(text) {
                continue;
            }
            let Ok(pipeline) = Pipeline::parse(text) else { continue };
            let fits = match drive::check_target(&self.home, &pipeline, self.answerers.of(pipeline.model.provider)) {
                Ok(()) => self.tables.prepare(&pipeline).await.map_err(anyhow::Error::from),
                misfit => misfit,
            };
            if let Err(error) = fits {
                problems.push((name.clone(), format!("{}: {error:#}", file.display())));
            }
        }
        pipelines.retain(|name, _| !problems.iter().any(|(wrong, _)| wrong == name));
        (pipelines, problems.into_iter().map(|(_, what)| what).collect())
    }

    async fn store(&mut self, pipelines: Pipelines) -> Result<()> {
        for (name, (_, text)) in pipelines {
            if self.stored.get(&name) != Some(&text) {
                drive::store_pipeline(&self.home, &name, &text).await?;
                let inbox = self.home.dir.join("inbox").join(&name);
                fs::create_dir_all(&inbox).with_context(|| inbox.display().to_string())?;
                match self.stored.insert(name.clone(), text) {
                    Some(_) => {
                        eprintln!("pipeline {name} was edited: it counts for the files that are dropped from now on");
                    }
                    None => eprintln!("drop files for {name} into {}", inbox.display()),
                }
            }
        }
        Ok(())
    }

    /// Takes over what was edited. Where that is wrong, the version before counts.
    async fn reload(&mut self) {
        let stored = match read(&self.dir) {
            Ok((pipelines, mut wrong)) => {
                let (pipelines, unfit) = self.fitting(pipelines).await;
                wrong.extend(unfit);
                for what in wrong.iter().filter(|what| !self.wrong.contains(what)) {
                    eprintln!("{what}\n  the version before still counts");
                }
                if wrong.is_empty() && !self.wrong.is_empty() {
                    eprintln!("the pipelines in {} are in order again", self.dir.display());
                }
                self.wrong = wrong;
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
        self.tell_of_no_files();
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

    /// A folder or a link in an inbox is never read: whoever put it there waits.
    fn tell_of_no_files(&mut self) {
        for name in self.stored.keys().cloned().collect::<Vec<_>>() {
            let inbox = self.home.dir.join("inbox").join(name);
            for entry in fs::read_dir(&inbox).into_iter().flatten().flatten() {
                let is_no_file = entry.file_type().is_ok_and(|kind| !kind.is_file());
                if is_no_file && watch::is_data(&entry.file_name().to_string_lossy()) {
                    let path = entry.path();
                    self.say(format!(
                        "{}: not a file, but a folder or a link: put the file itself here",
                        path.display()
                    ));
                }
            }
        }
    }

    /// Whether the file is to be split now: it was not yet, it has a pipeline, and it has its time.
    async fn is_wanted(&mut self, dropped: &Dropped, meta: &Meta) -> Result<bool> {
        let (run, objects) = (runs::run_of(&self.home, meta), &self.home.objects);
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
        if self.make_new(meta) {
            return Ok(false);
        }
        let provider = stored_provider(&self.home, &dropped.pipeline).await?;
        self.home.begun_by(&run, self.answerers.of(provider))?;
        Ok(true)
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
            News::Announced(announcement) if self.told.insert(announcement.event_id.clone()) => {
                // Whoever read our lines may be gone: the work goes on.
                let _ = writeln!(stdout(), "{}", self.announced(&announcement));
            }
            News::Stopped(what) if self.stopped.is_to_be_said(&what, self.home.clock.instant()) => {
                eprintln!("stopped: {what}\n  nothing failed; it is tried again every minute");
            }
            News::Waiting(what) => self.say(format!("waiting: {what}")),
            News::Announced(_) | News::Stopped(_) => (),
        }
    }

    fn announced(&self, Announcement { run, state, .. }: &Announcement) -> String {
        let (counts, home) = (run.counts, &self.home);
        let run = Run::from(run.clone()).in_the_users_words(home);
        let short = run.short();
        if *state == RunState::Parked {
            return format!("PARKED  {}, run {short}; go on with {}", run.file, home.line(&["resume", short]));
        }
        let text = format!("{}  {}, run {short}", run.state, run.file);
        if let Some(refused) = &run.refused {
            return format!("{text}: {refused}");
        }
        let text = format!("{text}: {} loaded, {} failed", number(counts.loaded), number(counts.failed));
        let command = if counts.failed > 0 { "failures" } else { "results" };
        format!("{text}; see {}", home.line(&[command, short]))
    }

    fn say(&mut self, what: String) {
        if self.told.insert(what.clone()) {
            eprintln!("{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tasuki_relay::clock::Clock;

    #[test]
    fn what_lasts_is_said_once_what_changes_at_most_once_a_minute_and_what_comes_back_again() {
        let (start, mut steady) = (Clock::system().instant(), Steady::default());
        let mut said = |at: u64, what| steady.is_to_be_said(what, start + Duration::from_secs(at));
        assert!(said(0, "a"));
        assert_eq!([said(1, "a"), said(70, "a"), said(130, "a")], [false; 3]);
        assert!(said(140, "b"));
        assert_eq!([said(150, "a"), said(160, "b")], [false; 2]);
        assert!(said(200, "a"));
        assert!(said(330, "a"), "it had been over for two minutes");
    }
}
