//! What is done to the services while they work.

use super::Deployment;
use anyhow::Result;
use std::time::Duration;
use tasuki_relay::clock::Chance;
use tokio_util::sync::CancellationToken;

/// A pause between two blows.
const PAUSE: Duration = Duration::from_millis(700);
/// How long a stopped process stays so.
const STOPPED_FOR: Duration = Duration::from_secs(2);

/// Blows at the services in turn, by one seed.
pub struct Chaos {
    chance: Chance,
    /// Blows that were struck.
    pub blows: u32,
}

impl Chaos {
    /// Drawn from this seed.
    pub fn seeded(seed: u64) -> Chaos {
        Chaos { chance: Chance::seeded(seed), blows: 0 }
    }

    /// Kills, terminates and stops services in turn until told to end. Every service works again when it returns.
    pub async fn rage(&mut self, deployment: &Deployment, until: &CancellationToken) -> Result<()> {
        let services: Vec<_> = deployment.services.values().collect();
        while !until.is_cancelled() {
            tokio::time::sleep(PAUSE + self.chance.up_to(PAUSE)).await;
            let service = services[self.blows as usize % services.len()];
            match self.blows / 3 % 3 {
                0 => service.signal("KILL")?,
                1 => service.signal("TERM")?,
                _ => {
                    service.signal("STOP")?;
                    tokio::time::sleep(STOPPED_FOR).await;
                    service.signal("CONT")?;
                    self.blows += 1;
                    continue;
                }
            }
            self.blows += 1;
            service.again().await?;
        }
        Ok(())
    }
}
