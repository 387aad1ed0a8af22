//! Wrong variants of the protocol (protocol.md 7), made by bending the ports of a process: the legs stay as they are. Each
//! must be caught by the invariants, or the invariants prove nothing.

use super::Leg;
use super::node::{Process, kind};
use bytes::Bytes;
use std::sync::Arc;
use tasuki_relay::names::{Bucket, RunId};
use tasuki_relay::ports::{Loaded, Meta, Object, Objects, ObjectsError, Part, RecordsError};
use tasuki_relay::record::{Header, ShardLine, decode};

/// How a variant is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// An event whose claim somebody else holds is acknowledged.
    AckOnLiveClaim,
    /// A create whose reply was lost is read back as somebody else's, and acknowledged.
    OwnWriteReadAsForeign,
    /// Only the loader of the shard with the totals looks whether the run is complete.
    CompletionOnlyWithTotals,
    /// Nobody looks whether the run is complete when the ledger row is there already.
    NoCompletionWhenLoaded,
    /// The ledger row is written after the rows' transaction.
    LedgerOutsideTheTransaction,
    /// Nobody claims.
    NoClaim,
    /// Money is spent though the lease could not be renewed.
    LeaseNotRechecked,
    /// The split has ended once the shard with the totals is there.
    SplitEndReadOffAShard,
    /// The plan is written before `open/`.
    PlanBeforeOpen,
    /// `open/` of an ended run stays.
    OpenNotCleared,
    /// The answers are looked for before the claim only.
    AnswersReadOnlyBeforeTheClaim,
    /// The end state is set whatever the state is.
    EndNotConditional,
    /// A resume removes the marker whatever its generation is.
    ResumesWhatever,
}

fn pretended(process: &Process, name: &str) -> Meta {
    Meta { name: name.to_owned(), generation: 1, created: process.world.clock.now(), size: 0 }
}

/// A create that a wrong variant only pretends.
pub(super) async fn create(
    process: &Arc<Process>,
    bucket: Bucket,
    name: &str,
    body: &Bytes,
) -> Option<Result<Meta, ObjectsError>> {
    let pretend = match kind(bucket, name) {
        "claims" => process.is(Wrong::NoClaim),
        "open" if process.is(Wrong::PlanBeforeOpen) => {
            process.remember(format!("later {name}\n{}", String::from_utf8_lossy(body)));
            true
        }
        _ => false,
    };
    pretend.then(|| Ok(pretended(process, name)))
}

/// What a wrong variant does after a create took effect.
pub(super) async fn after_create(process: &Arc<Process>, bucket: Bucket, name: &str) {
    if !process.is(Wrong::PlanBeforeOpen) || kind(bucket, name) != "plans" || process.is_dead() {
        return;
    }
    let later: Vec<String> = process
        .memory
        .lock()
        .expect("a panic ends the test")
        .iter()
        .filter(|line| line.starts_with("later "))
        .cloned()
        .collect();
    for line in later {
        if let Some((name, body)) = line.trim_start_matches("later ").split_once('\n') {
            process.world.objects.create(Bucket::State, name, Bytes::from(body.to_owned())).await.ok();
        }
    }
}

/// What a wrong variant takes an object for.
pub(super) fn after_read(process: &Arc<Process>, bucket: Bucket, name: &str, found: Option<Object>) -> Option<Object> {
    let claim = |text: &str, found: &Object| {
        let mut body: serde_json::Value = serde_json::from_slice(&found.body).unwrap_or_default();
        body["attempt"] = "somebody else's".into();
        body["owner"] = "somebody else".into();
        body["state"] = text.into();
        Object { body: Bytes::from(body.to_string()), ..found.clone() }
    };
    match kind(bucket, name) {
        "claims" if process.is(Wrong::OwnWriteReadAsForeign) => found.map(|found| claim("held", &found)),
        "splits" if process.is(Wrong::SplitEndReadOffAShard) => {
            let run = name.trim_start_matches("splits/");
            let totals = process.world.objects.live(Bucket::Shards).iter().any(|shard| {
                let header = decode::<Header, ShardLine>(&shard.body).map(|(header, _)| header);
                header.is_ok_and(|header| header.run.as_str() == run && header.totals.is_some())
            });
            found.map(|found| if totals { claim("ended", &found) } else { found })
        }
        _ => found,
    }
}

/// Remembers what the last load of a run was.
pub(super) fn after_load(process: &Arc<Process>, run: &RunId, totals: bool, loaded: &Result<Loaded, RecordsError>) {
    let mut memory = process.memory.lock().expect("a panic ends the test");
    memory.remove(&format!("totals {run}"));
    memory.remove(&format!("already {run}"));
    if totals {
        memory.insert(format!("totals {run}"));
    }
    if matches!(loaded, Ok(Loaded::Already)) {
        memory.insert(format!("already {run}"));
    }
}

/// Whether a wrong variant does not look if the run is complete.
pub(super) fn skips_finish(process: &Process, run: &RunId) -> bool {
    (process.is(Wrong::CompletionOnlyWithTotals) && !process.remembers(&format!("totals {run}")))
        || (process.is(Wrong::NoCompletionWhenLoaded) && process.remembers(&format!("already {run}")))
}

/// The rows in one transaction, the ledger row in another.
pub(super) async fn load_in_two(process: &Arc<Process>, part: Part) -> Result<Loaded, RecordsError> {
    let records = process.world.records.clone();
    let (first, second) = (part.clone(), part);
    let loaded = process
        .port("load", RecordsError::Unknown("fault".into()), move || {
            Box::pin(async move {
                if records.look(|state| state.ledger.contains_key(&first.id)) {
                    Ok(Loaded::Already)
                } else {
                    records.load_rows_only(&first)
                }
            })
        })
        .await?;
    let Loaded::Now(counts) = loaded else { return Ok(loaded) };
    let records = process.world.records.clone();
    process
        .port("load ledger", RecordsError::Unknown("fault".into()), move || {
            Box::pin(async move {
                records.write_ledger_only(&second, counts);
                Ok(Loaded::Now(counts))
            })
        })
        .await
}

/// Whether a wrong variant takes a renewal of its claim for confirmed.
pub(super) fn believes_renewal(process: &Process, bucket: Bucket, name: &str) -> bool {
    process.is(Wrong::LeaseNotRechecked) && process.leg == Leg::Generator && kind(bucket, name) == "claims"
}
