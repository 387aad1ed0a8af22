//! `tasuki run` and `tasuki retry` against a deployment: the file goes into the inbox, the services work, the command follows.

use super::site::Deployed;
use crate::cli;
use crate::commands::Exit;
use crate::commands::drive::{Driven, inbox_name};
use crate::commands::follow::follow;
use crate::commands::report::Report;
use crate::commands::retry::{self, Failed, Temporary};
use crate::commands::run::{Checked, check, is_file, readable, words};
use crate::commands::runs::{self, Run};
use crate::model::Answerer;
use crate::signals::Stop;
use crate::site::Site;
use anyhow::{Context, Result, bail};
use std::path::Path;
use tasuki_google::objects::LocalFile;
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Objects, ObjectsError};
use tasuki_relay::source::{self, Source};

const NO_SIGNALS: &str = "signals cannot be listened for";

/// A file that is to be run by the deployment.
pub(super) struct Job<'a> {
    pub(super) site: &'a Deployed,
    pub(super) pipeline: &'a Pipeline,
    pub(super) text: &'a str,
    pub(super) suffix: &'static str,
    /// Hexadecimal digits for the object's name, where it is known by something else than its bytes.
    pub(super) identity: Option<&'a str>,
    /// What the user calls it.
    pub(super) called: String,
    pub(super) again: bool,
    pub(super) json: bool,
    /// The command line that follows the run again.
    pub(super) resume: String,
}

pub(super) async fn run(site: &Deployed, args: cli::Run) -> Result<Exit> {
    let reads_bigquery = !site.deployment.bigquery_sources.is_empty();
    let Checked { suffix, text, pipeline } =
        check(&args.input, &args.pipeline, |input| readable_here(input, reads_bigquery))?;
    is_deployed(site, &pipeline.name, &text).await?;
    let job = Job {
        site,
        pipeline: &pipeline,
        text: &text,
        suffix,
        identity: None,
        called: args.input.display().to_string(),
        again: args.again,
        json: args.json,
        resume: site.line(&words(&args).each_ref().map(String::as_str)),
    };
    job.perform(&args.input, Stop::listen().context(NO_SIGNALS)?).await
}

pub(super) async fn retry(site: &Deployed, args: cli::Retry) -> Result<Exit> {
    let (run, text, pipeline) = retry::parent(site, &args.run).await?;
    let mut stop = Stop::listen().context(NO_SIGNALS)?;
    if let Some(open) = retry::unfinished(site, &run, &text, Answerer::Gemini).await? {
        let (called, resume) = (format!("failed rows of run {}", run.short()), site.line(&["retry", run.run.as_str()]));
        let report = Report { site, pipeline: &pipeline, called: &called, json: args.json, resume: &resume };
        return tell(&report, followed(&report, open, stop).await?).await;
    }
    let file = Temporary::new(site);
    let called = match retry::failed_rows(site, &run, &pipeline, Answerer::Gemini, &file, &mut stop).await? {
        Failed::Rows(called) => called,
        Failed::Nothing(why) => return retry::nothing(site, &run, &why, args.json).await,
    };
    let job = Job {
        site,
        pipeline: &pipeline,
        text: &text,
        suffix: ".retry.jsonl",
        identity: None,
        called,
        again: args.again,
        json: args.json,
        resume: site.line(&["retry", run.run.as_str()]),
    };
    job.perform(file, stop).await
}

/// The suffix of a file that a deployment reads and that is there.
fn readable_here(input: &Path, reads_bigquery: bool) -> Result<&'static str, String> {
    let name = input.display().to_string();
    if !name.to_ascii_lowercase().ends_with(source::SUFFIX) {
        return readable(input);
    }
    is_file(input)?;
    if !reads_bigquery {
        return Err(format!(
            "{name}: the deployment reads no BigQuery: name the datasets that it may read in its Terraform, and apply that"
        ));
    }
    let text = std::fs::read_to_string(input).map_err(|error| format!("{name}: {error}"))?;
    Source::parse(&text).map_err(|problems| problems.in_file(&name))?;
    Ok(source::SUFFIX)
}

