//! The invariants (protocol.md 7), looked at after every effect of a port call and at the end of a world.

use super::model::CANARY;
use super::{ByHand, World};
use crate::memory::records::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tasuki_relay::checkpoint::SERVER_ERROR_EPOCHS;
use tasuki_relay::clock::Millis;
use tasuki_relay::names::{self, Bucket, RunId, ShardId};
use tasuki_relay::ports::{Generation, Meta, RunState};
use tasuki_relay::record::{AnswerLine, Content, Counts, Header, Outcome, Plan, ShardLine, decode};
use tasuki_relay::settle::parked_id;

/// Re-drives of one object that are bounded for ever: an hour's worth of sweeps and a dead letter's worth of deliveries.
const DELIVERIES_PER_OBJECT_MAX: u32 = 500;

/// How often a shard at work looks for control objects: the generator's default.
const CONTROL_EVERY: Duration = Duration::from_secs(30);
/// How long such a look takes at most without a fault, and a call that was about to start.
const LOOKING: Duration = Duration::from_secs(2);

/// What the last look saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    answers: BTreeMap<String, Generation>,
    ended: BTreeMap<RunId, (RunState, Option<Millis>)>,
    /// The marker that parks the first run, and all that did.
    parked: Option<Generation>,
    parkings: BTreeSet<Generation>,
}

impl World {
    /// Looks at what must hold after every step.
    pub(crate) fn check(&self) {
        let seen = &mut *self.seen.lock().expect("a panic ends the test");
        if let Err(what) = self.objects_hold(seen).and_then(|()| self.records.look(|state| store_holds(state, seen))) {
            self.violate(what);
        }
    }

    fn objects_hold(&self, seen: &mut Seen) -> Result<(), String> {
        for answers in self.objects.versions(Bucket::Answers) {
            let first = *seen.answers.entry(answers.meta.name.clone()).or_insert(answers.meta.generation);
            if first != answers.meta.generation {
                return Err(format!("I4: answers object {} changed", answers.meta.name));
            }
        }
        let marker = self.marker().map(|meta| meta.generation);
        if let Some(before) = seen.parked.filter(|before| marker != Some(*before))
            && !self.resumed.lock().expect("a panic ends the test").contains(&before)
        {
            return Err(format!("I15: the run was parked by marker {before}, which nobody resumed"));
        }
        seen.parked = marker;
        seen.parkings.extend(marker);
        Ok(())
    }

    /// The marker that parks the first run.
    fn marker(&self) -> Option<Meta> {
        let run = self.setup.parks().then(|| self.first_run())??;
        self.objects.find(Bucket::State, &names::parked(&run))
    }

    /// Looks at what must hold when the model is asked: who works sees a parked run with the next look at its control objects.
    pub(crate) fn check_parked(&self) {
        let limit = CONTROL_EVERY + LOOKING + Duration::from_millis(self.blind_ms.load(Relaxed));
        let age = self.marker().map(|marker| self.clock.now().since(marker.created));
        if self.setup.files.len() == 1
            && let Some(age) = age.filter(|age| *age > limit)
        {
            self.violate(format!("I16: the model is asked {age:?} after the run was parked"));
        }
    }

    /// Every run that was begun has ended, nothing is open, and nothing is on its way.
    pub(crate) fn is_over(&self) -> bool {
        self.what_is_missing().is_empty()
    }

    pub(crate) fn what_is_missing(&self) -> String {
        let state = self.objects.live(Bucket::State);
        let mut missing = Vec::new();
        let ended = self.records.look(|state| {
            state
                .runs
                .values()
                .filter(|run| run.row.state.has_ended())
                .map(|run| run.row.run.clone())
                .collect::<BTreeSet<_>>()
        });
        for object in &state {
            if names::parse_plan(&object.meta.name).is_ok_and(|run| !ended.contains(&run)) {
                missing.push(format!("{} has not ended", object.meta.name));
            }
            if names::parse_open(&object.meta.name).is_ok() {
                missing.push(format!("{} is there", object.meta.name));
            }
        }
        for file in self.objects.live(Bucket::Inbox) {
            let run = RunId::of("inbox", &file.meta.name, file.meta.generation);
            if !state.iter().any(|object| object.meta.name == names::plan(&run)) {
                missing.push(format!("{} has no plan", file.meta.name));
            }
        }
        if self.deliveries.load(Relaxed) > 0 {
            missing.push("an event is on its way".into());
        }
        missing.join(", ")
    }

    /// Looks at what must hold at the end.
    pub(crate) fn check_end(&self) {
        let bill = self.model.bill();
        let all = [
            self.every_row_has_one_outcome(),
            self.answers_are_those_of_the_objects(),
            self.no_row_text_where_it_does_not_belong(),
            self.rows_fail_for_their_own_reasons(),
            self.notices_are_single(),
            self.redrives_are_bounded(),
            self.money_is_bounded(bill.paid, bill.by_script),
            if self.faults.all_met() { Ok(()) } else { Err("a scheduled fault was never met".to_owned()) },
        ];
        all.into_iter().filter_map(Result::err).for_each(|what| self.violate(what));
    }

