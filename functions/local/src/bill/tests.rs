use super::*;
use tasuki_relay::record::Usage;

const CENT: u64 = 10_000_000_000;

fn bill(calls: u64, cents: u64) -> Bill {
    Bill { calls, usage: Usage { prompt: calls * 100, output: calls * 10, ..Usage::default() }, cost: cents * CENT }
}

/// 30 calls for 60 cents: 20 answers, and of the rest something of each class.
fn counts() -> Counts {
    let all = bill(30, 60);
    let (retries, salvage, waste) = (bill(4, 10), bill(3, 5), bill(3, 5));
    Counts {
        loaded: 19,
        superseded: 1,
        failed: 2,
        paid_calls: 30,
        wasted_answers: 1,
        usage: all.usage,
        cost: all.cost,
        retries,
        salvage,
        waste,
        ..Counts::default()
    }
}

#[test]
fn the_classes_come_to_the_total() {
    let cost = Cost::recorded(counts());
    let classes = cost.classes().unwrap();
    assert_eq!(classes[0], ("answers", bill(20, 40)));
    let mut sum = Bill::default();
    classes.iter().for_each(|(_, bill)| sum += *bill);
    assert_eq!((sum, cost.usd(), cost.usd_per_answer()), (bill(30, 60), Some(0.6), Some(0.03)));
    assert_eq!(cost.in_short(), ("$0.60".into(), "retries $0.10, salvage $0.05, waste $0.05".into()));
    let waste = json!({"calls": 3, "prompt_tokens": 300, "cached_tokens": 0, "output_tokens": 30, "thought_tokens": 0, "cost_usd": 0.05});
    assert_eq!((&cost.json()["waste"], cost.json().as_object().unwrap().len()), (&waste, 4));
    assert_eq!(cost.notes(), []);
}

#[test]
fn what_an_open_run_cost_is_not_known_yet() {
    let told = |not_loaded, missing| {
        let cost = Cost::recorded(counts()).so_far(Some(SoFar { not_loaded, missing }));
        assert_eq!((cost.usd(), cost.usd_per_answer()), (None, None));
        assert_eq!(cost.not_loaded_json()["calls"], not_loaded.calls);
        let notes: Vec<String> = cost.notes().into_iter().map(|(name, note)| format!("{name}: {note}")).collect();
        (cost.in_short().0, notes.join("\n"))
    };
    let (short, notes) = told(bill(3, 5), Missing::InFlight);
    assert_eq!(short, "$0.60 so far, without calls in flight");
    assert!(
        notes.ends_with("checkpoint, are not in this\nnot loaded: $0.05 of it, 3 calls, not loaded yet"),
        "{notes}"
    );
    let (short, notes) = told(bill(3, 5), Missing::Unread(1_200));
    assert!(short.ends_with("without 1,200 objects that were not read"), "{short}");
    assert!(notes.contains("in 1,200 further objects"), "{notes}");
    let (short, notes) = told(Bill::default(), Missing::NotLoaded);
    assert!(short.ends_with("so far, without what is not loaded yet"), "{short}");
    assert!(notes.ends_with("the right to read it"), "{notes}");
    let so_far = SoFar { not_loaded: bill(3, 5), missing: Missing::InFlight };
    let free = Cost::nothing(counts()).so_far(Some(so_far));
    assert_eq!((free.usd(), free.so_far), (Some(0.0), None), "the stand-in costs nothing at any time");
}

#[test]
fn what_has_no_price_makes_a_sum_a_bound_and_never_0() {
    let cost = Cost::recorded(Counts { unpriced_calls: 3, ambiguous_calls: 2, ..counts() });
    assert_eq!(
        (cost.usd(), cost.usd_per_answer(), cost.sum(cost.counts.bill())),
        (None, None, "at least $0.60".into())
    );
    assert!(cost.in_short().1.ends_with("3 calls have no known cost"), "{:?}", cost.in_short());
    assert_eq!(cost.notes().iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["ambiguous", "unpriced"]);
    assert_eq!(cost.json()["answers"]["cost_usd"], Value::Null);
    let nothing = Counts { paid_calls: 3, unpriced_calls: 3, ..Counts::default() };
    assert_eq!(Cost::recorded(nothing).in_short(), ("unknown".into(), "3 calls have no known cost".into()));
    assert_eq!(Cost::recorded(nothing).json()["waste"]["cost_usd"], json!(0.0), "no call, no cost");
}

#[test]
fn a_reply_without_its_tokens_asks_for_no_price_that_is_known() {
    let cost = Cost::recorded(Counts { unpriced_calls: 3, ..counts() });
    let note = |cost: Cost| cost.notes().remove(0).1;
    assert!(note(cost).contains("write [model.price]") && note(cost).contains("not tell its tokens"), "{}", note(cost));
    let known = cost.with_prices(true);
    assert!(!note(known).contains("price") && note(known).contains("may have been charged"), "{}", note(known));
    assert!(known.in_short().1.ends_with("3 calls did not tell their tokens"), "{:?}", known.in_short());
    assert_eq!(known.usd(), None, "and its cost is as unknown");
}

#[test]
fn a_run_of_an_older_version_has_a_list_price_and_no_classes() {
    let old = Counts { loaded: 20, paid_calls: 20, usage: bill(20, 0).usage, ..Counts::default() };
    let cost = Cost::at_list_price(old, Some(prices::Price::per_million(0.30, 2.50, None, None)));
    assert_eq!((cost.usd(), cost.classes(), cost.json()), (Some(0.0011), None, Value::Null));
    assert_eq!(cost.in_short(), ("$0.0011".into(), "at list price".into()));
    assert_eq!(Cost::at_list_price(old, None).in_short().0, "unknown");
}

#[test]
fn the_stand_in_costs_nothing_whatever_was_noted() {
    let cost = Cost::nothing(Counts { unpriced_calls: 30, ..counts() });
    assert_eq!((cost.usd(), cost.in_short()), (Some(0.0), ("$0.00".into(), String::new())));
    assert!(!cost.has_parts());
}

#[test]
fn each_model_that_may_be_asked_is_told_with_its_price() {
    let text = include_str!("../../../../examples/themes.toml");
    let mut pipeline = Pipeline::parse(text).unwrap();
    let place = |model: &str| Place { model: model.into(), location: Some("eu".into()) };
    pipeline.model.fallback = vec![place("gemini-3.5-flash"), place("mine")];
    let noon = Millis(1_795_176_000_000); // of 2026-11-20
    let texts: Vec<String> = Price::all(&pipeline, noon).iter().map(Price::text).collect();
    assert!(
        texts[0].ends_with(", standard: $0.30 in, $0.03 cached, $2.50 out for a million tokens, list price"),
        "{texts:?}"
    );
    assert!(texts[1].starts_with("gemini-3.5-flash@eu, standard: $1.50 in"), "{texts:?}");
    assert_eq!(texts[2], "mine@eu, standard: unknown, it is not in prices.toml");
    pipeline.model.price = Some(prices::Price::per_million(1.0, 2.0, Some(3.0), None));
    let own = Price::all(&pipeline, noon).remove(0);
    assert!(own.text().ends_with(
        "$1.00 in, $1.00 cached, $2.00 out, $3.00 thought for a million tokens, [model.price] of the pipeline"
    ));
    assert_eq!((&own.json()["basis"], &own.json()["thought"]), (&json!("pipeline"), &json!(3.0)));
}
