//! `tasuki retry`

use super::Exit;
use super::drive::Job;
use super::run::begins;
use super::runs::{self, Run};
use crate::cli;
use crate::home::Home;
use crate::model::{self, Answerer};
use crate::show;
use crate::signals::Stop;
use crate::site::Site;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tasuki_relay::books::FailureRow;
use tasuki_relay::names::{self, Bucket, ShardId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Meta, Rows};
use tasuki_relay::record::{self, Content, Header, Input, Parent, Plan, ShardLine, Snapshot};
use tasuki_relay::rows::ObjectRows;
use tasuki_relay::stand_in::StandIn;

pub(crate) async fn retry(dir: &Path, args: cli::Retry) -> Result<Exit> {
    let home = Home::existing(dir)?;
    let (run, text, pipeline) = parent(&home, &args.run).await?;
    let chosen = model::choose(pipeline.model.provider, pipeline.run.max_in_flight)?;
    let mut stop = Stop::listen().context("signals cannot be listened for")?;
    let file = Temporary::new(&home);
    let (source, called) = match unfinished(&home, &run, &text, chosen.answerer).await? {
        Some(open) => (home.dir.join("inbox").join(&open.input), open.file),
        None => match failed_rows(&home, &run, &pipeline, chosen.answerer, &file, &mut stop).await? {
            Failed::Rows(called) => (file.0.clone(), called),
            Failed::Nothing(why) => return nothing(&home, &run, &why, args.json).await,
        },
    };
    let job = Job {
        chosen,
        resume: home.line(&["retry", run.run.as_str()]),
        home,
        command: "retry",
        pipeline: &pipeline,
        pipeline_text: &text,
        source: &source,
        identity: None,
        suffix: ".retry.jsonl",
        called,
        again: args.again,
        json: args.json,
    };
    job.perform(stop).await
}

/// The ended run, and the pipeline that is stored now.
pub(crate) async fn parent(site: &dyn Site, name: &str) -> Result<(Run, String, Pipeline)> {
    let run = runs::pick(site, Some(name)).await?;
    if !run.is_ended() {
        bail!("run {} is {}, not at its end: finish or cancel it first", run.run, run.state);
    }
    let stored = site.objects().read(Bucket::State, &names::pipeline(&run.pipeline), None).await?;
    let stored = stored.with_context(|| format!("pipeline {} is not stored any more", run.pipeline))?;
    let text = String::from_utf8(stored.body.into()).context("the stored pipeline is not UTF-8")?;
    let pipeline = begins(&text, &names::pipeline(&run.pipeline)).map_err(anyhow::Error::msg)?;
    Ok((run, text, pipeline))
}

/// What there is to ask again.
pub(crate) enum Failed {
    /// Rows: what a person calls them.
    Rows(String),
    /// Why there are none.
    Nothing(String),
}

/// Writes the failed rows of the run that can be asked and that no newer run has answered into `file`, unless it is stopped.
pub(crate) async fn failed_rows(
    site: &dyn Site,
    run: &Run,
    pipeline: &Pipeline,
    answerer: Answerer,
    file: &Temporary,
    stop: &mut Stop,
) -> Result<Failed> {
    // An answer of the stand-in is none to a real model.
    let but = (answerer != Answerer::StandIn).then_some(StandIn::MODEL);
    let read = async {
        let answered = match &run.row {
            Some(row) => site.books().answered_since(pipeline, row, but).await?,
            None => BTreeSet::new(),
        };
        let rows = write_rows(site, run, &answered, &file.0).await?;
        anyhow::Ok((answered, rows))
    };
    let (answered, rows) = tokio::select! {
        read = read => read?,
        () = stop.asked() => bail!("stopped before the failed rows were read: nothing was started"),
    };
    Ok(match &run.refused {
        _ if rows > 0 => Failed::Rows(format!("{} of run {}", show::rows(rows, "failed "), run.short())),
        Some(refused) => Failed::Nothing(format!("it was refused: {refused}")),
        None if run.counts().failed == 0 => Failed::Nothing("no row failed".into()),
        None if !answered.is_empty() => Failed::Nothing("all failed rows that can be asked are answered by now".into()),
        None => Failed::Nothing("all failed rows are ones that cannot be asked: mend them in the file".into()),
    })
}

/// Says why there is nothing to ask.
pub(crate) async fn nothing(site: &dyn Site, run: &Run, why: &str, json: bool) -> Result<Exit> {
    match json {
        true => show::json_line(&mut stdout().lock(), &run.json(site).await?)?,
        false => writeln!(stdout(), "run {}: nothing to retry, {why}", run.run)?,
    }
    Ok(Exit::Done)
}

