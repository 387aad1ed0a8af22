//! The adapters for Google Cloud, against Google's emulators and the stand-ins of this package.

mod bigquery;
mod bigquery_jobs;
mod command;
mod doctor;
mod end_to_end;
mod model;
mod notice;
mod records;
mod target_tables;
mod telemetry;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let trials: Vec<Vec<Trial>> = vec![
        bigquery::trials(),
        bigquery_jobs::trials(),
        command::trials(),
        doctor::trials(),
        end_to_end::trials(),
        model::trials(),
        notice::trials(),
        records::trials(),
        target_tables::trials(),
        telemetry::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit();
}
