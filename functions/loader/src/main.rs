//! The loader on Cloud Run: wiring, nothing else.

use std::process::ExitCode;
use std::sync::Arc;
use tasuki_google::service::{self, Platform, StartError};
use tasuki_google::settings::Role;
use tasuki_loader::Loader;
use tasuki_relay::leg::Leg;

fn main() -> ExitCode {
    service::run(Role::Loader, start)
}

async fn start(platform: Arc<Platform>) -> Result<Arc<dyn Leg>, StartError> {
    let (objects, records, notice) = (platform.objects().await?, platform.records().await?, platform.notice().await?);
    Ok(Loader::new(objects, records, notice, platform.clock.clone(), platform.settings.concurrency))
}
