//! Work that outlives the request that started it: one job per name, and a redelivery waits for the one at work.

use crate::ports::{Verdict, Why};
use futures::FutureExt;
use futures::future::Shared;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// Waits for a verdict. Not tokio's `watch`, which wakes its receivers in an order drawn by chance.
type Told = Shared<oneshot::Receiver<Verdict>>;

/// The jobs of a process.
#[derive(Clone, Debug)]
pub struct Jobs {
    at_work: Arc<Mutex<BTreeMap<String, Told>>>,
    admitted: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Jobs {
    /// Admits at most `most` jobs at once.
    pub fn new(most: usize) -> Jobs {
        Jobs { at_work: Arc::default(), admitted: Arc::new(Semaphore::new(most)), stop: CancellationToken::new() }
    }

    /// Starts the job of this name, or finds it at work, and waits for its verdict. Dropping the returned future does not
    /// cut the job.
    pub async fn run<F>(&self, name: &str, work: impl FnOnce() -> F) -> Verdict
    where
        F: Future<Output = Result<Verdict, Why>> + Send + 'static,
    {
        match self.start(name, work) {
            Ok(told) => {
                told.await.unwrap_or_else(|_| Verdict::Later(Why::Unconfirmed("the job ended without a word".into())))
            }
            Err(why) => Verdict::Later(why),
        }
    }

    fn start<F>(&self, name: &str, work: impl FnOnce() -> F) -> Result<Told, Why>
    where
        F: Future<Output = Result<Verdict, Why>> + Send + 'static,
    {
        let mut at_work = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = at_work.get(name) {
            return Ok(told.clone());
        }
        if self.stop.is_cancelled() {
            return Err(Why::Stopping);
        }
        let admitted = self.admitted.clone().try_acquire_owned().map_err(|_| Why::Full)?;
        let (tell, told) = oneshot::channel();
        let told = told.shared();
        at_work.insert(name.to_owned(), told.clone());
        let (enlisted, work) = (Enlisted { jobs: self.clone(), name: name.to_owned() }, work());
        tokio::spawn(async move {
            let verdict = work.await.unwrap_or_else(Verdict::Later);
            drop((enlisted, admitted)); // before telling: who hears the verdict may send the event again at once
            tell.send(verdict).ok();
        });
        Ok(told)
    }

    /// The job of this name is at work.
    pub fn has(&self, name: &str) -> bool {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Cancelled once the process stops.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts nothing more, tells the jobs to stop, and returns when none is left.
    pub async fn drain(&self) {
        self.stop.cancel();
        let next = || self.at_work.lock().unwrap_or_else(PoisonError::into_inner).values().next().cloned();
        while let Some(job) = next() {
            job.await.ok();
        }
    }
}

/// A job's place in the register, given up however the job ends.
struct Enlisted {
    jobs: Jobs,
    name: String,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.jobs.at_work.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    fn job(runs: &Arc<AtomicU32>) -> impl Future<Output = Result<Verdict, Why>> + Send + 'static {
        runs.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(Verdict::Done)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_request_does_not_cut_the_work_and_its_redelivery_waits_for_it() {
        let (jobs, runs) = (Jobs::new(1), Arc::new(AtomicU32::new(0)));
        let cut = tokio::time::timeout(Duration::from_secs(10), jobs.run("a", || job(&runs))).await;
        assert!(cut.is_err());
        assert_eq!(jobs.run("a", || job(&runs)).await, Verdict::Done);
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn more_jobs_than_are_admitted_are_turned_away_at_once() {
        let (jobs, runs) = (Jobs::new(1), Arc::new(AtomicU32::new(0)));
        let (first, second) = tokio::join!(jobs.run("a", || job(&runs)), jobs.run("b", || job(&runs)));
        assert_eq!((first, second), (Verdict::Done, Verdict::Later(Why::Full)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_panics_leaves_its_place() {
        let jobs = Jobs::new(1);
        let verdict = jobs.run("a", || async { panic!("on purpose") }).await;
        assert!(matches!(verdict, Verdict::Later(Why::Unconfirmed(_))));
        assert_eq!(jobs.run("a", || async { Ok(Verdict::Done) }).await, Verdict::Done);
    }
}
