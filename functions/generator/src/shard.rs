//! One shard: its answers, its claim, its checkpoints; then an epoch of work.

use crate::epoch::Epoch;
use crate::job::{Halt, Job};
use crate::row::Todo;
use crate::summary::Effort;
use crate::{Generator, summary};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use tasuki_relay::checkpoint::Checkpoints;
use tasuki_relay::claims::{Claim, Claimed, DEATHS_SUSPECT};
use tasuki_relay::control;
use tasuki_relay::names::{Bucket, Segment, ShardId};
use tasuki_relay::ports::{ObjectsError, Verdict, Why};
use tasuki_relay::record::{self, AnswerLine, Content, Failed, GivenBack, Header, Outcome, ShardLine, Spent};
use tasuki_relay::sweep;
use tasuki_relay::write::{Written, create_once};
use tracing::Span;

impl Generator {
    /// Works on a shard until it has its answers object, or must be delivered again.
    pub(crate) async fn work(self: Arc<Self>, id: ShardId) -> Result<Verdict, Why> {
        let object = id.object();
        if self.objects.stat(Bucket::Answers, &object).await?.is_some() {
            return Ok(Verdict::Done);
        }
        let Some(shard) = self.objects.read(Bucket::Shards, &object, None).await? else { return Ok(Verdict::Done) };
        let Ok((header, lines)) = record::decode::<Header, ShardLine>(&shard.body) else {
            tracing::error!(alert = "corrupt", shard = %id, "a shard object is corrupt: its run cannot end, cancel it");
            return Ok(Verdict::Done);
        };
        Span::current().record("pipeline", &header.pipeline);
        let (done, rows) = part(lines);
        if rows.is_empty() {
            return self.write_answers(&header, &done, Effort::default()).await;
        }
        let sealed = control::is_cancelled(&*self.objects, &id.run).await?;
        if !sealed && control::parked_by(&*self.objects, &id.run).await?.is_some() {
            self.saw_parked(&id.run);
            return Ok(Verdict::Done);
        }
        if !sealed && let Some(what) = self.stops(&id).await? {
            return Err(Why::Systemic(what));
        }
        let claim = match self.claim(&id).await? {
            Claimed::Won(claim) => claim,
            Claimed::Live | Claimed::Ended | Claimed::Free(_) => return Err(Why::LiveClaim),
        };
        // Whoever held the claim before may have finished between our first look and our claim.
        match self.objects.stat(Bucket::Answers, &object).await {
            Ok(None) => self.work_under(claim, header, done, rows, sealed).await,
            found => {
                claim.release().await;
                found.map(|_| Verdict::Done).map_err(Why::from)
            }
        }
    }

    /// What stopped the places that the shard's run asks, or storage.
    async fn stops(&self, id: &ShardId) -> Result<Option<String>, Why> {
        if self.stopped_by().is_none() {
            return Ok(None);
        }
        let run = self.runs.get(&*self.objects, &id.run, &self.breakers, &self.clock).await?;
        Ok(run.routes.stopped().or_else(|| self.storage.stopped()))
    }

    async fn claim(&self, id: &ShardId) -> Result<Claimed, ObjectsError> {
        let name = id.claim();
        match self.claims.take(&name).await? {
            Claimed::Free(stale) => {
                let last = self.segments(id).await?.pop().map(|segment| segment.object());
                self.claims.take_over(&name, stale, last).await
            }
            claimed => Ok(claimed),
        }
    }

    /// The shard's checkpoints by name, in order.
    async fn segments(&self, id: &ShardId) -> Result<Vec<Segment>, ObjectsError> {
        let all = sweep::list(&*self.objects, Bucket::State, &id.checkpoints(), None).await?;
        Ok(all.iter().filter_map(|meta| Segment::parse_object(&meta.name).ok()).collect())
    }

    /// A list that failed is never "no answers": it is an error.
    async fn checkpoints(&self, id: &ShardId) -> Result<Checkpoints, Why> {
        let mut all = Checkpoints::default();
        for segment in self.segments(id).await? {
            let Some(object) = self.objects.read(Bucket::State, &segment.object(), None).await? else { continue };
            match record::decode_lines(&object.body) {
                Ok(lines) => all.add(&segment, lines),
                Err(corrupt) => tracing::error!(
                    alert = "corrupt",
                    segment = segment.object(),
                    "{corrupt}: its rows are asked again"
                ),
            }
        }
        Ok(all)
    }

