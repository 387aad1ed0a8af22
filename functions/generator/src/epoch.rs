//! A shard at work under one claim: rows out, outcomes in, checkpoints on the way, and the answers object at the end.

use crate::job::{Halt, Job};
use crate::row::{RowEnd, Todo};
use crate::summary::Effort;
use crate::{Generator, Role};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tasuki_relay::checkpoint::{CHECKPOINT_EVERY, Checkpoints, SERVER_ERROR_EPOCHS, WITHHELD_EPOCHS};
use tasuki_relay::claims::Claim;
use tasuki_relay::control;
use tasuki_relay::names::{Bucket, Segment};
use tasuki_relay::ports::{ObjectsError, Verdict, Why};
use tasuki_relay::record::{AnswerLine, Bill, CheckpointLine, Failed, GivenBack, Header, Outcome, encode_lines};
use tasuki_relay::write::{Written, create_once};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;

/// How long a shard that is left with withheld rows waits for a success elsewhere in its run.
const WITHHELD_PATIENCE: Duration = Duration::from_secs(5);
/// Answers that storage does not take are offered again for so long: they are paid for, and no checkpoint can hold them either.
/// About as long as an outage of storage that nobody would plan for; the shard's place is taken meanwhile.
const ANSWERS_FOR: Duration = Duration::from_secs(600);
/// An offer may take so long once the process stops: a checkpoint must still fit.
const LAST_OFFER: Duration = Duration::from_secs(2);
/// The first and the longest pause between two offers.
const OFFERS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// A shard at work under one claim.
pub(crate) struct Epoch {
    pub generator: Arc<Generator>,
    pub job: Arc<Job>,
    pub epoch: u32,
    pub seq: u32,
    pub done: BTreeMap<u64, AnswerLine>,
    /// Of `done`, but in no checkpoint yet.
    pub unsaved: Vec<u64>,
    /// Unsaved lines at which the next checkpoint is written: grows while writes fail.
    pub save_at: usize,
    /// Rows without an outcome, and why they would be given back.
    pub left: BTreeMap<u64, (Todo, GivenBack)>,
    pub withheld: Vec<(Todo, Failed)>,
    /// A row was answered in this epoch.
    pub answered: bool,
    /// A row that was answered in an earlier one.
    pub answered_before: Option<Todo>,
    /// A row that was asked again only to see whether the model answers, and was answered.
    pub proof: Option<(u64, Bill)>,
}