    fn shards(&self) -> Vec<(Header, Vec<ShardLine>)> {
        let shards = self.objects.live(Bucket::Shards);
        shards.iter().map(|shard| decode(&shard.body).expect("shards are whole")).collect()
    }

    fn every_row_has_one_outcome(&self) -> Result<(), String> {
        self.records.look(|state| {
            for (run, row) in &state.runs {
                let counts = state.run(run).expect("it is there").counts;
                let expected = (row.row.expected_shards, row.row.expected_rows);
                if row.row.state != RunState::Failed && expected != (Some(counts.shards), Some(counts.rows())) {
                    return Err(format!("I2: run {run} expected {expected:?}, has {counts:?}"));
                }
            }
            for (header, lines) in self.shards() {
                let entry = state.ledger.get(&header.id());
                let ended = state.runs.get(&header.run).map(|run| run.row.state);
                if entry.is_none() && ended != Some(RunState::Failed) {
                    return Err(format!("I3: shard {} has no ledger row", header.id()));
                }
                if entry.is_some_and(|entry| entry.counts.rows() != lines.len() as u64) {
                    return Err(format!("I3: the ledger row of shard {} has other rows than the shard", header.id()));
                }
            }
            Ok(())
        })
    }

    fn answers_are_those_of_the_objects(&self) -> Result<(), String> {
        let mut answered = BTreeMap::new();
        for object in self.objects.live(Bucket::Answers) {
            let (header, lines) = match decode::<Header, AnswerLine>(&object.body) {
                Ok(whole) => whole,
                Err(_) if self.setup.by_hand.iter().any(|(_, hand)| matches!(hand, ByHand::CorruptsAnswers)) => {
                    continue;
                }
                Err(corrupt) => return Err(format!("I3: {}: {corrupt}", object.meta.name)),
            };
            let ordinals: Vec<u64> = lines.iter().map(|line| line.ordinal).collect();
            if ordinals != (header.first..header.first + header.rows).collect::<Vec<_>>() {
                return Err(format!("I3: answers object {} has ordinals {ordinals:?}", object.meta.name));
            }
            answered.extend(lines.into_iter().map(|line| ((header.run.clone(), line.ordinal), line.outcome)));
        }
        self.records.look(|state| {
            for row in state.targets.values().flat_map(BTreeMap::values) {
                match answered.get(&(row.run.clone(), row.ordinal)) {
                    Some(Outcome::Answer(answer)) if answer.values == row.values => (),
                    Some(Outcome::Unchanged(fingerprint)) if *fingerprint == row.fingerprint => (),
                    _ => return Err(format!("I5: row {} of run {} is not its answers object's", row.ordinal, row.run)),
                }
            }
            Ok(())
        })
    }

    /// I14, and what the model's script says of each row.
    fn rows_fail_for_their_own_reasons(&self) -> Result<(), String> {
        let timeouts = self
            .log
            .lock()
            .expect("a panic ends the test")
            .iter()
            .filter(|line| line.contains("generator ask"))
            .count()
            >= 2;
        let mut acts = BTreeMap::new();
        for (header, lines) in self.shards() {
            for line in lines {
                let Content::Row(row) = line.content else { continue };
                let act = row["act"].as_str().and_then(|act| act.split('-').next()).unwrap_or_default().to_owned();
                acts.insert((header.run.clone(), line.ordinal), act);
            }
        }
        self.records.look(|state| {
            for (row, failure) in &state.failures {
                let allowed = match (acts.get(row).map(String::as_str), failure.reason.as_str()) {
                    (None, "source_gone") => {
                        self.setup.by_hand.iter().any(|(_, hand)| matches!(hand, ByHand::Purges(..)))
                    }
                    (None, "changed_meanwhile") => self.setup.files.len() > 1, // a line that said "unchanged" holds no row
                    (None, "bad_json" | "null_key" | "missing_column" | "duplicate_key") => true,
                    (None, _) => false,
                    (_, "cancelled") => self.setup.cancel_at.is_some(),
                    (_, "changed_meanwhile") => self.setup.files.len() > 1,
                    (_, "timeout") if timeouts => true,
                    (_, "gave_up") => self.setup.pipeline.contains("give_up_after"),
                    (Some(act), reason) => {
                        let own = [
                            ("blocked", "blocked_prompt:SAFETY"),
                            ("cut", "truncated"),
                            ("invalid", "rejected"),
                            ("kills", "poison"),
                            ("hangs", "timeout"),
                            ("dead", "server_error"),
                        ];
                        own.contains(&(act, reason)) || self.is_by_hand(row, reason)
                    }
                };
                if !allowed {
                    return Err(format!("I14: row {row:?} ({:?}) failed {}", acts.get(row), failure.reason));
                }
            }
            Ok(())
        })
    }

