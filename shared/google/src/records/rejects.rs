//! Which rows of a part breach a constraint. Mutations fail whole at commit, so the rows are tried as statements, in
//! transactions that are rolled back.

use super::fault::Fault;
use super::load::existing;
use super::pool::Pool;
use super::rows;
use futures::FutureExt;
use google_cloud_gax::error::rpc::{Code, Status};
use google_cloud_spanner::batch::BatchDml;
use google_cloud_spanner::error::BatchUpdateError;
use google_cloud_spanner::statement::Statement;
use google_cloud_spanner::transaction::ReadWriteTransaction;
use google_cloud_spanner::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use tasuki_relay::ports::Part;
use tasuki_relay::settle::settle;

/// Rows of one request: with the largest answers (64 KiB each) a request stays below Spanner's 10 MiB (Spanner quotas
/// page).
const STATEMENTS: usize = 100;
/// Rows that one call looks for at most, so that it ends in time: the next load of the part finds more.
const REJECTED_MAX: usize = 50;

/// A row that Spanner does not take: its ordinal, and the code.
type Rejected = (u64, String);

/// Where an attempt leaves what it found.
type Cell = Arc<Mutex<Option<Rejected>>>;

/// The rows of `part` that breach a constraint, in order of their ordinals.
///
/// A transaction ends with the first of them, because Spanner's emulator runs nothing after a statement that failed;
/// the next one goes on behind it. Two rows that breach a constraint only together are found when no other row is left
/// between them.
pub(super) async fn find(pool: &Arc<Pool>, part: &Arc<Part>) -> std::result::Result<Vec<Rejected>, Fault> {
    let (mut rejected, mut from) = (Vec::new(), 0);
    while rejected.len() < REJECTED_MAX {
        let Some((ordinal, code)) = first(pool, part, from).await? else { break };
        rejected.push((ordinal, code));
        from = ordinal + 1;
    }
    Ok(rejected)
}

/// The first such row from ordinal `from` on.
async fn first(pool: &Arc<Pool>, part: &Arc<Part>, from: u64) -> std::result::Result<Option<Rejected>, Fault> {
    // Only an error rolls a transaction back, so what was found leaves by this cell; every attempt sets it anew.
    let found: Cell = Arc::default();
    let client = pool.lend().await;
    let (cell, part) = (found.clone(), part.clone());
    let attempt =
        move |transaction: ReadWriteTransaction| attempt(transaction, part.clone(), from, cell.clone()).boxed();
    match client.transaction("tasuki-rejects").run(attempt).await {
        Err(error) if error.status() != rolled_back().status() => Err(error.into()),
        _ => Ok(found.lock().unwrap_or_else(PoisonError::into_inner).take()),
    }
}

async fn attempt(transaction: ReadWriteTransaction, part: Arc<Part>, from: u64, found: Cell) -> Result<()> {
    let rejected = probe(&transaction, &part, from).await?;
    *found.lock().unwrap_or_else(PoisonError::into_inner) = rejected;
    Err(rolled_back())
}

/// An error of our own, which Spanner never says.
fn rolled_back() -> Error {
    Error::service(Status::default().set_code(Code::Cancelled).set_message("rolled back by Tasuki"))
}

/// Writes the rows from ordinal `from` on, until one is not taken.
async fn probe(transaction: &ReadWriteTransaction, part: &Part, from: u64) -> Result<Option<Rejected>> {
    let Some(existing) = existing(transaction, part).await? else { return Ok(None) };
    let settled = settle(part, &existing);
    let pipeline = &part.pipeline;
    let upserts = settled
        .upserts
        .iter()
        .filter_map(|row| Some((row.ordinal, rows::upsert_statement(pipeline, rows::upsert_values(part, row)?))));
    let touches =
        settled.touches.iter().map(|row| (row.ordinal, rows::touch_statement(pipeline, rows::touch_values(part, row))));
    let mut statements: Vec<(u64, Statement)> =
        upserts.chain(touches).filter(|(ordinal, _)| *ordinal >= from).collect();
    statements.sort_by_key(|(ordinal, _)| *ordinal);
    for some in statements.chunks(STATEMENTS) {
        let batch =
            some.iter().fold(BatchDml::builder(), |batch, (_, statement)| batch.add_statement(statement.clone()));
        let Err(error) = transaction.execute_batch_update(batch.build()).await else { continue };
        let at = BatchUpdateError::extract(&error).map(|failed| failed.update_counts.len());
        let code = error.status().map(|status| status.code);
        return match (at.and_then(|at| some.get(at)), code) {
            (Some((ordinal, _)), Some(code)) if breaches(code) => Ok(Some((*ordinal, code.name().to_owned()))),
            _ => Err(error),
        };
    }
    Ok(None)
}

/// The row's own fault: a value of a unique index that is taken; a CHECK; NOT NULL, a foreign key, a length. Any other code
/// is about the statement, which is the same for every row.
fn breaches(code: Code) -> bool {
    matches!(code, Code::AlreadyExists | Code::OutOfRange | Code::FailedPrecondition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_spanner_says_of_the_statement_or_of_itself_fails_no_row() {
        for code in [Code::InvalidArgument, Code::NotFound, Code::PermissionDenied, Code::Aborted, Code::Unavailable] {
            assert!(!breaches(code), "{code:?}");
        }
    }

    #[test]
    fn a_rollback_of_our_own_is_told_from_a_call_that_was_cancelled() {
        let cancelled = Error::service(Status::default().set_code(Code::Cancelled).set_message("cancelled"));
        assert_ne!(cancelled.status(), rolled_back().status());
    }
}
