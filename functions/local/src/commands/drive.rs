//! One file through the relay: dropped, driven to its end, or followed where another process drives it.

use super::Exit;
use super::cost;
use super::follow::follow;
use super::report::Report;
use super::runs::{self, Run};
use crate::home::{Holder, Home, Lock};
use crate::model::{Answerer, Chosen};
use crate::progress::{DRAW_EVERY, Progress, Shown};
use crate::relay::{News, Plan, Relay};
use crate::show::number;
use crate::signals::Stop;
use crate::site::Site;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tasuki_generator::Meter;
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::pipeline::{Pipeline, Provider};
use tasuki_relay::ports::Objects;
use tasuki_relay::record::Counts;
use tasuki_relay::stand_in::StandIn;
use tokio::time::{MissedTickBehavior, interval};

/// A run that does nothing for so long although it is not at its end will not come to it.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// Why a parked run does not go on.
pub(crate) const PARKED: &str = "the run is parked";
/// Hexadecimal digits of a dropped file's name: 128 bits of SHA-256.
const NAME_DIGITS: usize = 32;

/// A file that a pipeline is to run over.
pub(crate) struct Job<'a> {
    pub(crate) home: Home,
    /// run, retry or plan.
    pub(crate) command: &'static str,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) pipeline_text: &'a str,
    /// The file to copy, and its suffix: `.csv.gz`.
    pub(crate) source: &'a Path,
    pub(crate) suffix: &'static str,
    /// Hexadecimal digits for the copy's name, where it is known by something else than its bytes.
    pub(crate) identity: Option<&'a str>,
    /// What the user calls it.
    pub(crate) called: String,
    /// Makes a new run where this one is finished.
    pub(crate) again: bool,
    pub(crate) json: bool,
    pub(crate) chosen: Chosen,
    /// The command line that resumes the run.
    pub(crate) resume: String,
}

/// How driving ended.
pub(crate) enum End {
    Ended,
    /// Why not.
    NotDone(String),
}

/// What driving came to.
pub(crate) enum Driven {
    /// The run was at its end before.
    Already(Run),
    /// It was driven.
    Now {
        /// As it was before.
        before: Run,
        end: End,
        took: Duration,
    },
}

