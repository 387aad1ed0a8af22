//! One shard: claim, checkpoints, rows, answers object.

use crate::job::{Halt, Job};
use crate::row::{RowEnd, Todo};
use crate::{Generator, Role};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::checkpoint::{CHECKPOINT_EVERY, Checkpoints, SERVER_ERROR_EPOCHS, WITHHELD_EPOCHS};
use tasuki_relay::claims::{Claim, Claimed, DEATHS_SUSPECT};
use tasuki_relay::names::{self, Bucket, Segment, ShardId};
use tasuki_relay::ports::{ObjectsError, Verdict, Why};
use tasuki_relay::record::{
    self, AnswerLine, CheckpointLine, Content, Failed, GivenBack, Header, Outcome, ShardLine, Spent, encode_lines,
};
use tasuki_relay::sweep::PAGE;
use tasuki_relay::write::{Written, create_once};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

/// How long a shard that is left with withheld rows waits for a success elsewhere in its run.
const WITHHELD_PATIENCE: Duration = Duration::from_secs(5);
/// Tries to write a finished answers object before its claim is given back.
const ANSWERS_TRIES: u32 = 3;

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
        let (done, rows) = part(lines);
        if rows.is_empty() {
            return self.write_answers(&header, &done).await;
        }
        if self.exists(&names::parked(&id.run)).await? {
            return Ok(Verdict::Done);
        }
        let sealed = self.exists(&names::cancel(&id.run)).await?;
        if let Some(what) = self.breaker.stopped().filter(|_| !sealed) {
            return Err(Why::Systemic(what));
        }
        let claim = match self.claim(&id).await? {
            Claimed::Won(claim) => claim,
            Claimed::Live | Claimed::Ended | Claimed::Free(_) => return Err(Why::LiveClaim),
        };
        // Whoever held the claim before may have finished between our first look and our claim.
        if self.objects.stat(Bucket::Answers, &object).await?.is_some() {
            claim.release().await;
            return Ok(Verdict::Done);
        }
        self.work_under(claim, header, done, rows).await
    }

    async fn exists(&self, name: &str) -> Result<bool, ObjectsError> {
        Ok(self.objects.stat(Bucket::State, name).await?.is_some())
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
        let (prefix, mut all, mut after) = (id.checkpoints(), Vec::new(), None::<String>);
        loop {
            let page = self.objects.list(Bucket::State, &prefix, after.as_deref(), PAGE).await?;
            after = page.last().map(|meta| meta.name.clone());
            all.extend(page.iter().filter_map(|meta| Segment::parse_object(&meta.name).ok()));
            if page.len() < PAGE {
                return Ok(all);
            }
        }
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
    ) -> Result<Verdict, Why> {
        let id = header.id();
        let (run, checkpoints) = match (self.runs.get(&*self.objects, &id.run).await, self.checkpoints(&id).await) {
            (Ok(run), Ok(checkpoints)) => (run, checkpoints),
            (Err(why), _) | (_, Err(why)) => {
                claim.release().await;
                return Err(why);
            }
        };
        let (settled, wasted) = checkpoints.settled();
        let poison = checkpoints.poisonous();
        done.extend(settled);
        let mut todo: Vec<Todo> = rows.into_iter().filter(|row| !done.contains_key(&row.ordinal)).collect();
        todo.iter_mut().for_each(|row| row.spent = checkpoints.spent(row.ordinal));
        let epoch = claim.epoch.max(checkpoints.epoch() + 1);
        let job = Arc::new(Job::new(id, run, claim.lease(), todo.len()));
        let mut shard = Shard {
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
        };
        for row in todo.extract_if(.., |row| poison.contains(&row.ordinal)) {
            let message = "the process died twice while it asked about this row".to_owned();
            shard.take(row.settle(Outcome::Failed(Failed { reason: "poison".into(), message })));
        }
        shard.left = todo.iter().map(|row| (row.ordinal, (row.clone(), GivenBack::Stopped))).collect();
        shard.look_at_control().await;
        if claim.deaths >= DEATHS_SUSPECT {
            let _alone = self.alone.write().await;
            shard.run_alone(todo).await;
        } else {
            let _together = self.alone.read().await;
            shard.run(todo).await;
        }
        shard.give_up_on(&checkpoints).await;
        shard.finish(claim, Header { wasted_answers: wasted, ..header }).await
    }

    /// Creates the answers object. Whoever created it first decides: a valid one is a success.
    async fn write_answers(&self, header: &Header, lines: &BTreeMap<u64, AnswerLine>) -> Result<Verdict, Why> {
        let id = header.id();
        let body = Bytes::from(record::encode(header, lines.values()));
        match create_once(&*self.objects, Bucket::Answers, &id.object(), body).await? {
            Written::Won(_) | Written::Identical(_) => log(header, lines),
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

fn log(header: &Header, lines: &BTreeMap<u64, AnswerLine>) {
    let failed = lines.values().filter(|line| matches!(line.outcome, Outcome::Failed(_))).count();
    let calls: u32 = lines.values().map(|line| line.spent.attempts).sum();
    tracing::info!(run = %header.run, shard = %header.shard, rows = lines.len(), failed, calls, "generated shard {} of run {}", header.shard, header.run);
}

/// A shard at work.
struct Shard {
    generator: Arc<Generator>,
    job: Arc<Job>,
    epoch: u32,
    seq: u32,
    done: BTreeMap<u64, AnswerLine>,
    /// Of `done`, but in no checkpoint yet.
    unsaved: Vec<u64>,
    /// Unsaved lines at which the next checkpoint is written: grows while writes fail.
    save_at: usize,
    /// Rows without an outcome, and why they would be given back.
    left: BTreeMap<u64, (Todo, GivenBack)>,
    withheld: Vec<(Todo, Failed)>,
    /// A row was answered in this epoch.
    answered: bool,
}

impl Shard {
    fn take(&mut self, end: RowEnd) {
        match end {
            RowEnd::Settled(line) => {
                self.left.remove(&line.ordinal);
                self.answered |= matches!(line.outcome, Outcome::Answer(_));
                self.generator.meter.settled(&line.outcome, &line.spent);
                self.unsaved.push(line.ordinal);
                self.done.insert(line.ordinal, line);
            }
            RowEnd::Back { todo, why } => drop(self.left.insert(todo.ordinal, (todo, why))),
            RowEnd::Withheld { todo, failed } => {
                self.left.insert(todo.ordinal, (todo.clone(), GivenBack::Withheld));
                self.withheld.push((todo, failed));
            }
        }
    }

    /// Asks all rows, many at once; returns when each came back, or its grace is over.
    async fn run(&mut self, todo: Vec<Todo>) {
        let (tell, mut ends) = unbounded_channel();
        let start = self.generator.clock.instant();
        let every = |period| {
            let mut ticks = interval_at(start + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut flush, mut control) = (every(CHECKPOINT_EVERY), every(self.generator.settings.control_every));
        let mut started = JoinSet::new(); // dropped with the shard, and its rows with it
        started.spawn(start_rows(self.generator.clone(), self.job.clone(), todo, tell));
        let stop = self.generator.jobs.stop().clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled(), if self.job.halted().is_none() => self.job.halt(Halt::Stopping),
                end = ends.recv() => match end {
                    Some(end) => {
                        self.take(end);
                        // After the last row come the answers, which hold all.
                        if self.unsaved.len() >= self.save_at && !self.left.is_empty() {
                            self.save(Vec::new()).await;
                        }
                    }
                    None => return,
                },
                _ = flush.tick() => drop(self.save(Vec::new()).await),
                _ = control.tick() => self.look_at_control().await,
                () = grace(&self.job, self.generator.settings.stop_grace) => return self.drain(&mut ends),
            }
        }
    }

    fn drain(&mut self, ends: &mut UnboundedReceiver<RowEnd>) {
        while let Ok(end) = ends.try_recv() {
            self.take(end);
        }
    }

    /// Asks one row after another, each with its marker before it: the shard is suspected of killing its process.
    async fn run_alone(&mut self, todo: Vec<Todo>) {
        for row in todo {
            if self.generator.jobs.stop().is_cancelled() {
                self.job.halt(Halt::Stopping);
            }
            let marker = CheckpointLine::Marker { ordinal: row.ordinal };
            if self.job.halted().is_some() || !self.save(vec![marker]).await {
                return self.job.halt(Halt::Spent);
            }
            let end = match self.job.run.prompter.ask(row.row.clone()) {
                Ok(ask) => {
                    let fingerprint = self.job.run.prompter.fingerprint(&ask.prompt);
                    self.generator.ask(&self.job, row, ask, fingerprint).await
                }
                Err(failed) => row.settle(Outcome::Failed(failed)),
            };
            self.take(end);
            self.save(Vec::new()).await;
            self.look_at_control().await;
        }
    }

    /// Writes a checkpoint of what is unsaved, and of `more`. False when it was not confirmed: the lines stay unsaved.
    async fn save(&mut self, more: Vec<CheckpointLine<&AnswerLine>>) -> bool {
        if self.unsaved.is_empty() && more.is_empty() {
            return true;
        }
        let settled = self.unsaved.iter().map(|ordinal| CheckpointLine::Settled(&self.done[ordinal]));
        let body = Bytes::from(encode_lines(&settled.chain(more).collect::<Vec<_>>()));
        let segment = Segment { shard: self.job.id.clone(), epoch: self.epoch, seq: self.seq };
        self.seq += 1;
        let written = create_once(&*self.generator.objects, Bucket::State, &segment.object(), body).await;
        let confirmed = matches!(written, Ok(Written::Won(_) | Written::Identical(_)));
        let step = self.generator.settings.rows_per_checkpoint;
        if confirmed {
            self.unsaved.clear();
            self.save_at = step;
        } else {
            self.save_at = self.unsaved.len() + step;
        }
        confirmed
    }

    async fn look_at_control(&self) {
        let (run, generator) = (&self.job.id.run, &self.generator);
        let (cancel, parked) = (names::cancel(run), names::parked(run));
        let (cancelled, parked) = futures::join!(generator.exists(&cancel), generator.exists(&parked));
        let give_up = self.job.run.pipeline.run.give_up_after;
        if cancelled == Ok(true) {
            self.job.halt(Halt::Cancelled);
        } else if give_up.is_some_and(|after| generator.clock.now().since(self.job.run.run_time) >= after) {
            self.job.halt(Halt::GaveUp);
        } else if parked == Ok(true) {
            self.job.halt(Halt::Parked);
        }
    }

    /// Fails the rows that have been given back often enough, and the refused ones once another row has succeeded.
    async fn give_up_on(&mut self, checkpoints: &Checkpoints) {
        if !self.withheld.is_empty() && self.job.halted().is_none() {
            tokio::select! {
                biased;
                () = self.job.run.success() => (),
                () = sleep(WITHHELD_PATIENCE) => (),
            }
        }
        let succeeded = self.job.run.has_succeeded();
        for (row, failed) in std::mem::take(&mut self.withheld) {
            if succeeded || checkpoints.withheld_epochs(row.ordinal) + 1 >= WITHHELD_EPOCHS {
                self.take(row.settle(Outcome::Failed(failed)));
            }
        }
        let errors = self.left.values().filter(|(_, why)| *why == GivenBack::ServerError);
        let hopeless: Vec<Todo> = errors
            .filter(|(row, _)| {
                checkpoints.server_error_epochs(row.ordinal) + usize::from(self.answered) >= SERVER_ERROR_EPOCHS
            })
            .map(|(row, _)| row.clone())
            .collect();
        for row in hopeless {
            let message =
                "the model met an internal error each time it was asked, while it answered other rows".to_owned();
            self.take(row.settle(Outcome::Failed(Failed { reason: "server_error".into(), message })));
        }
    }

    /// Writes the answers if every row has its outcome; else a last checkpoint, and the claim goes back.
    async fn finish(mut self, claim: Claim, header: Header) -> Result<Verdict, Why> {
        let halted = self.job.halted();
        if let Some((reason, message)) = halted.as_ref().and_then(Halt::seal).filter(|_| self.job.lease.may_spend()) {
            for (row, _) in std::mem::take(&mut self.left).into_values() {
                self.take(row.settle(Outcome::Failed(Failed { reason: reason.into(), message: message.into() })));
            }
        }
        let mut why = halted.as_ref().map_or(Why::Spent, Halt::why);
        if self.left.is_empty() {
            match self.write_answers(header).await {
                Ok(verdict) => return Ok(verdict),
                Err(error) => why = error,
            }
        }
        let back = self.left.values().filter(|(row, why)| !row.spent.is_nothing() || *why != GivenBack::Stopped);
        let back = back
            .map(|(row, why)| CheckpointLine::Unsettled { ordinal: row.ordinal, spent: row.spent, why: *why })
            .collect();
        self.save(back).await;
        claim.release().await;
        if halted == Some(Halt::Parked) { Ok(Verdict::Done) } else { Err(why) }
    }

    async fn write_answers(&self, header: Header) -> Result<Verdict, Why> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.generator.write_answers(&header, &self.done).await {
                Err(why) if tries >= ANSWERS_TRIES => return Err(why),
                Err(_) => sleep(Duration::from_secs(1 << tries)).await,
                done => return done,
            }
        }
    }
}

