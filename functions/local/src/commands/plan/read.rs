//! A file, read as a run would read it: what is to be asked, and what is not.

use crate::home::Home;
use crate::one_file::OneFile;
use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tasuki_relay::answer::Judge;
use tasuki_relay::estimate::{Held, Survey};
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Objects, Rows, SourceRow};
use tasuki_relay::prompt::Prompter;
use tasuki_relay::record::{Content, Key, ShardLine};
use tasuki_relay::rows::ObjectRows;
use tasuki_splitter::{Lines, scout};

/// Looks into the cache of answers at a time.
const LOOKS: usize = 64;

/// Where answers are that need not be paid for again.
pub(super) struct Kept<'a> {
    /// `None` = nobody looks: every row counts as a call.
    pub(super) home: Option<&'a Home>,
    pub(super) pipeline: &'a Pipeline,
    /// Of its answers.
    pub(super) judge: Judge,
}

impl Kept<'_> {
    /// What the answers in the table were asked, of these keys: nothing unless the pipeline skips what is unchanged.
    fn in_the_table(&self, keys: Vec<Key>) -> Result<BTreeMap<Key, String>> {
        match self.home.filter(|_| self.pipeline.run.only_changed) {
            Some(home) => Ok(home.reader.fingerprints(self.pipeline, keys)?),
            None => Ok(BTreeMap::new()),
        }
    }

    /// Those of the questions whose answers earlier runs have paid for and kept.
    async fn paid_for(&self, fingerprints: BTreeSet<&str>) -> Result<BTreeSet<String>> {
        let Some(home) = self.home.filter(|_| self.pipeline.run.reuse_answers) else { return Ok(BTreeSet::new()) };
        let looks = fingerprints.into_iter().map(|fingerprint| async move {
            let there = home.objects.read(Bucket::State, &names::cached(fingerprint), None).await?;
            let known = there.and_then(|kept| self.judge.recall(fingerprint, &kept.body));
            anyhow::Ok(known.map(|_| fingerprint.to_owned()))
        });
        let found: Vec<Result<Option<String>>> = stream::iter(looks).buffered(LOOKS).collect().await;
        found.into_iter().filter_map(Result::transpose).collect()
    }
}

/// A row that could be asked.
struct Question {
    ordinal: u64,
    key: Option<Key>,
    prompt: String,
    fingerprint: String,
}

/// Reads the file to its end; `draws` = prompts to count and rows to ask that are drawn from it.
pub(super) async fn survey(
    file: OneFile,
    pipeline: &Arc<Pipeline>,
    kept: &Kept<'_>,
    draws: (usize, usize),
) -> Result<Survey> {
    let prompter = Prompter::new(pipeline.clone())?;
    let meta = file.meta().clone();
    let source = ObjectRows::new(Arc::new(file));
    scout(&source, &meta, pipeline).await.context("a run of it would be refused")?;
    let mut rows = source.open(&meta).await?;
    let (mut lines, mut survey) = (Lines::new(pipeline, 0), Survey::new(pipeline, draws.0, draws.1));
    while let Some(batch) = rows.next().await? {
        let questions = questions(batch, &mut lines, &prompter, &mut survey);
        let keys = questions.iter().filter_map(|question| question.key.clone()).collect();
        let unchanged = kept.in_the_table(keys)?;
        let paid = kept.paid_for(questions.iter().map(|question| &*question.fingerprint).collect()).await?;
        for question in questions {
            let there = question.key.as_ref().and_then(|key| unchanged.get(key));
            match &question.fingerprint {
                same if there == Some(same) => survey.hold(Held::Unchanged, same),
                known if paid.contains(known) => survey.hold(Held::Reused, known),
                new => survey.ask(question.ordinal, &question.prompt, new),
            }
        }
    }
    Ok(survey)
}

/// The rows of a batch that can be asked; the others fail.
fn questions(batch: Vec<SourceRow>, lines: &mut Lines<'_>, prompter: &Prompter, survey: &mut Survey) -> Vec<Question> {
    let mut questions = Vec::with_capacity(batch.len());
    for row in batch {
        let ShardLine { ordinal, key, content } = lines.line(row);
        let asked = match content {
            Content::Row(row) => prompter.ask(row),
            Content::Failed(failed) => Err(failed),
            Content::Unchanged(_) => continue, // nobody has looked yet
        };
        match asked {
            Err(failed) => survey.fail(&failed.reason),
            Ok(ask) => {
                let fingerprint = prompter.fingerprint(&ask.prompt);
                questions.push(Question { ordinal, key, prompt: ask.prompt, fingerprint });
            }
        }
    }
    questions
}

/// The rows with these ordinals, in the file's order.
pub(super) async fn rows_of(file: OneFile, wanted: &BTreeSet<u64>) -> Result<Vec<Map<String, Value>>> {
    let meta = file.meta().clone();
    let mut source = ObjectRows::new(Arc::new(file)).open(&meta).await?;
    let (mut found, mut ordinal) = (Vec::with_capacity(wanted.len()), 0);
    while let Some(batch) = source.next().await? {
        for row in batch {
            found.extend(row.row.ok().filter(|_| wanted.contains(&ordinal)));
            ordinal += 1;
        }
    }
    Ok(found)
}
