//! What is asked of every row of a run, and what its shards share in this process.

use crate::breaker::{Breaker, Breakers};
use crate::budget::FormBudget;
use crate::route::Routes;
use crate::row::Todo;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tasuki_relay::answer::Judge;
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::names::{self, Bucket, RunId};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Objects, Why};
use tasuki_relay::prompt::Prompter;
use tasuki_relay::record::{Plan, Spent};
use tokio::sync::{Notify, Semaphore};

/// Rows refused with 400 without one success in their run, after which it is the request that is wrong.
const WITHHELD_MAX: usize = 50;
/// Runs that a process remembers: each holds a compiled template.
const RUNS_KEPT: usize = 64;

/// A run, as the generator needs it.
pub(crate) struct Run {
    pub pipeline: Arc<Pipeline>,
    /// Where it is asked.
    pub routes: Routes,
    pub prompter: Prompter,
    pub judge: Judge,
    /// What its rows may pay for form.
    pub form: FormBudget,
    pub run_time: Millis,
    /// The run's calls in flight in this process: its share of `[run] max_in_flight`, and one at least.
    pub calls: Arc<Semaphore>,
    /// Held while a shard's rows are started: shards are filled in order of arrival, so that few are open at once.
    pub turnstile: tokio::sync::Mutex<()>,
    /// Open when the model refuses the request itself: this run stands still, and no other.
    pub breaker: Breaker,
    succeeded: AtomicBool,
    success: Notify,
    answered: Mutex<Option<Todo>>,
    withheld: Mutex<BTreeSet<u64>>,
}

impl Run {
    fn new(pipeline: Pipeline, run_time: Millis, machine: &Breakers, clock: Clock, processes: u32) -> Result<Run, Why> {
        let pipeline = Arc::new(pipeline);
        let prompter = Prompter::new(pipeline.clone())
            .map_err(|_| Why::Systemic(format!("pipeline {}: its template does not compile here", pipeline.name)))?;
        let calls = Arc::new(Semaphore::new(pipeline.run.max_in_flight.div_ceil(processes.max(1)) as usize));
        Ok(Run {
            routes: Routes::new(&pipeline, machine, &clock, run_time),
            judge: Judge::new(&pipeline),
            form: FormBudget::of_run(),
            pipeline,
            prompter,
            run_time,
            calls,
            turnstile: tokio::sync::Mutex::default(),
            breaker: Breaker::new(clock),
            succeeded: AtomicBool::new(false),
            success: Notify::new(),
            answered: Mutex::default(),
            withheld: Mutex::default(),
        })
    }

    /// A row of the run was answered.
    pub fn succeed(&self) {
        if !self.succeeded.swap(true, Ordering::Relaxed) {
            self.success.notify_waiters();
        }
    }

    /// This row was answered: it may serve as a probe, which is paid by itself.
    pub fn remember_answered(&self, row: &Todo) {
        let unpaid = || Todo { spent: Spent::default(), ..row.clone() };
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(unpaid);
    }

    /// A row that was answered in this process.
    pub fn answered(&self) -> Option<Todo> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A row was refused.
    pub fn withhold(&self, ordinal: u64) {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner).insert(ordinal);
    }

    /// So many rows were refused, without a success, that the request itself must be wrong.
    pub fn is_refused(&self) -> bool {
        let withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner).len();
        withheld >= WITHHELD_MAX && !self.has_succeeded()
    }

    pub fn has_succeeded(&self) -> bool {
        self.succeeded.load(Ordering::Relaxed)
    }

    /// Returns when a row of the run has been answered.
    pub async fn success(&self) {
        let waiting = self.success.notified();
        if !self.has_succeeded() {
            waiting.await;
        }
    }
}

/// The runs of this process.
pub(crate) struct Runs {
    runs: tokio::sync::Mutex<BTreeMap<RunId, Arc<Run>>>,
    /// See [`crate::Settings::processes`].
    processes: u32,
}

impl Runs {
    pub fn new(processes: u32) -> Runs {
        Runs { runs: tokio::sync::Mutex::default(), processes }
    }

    /// The run, from memory or from its plan.
    pub async fn get(
        &self,
        objects: &dyn Objects,
        run: &RunId,
        machine: &Breakers,
        clock: &Clock,
    ) -> Result<Arc<Run>, Why> {
        let mut runs = self.runs.lock().await;
        if let Some(known) = runs.get(run) {
            return Ok(known.clone());
        }
        let plan = objects.read(Bucket::State, &names::plan(run), None).await?;
        let plan = plan.ok_or_else(|| Why::Unconfirmed(format!("run {run} has no plan")))?;
        let plan: Plan = serde_json::from_slice(&plan.body)
            .map_err(|_| Why::Systemic(format!("the plan of run {run} is corrupt")))?;
        let pipeline = Pipeline::parse(&plan.pipeline_text).map_err(|_| {
            Why::Systemic(format!("the pipeline of run {run} is not valid here: deploy the version that planned it"))
        })?;
        let new = Arc::new(Run::new(pipeline, plan.run_time, machine, clock.clone(), self.processes)?);
        if runs.len() >= RUNS_KEPT {
            runs.retain(|_, run| Arc::strong_count(run) > 1);
        }
        runs.insert(run.clone(), new.clone());
        Ok(new)
    }
}
