//! The clients that transactions run on, and how long they may take.

use crate::connect::Endpoint;
use google_cloud_gax::options::RequestOptions;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_spanner::client::{DatabaseClient, Spanner};
use google_cloud_spanner::retry_policy::{BasicTransactionRetryPolicy, SpannerRetryPolicy};
use google_cloud_spanner::transaction::TransactionRunner;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tasuki_relay::ports::RecordsError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A transaction with all its attempts may take so long (protocol.md 5): the client itself sets no limit.
pub(super) const TRANSACTION_TIME: Duration = Duration::from_secs(60);
/// Attempts of a transaction that Spanner aborts, in favour of another one. Without a limit the client goes on for
/// ever. Twenty parts that write one counter need up to twenty; the emulator, which runs one transaction at a time,
/// some more.
const ATTEMPTS_MAX: u32 = 50;
/// A read, or a new session, may take so long with its repetitions: short beside a transaction.
const READ_TIME: Duration = Duration::from_secs(20);

/// How often and how long a read is tried.
pub(super) fn patience() -> impl google_cloud_gax::retry_policy::RetryPolicy {
    patience_of(READ_TIME)
}

/// The same for a read that may take longer.
pub(super) fn patience_of(time: Duration) -> impl google_cloud_gax::retry_policy::RetryPolicy {
    SpannerRetryPolicy::new().with_time_limit(time)
}

/// Spanner, wherever it is.
pub(super) async fn spanner(endpoint: Endpoint) -> Result<Spanner, RecordsError> {
    let mut builder = Spanner::builder().with_credentials(endpoint.credentials);
    if let Some(url) = endpoint.url {
        builder = builder.with_endpoint(url);
    }
    // The error's text may hold the endpoint; it says nothing that the caller could decide by.
    let unreachable = |_| RecordsError::Unknown("the Spanner client could not be made: is its endpoint right?".into());
    builder.build().await.map_err(unreachable)
}

/// A client of a session of its own.
pub(super) async fn client(
    spanner: &Spanner,
    database: &str,
    role: Option<&str>,
) -> google_cloud_spanner::Result<DatabaseClient> {
    let mut options = RequestOptions::default();
    options.set_attempt_timeout(READ_TIME);
    options.set_retry_policy(patience());
    let client = spanner.database_client(database).with_request_options(options);
    match role {
        Some(role) => client.with_database_role(role).build().await,
        None => client.build().await,
    }
}

/// Clients, each lent to one transaction at a time.
///
/// A client is one multiplexed session. Spanner runs any number of transactions on a session at once; its emulator ends
/// the earlier one when another begins, and the client does not repeat that. A session costs one call at the start, so
/// both get one per transaction.
#[derive(Debug)]
pub(super) struct Pool {
    idle: Mutex<Vec<DatabaseClient>>,
    permits: Arc<Semaphore>,
}

/// A client that nobody else uses until this is dropped.
pub(super) struct Lent {
    pool: Arc<Pool>,
    client: DatabaseClient,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(clients: Vec<DatabaseClient>) -> Arc<Pool> {
        Arc::new(Pool { permits: Arc::new(Semaphore::new(clients.len())), idle: Mutex::new(clients) })
    }

    /// Waits for a client.
    pub(super) async fn lend(self: &Arc<Pool>) -> Lent {
        let permit = self.permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let client = self.idle().pop().expect("there are as many clients as permits");
        Lent { pool: self.clone(), client, _permit: permit }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<DatabaseClient>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// A transaction to run; `tag` names its kind in Spanner's statistics, never user text.
    pub(super) fn transaction(&self, tag: &'static str) -> TransactionRunner {
        self.client
            .read_write_transaction()
            .with_transaction_timeout(TRANSACTION_TIME)
            .with_retry_policy(BasicTransactionRetryPolicy::new().with_max_attempts(ATTEMPTS_MAX))
            .set_transaction_tag(tag)
            .build()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.idle().push(self.client.clone()); // before the permit, which is dropped after this
    }
}