    async fn work_under(
        self: Arc<Self>,
        claim: Claim,
        header: Header,
        mut done: BTreeMap<u64, AnswerLine>,
        rows: Vec<Todo>,
        sealed: bool,
    ) -> Result<Verdict, Why> {
        let id = header.id();
        let (run, checkpoints) = match (
            self.runs.get(&*self.objects, &id.run, &self.breakers, &self.clock).await,
            self.checkpoints(&id).await,
        ) {
            (Ok(run), Ok(checkpoints)) => (run, checkpoints),
            (Err(why), _) | (_, Err(why)) => {
                claim.release().await;
                return Err(why);
            }
        };
        let (settled, wasted_answers, wasted) = checkpoints.settled();
        let poison = checkpoints.poisonous();
        done.extend(settled);
        let is_answer = |line: &AnswerLine| matches!(line.outcome, Outcome::Answer(_)) && line.spent.reused == 0;
        let is_answered = |row: &&Todo| done.get(&row.ordinal).is_some_and(is_answer);
        let answered_before = rows.iter().find(is_answered).cloned();
        if answered_before.is_some() {
            run.succeed();
        }
        let mut todo: Vec<Todo> = rows.into_iter().filter(|row| !done.contains_key(&row.ordinal)).collect();
        todo.iter_mut().for_each(|row| row.spent = checkpoints.spent(row.ordinal));
        todo.sort_by_key(|row| row.spent.attempts); // rows that were given back must not keep the others waiting
        let epoch = claim.epoch.max(checkpoints.epoch() + 1);
        let purse = self.purses.stake(&id.run, &run);
        let job = Arc::new(Job::new(id, run, claim.lease(), purse, todo.len()));
        let mut shard = Epoch {
            generator: self.clone(),
            job,
            epoch,
            seq: 0,
            done,
            unsaved: Vec::new(),
            save_at: self.settings.rows_per_checkpoint,
            left: BTreeMap::new(),
            withheld: Vec::new(),
            answered: false,
            proof: None,
            answered_before,
        };
        for row in todo.extract_if(.., |row| poison.contains(&row.ordinal)) {
            let message = "the process died twice while it asked about this row".to_owned();
            shard.take(row.settle(Outcome::Failed(Failed { reason: "poison".into(), message })));
        }
        shard.left = todo.iter().map(|row| (row.ordinal, (row.clone(), GivenBack::Stopped))).collect();
        if sealed {
            shard.job.halt(Halt::Cancelled);
        }
        if self.storage.is_open() && shard.write(Vec::new()).await {
            self.storage.close();
        }
        if claim.deaths >= DEATHS_SUSPECT {
            let _alone = self.alone.write().await;
            shard.look_at_control().await; // only now: the wait may have been long
            shard.run_alone(todo).await;
        } else {
            let _together = self.alone.read().await;
            shard.look_at_control().await;
            shard.run(todo).await;
        }
        shard.give_up_on(&checkpoints).await;
        shard.finish(claim, Header { wasted_answers, wasted, ..header }).await
    }

    /// Creates the answers object. Whoever created it first decides: a valid one is a success.
    pub(crate) async fn write_answers(
        &self,
        header: &Header,
        lines: &BTreeMap<u64, AnswerLine>,
        effort: Effort,
    ) -> Result<Verdict, Why> {
        let id = header.id();
        let body = Bytes::from(record::encode(header, lines.values()));
        match create_once(&*self.objects, Bucket::Answers, &id.object(), body).await? {
            Written::Won(_) | Written::Identical(_) => summary::log(header, lines, effort),
            Written::Foreign(_) => tracing::warn!(shard = %id, "another process wrote the answers first: theirs stand"),
        }
        Ok(Verdict::Done)
    }
}

/// Rows that need no call, and rows to ask.
fn part(lines: Vec<ShardLine>) -> (BTreeMap<u64, AnswerLine>, Vec<Todo>) {
    let (mut done, mut rows) = (BTreeMap::new(), Vec::new());
    for ShardLine { ordinal, key, content } in lines {
        let outcome = match content {
            Content::Failed(failed) => Outcome::Failed(failed),
            Content::Unchanged(fingerprint) => Outcome::Unchanged(fingerprint),
            Content::Row(row) => {
                rows.push(Todo { ordinal, key, row, spent: Spent::default() });
                continue;
            }
        };
        done.insert(ordinal, AnswerLine { ordinal, key, outcome, spent: Spent::default() });
    }
    (done, rows)
}
