//! The records port on Spanner: the conformance suite, and what only Spanner can do wrong.

use anyhow::Result;
use libtest_mimic::Trial;
use tasuki_google::connect::Endpoint;
use tasuki_google::records::SpannerRecords;
use tasuki_relay::ddl;
use tasuki_relay::pipeline::Pipeline;
use tasuki_tests::build::pipeline;
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::spanner::Database;
use tasuki_tests::suites::records::records_suite;

/// The tables that the suite's pipelines name.
const SUITE: [&str; 12] = [
    "once",
    "eight",
    "ends",
    "more",
    "refused",
    "at_once",
    "cancelled",
    "newer",
    "unchanged",
    "notice",
    "large",
    "empty",
];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("spanner_keeps_the_contract", &[Needs::Spanner], || contract(Needs::Spanner)),
        trial("spanner_keeps_the_contract_among_faults", &[Needs::SpannerWithFaults], || {
            contract(Needs::SpannerWithFaults)
        }),
    ]
}

async fn open(database: &Database, at_once: usize) -> Result<SpannerRecords> {
    Ok(SpannerRecords::connect(&database.name, Endpoint::emulator(&database.host), at_once, None).await?)
}

async fn make(database: &Database, pipeline: &Pipeline) -> Result<()> {
    database.apply(&ddl::target(pipeline).ddl()).await
}

async fn contract(needs: Needs) -> Result<()> {
    let database = Database::fresh(needs).await?;
    for table in SUITE {
        make(&database, &pipeline(table)).await?;
    }
    records_suite(&open(&database, 8).await?).await;
    Ok(())
}
