//! Wrong variants of the ledger, made by bending what a process's storage does: the product stays as it is.

use crate::ports::OUTPUT_MAX;
use crate::world::{run, unrenewed};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tasuki_relay::budget::Ledger;
use tasuki_relay::claims::Timing;
use tasuki_relay::clock::Clock;
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::ports::{Generation, Objects, ObjectsError};
use tasuki_tests::hooked::{Call, Hook, Op};
use tasuki_tests::memory::MemoryObjects;

/// How a variant is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The ledger is written over whatever another process wrote meanwhile.
    WrittenWithoutPrecondition,
    /// A write that failed is taken for done, and a ledger that cannot be read for unchanged.
    FailureBelieved,
    /// Of a call's worst case only the question is set aside.
    OutputNotSetAside,
    /// The slice of a crashed process is free again, as if nothing of it had been spent.
    CrashedSliceGivenBack,
    /// What a crashed process spent is looked for among the answers alone.
    SettledWithoutCheckpoints,
    /// What is settled is counted once more.
    SettledTwice,
    /// A ledger that is not there begins at zero.
    BeginsAtZero,
    /// The cap that counts is the one before the last that a person wrote.
    CapOfBefore,
}

impl Wrong {
    /// The limit of a call's output that the pipeline says; the model keeps to [`OUTPUT_MAX`].
    pub fn output_set_aside(wrong: Option<Wrong>) -> u64 {
        if wrong == Some(Wrong::OutputNotSetAside) { 1 } else { OUTPUT_MAX }
    }
}

/// Bends the calls of a process.
pub struct Bent {
    pub objects: Arc<MemoryObjects>,
    pub clock: Clock,
    pub wrong: Option<Wrong>,
}

#[async_trait]
impl Hook for Bent {
    async fn before(&self, call: &mut Call) -> Result<(), ObjectsError> {
        let Some(wrong) = self.wrong else { return Ok(()) };
        let of_budget = call.bucket == Bucket::State && call.name == names::budget(&run());
        match (wrong, call.op) {
            (Wrong::WrittenWithoutPrecondition, Op::Write) if of_budget => call.generation = self.live(&call.name),
            (Wrong::CrashedSliceGivenBack, Op::Read) if of_budget => self.give_back_crashed(&call.name).await?,
            (Wrong::SettledWithoutCheckpoints, Op::List) if call.name == names::checkpoints(&run()) => {
                call.name = "none/".into();
            }
            (Wrong::SettledTwice, Op::Write) if of_budget => {
                let before = self.ledger_at(&call.name, call.generation).await?.settled;
                bend(call, |ledger| ledger.settled += ledger.settled.saturating_sub(before));
            }
            (Wrong::BeginsAtZero, Op::Write) if of_budget && call.generation.is_none() => {
                bend(call, |ledger| ledger.settled = 0);
            }
            (Wrong::CapOfBefore, Op::Read) if call.name == names::max_cost(&run()) => {
                match self.version_before(&call.name) {
                    None => call.name = "none".into(),
                    before => call.generation = before,
                }
            }
            _ => (),
        }
        Ok(())
    }
}

impl Bent {
    fn live(&self, name: &str) -> Option<Generation> {
        self.objects.find(Bucket::State, name).map(|meta| meta.generation)
    }

    /// The version before the live one.
    fn version_before(&self, name: &str) -> Option<Generation> {
        let versions = self.objects.versions(Bucket::State).into_iter().filter(|object| object.meta.name == name);
        versions.map(|object| object.meta.generation).rev().nth(1)
    }

    async fn ledger_at(&self, name: &str, generation: Option<Generation>) -> Result<Ledger, ObjectsError> {
        let Some(generation) = generation else { return Ok(Ledger::default()) };
        let object = self.objects.read(Bucket::State, name, Some(generation)).await?;
        Ok(object.and_then(|object| Ledger::parse(&object.body, object.meta.created)).unwrap_or_default())
    }

    async fn give_back_crashed(&self, name: &str) -> Result<(), ObjectsError> {
        let Some(generation) = self.live(name) else { return Ok(()) };
        let mut ledger = self.ledger_at(name, Some(generation)).await?;
        let crashed = unrenewed(&ledger, self.clock.now(), Timing::default().lease);
        if !crashed.is_empty() {
            ledger.slices.retain(|owner, _| !crashed.contains(owner));
            self.objects.replace(Bucket::State, name, body(&ledger), generation).await?;
        }
        Ok(())
    }
}

/// Bends the ledger that is written. Its new slice does not say when it was renewed, as it should not.
fn bend(call: &mut Call, how: impl FnOnce(&mut Ledger)) {
    let mut ledger: Ledger = serde_json::from_slice(&call.body).expect("the product writes ledgers");
    how(&mut ledger);
    call.body = body(&ledger);
}

fn body(ledger: &Ledger) -> Bytes {
    serde_json::to_vec(ledger).expect("plain data").into()
}
