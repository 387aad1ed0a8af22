//! The generator on Cloud Run: wiring, nothing else.

use std::process::ExitCode;
use std::sync::Arc;
use tasuki_generator::{Generator, Settings};
use tasuki_google::service::{self, Platform, StartError};
use tasuki_google::settings::Role;
use tasuki_relay::leg::Leg;

fn main() -> ExitCode {
    service::run(Role::Generator, start)
}

async fn start(platform: Arc<Platform>) -> Result<Arc<dyn Leg>, StartError> {
    let settings = Settings {
        max_in_flight: platform.settings.max_in_flight,
        processes: platform.settings.instances,
        shards_admitted: platform.settings.concurrency,
        timing: platform.timing(),
        ..Settings::default()
    };
    let (objects, model) = (platform.objects().await?, platform.model()?);
    let (clock, chance) = (platform.clock.clone(), platform.chance.clone());
    Ok(Generator::new(objects, model, clock, chance, settings))
}
