//! One row: asked until it has its outcome, or given back.

use crate::bill;
use crate::cache::Known;
use crate::collapse::Lead;
use crate::job::{Halt, Job};
use crate::purse::{Reached, Reservation, Stake};
use crate::route::Route;
use crate::{Generator, Role};
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::answer::Draft;
use tasuki_relay::calls;
use tasuki_relay::outcome::{Class, History, Step, classify, decide, failure};
use tasuki_relay::pace::Permit;
use tasuki_relay::ports::{Ask, Fault, Reply};
use tasuki_relay::prices::Tier;
use tasuki_relay::record::{Answer, AnswerLine, Failed, GivenBack, Key, Outcome, Spent};
use tasuki_relay::stand_in::StandIn;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// A call of this tier may take so long: a little more than the client's own limit. This one holds for every model.
pub(crate) fn call_limit(tier: Tier) -> Duration {
    calls::call_limit(tier) + Duration::from_secs(5)
}

/// Retries after server errors that one row may take in one epoch: a row that always fails must not spend the shard's budget.
const SERVER_RETRIES_PER_ROW: u32 = 5;

/// A row to ask.
#[derive(Clone)]
pub(crate) struct Todo {
    pub ordinal: u64,
    pub key: Option<Key>,
    pub row: Arc<serde_json::Map<String, serde_json::Value>>,
    /// What earlier holders of the shard spent on it.
    pub spent: Spent,
}

/// How a row came back.
pub(crate) enum RowEnd {
    Settled(AnswerLine),
    /// Settled with an answer that the run's own model gave now.
    Answered(AnswerLine),
    Back {
        todo: Todo,
        why: GivenBack,
    },
    Withheld {
        todo: Todo,
        failed: Failed,
    },
}

impl Todo {
    pub fn settle(self, outcome: Outcome) -> RowEnd {
        RowEnd::Settled(AnswerLine { ordinal: self.ordinal, key: self.key, outcome, spent: self.spent })
    }

    fn answer(self, answer: Answer, route: &Route) -> RowEnd {
        match self.settle(Outcome::Answer(answer)) {
            RowEnd::Settled(line) if route.rank == 0 => RowEnd::Answered(line),
            end => end,
        }
    }

    /// With an answer that was paid for before.
    fn reuse(mut self, answer: Answer) -> RowEnd {
        self.spent.reused = 1;
        self.settle(Outcome::Answer(answer))
    }
}

