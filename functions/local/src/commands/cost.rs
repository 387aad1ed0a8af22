//! `tasuki cost`, and what a run cost for the other commands.

use super::Exit;
use super::answerers::Answerers;
use super::runs::{self, Run};
use crate::bill::{Basis, Cost, Missing, Price, SoFar};
use crate::cli;
use crate::show::{self, dollars, number};
use crate::site::Site;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{Write, stdout};
use tasuki_relay::ports::ObjectsError;
use tasuki_relay::prices::{self, Catalogue};
use tasuki_relay::record::{Bill, Counts};
use tasuki_relay::stand_in::StandIn;
use tasuki_relay::stored::{self, Stored};

/// Objects that are read for a run that is not at its end. Few are neither loaded nor at work, unless the loader stands still; so many
/// take about 16 s where a read takes 50 ms, and cost half a cent.
const OBJECTS_MAX: usize = 5_000;

pub(crate) async fn cost(site: &dyn Site, args: cli::Cost) -> Result<Exit> {
    let run = runs::pick(site, args.run.as_deref()).await?;
    let cost = of(site, &run).await?;
    let answerers = Answerers::of(site, &run).await?;
    let prices = match runs::pipeline(site, &run.run).await? {
        Some(pipeline) => Price::all(&pipeline, run.run_time),
        None => Vec::new(),
    };
    match args.json {
        true => {
            let mut told = json(&run, &cost, &prices);
            told["answerers"] = answerers.map_or(Value::Null, |answerers| answerers.json());
            show::json_line(&mut stdout().lock(), &told)?;
        }
        false => {
            let answered_by = answerers.and_then(|answerers| answerers.text(&run));
            stdout().write_all(text(&run, &cost, &prices, answered_by).as_bytes())?;
        }
    }
    Ok(Exit::Done)
}

/// What the run cost, as the store has it; so far, with what is stored and not loaded yet, if it is not at its end.
pub(crate) async fn of(site: &dyn Site, run: &Run) -> Result<Cost> {
    if run.is_ended() {
        return priced(site, run, run.counts()).await;
    }
    // Which parts are loaded and what they cost is of one moment: what is loaded after it counts from its objects.
    let parts = site.books().loaded_parts(&run.run).await?;
    let (stored, missing) = match stored::calls(&*site.objects(), &run.run, &parts.shards, OBJECTS_MAX).await {
        Ok(Stored { counts, unread: 0 }) => (counts, Missing::InFlight),
        Ok(Stored { counts, unread }) => (counts, Missing::Unread(unread)),
        Err(ObjectsError::Denied(_)) => (Counts::default(), Missing::NotLoaded),
        Err(error) => return Err(error).context("what is not loaded yet cannot be read"),
    };
    let mut counts = parts.counts;
    counts += stored;
    Ok(priced(site, run, counts).await?.so_far(Some(SoFar { not_loaded: stored.bill(), missing })))
}

async fn priced(site: &dyn Site, run: &Run, counts: Counts) -> Result<Cost> {
    if runs::is_stand_in(site, run).await? {
        return Ok(Cost::nothing(counts));
    }
    if !is_without_prices(&counts) {
        return Ok(Cost::recorded(counts));
    }
    let Some(pipeline) = runs::pipeline(site, &run.run).await? else { return Ok(Cost::at_list_price(counts, None)) };
    Ok(match pipeline.model.price {
        Some(_) => Cost::recorded(counts), // a version that knows this field wrote it: the model is free
        None => Cost::at_list_price(counts, Catalogue::shipped().price_of(&pipeline.model, run.run_time)),
    })
}

/// Tokens were paid for, and nobody said for how much, nor that it is not known.
fn is_without_prices(counts: &Counts) -> bool {
    let Bill { calls, usage, cost } = counts.bill();
    calls > 0 && usage.prompt + usage.output + usage.thought > 0 && cost == 0 && counts.unpriced_calls == 0
}

fn json(run: &Run, cost: &Cost, prices: &[Price]) -> Value {
    let counts = cost.counts;
    let is_stand_in = cost.basis == Basis::StandIn;
    json!({
        "run": run.run, "state": run.state, "pipeline": run.pipeline, "file": run.file,
        "cost_usd": cost.usd(), "cost_basis": cost.basis_json(), "cost_at_least_usd": prices::dollars(counts.cost),
        "cost_per_answer_usd": cost.usd_per_answer(), "bill": cost.json(), "total": cost.class_json(counts.bill()),
        "not_loaded": cost.not_loaded_json(),
        "reused_answers": counts.reused_answers, "duplicate_prompts": counts.duplicate_prompts,
        "ambiguous_calls": counts.ambiguous_calls, "unpriced_calls": counts.unpriced_calls,
        "prices": prices.iter().filter(|_| !is_stand_in).map(Price::json).collect::<Vec<_>>(),
        "note": is_stand_in.then_some(StandIn::NOTE),
    })
}

fn text(run: &Run, cost: &Cost, prices: &[Price], answered_by: Option<String>) -> String {
    let (total, is_stand_in) = (cost.counts.bill(), cost.basis == Basis::StandIn);
    let classes = cost.classes().into_iter().flatten().chain([("total", total)]);
    let head = ["", "calls", "prompt", "cached", "output", "thought", "cost"].map(str::to_owned);
    let rows = classes.map(|(name, bill)| {
        let usage = bill.usage;
        let counts = [bill.calls, usage.prompt, usage.cached, usage.output, usage.thought].map(number);
        std::iter::once(name.to_owned()).chain(counts).chain([cost.sum(bill)]).collect()
    });
    let mut text = format!("{}  {} with pipeline {}, run {}\n", run.state, run.file, run.pipeline, run.run);
    text += &show::number_table(head.into(), rows);
    text.push('\n');
    let mut say = |name: &str, value: &str| writeln!(text, "{name:<12}{value}").expect("text takes all");
    if let Some(usd) = cost.usd_per_answer() {
        say("per answer", &dollars(usd));
    }
    if let Some(answered_by) = answered_by {
        say("answered by", &answered_by);
    }
    cost.notes().iter().for_each(|(name, note)| say(name, note));
    if is_stand_in {
        say("note", StandIn::NOTE);
        say("", "its answers cost nothing");
        return text;
    }
    if cost.basis == Basis::ListPrice {
        say(
            "basis",
            "an older version of Tasuki wrote the run, without prices and classes: these are its tokens at list price",
        );
    }
    prices.iter().for_each(|price| say("price", &price.text()));
    text
}
