//! The adapters for Google Cloud, against Google's emulators and the stand-ins of this package.

mod bigquery;
mod bigquery_jobs;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let trials: Vec<Vec<Trial>> = vec![bigquery::trials(), bigquery_jobs::trials()];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit();
}
