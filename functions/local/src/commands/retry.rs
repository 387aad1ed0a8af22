//! `tasuki retry`

use super::drive::Job;
use super::runs::{self, Run};
use super::{Exit, line};
use crate::cli;
use crate::home::Home;
use crate::model::{self, Answerer};
use crate::show;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};
use tasuki_relay::names::{self, Bucket, ShardId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Meta, Objects, Rows};
use tasuki_relay::record::{self, Content, Header, Input, Parent, Plan, ShardLine};
use tasuki_relay::rows::ObjectRows;

pub(crate) async fn retry(dir: &Path, args: cli::Retry) -> Result<Exit> {
    let home = Home::existing(dir)?;
    let run = runs::pick(&home, Some(&args.run)).await?;
    if !run.is_ended() {
        bail!("run {} is {}, not at its end: finish or cancel it first", run.run, run.state);
    }
    let stored = home.objects.read(Bucket::State, &names::pipeline(&run.pipeline), None).await?;
    let stored = stored.with_context(|| format!("pipeline {} is not stored any more", run.pipeline))?;
    let text = String::from_utf8(stored.body.into()).context("the stored pipeline is not UTF-8")?;
    let pipeline = Pipeline::parse(&text)
        .map_err(|problems| anyhow::anyhow!(problems.in_file(&names::pipeline(&run.pipeline))))?;
    let chosen = model::choose(pipeline.run.max_in_flight)?;
    let file = Temporary(home.dir.join("tmp").join(format!("retry-{}.jsonl", std::process::id())));
    let (source, called) = match unfinished(&home, &run, &text, chosen.answerer).await? {
        Some(open) => (home.dir.join("inbox").join(&open.input), open.file),
        None => {
            let answered = match &run.row {
                Some(row) => home.reader().answered_since(&pipeline, row, chosen.answerer)?,
                None => BTreeSet::new(),
            };
            let rows = write_rows(&home, &run, &answered, &file.0).await?;
            if rows == 0 {
                return nothing(&home, &run, !answered.is_empty(), args.json).await;
            }
            (file.0.clone(), format!("{} of run {}", show::rows(rows, "failed "), run.short()))
        }
    };
    let job = Job {
        chosen,
        resume: line(dir, &["retry", run.run.as_str()]),
        home,
        command: "retry",
        pipeline: &pipeline,
        pipeline_text: &text,
        source: &source,
        suffix: ".retry.jsonl",
        called,
        again: args.again,
        json: args.json,
    };
    job.perform().await
}

/// Says why there is nothing to ask.
async fn nothing(home: &Home, run: &Run, are_answered: bool, json: bool) -> Result<Exit> {
    if json {
        show::json_line(&mut stdout().lock(), &run.json(home).await?)?;
        return Ok(Exit::Done);
    }
    let why = match &run.refused {
        Some(refused) => &format!("it was refused: {refused}"),
        None if run.counts().failed == 0 => "no row failed",
        None if are_answered => "all failed rows that can be asked are answered by now",
        None => "all failed rows are ones that cannot be asked: mend them in the file",
    };
    writeln!(stdout(), "run {}: nothing to retry, {why}", run.run)?;
    Ok(Exit::Done)
}

/// A retry of the run that is not at its end: the same command goes on with it. Its rows are those that had failed then.
async fn unfinished(home: &Home, parent: &Run, text: &str, answerer: Answerer) -> Result<Option<Run>> {
    for run in runs::all(home).await?.into_iter().filter(|run| !run.is_ended()) {
        if home.answerer_of(&run.run) == Some(answerer)
            && let Some(plan) = runs::plan(home, &run.run).await?
            && plan.parent.is_some_and(|plan| plan.parent == parent.run)
            && plan.pipeline_text == text
        {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// Writes the failed rows of the run that can be asked about and are not answered yet, with their origin. Returns how many.
async fn write_rows(home: &Home, run: &Run, answered: &BTreeSet<u64>, file: &Path) -> Result<u64> {
    let mut shards: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let Some(plan) = runs::plan(home, &run.run).await? else { return Ok(0) };
    let failed = home.reader().failures(&run.run, u64::MAX)?;
    for failed in failed.into_iter().filter(|failed| !answered.contains(&failed.ordinal)) {
        shards.entry(failed.ordinal / u64::from(plan.rows_per_shard)).or_default().insert(failed.ordinal);
    }
    let named = || file.display().to_string();
    let mut out = BufWriter::new(File::create(file).with_context(named)?);
    show::json_line(&mut out, &Parent { parent: run.run.clone() })?;
    let (mut rows, mut elsewhere) = (0, BTreeSet::new());
    for (shard, ordinals) in shards {
        let id = ShardId { run: run.run.clone(), shard: ShardIndex(u32::try_from(shard)?) };
        let object = home.objects.read(Bucket::Shards, &id.object(), None).await?;
        let object =
            object.with_context(|| format!("shard {id} is gone, and its rows with it: drop the file again"))?;
        let (_, lines) = record::decode::<Header, ShardLine>(&object.body).with_context(|| format!("shard {id}"))?;
        for line in lines.iter().filter(|line| ordinals.contains(&line.ordinal)) {
            match &line.content {
                Content::Row(row) => {
                    show::json_line(&mut out, &json!({ "ordinal": line.ordinal, "row": row }))?;
                    rows += 1;
                }
                // A shard has no row that was thought unchanged: the file has.
                Content::Unchanged(_) => drop(elsewhere.insert(line.ordinal)),
                Content::Failed(_) => (),
            }
        }
    }
    if !elsewhere.is_empty() {
        for (ordinal, row) in from_the_file(home, &plan, elsewhere).await? {
            show::json_line(&mut out, &json!({ "ordinal": ordinal, "row": row }))?;
            rows += 1;
        }
    }
    out.flush().with_context(named)?;
    Ok(rows)
}

/// These rows of the run's file.
async fn from_the_file(home: &Home, plan: &Plan, wanted: BTreeSet<u64>) -> Result<Vec<(u64, Map<String, Value>)>> {
    let Input { name, generation, size } = plan.input.clone();
    let meta = Meta { name, generation, created: plan.run_time, size };
    let mut source = ObjectRows::new(home.objects.clone()).open(&meta).await?;
    let (mut found, mut ordinal) = (Vec::new(), 0);
    while let Some(batch) = source.next().await? {
        for row in batch {
            found.extend(row.row.ok().filter(|_| wanted.contains(&ordinal)).map(|row| (ordinal, row)));
            ordinal += 1;
        }
    }
    Ok(found)
}

/// A file that goes when this does.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // what is left is removed a day later
    }
}
