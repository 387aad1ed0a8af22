//! All runs of a folder: the store's, folded with plans, open runs and dropped files, so that none is missing.

use super::answerers::Answerers;
use super::run::suffix_of;
use super::watch;
use crate::bill::Basis;
use crate::model::Answerer;
use crate::site::Site;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use tasuki_relay::books::ResultRow;
use tasuki_relay::budget;
use tasuki_relay::clock::Millis;
use tasuki_relay::control;
use tasuki_relay::names::{self, Bucket, Dropped, RunId};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Generation, Meta, ObjectsError, RunRow, RunState};
use tasuki_relay::record::{Counts, Header, Plan, Snapshot, Totals};
use tasuki_relay::stand_in::StandIn;
use tasuki_relay::sweep;

/// Letters of a run's name that are shown: they tell a thousand runs apart.
pub(crate) const SHORT: usize = 9;

/// So much of the reason for which a run was parked is shown.
const REASON_CHARS: usize = 500;

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
    pub(crate) fn resume(&self, site: &dyn Site) -> Option<String> {
        let (_, why) = self.parked.as_ref()?;
        let more: &[&str] = if budget::is_spent_up(why) { &["--max-cost", "N"] } else { &[] };
        Some(site.line(&[&["resume", self.short()], more].concat()))
    }

    /// The marker has the word: the store follows it with the next sweep. Who may not see markers sees the store's word.
    async fn with_its_marker(mut self, site: &dyn Site) -> Result<Run> {
        if self.is_ended() {
            return Ok(self);
        }
        match control::parked_by(&*site.objects(), &self.run).await {
            Err(ObjectsError::Denied(_)) => (),
            Err(error) => return Err(error.into()),
            Ok(Some(marker)) => {
                let why = site.objects().read(Bucket::State, &names::parked(&self.run), Some(marker)).await?;
                let why = why.map(|why| on_one_line(&String::from_utf8_lossy(&why.body))).unwrap_or_default();
                self.parked = Some((marker, why));
                self.state = RunState::Parked.as_str();
            }
            Ok(None) if self.state == RunState::Parked.as_str() => self.state = RunState::Running.as_str(),
            Ok(None) => (),
        }
        Ok(self)
    }

    /// A refusal names the dropped copy, or what that should be called; the user knows the file by another name.
    pub(crate) fn in_the_users_words(mut self, site: &dyn Site) -> Run {
        if let Some(called) = site.input_of(&self.run) {
            self.refused = self.refused.map(|why| in_words(&why, &self.input, &called));
            self.file = called;
        }
        self
    }

    /// The run for programs.
    pub(crate) async fn json(&self, site: &dyn Site) -> Result<Value> {
        let mut run = self.json_in_list(site).await?;
        run["answerers"] = Answerers::of(site, self).await?.map_or(Value::Null, |answerers| answerers.json());
        Ok(run)
    }

    /// Without what takes a look at all of its rows.
    pub(crate) async fn json_in_list(&self, site: &dyn Site) -> Result<Value> {
        let counts = self.counts();
        let times = self.row.as_ref().map(|row| (row.opened_at, row.ended_at));
        let reasons: BTreeMap<_, _> = match counts.failed {
            0 => BTreeMap::new(),
            _ => site.books().failure_reasons(&self.run).await?.into_iter().collect(),
        };
        let cost = super::cost::of(site, self).await?;
        let (stand_in, paid) = (cost.basis == Basis::StandIn, cost.counts);
        Ok(json!({
            "run": self.run, "state": self.state, "pipeline": self.pipeline, "file": self.file, "input": self.input,
            "rows": counts.rows(), "expected_rows": self.expected(), "loaded": counts.loaded, "failed": counts.failed,
            "cancelled": counts.cancelled, "unchanged": counts.unchanged, "superseded": counts.superseded,
            "paid_calls": paid.paid_calls, "ambiguous_calls": paid.ambiguous_calls,
            "wasted_answers": paid.wasted_answers, "failures": reasons, "refused": self.refused,
            "tokens": { "prompt": paid.usage.prompt, "output": paid.usage.output, "thought": paid.usage.thought,
                "cached": paid.usage.cached },
            "cost_usd": cost.usd(), "cost_basis": cost.basis_json(), "bill": cost.json(),
            "not_loaded": cost.not_loaded_json(), "unpriced_calls": paid.unpriced_calls,
            "reused_answers": paid.reused_answers, "duplicate_prompts": paid.duplicate_prompts,
            "run_time": self.run_time, "source_time": self.source_time,
            "opened_at": times.map(|(opened, _)| opened), "ended_at": times.and_then(|(_, ended)| ended),
            "parked": self.parked.as_ref().map(|(_, why)| why), "note": stand_in.then_some(StandIn::NOTE),
            "database": site.database(),
        }))
    }
}

