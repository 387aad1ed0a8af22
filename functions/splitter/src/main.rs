//! The splitter on Cloud Run: wiring, nothing else.

use std::process::ExitCode;
use std::sync::Arc;
use tasuki_google::service::{self, Platform, StartError};
use tasuki_google::settings::Role;
use tasuki_relay::leg::Leg;
use tasuki_relay::rows::ObjectRows;
use tasuki_splitter::{Settings, Splitter};

fn main() -> ExitCode {
    service::run(Role::Splitter, start)
}

async fn start(platform: Arc<Platform>) -> Result<Arc<dyn Leg>, StartError> {
    let settings = Settings {
        inbox: platform.settings.bucket(Role::Splitter.listens_to()).to_owned(),
        timing: platform.timing(),
        splits_admitted: platform.settings.concurrency,
        inbox_retention: platform.settings.inbox_retention,
        ..Settings::default()
    };
    let objects = platform.objects().await?;
    let rows = Arc::new(ObjectRows::new(objects.clone()));
    let (snapshots, stored) = (platform.snapshots().await?, platform.stored());
    let (clock, chance) = (platform.clock.clone(), platform.chance.clone());
    Ok(Splitter::new(objects, rows, snapshots, stored, clock, chance, settings))
}
