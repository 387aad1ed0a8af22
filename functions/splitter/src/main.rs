//! The splitter on Cloud Run: wiring, nothing else.

use async_trait::async_trait;
use std::process::ExitCode;
use std::sync::Arc;
use tasuki_google::http::Leg;
use tasuki_google::service::{self, Platform, StartError};
use tasuki_google::settings::Role;
use tasuki_relay::ports::{Event, Verdict, Why};
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
    };
    let objects = platform.objects().await?;
    let rows = Arc::new(ObjectRows::new(objects.clone()));
    let (snapshots, stored) = (platform.snapshots().await?, platform.stored());
    let (clock, chance) = (platform.clock.clone(), platform.chance.clone());
    Ok(Arc::new(Service(Splitter::new(objects, rows, snapshots, stored, clock, chance, settings))))
}

struct Service(Arc<Splitter>);

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
