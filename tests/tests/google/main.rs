//! The adapters for Google Cloud, against Google's emulators and the stand-ins of this package.

mod bigquery;
mod bigquery_jobs;
mod command;
mod doctor;
mod end_to_end;
mod leaks;
mod lost_replies;
mod model;
mod notice;
mod outages;
mod records;
mod shared_snapshot;
mod target_tables;
mod telemetry;

use libtest_mimic::{Arguments, Trial};

/// Trials at once, whatever the machine: they wait more than they work.
const AT_ONCE: usize = 4;

fn main() {
    let trials: Vec<Vec<Trial>> = vec![
        bigquery::trials(),
        bigquery_jobs::trials(),
        command::trials(),
        doctor::trials(),
        end_to_end::trials(),
        leaks::trials(),
        lost_replies::trials(),
        model::trials(),
        notice::trials(),
        outages::trials(),
        records::trials(),
        shared_snapshot::trials(),
        target_tables::trials(),
        telemetry::trials(),
    ];
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
