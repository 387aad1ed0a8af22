//! `control/<run>/…`: what a person or a budget says of a run while it is at work. A cancelled run is no longer parked.

use crate::budget;
use crate::names::{self, Bucket, RunId};
use crate::ports::{Generation, Meta, Objects, ObjectsError};
use crate::write::{Written, create_once};
use bytes::Bytes;

/// Whether the run was cancelled: its rows are sealed.
pub async fn is_cancelled(objects: &dyn Objects, run: &RunId) -> Result<bool, ObjectsError> {
    Ok(objects.stat(Bucket::State, &names::cancel(run)).await?.is_some())
}

/// The marker that parks the run, by its generation: nothing is asked while it is there.
pub async fn parked_by(objects: &dyn Objects, run: &RunId) -> Result<Option<Generation>, ObjectsError> {
    let Some(marker) = objects.stat(Bucket::State, &names::parked(run)).await? else { return Ok(None) };
    Ok(if is_cancelled(objects, run).await? { None } else { Some(marker.generation) })
}

/// Parks the run, unless it is parked. `why` is what a person reads who asks; it names no row. Returns the marker's generation.
///
/// # Errors
/// `Unknown` when it was not confirmed: parking again is harmless.
pub async fn park(objects: &dyn Objects, run: &RunId, why: &str) -> Result<Generation, ObjectsError> {
    let why = Bytes::copy_from_slice(why.as_bytes());
    Ok(match create_once(objects, Bucket::State, &names::parked(run), why).await? {
        Written::Won(meta) | Written::Identical(meta) => meta.generation,
        Written::Foreign(first) => first.meta.generation,
    })
}

/// Removes the marker that was `seen`. False when another one is there: the run was parked anew, for a reason that whoever
/// resumes has not seen.
///
/// # Errors
/// `Unknown` when it was not confirmed: resuming again is harmless.
pub async fn resume(objects: &dyn Objects, run: &RunId, seen: Generation) -> Result<bool, ObjectsError> {
    let name = names::parked(run);
    let Err(error) = objects.remove(Bucket::State, &name, Some(seen)).await else { return Ok(true) };
    match objects.stat(Bucket::State, &name).await? {
        Some(marker) if marker.generation == seen => Err(error),
        marker => Ok(marker.is_none()),
    }
}

/// The cap that a person wrote for the run, in picodollars, with what is known of the object; `None` where nobody did.
pub async fn max_cost(objects: &dyn Objects, run: &RunId) -> Result<Option<(u64, Meta)>, ObjectsError> {
    let Some(object) = objects.read(Bucket::State, &names::max_cost(run), None).await? else { return Ok(None) };
    let cap = budget::parse_cap(&object.body);
    if cap.is_none() {
        tracing::warn!(%run, "control/<run>/max-cost is no amount in dollars, like 12.5: the pipeline's counts");
    }
    Ok(cap.map(|cap| (cap, object.meta)))
}

/// From now on the run may cost so many dollars.
///
/// # Errors
/// `Unknown` when it was not confirmed: to write it again is harmless.
pub async fn set_max_cost(objects: &dyn Objects, run: &RunId, dollars: f64) -> Result<(), ObjectsError> {
    let (name, body) = (names::max_cost(run), Bytes::from(format!("{dollars}\n")));
    match create_once(objects, Bucket::State, &name, body.clone()).await? {
        Written::Won(_) => Ok(()),
        // The same amount again is written again: its time says that it is newer than the marker that it lifts.
        Written::Identical(meta) | Written::Foreign(crate::ports::Object { meta, .. }) => {
            objects.replace(Bucket::State, &name, body, meta.generation).await.map(drop)
        }
    }
}