impl Job<'_> {
    /// Brings the run to its end, and tells of it.
    pub(crate) async fn perform(self, stop: Stop) -> Result<Exit> {
        match self.driven(stop).await? {
            Driven::Already(run) => self.report().already(&run).await,
            Driven::Now { before, end, took } => self.report().ended(&before, end, took).await,
        }
    }

    /// Brings the run to its end.
    pub(crate) async fn driven(&self, stop: Stop) -> Result<Driven> {
        rlimit::increase_nofile_limit(u64::MAX).ok(); // fewer connections are then all there is
        self.tell_of_the_paid_one().await?;
        match self.home.lock(self.command, None).await? {
            Ok(lock) => self.drive(lock, stop).await,
            Err(holder) if holder.serves() => self.hand_over(holder, stop).await,
            Err(holder) => Err(self.home.in_use(&holder)),
        }
    }

    /// Without the key a run that was begun with it stays as it is: whoever expected to resume it learns how.
    async fn tell_of_the_paid_one(&self) -> Result<()> {
        if self.chosen.answerer != Answerer::StandIn {
            return Ok(());
        }
        let paid = Answerer::of(self.provider());
        for run in runs::all(&self.home).await?.iter().filter(|run| !run.is_ended()) {
            if run.file == self.called
                && self.home.answerer_of(&run.run) == Some(paid)
                && runs::plan(&self.home, &run.run).await?.is_none_or(|plan| plan.pipeline_text == self.pipeline_text)
            {
                eprintln!(
                    "run {} of {} was begun with {} and is not finished: to go on with it {} and give this command again",
                    run.run,
                    self.called,
                    paid.name(),
                    paid.mend(self.provider())
                );
            }
        }
        Ok(())
    }

    /// With an edited cap the same file is another run: whoever meant to go on with a parked one learns how.
    async fn tell_of_the_parked_one(&self, begun: &RunId) -> Result<()> {
        for run in runs::all(&self.home).await?.iter().filter(|run| run.run != *begun && run.file == self.called) {
            if let Some(resume) = run.resume(&self.home) {
                eprintln!(
                    "run {} of the same file is parked, and this is another one, which pays for all rows: to go on with that one \
                     stop this, and {resume}",
                    run.short()
                );
            }
        }
        Ok(())
    }

    async fn drive(&self, lock: Lock, stop: Stop) -> Result<Driven> {
        self.check_target()?;
        self.home.store(&lock)?.prepare(self.pipeline).await?;
        store_pipeline(&self.home, &self.pipeline.name, self.pipeline_text).await?;
        let found = self.begin().await?;
        if found.is_ended() {
            return Ok(Driven::Already(found));
        }
        self.home.begun_by(&found.run, self.chosen.answerer)?;
        eprintln!("run {}: {} with pipeline {}", found.run, self.called, self.pipeline.name);
        self.tell_of_the_parked_one(&found.run).await?;
        if self.chosen.answerer == Answerer::StandIn {
            eprintln!("{}", StandIn::note(self.provider()));
        }
        let plan = Plan {
            only: Some(found.run.clone()),
            max_in_flight: self.pipeline.run.max_in_flight as usize,
            rows_per_shard: self.pipeline.run.rows_per_shard,
        };
        let started = self.home.clock.instant();
        let relay = Relay::start(&self.home, lock, self.chosen.model.clone(), plan)?;
        let end = to_its_end(&self.home, relay, &found.run, stop).await?;
        Ok(Driven::Now { before: found, end, took: started.elapsed() })
    }

    /// Another process serves the folder: it gets the file, and is followed.
    async fn hand_over(&self, holder: Holder, stop: Stop) -> Result<Driven> {
        let (dir, name) = (self.home.dir.display(), &self.pipeline.name);
        let there = holder.answerers.map(|answerers| answerers.of(self.provider()));
        if let Some(other) = there.filter(|other| *other != self.chosen.answerer) {
            bail!(
                "{holder} works in {dir}, and there {} answers: {} here too, or start it again with the environment of this command",
                other.name(),
                other.mend(self.provider())
            );
        }
        self.check_target()?;
        let stored = self.home.objects.read(Bucket::State, &names::pipeline(name), None).await?;
        if stored.is_none_or(|stored| stored.body != self.pipeline_text.as_bytes()) {
            bail!(
                "`tasuki serve` works in {dir} and has another pipeline {name}, or none: put this one into its --pipelines folder first"
            );
        }
        let found = self.begin().await?;
        if found.is_ended() {
            return Ok(Driven::Already(found));
        }
        self.home.begun_by(&found.run, self.chosen.answerer)?;
        eprintln!("`tasuki serve` works in {dir}: it gets the file as run {}, and is followed here", found.run);
        let started = self.home.clock.instant();
        let end = follow(&self.home, &found.run, stop).await?;
        Ok(Driven::Now { before: found, end, took: started.elapsed() })
    }

    /// Drops the file; a finished run of it is replaced by a new one if that was asked for. Returns the run as it stands.
    async fn begin(&self) -> Result<Run> {
        let found = self.drop_file(false).await?;
        if self.again && found.is_ended() { self.drop_file(true).await } else { Ok(found) }
    }

    async fn drop_file(&self, overwrite: bool) -> Result<Run> {
        let (pipeline, suffix) = (self.pipeline.name.clone(), self.suffix);
        let identity = self.identity.map(str::to_owned);
        let name_of = move |hash: &str| inbox_name(&pipeline, identity.as_deref().unwrap_or(hash), suffix);
        // Who answers is part of what a run is. No TOML holds a NUL.
        let salt = match self.chosen.answerer {
            Answerer::Gemini | Answerer::OpenAi => self.pipeline_text.to_owned(),
            Answerer::StandIn => format!("{}\0{}", self.pipeline_text, Answerer::StandIn),
        };
        let salt = salt.as_bytes();
        let dropped = self.home.objects.create_from_file(Bucket::Inbox, self.source, salt, name_of, overwrite).await;
        let run = runs::run_of(&self.home, &dropped.with_context(|| format!("{} cannot be copied", self.called))?);
        self.home.note(&run, &self.called, &self.resume);
        runs::one(&self.home, &run).await
    }

    fn provider(&self) -> Provider {
        self.pipeline.model.provider
    }

    fn check_target(&self) -> Result<()> {
        check_target(&self.home, self.pipeline, self.chosen.answerer)
    }

    fn report(&self) -> Report<'_> {
        let (pipeline, called) = (self.pipeline, &self.called);
        Report { site: &self.home, pipeline, called, json: self.json, resume: &self.resume }
    }
}

/// What the run cost until now, in picodollars: `paid` when this process began, `stored` by now; `None` when a part is not known.
fn spent(paid: &Counts, stored: &Counts, meter: &Meter) -> Option<u64> {
    let since = (meter.unpriced.load(Relaxed) == 0).then(|| meter.cost.load(Relaxed))?;
    Some(stored.known_cost()?.max(paid.known_cost()? + since))
}

