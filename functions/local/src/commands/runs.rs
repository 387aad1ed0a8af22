//! All runs of a folder: the store's, folded with plans, open runs and dropped files, so that none is missing.

use super::line;
use super::run::suffix_of;
use super::watch;
use crate::home::Home;
use crate::model::Answerer;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tasuki_relay::clock::Millis;
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket, Dropped, RunId};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Generation, Meta, Objects, RunRow, RunState};
use tasuki_relay::record::{Counts, Plan};
use tasuki_relay::stand_in::StandIn;
use tasuki_relay::sweep::PAGE;

/// Letters of a run's name that are shown: they tell a thousand runs apart.
pub(crate) const SHORT: usize = 9;

/// A run, as far as it can be told.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) run: RunId,
    pub(crate) state: &'static str,
    pub(crate) pipeline: String,
    pub(crate) input: String,
    /// What the user calls the input, where that is known: its dropped copy has another name.
    pub(crate) file: String,
    pub(crate) run_time: Millis,
    pub(crate) source_time: Option<Millis>,
    /// What the store knows.
    pub(crate) row: Option<RunRow>,
    pub(crate) refused: Option<String>,
    /// The marker that parks it, and why it was set.
    pub(crate) parked: Option<(Generation, String)>,
}

impl Run {
    pub(crate) fn short(&self) -> &str {
        &self.run.as_str()[..SHORT]
    }

    pub(crate) fn counts(&self) -> Counts {
        self.row.as_ref().map(|row| row.counts).unwrap_or_default()
    }

    pub(crate) fn expected(&self) -> Option<u64> {
        self.row.as_ref().and_then(|row| row.expected_rows)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.state.has_ended())
    }

    /// The command that resumes it, if it is parked.
    pub(crate) fn resume(&self, home: &Home) -> Option<String> {
        self.parked.as_ref().map(|_| line(&home.dir, &["resume", self.short()]))
    }

    /// The marker has the word: the store follows it with the next sweep.
    async fn with_its_marker(mut self, home: &Home) -> Result<Run> {
        if self.is_ended() {
            return Ok(self);
        }
        let objects = &*home.objects;
        if let Some(marker) = control::parked_by(objects, &self.run).await? {
            let why = objects.read(Bucket::State, &names::parked(&self.run), Some(marker)).await?;
            let why = why.map(|why| String::from_utf8_lossy(&why.body).trim().to_owned()).unwrap_or_default();
            self.parked = Some((marker, why));
            self.state = RunState::Parked.as_str();
        } else if self.state == RunState::Parked.as_str() {
            self.state = RunState::Running.as_str();
        }
        Ok(self)
    }

    /// A refusal names the dropped copy, or what that should be called; the user knows the file by another name.
    pub(crate) fn in_the_users_words(mut self, home: &Home) -> Run {
        if let Some(called) = home.input_of(&self.run) {
            self.refused = self.refused.map(|why| in_words(&why, &self.input, &called));
            self.file = called;
        }
        self
    }

    pub(crate) async fn json(&self, home: &Home) -> Result<Value> {
        let counts = self.counts();
        let times = self.row.as_ref().map(|row| (row.opened_at, row.ended_at));
        let reasons: BTreeMap<_, _> = home.reader().failure_reasons(&self.run)?.into_iter().collect();
        let stand_in = is_stand_in(home, self).await?;
        Ok(json!({
            "run": self.run, "state": self.state, "pipeline": self.pipeline, "file": self.file, "input": self.input,
            "rows": counts.rows(), "expected_rows": self.expected(), "loaded": counts.loaded, "failed": counts.failed,
            "cancelled": counts.cancelled, "unchanged": counts.unchanged, "superseded": counts.superseded,
            "paid_calls": counts.paid_calls, "ambiguous_calls": counts.ambiguous_calls,
            "wasted_answers": counts.wasted_answers, "failures": reasons, "refused": self.refused,
            "tokens": { "prompt": counts.usage.prompt, "output": counts.usage.output, "thought": counts.usage.thought,
                "cached": counts.usage.cached },
            "run_time": self.run_time, "source_time": self.source_time,
            "opened_at": times.map(|(opened, _)| opened), "ended_at": times.and_then(|(_, ended)| ended),
            "parked": self.parked.as_ref().map(|(_, why)| why), "note": stand_in.then_some(StandIn::NOTE), "database": home.database(),
        }))
    }
}

/// `text` with `called` for the dropped `input`, also where it says how to rename that.
fn in_words(text: &str, input: &str, called: &str) -> String {
    let copy = input.rsplit('/').next().unwrap_or(input);
    let stem = |name: &str| suffix_of(name).map_or(name.len(), |suffix| name.len() - suffix.len());
    let (copy_stem, called_stem) = (&copy[..stem(copy)], &called[..stem(called)]);
    text.replace(input, called).replace(copy, called).replace(copy_stem, called_stem)
}

impl From<RunRow> for Run {
    fn from(row: RunRow) -> Run {
        Run {
            run: row.run.clone(),
            state: row.state.as_str(),
            pipeline: row.pipeline.clone(),
            input: row.input.clone(),
            file: row.input.clone(),
            run_time: row.run_time,
            source_time: Some(row.source_time),
            refused: row.refused.clone(),
            parked: None,
            row: Some(row),
        }
    }
}

