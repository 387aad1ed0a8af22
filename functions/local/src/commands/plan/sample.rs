//! Rows drawn at random are asked as a run of their own: their answers are kept, and tell what the others will take.

use super::read::rows_of;
use super::{Planned, tell};
use crate::commands::Exit;
use crate::commands::drive::{Driven, End, Job};
use crate::commands::retry::{Temporary, create_private};
use crate::commands::runs::{self, Run};
use crate::home::Home;
use crate::model::{self, Answerer};
use crate::one_file::OneFile;
use crate::show::{self, number};
use crate::signals::Stop;
use crate::site::Site;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use tasuki_relay::clock::Clock;
use tasuki_relay::estimate::{Evidence, Observed, Survey, estimate, guess};
use tasuki_relay::names::{self, Bucket, ShardId};
use tasuki_relay::prompt::Prompter;
use tasuki_relay::record::{self, AnswerLine, Content, Header, Outcome, ShardLine};
use tasuki_relay::stand_in::StandIn;

/// Of the rows that are drawn, as they are asked.
pub(crate) const SUFFIX: &str = ".jsonl";
/// Bytes of the file that are hashed at a time.
const HASHED_BYTES: usize = 1 << 20;

/// A sample that is to be asked.
pub(crate) struct Sample<'a> {
    pub(crate) planned: &'a Planned<'a>,
    /// Where it is asked.
    pub(crate) site: &'a dyn Site,
    /// Of the pipeline.
    pub(crate) text: &'a str,
    pub(crate) rows: usize,
    /// The command line that goes on with it.
    pub(crate) resume: String,
}

/// Rows that were drawn.
pub(crate) struct Drawn {
    survey: Survey,
    /// They, as JSON lines.
    pub(crate) file: Temporary,
    /// What they are known by: hexadecimal digits.
    pub(crate) identity: String,
    /// What a person calls them.
    pub(crate) called: String,
}

/// What its answers tell.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) run: String,
    pub(super) rows: u64,
    pub(super) answered: u64,
    /// In picodollars; `None` where a price is not known.
    pub(super) paid: Option<u64>,
    /// The calls of which it tells.
    answers: Vec<Observed>,
    /// Guessed tokens of the prompts that a run need not ask again.
    spared: Vec<f64>,
}

/// Asks the sample in a folder, unless it was asked before, and tells what is likely of the others.
pub(super) async fn in_the_folder(sample: Sample<'_>, home: &Home) -> Result<Exit> {
    let planned = sample.planned;
    let provider = planned.pipeline.model.provider;
    let chosen = model::choose(provider, planned.pipeline.run.max_in_flight)?;
    if chosen.answerer == Answerer::StandIn {
        bail!("--sample asks the model that the pipeline names: {} first", Answerer::of(provider).mend(provider));
    }
    let Some(drawn) = sample.draw().await? else { return planned.tell().await };
    let held = home.reader.answers_of_others(&planned.pipeline, StandIn::MODEL)?;
    if held > 0 {
        let table = &planned.pipeline.table;
        eprintln!("table {table} holds {} answers: those of the sample's rows are replaced", number(held));
    }
    let job = Job {
        home: home.clone(),
        command: "plan",
        pipeline: &planned.pipeline,
        pipeline_text: sample.text,
        source: drawn.file.as_ref(),
        suffix: SUFFIX,
        identity: Some(&drawn.identity),
        called: drawn.called.clone(),
        again: false,
        json: planned.json,
        chosen,
        resume: sample.resume.clone(),
    };
    let driven = job.driven(Stop::listen().context("signals cannot be listened for")?).await?;
    sample.tell(&drawn, driven).await
}