    /// What a hand brought about in this world.
    fn is_by_hand(&self, row: &(RunId, u64), reason: &str) -> bool {
        match reason {
            "answers_corrupt" => self.setup.by_hand.iter().any(|(_, hand)| matches!(hand, ByHand::CorruptsAnswers)),
            "store_rejected:CHECK" => self.setup.rejected_key == Some(format!("k{}", row.1)),
            _ => false,
        }
    }

    fn no_row_text_where_it_does_not_belong(&self) -> Result<(), String> {
        let messages =
            self.records.look(|state| state.failures.values().map(|row| row.message.clone()).collect::<Vec<_>>());
        let plans = self.objects.live(Bucket::State);
        let plans = plans
            .iter()
            .filter_map(|object| serde_json::from_slice::<Plan>(&object.body).ok())
            .filter_map(|plan| plan.refused);
        match messages.into_iter().chain(plans).find(|text| text.contains(CANARY)) {
            Some(text) => Err(format!("I12: {text}")),
            None => Ok(()),
        }
    }

    fn notices_are_single(&self) -> Result<(), String> {
        let notices = self.notices.lock().expect("a panic ends the test");
        let ended = self.records.look(|state| state.runs.keys().cloned().collect::<Vec<_>>());
        let ends = |ids: &BTreeSet<String>| ids.iter().filter(|id| !id.contains(":parked:")).count();
        let parkings = &self.seen.lock().expect("a panic ends the test").parkings;
        let first = self.first_run();
        let known: BTreeSet<String> =
            first.iter().flat_map(|run| parkings.iter().map(|marker| parked_id(run, *marker))).collect();
        if let Some(id) = notices.values().flatten().find(|id| id.contains(":parked:") && !known.contains(*id)) {
            return Err(format!("I9: {id} was announced, and no such marker was there"));
        }
        match ended.iter().find(|run| notices.get(run).is_none_or(|ids| ends(ids) != 1)) {
            Some(run) => Err(format!("I9: run {run} was announced as {:?}", notices.get(run))),
            None => Ok(()),
        }
    }

    fn redrives_are_bounded(&self) -> Result<(), String> {
        match self
            .delivered
            .lock()
            .expect("a panic ends the test")
            .iter()
            .find(|(_, deliveries)| **deliveries > DELIVERIES_PER_OBJECT_MAX)
        {
            Some((name, deliveries)) => Err(format!("I13: {name} was delivered {deliveries} times")),
            None => Ok(()),
        }
    }

    /// I6, and I7 where nothing went wrong: what each row may cost, its scripted retries, and the waste of each fault.
    fn money_is_bounded(&self, paid: u64, by_script: u64) -> Result<(), String> {
        if self.setup.skewed {
            return Ok(()); // a clock that goes ahead takes over claims that are alive: extra spend is all that it does
        }
        let asked: u64 = self
            .shards()
            .iter()
            .flat_map(|(_, lines)| lines)
            .map(|line| u64::from(matches!(line.content, Content::Row(_))))
            .sum();
        // A row that the model can never take is told from a model that is down by asking about another one, once an epoch.
        let dead = self.setup.texts().map(|text| text.matches("dead-").count() as u64).sum::<u64>();
        let asked = asked + dead * SERVER_ERROR_EPOCHS as u64;
        let bound = asked + by_script + self.waste.load(Relaxed);
        if paid > bound {
            return Err(format!(
                "I6: {paid} calls were paid for {asked} rows, {by_script} allowed retries and a waste of {bound} in all"
            ));
        }
        Ok(())
    }
}

fn store_holds(state: &State, seen: &mut Seen) -> Result<(), String> {
    let mut outcomes = BTreeSet::new();
    for row in state.targets.values().flat_map(BTreeMap::values) {
        if !outcomes.insert((row.run.clone(), row.ordinal)) {
            return Err(format!("I1: row {} of run {} is loaded twice", row.ordinal, row.run));
        }
    }
    if let Some((run, ordinal)) = state.failures.keys().find(|row| outcomes.contains(row)) {
        return Err(format!("I1: row {ordinal} of run {run} is both loaded and failed"));
    }
    let mut ledgers = BTreeMap::<&RunId, Counts>::new();
    for (ShardId { run, .. }, entry) in &state.ledger {
        *ledgers.entry(run).or_default() += entry.counts;
    }
    for (run, row) in &state.runs {
        let counts = state.run(run).expect("it is there").counts;
        if ledgers.get(run).copied().unwrap_or_default() != counts {
            return Err(format!("I3: the counters of run {run} are not the sum of its ledger"));
        }
        let failures = state.failures.range((run.clone(), 0)..=(run.clone(), u64::MAX)).count() as u64;
        if failures != counts.failed {
            return Err(format!("I1: run {run} counts {} failed rows and holds {failures}", counts.failed));
        }
        let now = (row.row.state, row.row.ended_at);
        let before = seen.ended.entry(run.clone()).or_insert(now);
        if before.0.has_ended() && *before != now {
            return Err(format!("I8: run {run} went from {before:?} to {now:?}"));
        }
        *before = now;
    }
    Ok(())
}