impl Epoch {
    pub fn take(&mut self, end: RowEnd) {
        match end {
            RowEnd::Settled(line) | RowEnd::Answered(line) => {
                self.left.remove(&line.ordinal);
                // An answer of an earlier run says nothing of the model as it is now.
                self.answered |= matches!(line.outcome, Outcome::Answer(_)) && line.spent.reused == 0;
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
    pub async fn run(&mut self, todo: Vec<Todo>) {
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
        let job = self.job.clone();
        let over = grace(&job, &stop, self.generator.settings.stop_grace);
        tokio::pin!(over);
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
                () = &mut over => return self.drain(&mut ends),
            }
        }
    }

    fn drain(&mut self, ends: &mut UnboundedReceiver<RowEnd>) {
        while let Ok(end) = ends.try_recv() {
            self.take(end);
        }
    }

    /// Asks one row after another, each with its marker before it: the shard is suspected of killing its process.
    pub async fn run_alone(&mut self, todo: Vec<Todo>) {
        for row in todo {
            if self.generator.jobs.stop().is_cancelled() {
                self.job.halt(Halt::Stopping);
            }
            let marker = CheckpointLine::Marker { ordinal: row.ordinal };
            if self.job.halted().is_some() || !self.save(vec![marker]).await {
                return self.job.halt(Halt::Spent);
            }
            let ordinal = row.ordinal;
            self.run(vec![row]).await;
            // The process lives: the marker must not stay its last word.
            let back = self.left.get(&ordinal).map(|(row, why)| unsettled(row, *why));
            self.save(back.into_iter().collect()).await;
            self.look_at_control().await;
        }
    }

    /// Writes a checkpoint of what is unsaved, and of `more`. False when it was not confirmed: the lines stay unsaved.
    async fn save(&mut self, more: Vec<CheckpointLine<&AnswerLine>>) -> bool {
        (self.unsaved.is_empty() && more.is_empty()) || self.write(more).await
    }

    /// Writes a checkpoint, if only to see that it can be written.
    pub async fn write(&mut self, more: Vec<CheckpointLine<&AnswerLine>>) -> bool {
        let settled = self.unsaved.iter().map(|ordinal| CheckpointLine::Settled(&self.done[ordinal]));
        let body = Bytes::from(encode_lines(&settled.chain(more).collect::<Vec<_>>()));
        let segment = Segment { shard: self.job.id.clone(), epoch: self.epoch, seq: self.seq };
        self.seq += 1;
        let written = create_once(&*self.generator.objects, Bucket::State, &segment.object(), body).await;
        let confirmed = matches!(written, Ok(Written::Won(_) | Written::Identical(_)));
        if let Err(ObjectsError::Denied(what)) = written {
            self.generator.storage_refuses(&what);
            self.job.halt(Halt::Systemic(what));
        }
        let step = self.generator.settings.rows_per_checkpoint;
        if confirmed {
            self.unsaved.clear();
            self.save_at = step;
        } else {
            self.save_at = self.unsaved.len() + step;
        }
        confirmed
    }

    pub async fn look_at_control(&self) {
        let (run, generator) = (&self.job.id.run, &self.generator);
        let objects = &*generator.objects;
        let (cancelled, parked) = futures::join!(control::is_cancelled(objects, run), control::parked_by(objects, run));
        let give_up = self.job.run.pipeline.run.give_up_after;
        if cancelled == Ok(true) {
            self.job.halt(Halt::Cancelled);
        } else if give_up.is_some_and(|after| generator.clock.now().since(self.job.run.run_time) >= after) {
            self.job.halt(Halt::GaveUp);
        } else if matches!(parked, Ok(Some(_))) {
            self.job.halt(Halt::Parked);
        }
    }

    /// Fails the rows that have been given back often enough, and the refused ones once another row has succeeded.
    pub async fn give_up_on(&mut self, checkpoints: &Checkpoints) {
        if !self.withheld.is_empty() && self.job.halted().is_none() {
            tokio::select! {
                biased;
                () = self.job.run.success() => (),
                () = sleep(WITHHELD_PATIENCE) => (),
            }
        }
        let succeeded = self.job.run.has_succeeded();
        for (row, failed) in std::mem::take(&mut self.withheld) {
            let often = checkpoints.withheld_epochs(row.ordinal) + 1 >= WITHHELD_EPOCHS;
            if succeeded || (often && !self.job.run.is_refused()) {
                self.take(row.settle(Outcome::Failed(failed)));
            }
        }
        if !self.answered && self.left.values().any(|(_, why)| *why == GivenBack::ServerError) {
            self.probe().await;
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

    /// Asks once more about a row that was answered in an earlier epoch: only rows with server errors are left, and nothing else
    /// would tell a row that the model cannot take from a model that is down. The answer is thrown away, and counted as wasted.
    async fn probe(&mut self) {
        let Some(row) = self.answered_before.take().or_else(|| self.job.run.answered()) else { return };
        let Ok(ask) = self.job.run.prompter.ask(row.row.clone()) else { return };
        if !matches!(self.job.halted(), None | Some(Halt::Spent)) || self.generator.jobs.stop().is_cancelled() {
            return;
        }
        // A job of its own: the shard's may be halted, because its budget of retries is spent.
        let (id, run, purse) = (self.job.id.clone(), self.job.run.clone(), self.job.purse.clone());
        let job = Job::new(id, run, self.job.lease.clone(), purse, 0);
        let fingerprint = self.job.run.prompter.fingerprint(&ask.prompt);
        let asked = async {
            let _permits = self.generator.permits(&job).await?;
            Some(self.generator.ask(&job, row, ask, fingerprint).await)
        };
        let stop = self.generator.jobs.stop();
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            end = asked => end,
        };
        if let Some(RowEnd::Settled(line) | RowEnd::Answered(line)) = end {
            self.answered = matches!(line.outcome, Outcome::Answer(_));
            self.proof = (line.spent.paid_calls > 0).then(|| (line.ordinal, line.spent.bill()));
        }
    }

    /// Writes the answers if every row has its outcome; else a last checkpoint, and the claim goes back.
    pub async fn finish(mut self, claim: Claim, mut header: Header) -> Result<Verdict, Why> {
        if let Some((_, bill)) = self.proof {
            header.wasted_answers += 1;
            header.wasted += bill;
        }
        let halted = self.job.halted();
        if let Some((reason, message)) = halted.as_ref().and_then(Halt::seal).filter(|_| self.job.lease.may_spend()) {
            for (row, _) in std::mem::take(&mut self.left).into_values() {
                self.take(row.settle(Outcome::Failed(Failed { reason: reason.into(), message: message.into() })));
            }
        }
        let mut why = halted.as_ref().map_or(Why::Spent, Halt::why);
        if self.left.is_empty() {
            match self.write_answers(&header).await {
                Ok(verdict) => return Ok(verdict),
                Err(error) => why = error,
            }
        }
        let back = self.left.values().filter(|(row, why)| !row.spent.is_nothing() || *why != GivenBack::Stopped);
        let back = back.map(|(row, why)| unsettled(row, *why));
        let proof = self.proof.map(|(ordinal, bill)| CheckpointLine::Proof { ordinal, bill });
        self.save(back.chain(proof).collect()).await;
        claim.release().await;
        if halted == Some(Halt::Parked) { Ok(Verdict::Done) } else { Err(why) }
    }

    /// Offers the answers until storage takes them. What cannot be offered any longer must at least be in a checkpoint.
    async fn write_answers(&mut self, header: &Header) -> Result<Verdict, Why> {
        let (rejected, waited_ms) = self.job.paced();
        let in_flight = self.generator.meter.in_flight.load(Relaxed);
        let effort = Effort { epochs: self.epoch, rejected, waited_ms, in_flight };
        let (start, mut pause) = (self.generator.clock.instant(), OFFERS.0);
        let stopping = self.generator.jobs.stop().clone();
        let last_offer = || async {
            stopping.cancelled().await;
            sleep(LAST_OFFER).await;
        };
        loop {
            let written = tokio::select! {
                biased;
                written = self.generator.write_answers(header, &self.done, effort) => written,
                () = last_offer() => return Err(Why::Stopping), // created or not: whoever comes next looks
            };
            let Err(Why::Unconfirmed(what)) = &written else { return written };
            let saved = self.save(Vec::new()).await;
            let late = self.generator.clock.instant() >= start + ANSWERS_FOR;
            if late || (saved && !self.job.lease.may_spend()) {
                return written;
            }
            tracing::warn!(shard = %self.job.id, "storage does not take the answers, which are offered again: {what}");
            tokio::select! {
                biased;
                () = stopping.cancelled() => return written,
                () = sleep(pause) => pause = (2 * pause).min(OFFERS.1),
            }
        }
    }
}

fn unsettled<'a>(row: &Todo, why: GivenBack) -> CheckpointLine<&'a AnswerLine> {
    CheckpointLine::Unsettled { ordinal: row.ordinal, spent: row.spent, why }
}

/// Ends when a halted shard's calls had their time: the process may stop while they have it, and waits no longer than it says.
async fn grace(job: &Job, stopping: &CancellationToken, stop: Duration) {
    job.until_halted().await;
    let grace = job.halted().map_or(Duration::ZERO, |halt| halt.grace(stop, job.run.pipeline.model.tier));
    let stopped = async {
        stopping.cancelled().await;
        sleep(stop).await;
    };
    tokio::select! {
        biased;
        () = sleep(grace) => (),
        () = stopped => (),
    }
}

/// Starts rows in their order as calls become free, and waits for them. One shard of a run starts rows at a time.
async fn start_rows(generator: Arc<Generator>, job: Arc<Job>, todo: Vec<Todo>, tell: UnboundedSender<RowEnd>) {
    let mut rows = JoinSet::new();
    let turn = tokio::select! {
        biased;
        () = job.until_halted() => return,
        turn = job.run.turnstile.lock() => turn,
    };
    job.lease.begin();
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
