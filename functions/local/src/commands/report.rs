//! How a command that brought a run to its end, or saw it there, tells of it and ends.

use super::drive::End;
use super::runs::{self, Run};
use super::{Exit, summary};
use crate::show::rows;
use crate::site::Site;
use anyhow::Result;
use std::time::Duration;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::RunState;

/// What is told of a run, and how.
pub(crate) struct Report<'a> {
    pub(crate) site: &'a dyn Site,
    pub(crate) pipeline: &'a Pipeline,
    /// What the user calls the input.
    pub(crate) called: &'a str,
    pub(crate) json: bool,
    /// The command line that resumes the run, or follows it.
    pub(crate) resume: &'a str,
}

impl Report<'_> {
    /// Tells of a run that was finished before the command began.
    pub(crate) async fn already(&self, run: &Run) -> Result<Exit> {
        self.summary(run).already().await?;
        Ok(exit_of(run))
    }

    /// Tells how it ended; `before` is the run as this command found it.
    pub(crate) async fn ended(&self, before: &Run, end: End, took: Duration) -> Result<Exit> {
        let found = runs::one(self.site, &before.run).await?;
        if let End::NotDone(why) = end {
            match &found.parked {
                Some((_, reason)) if !reason.is_empty() => eprintln!("{why}: {reason}"),
                _ => eprintln!("{why}"),
            }
            let rows = rows(found.counts().rows(), "");
            let resume = found.resume(self.site).unwrap_or_else(|| self.resume.to_owned());
            eprintln!("{rows} loaded or failed by now; what came is kept. Go on with:\n  {resume}");
            if self.json {
                self.summary(&found).json().await?;
            }
            return Ok(Exit::NotDone);
        }
        let rows = found.counts().rows().saturating_sub(before.counts().rows());
        self.summary(&found).show(Some((rows, took))).await?;
        Ok(exit_of(&found))
    }

    fn summary<'a>(&'a self, run: &'a Run) -> summary::Summary<'a> {
        summary::Summary { site: self.site, run, called: self.called, pipeline: self.pipeline, json: self.json }
    }
}

/// How a command ends that ends with this run. Says why it failed.
pub(crate) fn exit_of(run: &Run) -> Exit {
    match run.row.as_ref().map(|row| row.state) {
        Some(RunState::Complete) if run.counts().failed > 0 => Exit::WithFailures,
        Some(RunState::Complete) => Exit::Done,
        Some(RunState::Failed) => {
            let why = run.refused.as_deref().unwrap_or("no reason is known");
            let named = if why.contains(&run.file) { String::new() } else { format!("{}: ", run.file) };
            eprintln!("tasuki: {named}{why}");
            Exit::NotDone
        }
        Some(RunState::Running | RunState::Parked | RunState::Cancelled) | None => Exit::NotDone,
    }
}
