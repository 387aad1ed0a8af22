//! The adapters for Google Cloud, against Google's emulators and the stand-ins of this package.

mod model;
mod notice;
mod telemetry;

use libtest_mimic::{Arguments, Trial};

fn main() {
    let trials: Vec<Vec<Trial>> = vec![model::trials(), notice::trials(), telemetry::trials()];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit();
}
