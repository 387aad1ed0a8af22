//! Answers that were paid for before (`[run] reuse_answers`): one object each, whose name is what was asked.
//!
//! A cache and no book: what it lacks is asked again, what it does not take is lost to later runs alone.

use crate::Generator;
use crate::job::Job;
use crate::row::RowEnd;
use bytes::Bytes;
use std::time::Duration;
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::ports::Generation;
use tasuki_relay::record::{Answer, Outcome};
use tasuki_relay::stand_in::StandIn;
use tasuki_relay::write::{Written, create_once};
use tokio::time::timeout;

/// An answer waits so long for the cache, and no longer: its own checkpoint waits for it.
const KEEP_WITHIN: Duration = Duration::from_secs(5);

/// What the cache has for a question.
pub(crate) enum Known {
    /// The answer that an earlier run paid for.
    Answer(Answer),
    /// Nothing, as far as is known.
    Nothing,
    /// What is no answer to it, or none any more: to be replaced.
    Spoiled(Generation),
}

impl Generator {
    pub(crate) async fn known(&self, job: &Job, fingerprint: &str) -> Known {
        if !job.run.pipeline.run.reuse_answers {
            return Known::Nothing;
        }
        let name = names::cached(fingerprint);
        let read = timeout(KEEP_WITHIN, self.objects.read(Bucket::State, &name, None)).await;
        let Ok(Ok(Some(kept))) = read else { return Known::Nothing };
        let answer = job.run.judge.recall(fingerprint, &kept.body);
        answer.map_or(Known::Spoiled(kept.meta.generation), Known::Answer)
    }

    /// Keeps the answer of a row that was asked, in place of one that is `spoiled`; its line says where another process paid for
    /// the same one meanwhile.
    pub(crate) async fn keep(&self, job: &Job, mut end: RowEnd, spoiled: Option<Generation>) -> RowEnd {
        let RowEnd::Answered(line) = &mut end else { return end };
        let Outcome::Answer(answer) = &line.outcome else { return end };
        if !job.run.pipeline.run.reuse_answers || answer.model == StandIn::MODEL {
            return end;
        }
        let body = Bytes::from(serde_json::to_vec(answer).expect("an answer is plain data"));
        let name = names::cached(&answer.fingerprint);
        let write = async {
            match spoiled {
                // Whoever was before us replaced it as well: which of the two stays is all the same, and nobody is told of a race.
                Some(generation) => {
                    self.objects.replace(Bucket::State, &name, body, generation).await.map(Written::Won)
                }
                None => create_once(&*self.objects, Bucket::State, &name, body).await,
            }
        };
        let written = tokio::select! {
            biased;
            () = job.until_halted() => return end,
            written = timeout(KEEP_WITHIN, write) => written,
        };
        // The same answer counts, too: a label is often the same, and was paid for twice all the same.
        let there = matches!(written, Ok(Ok(Written::Foreign(_) | Written::Identical(_))));
        line.spent.duplicates = u32::from(there);
        end
    }
}
