//! Google's emulators, as `tests/run` starts them: it exports where each listens. A test that needs one which is absent is
//! counted as skipped, by name.

use libtest_mimic::{Failed, Trial};
use std::future::Future;

/// What a test may need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: the stand-ins of this package.
    Nothing,
    /// Spanner's emulator.
    Spanner,
    /// Spanner's emulator, started with `--enable_fault_injection`.
    SpannerWithFaults,
    /// Pub/Sub's emulator.
    PubSub,
    /// bqemulator: BigQuery's REST API and its Storage Read API.
    BigQuery,
}

impl Needs {
    /// The variables that say where it listens.
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Needs::Nothing => &[],
            Needs::Spanner => &["SPANNER_EMULATOR_HOST", "SPANNER_EMULATOR_REST"],
            Needs::SpannerWithFaults => &["TASUKI_TEST_SPANNER_FAULTS_HOST", "TASUKI_TEST_SPANNER_FAULTS_REST"],
            Needs::PubSub => &["PUBSUB_EMULATOR_HOST"],
            Needs::BigQuery => &["BIGQUERY_EMULATOR_HOST", "BIGQUERY_STORAGE_EMULATOR_HOST"],
        }
    }

    /// It was started.
    pub fn is_there(self) -> bool {
        self.variables().iter().all(|name| std::env::var(name).is_ok_and(|value| !value.is_empty()))
    }
}

/// A test with a runtime of its own; skipped where what it needs is absent.
pub fn trial<F>(name: &'static str, needs: &'static [Needs], test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output = anyhow::Result<()>>,
{
    let absent = needs.iter().any(|needs| !needs.is_there());
    let run = move || -> Result<(), Failed> {
        tasuki_google::connect::install_tls();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(test()).map_err(|error| Failed::from(format!("{error:?}")))
    };
    Trial::test(name, run).with_ignored_flag(absent)
}
