//! `tasuki plan`: what a run will come to, before it is begun. Here is only who is asked what; what follows from it is in
//! [`tasuki_relay::estimate`].

mod count;
mod read;
pub(crate) mod sample;
mod tell;

use super::Exit;
use super::run::{Checked, check, readable};
use crate::cli;
use crate::home::Home;
use crate::model;
use crate::one_file::OneFile;
use crate::show::line;
use anyhow::{Result, bail};
use read::Kept;
use std::path::Path;
use std::sync::Arc;
use tasuki_relay::answer::Judge;
use tasuki_relay::clock::Clock;
use tasuki_relay::estimate::{Estimate, Evidence, Survey, estimate};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::CountTokens;
use tell::Told;

/// Prompts that are counted: the others' tokens follow from their texts to within a few percent.
const PROMPTS_COUNTED: usize = 64;

/// A file that is planned.
pub(crate) struct Planned<'a> {
    /// The file, and what the user calls it.
    pub(crate) input: &'a Path,
    pub(crate) pipeline: Arc<Pipeline>,
    /// Who counts prompts, if anybody does.
    pub(crate) counter: Option<Arc<dyn CountTokens>>,
    /// Where answers may be that need not be paid for again; `None` = nobody looks.
    pub(crate) home: Option<&'a Home>,
    /// How one gives the command that asks a sample.
    pub(crate) try_sample: String,
    pub(crate) json: bool,
}

pub(crate) async fn plan(dir: &Path, args: cli::Plan) -> Result<Exit> {
    let Checked { suffix: _, text, pipeline } = check(&args.input, &args.pipeline, readable)?;
    let home = match dir.is_dir() || args.sample.is_some() {
        true => Some(Home::open(dir)?),
        false => None,
    };
    let planned = Planned {
        input: &args.input,
        counter: model::counter(&pipeline.model)?,
        pipeline: Arc::new(pipeline),
        home: home.as_ref(),
        try_sample: line(dir, &words(&args, 100)),
        json: args.json,
    };
    let Some(rows) = args.sample else { return planned.tell().await };
    let home = home.as_ref().expect("a sample is asked in a folder, which was opened");
    let resume = line(dir, &words(&args, rows));
    let sample = sample::Sample { planned: &planned, site: home, text: &text, rows: rows.into(), resume };
    sample::in_the_folder(sample, home).await
}

/// The command line that asks a sample of so many rows.
pub(crate) fn words(args: &cli::Plan, sample: u16) -> Vec<String> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    ["plan".into(), text(&args.input), "--pipeline".into(), text(&args.pipeline), "--sample".into(), sample.to_string()]
        .to_vec()
}

impl Planned<'_> {
    /// Tells what is likely without an answer: nothing is asked, nothing paid.
    pub(crate) async fn tell(&self) -> Result<Exit> {
        let survey = self.survey(0).await?;
        let counted = count::count(self.counter.as_deref(), &self.pipeline, &survey).await;
        let evidence = Evidence { counted: counted.prompts, answers: Vec::new() };
        let estimate = estimate(&self.pipeline, survey.calls, survey.fixed, &evidence, Clock::system().now());
        self.told(&survey, &estimate, counted.why_not).print()
    }

    /// Reads the file to its end, and draws so many rows of it.
    pub(crate) async fn survey(&self, sample: usize) -> Result<Survey> {
        let file = OneFile::open(self.input)?;
        let kept = Kept { home: self.home, pipeline: &self.pipeline, judge: Judge::new(&self.pipeline) };
        let survey = read::survey(file, &self.pipeline, &kept, (PROMPTS_COUNTED, sample)).await?;
        if survey.rows == 0 {
            bail!("{}: it holds no row: there is nothing to plan", self.input.display());
        }
        Ok(survey)
    }

    /// Whether a run leaves out what was answered before.
    fn keeps_answers(&self) -> bool {
        self.pipeline.run.only_changed || self.pipeline.run.reuse_answers
    }

    fn told<'t>(&'t self, survey: &'t Survey, estimate: &'t Estimate, not_counted: Option<String>) -> Told<'t> {
        Told { planned: self, survey, estimate, not_counted, sample: None }
    }
}