/// The permits of a call in flight: one of the process, one of its run.
pub(crate) type Permits = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Generator {
    /// Two permits, or `None` when the shard was halted first.
    pub(crate) async fn permits(&self, job: &Job) -> Option<Permits> {
        let both = async {
            let of_run = job.run.calls.clone().acquire_owned().await.ok()?;
            Some((self.calls.clone().acquire_owned().await.ok()?, of_run))
        };
        tokio::select! {
            biased;
            () = job.until_halted() => None,
            permits = both => permits,
        }
    }

    /// Waits for what an identical prompt gets; asks for itself when that gave up.
    pub(crate) async fn follow(self: Arc<Self>, job: Arc<Job>, mut todo: Todo, ask: Ask, role: Role) -> RowEnd {
        let fingerprint = job.run.prompter.fingerprint(&ask.prompt);
        let mut role = role;
        loop {
            match role {
                Role::Lead(lead) => {
                    let Some(permits) = self.permits(&job).await else {
                        return RowEnd::Back { todo, why: GivenBack::Stopped };
                    };
                    return self.lead(job, todo, ask, fingerprint, lead, permits).await;
                }
                Role::Follow(waiting) => {
                    if let Some((outcome, reused)) = waiting.await.ok().and_then(|told| told.of(&job.id.run)) {
                        self.meter.shared();
                        todo.spent.reused = reused;
                        return todo.settle(outcome);
                    }
                    role = self.collapse.join(&fingerprint);
                }
            }
        }
    }

    /// Asks, and tells the followers. The permits are held while the row waits at the model's gate: few shards are open then.
    pub(crate) async fn lead(
        self: Arc<Self>,
        job: Arc<Job>,
        todo: Todo,
        ask: Ask,
        fingerprint: String,
        lead: Lead,
        permits: Permits,
    ) -> RowEnd {
        let (end, spoiled) = match self.known(&job, &fingerprint).await {
            Known::Answer(answer) => (todo.reuse(answer), None),
            Known::Nothing => (self.ask(&job, todo, ask, fingerprint).await, None),
            Known::Spoiled(generation) => (self.ask(&job, todo, ask, fingerprint).await, Some(generation)),
        };
        drop(permits);
        // First kept, then told: who comes to this prompt meanwhile waits, and does not ask.
        let end = self.keep(&job, end, spoiled).await;
        if let RowEnd::Settled(line) | RowEnd::Answered(line) = &end {
            lead.tell(&job.id.run, line);
        }
        end
    }

    /// Asks until the row has its outcome, or must be given back.
    pub(crate) async fn ask(&self, job: &Job, mut todo: Todo, mut ask: Ask, fingerprint: String) -> RowEnd {
        let (mut history, mut server_retries, mut first_call) = (History::default(), 0, None);
        let (mut draft, mut question, mut before_change) = (Draft::default(), ask.clone(), None);
        let before = todo.spent.latency_ms;
        todo.spent.forget_draft();
        loop {
            let Some((route, permit, money)) = self.may_call(job, &ask).await else {
                return RowEnd::Back { todo, why: GivenBack::Stopped };
            };
            [&mut ask, &mut question].into_iter().for_each(|ask| route.readdress(ask));
            let started = *first_call.get_or_insert_with(|| self.clock.instant());
            let said = self.call(&ask).await;
            settle(permit, &said);
            if let Some(money) = money {
                money.settle(route.cost(&said));
            }
            job.run.routes.note(route, &said);
            let judge = &job.run.judge;
            let kept = draft.values();
            let class = classify(&said, |text| judge.take(&mut draft, text).map_err(|invalid| invalid.0));
            history.kept = draft.values();
            count(&mut todo.spent, &mut history, &class);
            todo.spent.latency_ms = before + self.clock.instant().duration_since(started).as_millis() as u64;
            if class.is_paid() {
                let came = matches!(class, Class::Answer(_)) || draft.values() > kept;
                self.meter.paid(bill::call(&mut todo.spent, route, &said, kept > 0, came));
                route.machine.close();
                job.run.breaker.close();
            }
            let budgets = [&job.form, &job.run.form];
            history.spent_up = !budgets.iter().all(|budget| budget.is_left());
            let is_paid = class.is_paid();
            // An answer is not asked again: it is the many, and costs nothing here.
            let fails = is_paid && !matches!(class, Class::Answer(_));
            let failed = fails.then(|| failure(&class, &history));
            let step = decide(class, &question.pipeline, &todo.spent, &history);
            if is_paid {
                budgets.iter().for_each(|budget| budget.paid());
            }
            if is_paid && step.asks_again() {
                budgets.iter().for_each(|budget| budget.take());
            }
            match step {
                Step::Answer(values) => {
                    job.run.succeed();
                    job.run.remember_answered(&todo);
                    let model = said.map(|reply| route.answerer(&reply)).unwrap_or_default();
                    // A made-up answer never counts as the answer to what was asked: see `only_changed`.
                    let fingerprint =
                        if model == StandIn::MODEL { format!("{model}:{fingerprint}") } else { fingerprint };
                    return todo.answer(Answer { values, fingerprint, model }, route);
                }
                Step::Fail(failed) => return todo.settle(Outcome::Failed(failed)),
                Step::Again(change) => {
                    change.apply(&mut question);
                    before_change = failed.or(before_change);
                    ask = if draft.values() > 0 { judge.repair(&draft, &question) } else { question.clone() };
                }
                // The gate knows how long. The row goes to its end: others have waited for longer.
                Step::Wait => {
                    self.meter.turned_away();
                    job.turn_away();
                }
                Step::Retry => {
                    server_retries += 1;
                    if server_retries > SERVER_RETRIES_PER_ROW {
                        return RowEnd::Back { todo, why: GivenBack::ServerError };
                    }
                    if !job.take_retry() {
                        job.halt(Halt::Spent);
                        return RowEnd::Back { todo, why: GivenBack::ServerError };
                    }
                    if !job.sleep(self.pace.after_error(history.server_errors)).await {
                        return RowEnd::Back { todo, why: GivenBack::ServerError };
                    }
                }
                // The pipeline's own model takes such questions: it is this fallback that does not.
                Step::Withhold(failed)
                    if route.rank > 0 && !route.has_answered() && job.run.routes.gone(route, &failed.message) => {}
                // The row's own question was taken: it is the change that is refused.
                Step::Withhold(failed) if before_change.is_some() || job.run.has_succeeded() => {
                    return todo.settle(Outcome::Failed(before_change.unwrap_or(failed)));
                }
                Step::Withhold(failed) => {
                    job.run.withhold(todo.ordinal);
                    if job.run.is_refused() {
                        let what = format!(
                            "the model refuses every request of the run ({}): mend the pipeline",
                            failed.message
                        );
                        job.run.breaker.trip(what.clone());
                        job.halt(Halt::Systemic(what));
                    }
                    return RowEnd::Withheld { todo, failed };
                }
                Step::Systemic(what) if job.run.routes.gone(route, &what) => {}
                Step::Systemic(what) => {
                    route.machine.trip(what.clone());
                    job.halt(Halt::Systemic(what));
                    return RowEnd::Back { todo, why: GivenBack::Stopped };
                }
            }
        }
    }

    /// Waits until a paid call may start, and tells where, and what is set aside for it; `None` when none may. Everything that can
    /// forbid it is asked last, just before the call.
    async fn may_call<'j>(&self, job: &'j Job, ask: &Ask) -> Option<(&'j Route, Permit, Option<Reservation>)> {
        let came = self.clock.instant();
        let money = match &job.purse {
            Some(purse) => Some(self.set_aside(job, purse, ask).await?),
            None => None,
        };
        let (route, permit) = loop {
            let moves = job.run.routes.moves();
            let route = job.run.routes.pick();
            let model = &route.pipeline.model;
            let gate = self.pace.gate(model);
            tokio::select! {
                biased;
                () = job.until_halted() => return None,
                () = moves => continue,
                permit = gate.pass(self.pace.ceilings(model), bytes(ask)) => break (route, permit),
            }
        };
        job.wait(self.clock.instant().duration_since(came));
        if let Err(what) = route.machine.admit().and_then(|()| job.run.breaker.admit()) {
            job.halt(Halt::Systemic(what));
        } else if !job.lease.may_spend() || !money.as_ref().is_none_or(Reservation::is_fresh) {
            job.halt(Halt::LeaseLost);
        }
        job.halted().is_none().then(|| (route, permit, money.map(Reservation::begin)))
    }

    /// The worst case of a call, set aside; `None` when there is no money for it, and the run is parked.
    async fn set_aside(&self, job: &Job, purse: &Stake, ask: &Ask) -> Option<Reservation> {
        let Some(worst) = job.run.routes.worst_case(ask) else {
            job.halt(Halt::Systemic(
                "nobody knows what a call of this run costs at most, and it has a budget".to_owned(),
            ));
            return None;
        };
        let reserved = tokio::select! {
            biased;
            () = job.until_halted() => return None,
            reserved = purse.reserve(worst) => reserved,
        };
        if let Err(Reached) = reserved {
            job.halt(Halt::Parked);
        }
        reserved.ok()
    }

    async fn call(&self, ask: &Ask) -> Result<Reply, Fault> {
        self.meter.sent();
        let _returned = Returned(&self.meter);
        let limit = || Fault::Ambiguous("no reply within the limit".into());
        let said =
            timeout(call_limit(ask.pipeline.model.tier), self.model.ask(ask)).await.unwrap_or_else(|_| Err(limit()));
        if let Err(Fault::Unavailable(why)) = &said {
            self.meter.unavailable(why);
        }
        said
    }
}

