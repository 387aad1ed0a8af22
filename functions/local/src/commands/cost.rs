//! What a run costs, as far as the list prices of this version tell.

use super::runs::{self, Run};
use crate::show::dollars;
use crate::site::Site;
use anyhow::Result;
use tasuki_relay::prices::{Catalogue, Tier};

/// Picodollars in a dollar.
const PICO: f64 = 1e12;

/// The run's price at the list price of its model on the day when it began, in dollars; `None` when that is not known. Calls that
/// are counted as ambiguous or wasted are not in it.
pub(crate) async fn of(site: &dyn Site, run: &Run) -> Result<Option<f64>> {
    if runs::is_stand_in(site, run).await? {
        return Ok(Some(0.0));
    }
    let Some(pipeline) = runs::pipeline(site, &run.run).await? else { return Ok(None) };
    let price = Catalogue::shipped().price(&pipeline.model.name, Tier::Standard, run.run_time);
    Ok(price.map(|price| price.of(run.counts().usage) as f64 / PICO))
}

/// The same as a person reads it.
pub(crate) async fn sum(site: &dyn Site, run: &Run) -> Result<String> {
    Ok(of(site, run).await?.map_or_else(|| "unknown".to_owned(), dollars))
}