/// All runs, newest first.
pub(crate) async fn all(home: &Home) -> Result<Vec<Run>> {
    let stored = home.reader().runs()?;
    let mut runs: BTreeMap<RunId, Run> = stored.into_iter().map(|row| (row.run.clone(), row.into())).collect();
    for meta in list(home, Bucket::State, names::PLANS).await? {
        let Ok(run) = names::parse_plan(&meta.name) else { continue };
        if !runs.contains_key(&run)
            && let Some(plan) = plan(home, &run).await?
        {
            let state = if is_split(home, &run).await? { "RUNNING" } else { "SPLITTING" };
            runs.insert(run, planned(plan, state));
        }
    }
    for meta in list(home, Bucket::Inbox, "").await? {
        let Ok(dropped) = Dropped::parse_object(&meta.name) else { continue };
        let run = run_of(&meta);
        if watch::is_data(&dropped.file) && !runs.contains_key(&run) {
            let (pipeline, input) = (dropped.pipeline, meta.name);
            let (file, run_time) = (input.clone(), meta.created);
            let (source_time, row, refused, parked) = (None, None, None, None);
            runs.insert(
                run.clone(),
                Run { run, state: "PLANNED", pipeline, input, file, run_time, source_time, row, refused, parked },
            );
        }
    }
    let marked = runs.into_values().map(|run| run.in_the_users_words(home).with_its_marker(home));
    let mut runs = futures::future::try_join_all(marked).await?;
    runs.sort_by(|a, b| (b.run_time, &b.run).cmp(&(a.run_time, &a.run)));
    Ok(runs)
}

fn planned(plan: Plan, state: &'static str) -> Run {
    Run {
        run: plan.run,
        state,
        pipeline: plan.pipeline,
        file: plan.input.name.clone(),
        input: plan.input.name,
        run_time: plan.run_time,
        source_time: Some(plan.source_time),
        row: None,
        refused: plan.refused,
        parked: None,
    }
}

/// The run whose name starts so, or the newest.
pub(crate) async fn pick(home: &Home, name: Option<&str>) -> Result<Run> {
    let mut runs = all(home).await?;
    let Some(name) = name else {
        return match runs.is_empty() {
            true => bail!("{} holds no run yet", home.dir.display()),
            false => Ok(runs.swap_remove(0)),
        };
    };
    let mut found = runs.into_iter().filter(|run| run.run.as_str().starts_with(name));
    match (found.next(), found.next()) {
        (Some(run), None) => Ok(run),
        (None, _) => bail!("{} holds no run {name}: `{}` shows all", home.dir.display(), line(&home.dir, &["status"])),
        (Some(first), Some(second)) => {
            bail!("several runs begin with {name}: {}, {}, … write more of the name", first.run, second.run)
        }
    }
}

/// One run as it stands.
pub(crate) async fn one(home: &Home, run: &RunId) -> Result<Run> {
    match home.reader().run(run)? {
        Some(row) => Run::from(row).in_the_users_words(home).with_its_marker(home).await,
        None => pick(home, Some(run.as_str())).await,
    }
}

/// The run that this version of an inbox object is.
pub(crate) fn run_of(meta: &Meta) -> RunId {
    RunId::of(&tasuki_splitter::Settings::default().inbox, &meta.name, meta.generation)
}

/// What the run was planned to be; `None` when it is not planned yet.
pub(crate) async fn plan(home: &Home, run: &RunId) -> Result<Option<Plan>> {
    let Some(object) = home.objects.read(Bucket::State, &names::plan(run), None).await? else { return Ok(None) };
    serde_json::from_slice(&object.body).map(Some).with_context(|| format!("the plan of run {run} is corrupt"))
}

/// The pipeline of a planned run; `None` when it was refused before it had a valid one.
pub(crate) async fn pipeline(home: &Home, run: &RunId) -> Result<Option<Pipeline>> {
    Ok(plan(home, run).await?.and_then(|plan| Pipeline::parse(&plan.pipeline_text).ok()))
}

/// Whether all shards of the run are written.
pub(crate) async fn is_split(home: &Home, run: &RunId) -> Result<bool> {
    let claim = home.objects.read(Bucket::State, &names::split(run), None).await?;
    let claim: Option<Value> = claim.and_then(|claim| serde_json::from_slice(&claim.body).ok());
    Ok(claim.is_some_and(|claim| claim["state"] == "ended"))
}

/// Whether the run's answers are the stand-in's. Where that was not noted its rows tell; its calls cost no token.
pub(crate) async fn is_stand_in(home: &Home, run: &Run) -> Result<bool> {
    if let Some(answerer) = home.answerer_of(&run.run) {
        return Ok(answerer == Answerer::StandIn);
    }
    let counts = run.counts();
    if counts.loaded == 0 || counts.usage.prompt > 0 {
        return Ok(false);
    }
    let Some(pipeline) = pipeline(home, &run.run).await? else { return Ok(false) };
    let mut stand_in = false;
    home.reader().results(&pipeline, Some(&run.run), 1, |row| {
        stand_in = row.model == StandIn::MODEL;
        ControlFlow::Break(())
    })?;
    Ok(stand_in)
}

/// All objects under a prefix.
pub(crate) async fn list(home: &Home, bucket: Bucket, prefix: &str) -> Result<Vec<Meta>> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map(|meta: &Meta| meta.name.clone());
        let page = home.objects.list(bucket, prefix, after.as_deref(), PAGE).await?;
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

/// What the calls of a run were.
pub(super) fn paid(stand_in: bool) -> &'static str {
    if stand_in { "of the stand-in model, free" } else { "paid" }
}