/// A retry of the run that is not at its end: the same command goes on with it. Its rows are those that had failed then.
pub(crate) async fn unfinished(site: &dyn Site, parent: &Run, text: &str, answerer: Answerer) -> Result<Option<Run>> {
    for run in runs::all(site).await?.into_iter().filter(|run| !run.is_ended()) {
        if site.answerer_of(&run.run) == Some(answerer)
            && let Some(plan) = runs::plan(site, &run.run).await?
            && plan.parent.is_some_and(|plan| plan.parent == parent.run)
            && plan.pipeline_text == text
        {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

/// Writes the failed rows of the run that can be asked about and are not answered yet, with their origin. Returns how many.
async fn write_rows(site: &dyn Site, run: &Run, answered: &BTreeSet<u64>, file: &Path) -> Result<u64> {
    let mut shards: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let Some(plan) = runs::plan(site, &run.run).await? else { return Ok(0) };
    let snapshot = runs::snapshot(site, &plan).await?;
    let mut each = |failed: FailureRow| {
        if !answered.contains(&failed.ordinal) {
            let shard = shard_of(failed.ordinal, plan.rows_per_shard, snapshot.as_ref());
            shards.entry(shard).or_default().insert(failed.ordinal);
        }
        ControlFlow::Continue(())
    };
    site.books().failures(&run.run, u64::MAX, &mut each).await?;
    let named = || file.display().to_string();
    let mut out = BufWriter::new(create_private(file).with_context(named)?);
    show::json_line(&mut out, &Parent { parent: run.run.clone() })?;
    let (mut rows, mut elsewhere) = (0, BTreeSet::new());
    for (shard, ordinals) in shards {
        let id = ShardId { run: run.run.clone(), shard: ShardIndex(u32::try_from(shard)?) };
        let object = site.objects().read(Bucket::Shards, &id.object(), None).await?;
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
        if snapshot.is_some() {
            let rows = show::rows(elsewhere.len() as u64, "");
            bail!(
                "{rows} that were thought unchanged are in BigQuery alone: drop the run file again (tasuki run … --again)"
            );
        }
        for (ordinal, row) in from_the_file(site, &plan, elsewhere).await? {
            show::json_line(&mut out, &json!({ "ordinal": ordinal, "row": row }))?;
            rows += 1;
        }
    }
    out.flush().with_context(named)?;
    Ok(rows)
}

/// The shard of an ordinal: a file is cut as one, a snapshot part by part.
fn shard_of(ordinal: u64, rows_per_shard: u32, snapshot: Option<&Snapshot>) -> u64 {
    let part =
        snapshot.and_then(|snapshot| snapshot.parts(rows_per_shard).take_while(|part| part.first <= ordinal).last());
    let (first, shard) = part.map_or((0, 0), |part| (part.first, part.shard));
    u64::from(shard) + (ordinal - first) / u64::from(rows_per_shard)
}

/// These rows of the run's file.
async fn from_the_file(site: &dyn Site, plan: &Plan, wanted: BTreeSet<u64>) -> Result<Vec<(u64, Map<String, Value>)>> {
    let Input { name, generation, size } = plan.input.clone();
    let meta = Meta { name, generation, created: plan.run_time, size };
    let mut source = ObjectRows::new(site.objects()).open(&meta).await?;
    let (mut found, mut ordinal) = (Vec::new(), 0);
    while let Some(batch) = source.next().await? {
        for row in batch {
            found.extend(row.row.ok().filter(|_| wanted.contains(&ordinal)).map(|row| (ordinal, row)));
            ordinal += 1;
        }
    }
    Ok(found)
}

/// A file that holds rows: nobody else may read it.
pub(crate) fn create_private(file: &Path) -> std::io::Result<File> {
    let _ = std::fs::remove_file(file); // of an earlier process that had our number
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)
}

/// A file of rows that goes when this does. A signal that nobody listens for would end the process without that.
pub(crate) struct Temporary(pub(crate) PathBuf);

impl Temporary {
    /// One of this process, in the site's place for it.
    pub(crate) fn new(site: &dyn Site) -> Temporary {
        Temporary(site.scratch().join(format!("retry-{}.jsonl", std::process::id())))
    }
}

impl AsRef<Path> for Temporary {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // often it was never made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tasuki_relay::clock::Millis;
    use tasuki_relay::names::RunId;

    #[test]
    fn an_ordinal_of_a_snapshot_is_in_a_shard_of_its_part() {
        let run = RunId::of("b", "p/a.run.toml", 1);
        let snapshot = Snapshot { run, job: "j".into(), source_time: Millis(0), rows: vec![25, 0, 7] };
        let shards = [0, 9, 10, 24, 25, 31].map(|ordinal| shard_of(ordinal, 10, Some(&snapshot)));
        assert_eq!(shards, [0, 0, 1, 2, 3, 3], "the short shard 2 ends the first part");
        assert_eq!([0, 24, 25].map(|ordinal| shard_of(ordinal, 10, None)), [0, 2, 2]);
    }
}