/// Somebody's words, fit for a terminal.
fn on_one_line(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_CHARS).collect();
    printable.split_whitespace().collect::<Vec<_>>().join(" ")
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
pub(crate) async fn all(site: &dyn Site) -> Result<Vec<Run>> {
    let stored = site.books().runs().await?;
    let mut runs: BTreeMap<RunId, Run> =
        stored.into_iter().map(|row| (row.run.clone(), Run::from(row).in_the_users_words(site))).collect();
    for meta in seen(list(site, Bucket::State, names::PLANS).await)? {
        let Ok(run) = names::parse_plan(&meta.name) else { continue };
        if !runs.contains_key(&run)
            && let Some(plan) = plan(site, &run).await?
        {
            runs.insert(run, as_planned(site, plan).await?);
        }
    }
    for meta in seen(list(site, Bucket::Inbox, "").await)? {
        let Ok(dropped) = Dropped::parse_object(&meta.name) else { continue };
        let run = run_of(site, &meta);
        if watch::is_data(&dropped.file) && !runs.contains_key(&run) {
            let (pipeline, input) = (dropped.pipeline, meta.name);
            let (file, run_time) = (input.clone(), meta.created);
            let (source_time, row, refused, parked) = (None, None, None, None);
            let dropped = Run {
                run: run.clone(),
                state: "PLANNED",
                pipeline,
                input,
                file,
                run_time,
                source_time,
                row,
                refused,
                parked,
            };
            runs.insert(run, dropped.in_the_users_words(site));
        }
    }
    let marked = runs.into_values().map(|run| run.with_its_marker(site));
    let mut runs = futures::future::try_join_all(marked).await?;
    runs.sort_by(|a, b| (b.run_time, &b.run).cmp(&(a.run_time, &a.run)));
    Ok(runs)
}

/// A run of which no part is loaded.
async fn as_planned(site: &dyn Site, plan: Plan) -> Result<Run> {
    let state = if is_split(site, &plan.run).await? { "RUNNING" } else { "SPLITTING" };
    let run = Run {
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
    };
    Ok(run.in_the_users_words(site))
}

/// The run whose name starts so, or the newest.
pub(crate) async fn pick(site: &dyn Site, name: Option<&str>) -> Result<Run> {
    let mut runs = all(site).await?;
    let Some(name) = name else {
        return match runs.is_empty() {
            true => bail!("{} holds no run yet", site.name()),
            false => Ok(runs.swap_remove(0)),
        };
    };
    let mut found = runs.into_iter().filter(|run| run.run.as_str().starts_with(name));
    match (found.next(), found.next()) {
        (Some(run), None) => Ok(run),
        (None, _) => bail!("{} holds no run {name}: `{}` shows all", site.name(), site.line(&["status"])),
        (Some(first), Some(second)) => {
            bail!("several runs begin with {name}: {}, {}, … write more of the name", first.run, second.run)
        }
    }
}

/// One run as it stands.
pub(crate) async fn one(site: &dyn Site, run: &RunId) -> Result<Run> {
    let found = match site.books().run(run).await? {
        Some(row) => Run::from(row).in_the_users_words(site),
        None => match plan(site, run).await? {
            Some(plan) => as_planned(site, plan).await?,
            None => return pick(site, Some(run.as_str())).await,
        },
    };
    found.with_its_marker(site).await
}

/// The run that this version of an inbox object is.
pub(crate) fn run_of(site: &dyn Site, meta: &Meta) -> RunId {
    RunId::of(site.inbox(), &meta.name, meta.generation)
}

