//! The adapters for Google Cloud, against Google's emulators and the stand-ins of this package.

mod end_to_end;
mod model;
mod notice;
mod records;
mod target_tables;
mod telemetry;
mod bigquery;
mod bigquery_jobs;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let trials: Vec<Vec<Trial>> = vec![end_to_end::trials(), model::trials(), notice::trials(), records::trials()];
    let trials: Vec<Vec<Trial>> = vec![records::trials(), target_tables::trials()];
    let trials: Vec<Vec<Trial>> = vec![model::trials(), notice::trials(), telemetry::trials()];
    let trials: Vec<Vec<Trial>> = vec![bigquery::trials(), bigquery_jobs::trials()];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit();
}
