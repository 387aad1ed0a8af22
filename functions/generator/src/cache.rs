//! Answers that were paid for before (`[run] reuse_answers`): one object each, whose name is what was asked.
//!
//! A cache and no book: what it lacks is asked again, what it does not take is lost to later runs alone.

use crate::Generator;
use crate::job::Job;
use crate::row::RowEnd;
use bytes::Bytes;
use std::time::Duration;
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::record::{Answer, Outcome};
use tasuki_relay::stand_in::StandIn;
use tasuki_relay::write::{Written, create_once};
use tokio::time::timeout;

/// An answer waits so long for the cache, and no longer: its own checkpoint waits for it.
const KEEP_WITHIN: Duration = Duration::from_secs(5);

impl Generator {
    /// The answer to this question that an earlier run paid for, if it is still one.
    pub(crate) async fn known(&self, job: &Job, fingerprint: &str) -> Option<Answer> {
        if !job.run.pipeline.run.reuse_answers {
            return None;
        }
        let name = names::cached(fingerprint);
        let read = self.objects.read(Bucket::State, &name, None);
        let kept = timeout(KEEP_WITHIN, read).await.ok()?.ok()??;
        let answer: Answer = serde_json::from_slice(&kept.body).ok()?;
        (answer.fingerprint == fingerprint && job.run.judge.allows(&answer.values)).then_some(answer)
    }

    /// Keeps the answer of a row that was asked; its line says where another process paid for the same one meanwhile.
    pub(crate) async fn keep(&self, job: &Job, mut end: RowEnd) -> RowEnd {
        let RowEnd::Answered(line) = &mut end else { return end };
        let Outcome::Answer(answer) = &line.outcome else { return end };
        if !job.run.pipeline.run.reuse_answers || answer.model == StandIn::MODEL {
            return end;
        }
        let body = Bytes::from(serde_json::to_vec(answer).expect("an answer is plain data"));
        let name = names::cached(&answer.fingerprint);
        let written = tokio::select! {
            biased;
            () = job.until_halted() => return end,
            written = timeout(KEEP_WITHIN, create_once(&*self.objects, Bucket::State, &name, body)) => written,
        };
        // The same answer counts, too: a label is often the same, and was paid for twice all the same.
        let there = matches!(written, Ok(Ok(Written::Foreign(_) | Written::Identical(_))));
        line.spent.duplicates = u32::from(there);
        end
    }
}
