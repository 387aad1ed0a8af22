//! What a row's calls cost, and for what: answers, retries, salvage. What becomes of it is decided when the row is loaded.

use crate::route::Route;
use tasuki_relay::ports::{Fault, Reply};
use tasuki_relay::record::{Bill, Spent};

/// Counts a paid call. `repairs`: it asked only for what an earlier answer lacked; `came`: something of its reply was kept. Returns
/// its cost, where that is known.
pub(crate) fn call(
    spent: &mut Spent,
    route: &Route,
    said: &Result<Reply, Fault>,
    repairs: bool,
    came: bool,
) -> Option<u64> {
    let cost = route.cost(said);
    let usage = said.as_ref().map(|reply| reply.usage).unwrap_or_default();
    let bill = Bill { calls: 1, usage, cost: cost.unwrap_or(0) };
    spent.usage += bill.usage;
    spent.cost += bill.cost;
    spent.unpriced_calls += u32::from(cost.is_none());
    if repairs {
        spent.salvage += bill;
    } else if !came {
        spent.retries += bill;
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::Breakers;
    use crate::route::Routes;
    use std::sync::Arc;
    use tasuki_relay::clock::{Clock, Millis};
    use tasuki_relay::pipeline::Pipeline;
    use tasuki_relay::record::Usage;

    #[test]
    fn each_paid_call_is_in_one_class_and_all_are_in_the_sum() {
        let text = "name = 'p'\nkey = 'id'\n[prompt]\ntemplate = '{{ t }}'\n[answer.a]\ntype = 'string'\n\
            [model.price]\ninput = 1\noutput = 2\n[target]\ntable = 't'\n";
        let (pipeline, clock) = (Arc::new(Pipeline::parse(text).unwrap()), Clock::system());
        let routes = Routes::new(&pipeline, &Breakers::new(clock.clone()), &clock, Millis(0));
        let reply = |prompt| Ok(Reply { usage: Usage { prompt, ..Usage::default() }, ..Reply::default() });
        let mut spent = Spent { paid_calls: 4, ..Spent::default() };
        let mut pay = |prompt, repairs, came| call(&mut spent, routes.pick(), &reply(prompt), repairs, came);
        assert_eq!(pay(1, false, false), Some(1_000_000), "a dollar a million tokens");
        pay(10, false, true); // a part of it was kept
        pay(100, true, false);
        pay(1_000, true, true);
        let prompts = |bill: Bill| (bill.calls, bill.usage.prompt, bill.cost / 1_000_000);
        assert_eq!(prompts(spent.retries), (1, 1, 1));
        assert_eq!(prompts(spent.salvage), (2, 1_100, 1_100));
        assert_eq!(prompts(spent.bill()), (4, 1_111, 1_111));
        assert_eq!(spent.unpriced_calls, 0);
        call(&mut spent, routes.pick(), &Err(Fault::Garbled("no JSON".into())), false, false);
        assert_eq!((spent.unpriced_calls, spent.retries.calls), (1, 2), "what does not tell its tokens is no gift");
        (spent.unpriced_calls, spent.retries.calls) = (0, 1);
        spent.forget_draft();
        assert_eq!(prompts(spent.retries), (2, 11, 11), "what was kept of the second is lost");
    }
}