struct Returned<'a>(&'a crate::Meter);

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.0.returned();
    }
}

/// What is known of a question's size before it is answered. The schema is left out: it is the same for all, and what replies say
/// of their tokens makes up for it.
fn bytes(ask: &Ask) -> usize {
    ask.prompt.len() + ask.pipeline.system.as_ref().map_or(0, String::len)
}

/// Tells the gate what came back, as far as it tells of the model's limits.
fn settle(permit: Permit, said: &Result<Reply, Fault>) {
    match said {
        Ok(Reply { usage, .. }) => permit.answered(usage.prompt + usage.output + usage.thought),
        Err(Fault::Garbled(_)) => permit.answered(0),
        Err(Fault::Busy { retry_after }) => permit.rejected(*retry_after),
        Err(Fault::Unavailable(_) | Fault::Ambiguous(_) | Fault::Invalid(_) | Fault::Systemic(_)) => drop(permit),
    }
}

fn count(spent: &mut Spent, history: &mut History, class: &Class) {
    // A call that the model had no place for is no attempt of the row.
    spent.attempts += u32::from(!matches!(class, Class::Busy));
    spent.paid_calls += u32::from(class.is_paid());
    spent.ambiguous_calls += u32::from(*class == Class::Ambiguous);
    history.truncated += u32::from(matches!(class, Class::Truncated | Class::Overthought));
    history.odd += u32::from(matches!(class, Class::BlockedAnswer(_) | Class::UnknownFinish(_)));
    match class {
        Class::Unavailable => history.server_errors += 1,
        _ => history.server_errors = 0,
    }
}