/// What the run was planned to be; `None` when it is not planned yet.
pub(crate) async fn plan(site: &dyn Site, run: &RunId) -> Result<Option<Plan>> {
    let Some(object) = site.objects().read(Bucket::State, &names::plan(run), None).await? else { return Ok(None) };
    serde_json::from_slice(&object.body).map(Some).with_context(|| format!("the plan of run {run} is corrupt"))
}

/// The pipeline of a planned run; `None` when it was refused before it had a valid one.
pub(crate) async fn pipeline(site: &dyn Site, run: &RunId) -> Result<Option<Pipeline>> {
    Ok(plan(site, run).await?.and_then(|plan| Pipeline::parse(&plan.pipeline_text).ok()))
}

/// Where the rows of a run lie that reads BigQuery; `None` for a file, and while the snapshot is taken.
pub(crate) async fn snapshot(site: &dyn Site, plan: &Plan) -> Result<Option<Snapshot>> {
    if plan.scan.is_none() {
        return Ok(None);
    }
    let Some(object) = site.objects().read(Bucket::State, &names::snapshot(&plan.run), None).await? else {
        return Ok(None);
    };
    serde_json::from_slice(&object.body)
        .map(Some)
        .with_context(|| format!("the snapshot of run {} is corrupt", plan.run))
}

/// What the run comes to; all of its shards must be written.
pub(crate) async fn totals(site: &dyn Site, run: &RunId) -> Result<Option<Totals>> {
    if let Some(plan) = plan(site, run).await?
        && let Some(snapshot) = snapshot(site, &plan).await?
    {
        return Ok(Some(snapshot.totals(plan.rows_per_shard)));
    }
    let Some(last) = list(site, Bucket::Shards, &names::shards(run)).await?.pop() else { return Ok(None) };
    let Some(shard) = site.objects().read(Bucket::Shards, &last.name, None).await? else { return Ok(None) };
    let first = shard.body.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(serde_json::from_slice::<Header>(first).ok().and_then(|header| header.totals))
}

/// Whether all shards of the run are written.
pub(crate) async fn is_split(site: &dyn Site, run: &RunId) -> Result<bool> {
    let claim = site.objects().read(Bucket::State, &names::split(run), None).await?;
    let claim: Option<Value> = claim.and_then(|claim| serde_json::from_slice(&claim.body).ok());
    Ok(claim.is_some_and(|claim| claim["state"] == "ended"))
}

/// Whether the run's answers are the stand-in's. Where that was not noted its rows tell; its calls cost no token.
pub(crate) async fn is_stand_in(site: &dyn Site, run: &Run) -> Result<bool> {
    if let Some(answerer) = site.answerer_of(&run.run) {
        return Ok(answerer == Answerer::StandIn);
    }
    let counts = run.counts();
    if counts.loaded == 0 || counts.usage.prompt > 0 {
        return Ok(false);
    }
    let Some(pipeline) = pipeline(site, &run.run).await? else { return Ok(false) };
    let mut stand_in = false;
    let mut each = |row: ResultRow| {
        stand_in = row.model == StandIn::MODEL;
        ControlFlow::Break(())
    };
    site.books().results(&pipeline, &run.run, 1, &mut each).await?;
    Ok(stand_in)
}

/// What may be seen. Without the right to list a bucket the store's runs are all that is shown, and that is said.
fn seen(listed: Result<Vec<Meta>>) -> Result<Vec<Meta>> {
    match listed {
        Err(error) if matches!(error.downcast_ref(), Some(ObjectsError::Denied(_))) => {
            eprintln!("{error}: runs of which no row has its outcome yet are not shown");
            Ok(Vec::new())
        }
        other => other,
    }
}

/// All objects under a prefix.
pub(crate) async fn list(site: &dyn Site, bucket: Bucket, prefix: &str) -> Result<Vec<Meta>> {
    Ok(sweep::list(&*site.objects(), bucket, prefix, None).await?)
}

/// What the calls of a run were.
pub(super) fn paid(stand_in: bool) -> &'static str {
    if stand_in { "of the stand-in model, free" } else { "paid" }
}
