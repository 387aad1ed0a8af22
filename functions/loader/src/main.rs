//! The loader on Cloud Run: wiring, nothing else.

use async_trait::async_trait;
use std::process::ExitCode;
use std::sync::Arc;
use tasuki_google::http::Leg;
use tasuki_google::service::{self, Platform, StartError};
use tasuki_google::settings::Role;
use tasuki_loader::Loader;
use tasuki_relay::ports::{Event, Verdict, Why};

fn main() -> ExitCode {
    service::run(Role::Loader, start)
}

async fn start(platform: Arc<Platform>) -> Result<Arc<dyn Leg>, StartError> {
    let (objects, records, notice) = (platform.objects().await?, platform.records().await?, platform.notice().await?);
    let loader = Loader::new(objects, records, notice, platform.clock.clone(), platform.settings.concurrency);
    Ok(Arc::new(Service(loader)))
}

struct Service(Arc<Loader>);

#[async_trait]
impl Leg for Service {
    async fn handle(&self, event: &Event) -> Verdict {
        self.0.handle(event).await
    }
    async fn sweep(&self) -> Result<usize, Why> {
        self.0.sweep().await
    }
    async fn drain(&self) {
        self.0.drain().await;
    }
}