/// The splitter runs the pipeline that is stored: it must be the one that was named.
pub(super) async fn is_deployed(site: &Deployed, name: &str, text: &str) -> Result<()> {
    let stored = site.objects.read(Bucket::State, &names::pipeline(name), None).await?;
    let why = match stored {
        Some(stored) if stored.body == text.as_bytes() => return Ok(()),
        Some(_) => "another text than this file",
        None => "no such pipeline",
    };
    bail!(
        "nothing was started: {} has {why} under pipelines/{name}.toml: put this file among the pipelines of its Terraform, \
         `terraform apply`, and give this command again",
        site.name()
    )
}

/// Follows a run that the services work on to its end.
async fn followed(report: &Report<'_>, run: Run, stop: Stop) -> Result<Driven> {
    let site = report.site;
    eprintln!("run {}: {} with pipeline {}, in {}", run.run, report.called, run.pipeline, site.name());
    let started = site.clock().instant();
    let end = follow(site, &run.run, stop).await?;
    Ok(Driven::Now { before: run, end, took: started.elapsed() })
}

async fn tell(report: &Report<'_>, driven: Driven) -> Result<Exit> {
    match driven {
        Driven::Already(run) => report.already(&run).await,
        Driven::Now { before, end, took } => report.ended(&before, end, took).await,
    }
}

impl Job<'_> {
    /// Brings the file's run to its end, and tells of it.
    async fn perform(self, file: impl AsRef<Path>, stop: Stop) -> Result<Exit> {
        tell(&self.report(), self.driven(file, stop).await?).await
    }

    /// Uploads the file, gives it up, and follows its run.
    pub(super) async fn driven(&self, file: impl AsRef<Path>, mut stop: Stop) -> Result<Driven> {
        let found = tokio::select! {
            found = self.begin(file.as_ref()) => found?,
            () = stop.asked() => bail!("stopped before the file was uploaded: nothing was started"),
        };
        drop(file); // rows that were made for this are kept no longer than that
        match found.is_ended() {
            true => Ok(Driven::Already(found)),
            false => followed(&self.report(), found, stop).await,
        }
    }

    fn report(&self) -> Report<'_> {
        let (pipeline, called) = (self.pipeline, &self.called);
        Report { site: self.site, pipeline, called, json: self.json, resume: &self.resume }
    }

    /// Uploads the file; a finished run of it is replaced by a new one if that was asked for. Returns the run as it stands.
    async fn begin(&self, source: &Path) -> Result<Run> {
        // A table that cannot take the answers is told before any is paid for.
        if !self.site.books.fits(self.pipeline).await? {
            eprintln!(
                "table {} is not there, or you have no right to read it: apply what `tasuki schema` writes, or the services wait",
                self.pipeline.table
            );
        }
        let file = LocalFile::read(source, self.text.as_bytes()).await;
        let file = file.with_context(|| format!("{} cannot be read", self.called))?;
        let found = self.upload(&file, false).await?;
        if self.again && found.is_ended() { self.upload(&file, true).await } else { Ok(found) }
    }

    /// The same bytes and the same pipeline are the same object, and so the same run.
    async fn upload(&self, file: &LocalFile, overwrite: bool) -> Result<Run> {
        let objects = &self.site.objects;
        let name = inbox_name(&self.pipeline.name, self.identity.unwrap_or(file.sha256()), self.suffix);
        let mut live = objects.stat(Bucket::Inbox, &name).await?;
        if live.is_none() || overwrite {
            let expected = live.as_ref().map(|live| live.generation);
            live = match objects.upload(Bucket::Inbox, &name, file, expected).await {
                // Of this command given twice at once one wins, and both follow that.
                Err(ObjectsError::Precondition) => objects.stat(Bucket::Inbox, &name).await?,
                Err(ObjectsError::Denied(why)) if overwrite => {
                    bail!("{why}: --again overwrites the file in the inbox, which takes storage.objects.delete there")
                }
                written => Some(written?),
            };
        }
        let live = live.with_context(|| format!("{name} was removed from the inbox as soon as it was there"))?;
        runs::one(self.site, &runs::run_of(self.site, &live)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_file_is_read_where_there_is_bigquery_and_every_mistake_in_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.run.toml");
        std::fs::write(&path, "[source]\ntable = \"p.d.t\"\n").unwrap();
        assert_eq!(readable_here(&path, true), Ok(".run.toml"));
        assert!(readable_here(&path, false).unwrap_err().contains("reads no BigQuery"));
        std::fs::write(&path, "[source]\ntable = \"t\"\n").unwrap();
        assert!(readable_here(&path, true).unwrap_err().contains("a.run.toml"), "names the file");
    }
}