/// Ends when a halted shard's calls had their time.
async fn grace(job: &Job, stop: Duration) {
    job.until_halted().await;
    let grace = job.halted().map_or(Duration::ZERO, |halt| halt.grace(stop));
    sleep(grace).await;
}

/// Starts rows in their order as calls become free, and waits for them. One shard of a run starts rows at a time.
async fn start_rows(generator: Arc<Generator>, job: Arc<Job>, todo: Vec<Todo>, tell: UnboundedSender<RowEnd>) {
    let mut rows = JoinSet::new();
    let turn = tokio::select! {
        biased;
        () = job.until_halted() => return,
        turn = job.run.turnstile.lock() => turn,
    };
    for row in todo {
        if job.halted().is_some() {
            break;
        }
        let ask = match job.run.prompter.ask(row.row.clone()) {
            Ok(ask) => ask,
            Err(failed) => {
                tell.send(row.settle(Outcome::Failed(failed))).ok();
                continue;
            }
        };
        let fingerprint = job.run.prompter.fingerprint(&ask.prompt);
        let (generator, job, tell) = (generator.clone(), job.clone(), tell.clone());
        match generator.collapse.join(&fingerprint) {
            Role::Lead(lead) => {
                let Some(permits) = generator.permits(&job).await else { break };
                rows.spawn(
                    async move { tell.send(generator.lead(job, row, ask, fingerprint, lead, permits).await).ok() },
                );
            }
            follow => drop(rows.spawn(async move { tell.send(generator.follow(job, row, ask, follow).await).ok() })),
        }
    }
    drop((turn, tell));
    while rows.join_next().await.is_some() {}
}