impl Sample<'_> {
    /// Draws the rows; `None` where none is to be asked. Says that they will be paid for.
    pub(crate) async fn draw(&self) -> Result<Option<Drawn>> {
        let survey = self.planned.survey(self.rows).await?;
        let (file, identity) = (Temporary::new(self.site), self.identity(&survey)?);
        let rows = self.write(&survey, file.as_ref()).await?;
        if rows == 0 {
            eprintln!("no row is to be asked: there is nothing to draw a sample from");
            return Ok(None);
        }
        let are = if rows == 1 { "is" } else { "are" };
        eprintln!("--sample: {} {are} asked now, and paid for", show::rows(rows, ""));
        let called = format!("a sample of {} of {}", show::rows(rows, ""), self.planned.input.display());
        Ok(Some(Drawn { survey, file, identity, called }))
    }

    /// Tells what the sample's run says of the other rows.
    pub(crate) async fn tell(&self, drawn: &Drawn, driven: Driven) -> Result<Exit> {
        let run = match driven {
            Driven::Already(run) => {
                eprintln!("run {} asked this sample before: nothing more is paid", run.run);
                run
            }
            Driven::Now { before, end: End::NotDone(why), .. } => {
                let parked = runs::one(self.site, &before.run).await?.resume(self.site);
                let resume = parked.unwrap_or_else(|| self.resume.clone());
                bail!("{why}\nthe sample is not whole; what came is kept. Go on with:\n  {resume}")
            }
            Driven::Now { before, .. } => runs::one(self.site, &before.run).await?,
        };
        let (pipeline, survey) = (&self.planned.pipeline, &drawn.survey);
        let asked = self.asked(survey, &run).await?;
        if asked.answers.is_empty() {
            let failures = self.site.line(&["failures", run.short()]);
            bail!("run {} brought no answer that was paid for: see {failures}", run.run);
        }
        let evidence = Evidence { counted: Vec::new(), answers: asked.answers.clone() };
        let calls = survey.calls.without(asked.spared.iter().copied());
        let estimate = estimate(pipeline, calls, survey.fixed, &evidence, Clock::system().now());
        tell::Told { sample: Some(&asked), ..self.planned.told(survey, &estimate, None) }.print()
    }

    /// Writes the rows that were drawn. Returns how many.
    async fn write(&self, survey: &Survey, file: &Path) -> Result<u64> {
        let drawn: BTreeSet<u64> = survey.sample.items().copied().collect();
        let named = || file.display().to_string();
        let mut out = BufWriter::new(create_private(file).with_context(named)?);
        for row in rows_of(OneFile::open(self.planned.input)?, &drawn).await? {
            show::json_line(&mut out, &row)?;
        }
        out.flush().with_context(named)?;
        Ok(drawn.len() as u64)
    }

    /// The same file, pipeline and size are the same sample, also when rows of it are unchanged by now; no size is above what there is.
    fn identity(&self, survey: &Survey) -> Result<String> {
        let named = || self.planned.input.display().to_string();
        let mut file = std::fs::File::open(self.planned.input).with_context(named)?;
        let mut hash = Sha256::new_with_prefix(format!("sample {}\0{}\0", self.rows.min(survey.distinct()), self.text));
        let mut piece = vec![0; HASHED_BYTES];
        loop {
            match file.read(&mut piece).with_context(named)? {
                0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
                read => hash.update(&piece[..read]),
            }
        }
    }

    /// What the run's own objects say of each of its rows.
    async fn asked(&self, survey: &Survey, run: &Run) -> Result<Asked> {
        let prompter = Prompter::new(self.planned.pipeline.clone())?;
        let keeps = self.planned.keeps_answers();
        let mut asked = Asked { run: run.run.to_string(), paid: Some(0), ..Asked::default() };
        for meta in runs::list(self.site, Bucket::Answers, &names::shards(&run.run)).await? {
            let Ok(shard) = ShardId::parse_object(&meta.name) else { continue };
            let (_, lines) = self.object::<ShardLine>(Bucket::Shards, &shard).await?;
            let (_, answers) = self.object::<AnswerLine>(Bucket::Answers, &shard).await?;
            let mut prompts = BTreeMap::new();
            for line in lines {
                let Content::Row(row) = line.content else { continue };
                prompts.extend(prompter.ask(row).ok().map(|ask| (line.ordinal, ask.prompt)));
            }
            for line in answers {
                asked.rows += 1;
                let Some(prompt) = prompts.get(&line.ordinal) else { continue };
                let (spent, weight) = (line.spent, guess(prompt));
                let is_answered = matches!(line.outcome, Outcome::Answer(_));
                asked.answered += u64::from(is_answered);
                asked.paid = asked.paid.zip(spent.known_cost()).map(|(sum, cost)| sum + cost);
                if keeps && is_answered && survey.asks(&prompter.fingerprint(prompt)) {
                    asked.spared.push(weight);
                }
                // An answer from the cache tells nothing of what one takes.
                if spent.reused == 0 && spent.attempts > 0 {
                    let seconds = spent.latency_ms as f64 / 1e3;
                    asked.answers.push(Observed { weight, usage: spent.usage, seconds });
                }
            }
        }
        Ok(asked)
    }

    async fn object<L: serde::de::DeserializeOwned>(
        &self,
        bucket: Bucket,
        shard: &ShardId,
    ) -> Result<(Header, Vec<L>)> {
        let object = self.site.objects().read(bucket, &shard.object(), None).await?;
        let object = object.with_context(|| format!("shard {shard} of the sample is gone"))?;
        record::decode(&object.body).with_context(|| format!("shard {shard}"))
    }
}