/// What the copy of a file is called whose bytes and pipeline have this SHA-256, in hexadecimal.
pub(crate) fn inbox_name(pipeline: &str, hash: &str, suffix: &str) -> String {
    format!("{pipeline}/{}{suffix}", &hash[..NAME_DIGITS])
}

/// Made-up answers never replace real ones, and a table that cannot take the answers is told before any is paid for.
pub(crate) fn check_target(home: &Home, pipeline: &Pipeline, answerer: Answerer) -> Result<()> {
    let real = home.reader.answers_of_others(pipeline, StandIn::MODEL)?;
    if answerer == Answerer::StandIn && real > 0 {
        bail!(
            "table {} of {} holds {} answers of real models, the stand-in would replace them: {}, or use another --dir or [target] table",
            pipeline.table,
            home.database().display(),
            number(real),
            Answerer::of(pipeline.model.provider).mend(pipeline.model.provider)
        );
    }
    Ok(())
}

/// Writes the pipeline where the splitter reads it.
pub(crate) async fn store_pipeline(home: &Home, pipeline: &str, text: &str) -> Result<()> {
    let (name, body) = (names::pipeline(pipeline), bytes::Bytes::copy_from_slice(text.as_bytes()));
    match home.objects.read(Bucket::State, &name, None).await? {
        Some(stored) if stored.body == body => (),
        Some(stored) => drop(home.objects.replace(Bucket::State, &name, body, stored.meta.generation).await?),
        None => drop(home.objects.create(Bucket::State, &name, body).await?),
    }
    Ok(())
}

/// Drives the run until it ends, a systemic error stops it, or a person does.
pub(crate) async fn to_its_end(home: &Home, mut relay: Relay, run: &RunId, mut stop: Stop) -> Result<End> {
    let (mut progress, reader, meter) = (Progress::start(&home.clock), &home.reader, relay.meter());
    let base = reader.run(run)?.map(|row| row.counts).unwrap_or_default();
    // Of a run that was stopped, more is paid than loaded.
    let paid = cost::of(home, &runs::one(home, run).await?).await?.counts;
    let before = paid.bill().usage;
    let (mut told, mut total, mut idle_since) = (BTreeSet::new(), None, None);
    let mut ticks = interval(DRAW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = loop {
        tokio::select! {
            news = relay.news.recv() => match news {
                Some(News::Announced(told)) if told.run.run == *run && told.state.has_ended() => break End::Ended,
                Some(News::Stopped(what)) => break End::NotDone(format!("stopped: {what}\nnothing failed; the same command resumes")),
                Some(News::Waiting(what)) if told.insert(what.clone()) => progress.say(&format!("waiting: {what}")),
                _ => (),
            },
            () = stop.asked() => {
                progress.say(&relay.stopping());
                break End::NotDone("stopped".to_owned());
            }
            _ = ticks.tick() => {
                let row = reader.run(run)?;
                if row.as_ref().is_some_and(|row| row.state.has_ended()) {
                    break End::Ended;
                }
                if relay.is_idle() && control::parked_by(&*home.objects, run).await?.is_some() {
                    break End::NotDone(PARKED.to_owned());
                }
                let counts = row.map(|row| row.counts).unwrap_or_default();
                if total.is_none() && relay.splitting() == 0 && runs::is_split(home, run).await? {
                    total = runs::totals(home, run).await?.map(|totals| totals.rows);
                }
                let now = home.clock.instant();
                idle_since = relay.is_idle().then(|| idle_since.unwrap_or(now));
                if idle_since.is_some_and(|since| now.duration_since(since) >= STALLED_AFTER) {
                    break End::NotDone(format!("the run cannot go on: see the messages above, or `{}`", home.line(&["cancel", run.as_str()])));
                }
                let settled = meter.answered.load(Relaxed) + meter.failed.load(Relaxed);
                progress.show(Shown {
                    done: counts.rows().max(base.rows() + settled).min(total.unwrap_or(u64::MAX)),
                    total,
                    failed: counts.failed.max(base.failed + meter.failed.load(Relaxed)),
                    in_flight: Some(meter.in_flight.load(Relaxed)),
                    busy: meter.busy.load(Relaxed),
                    tokens: (
                        before.prompt + meter.tokens_in.load(Relaxed),
                        before.output + before.thought + meter.tokens_out.load(Relaxed),
                    ),
                    spent: spent(&paid, &counts, &meter),
                });
            }
        }
    };
    relay.stop().await;
    // What ended while it stopped is not "not done".
    let ended = reader.run(run)?.is_some_and(|row| row.state.has_ended());
    Ok(if ended { End::Ended } else { end })
}
