//! A run that others work on, followed through the store until it ends.

use super::drive::{End, PARKED};
use super::runs;
use crate::progress::{DRAW_EVERY, Progress, Shown};
use crate::signals::Stop;
use crate::site::{Driver, Site};
use anyhow::Result;
use std::time::Duration;
use tasuki_relay::control;
use tasuki_relay::names::RunId;
use tasuki_relay::ports::{ObjectsError, RecordsError};
use tokio::time::{MissedTickBehavior, interval};

/// How often a deployment is asked: each look is a query and a read or two.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Services that have not brought a row for so long are worth a look: a call may take 120 s, a sweep comes each minute.
const QUIET_FOR: Duration = Duration::from_secs(300);

/// Looks in a row that the store may leave unanswered: each has waited 20 s by then.
const SILENT_MAX: u32 = 15;

/// Follows the run until it ends, a person has enough of it, or nobody works on it any more.
pub(crate) async fn follow(site: &dyn Site, run: &RunId, mut stop: Stop) -> Result<End> {
    let mut progress = Progress::start(site.clock());
    let by_services = matches!(site.driver()?, Driver::Services);
    let mut ticks = interval(if by_services { LOOK_EVERY } else { DRAW_EVERY });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut total, mut last, mut moved, mut told) = (None, Shown::default(), site.clock().instant(), false);
    let mut silent = 0;
    loop {
        tokio::select! {
            () = stop.asked() => return Ok(End::NotDone(left(by_services))),
            _ = ticks.tick() => (),
        }
        let row = match site.books().run(run).await {
            Err(RecordsError::Unknown(_)) if silent < SILENT_MAX => {
                silent += 1;
                continue;
            }
            row => row?,
        };
        silent = 0;
        if row.as_ref().is_some_and(|row| row.state.has_ended()) {
            return Ok(End::Ended);
        }
        total = match total.or(row.as_ref().and_then(|row| row.expected_rows)) {
            None => expected(site, run).await?,
            known => known,
        };
        let counts = row.map(|row| row.counts).unwrap_or_default();
        let tokens = (counts.usage.prompt, counts.usage.output + counts.usage.thought);
        let spent = counts.known_cost();
        let shown = Shown { done: counts.rows(), total, failed: counts.failed, tokens, spent, ..Shown::default() };
        let now = site.clock().instant();
        if shown != last {
            (moved, told) = (now, false);
        }
        if by_services && !told && now.duration_since(moved) > QUIET_FOR {
            told = true;
            progress.say(&format!("nothing has come for 5 minutes: `{}` looks for the reason", site.line(&["doctor"])));
        }
        last = shown;
        progress.show(shown);
        if is_parked(site, run).await? {
            return Ok(End::NotDone(format!("{PARKED}: {}", site.line(&["status", run.as_str()]))));
        }
        if matches!(site.driver()?, Driver::Nobody) {
            return Ok(End::NotDone("the process that served the folder is gone".to_owned()));
        }
    }
}

/// Who may not see markers, or not now, is not told.
async fn is_parked(site: &dyn Site, run: &RunId) -> Result<bool> {
    match control::parked_by(&*site.objects(), run).await {
        Err(ObjectsError::Denied(_) | ObjectsError::Unknown(_)) => Ok(false),
        marker => Ok(marker?.is_some()),
    }
}

fn left(by_services: bool) -> String {
    match by_services {
        true => "the services go on with the run; following it ends here".to_owned(),
        false => "`tasuki serve` goes on with the run; following it ends here".to_owned(),
    }
}

/// Rows of the run, as soon as its file was read to its end. Who may not see that, or not now, follows without a total.
async fn expected(site: &dyn Site, run: &RunId) -> Result<Option<u64>> {
    let totals = async {
        match runs::is_split(site, run).await? {
            true => runs::totals(site, run).await,
            false => Ok(None),
        }
    };
    match totals.await {
        Err(error) if error.downcast_ref::<ObjectsError>().is_some() => Ok(None),
        totals => Ok(totals?.map(|totals| totals.rows)),
    }
}
