//! Ctrl-C and SIGTERM: the first asks to stop, the second ends the process at once.

use std::io;
use tokio::sync::watch;

/// Whether a stop was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens from now on.
    pub(crate) fn listen() -> io::Result<Stop> {
        let (tell, told) = watch::channel(false);
        #[cfg(unix)]
        let (mut interrupt, mut terminate) = {
            use tokio::signal::unix::{SignalKind, signal};
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        tokio::spawn(async move {
            loop {
                #[cfg(unix)]
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                }
                #[cfg(not(unix))]
                let _ = tokio::signal::ctrl_c().await;
                if tell.send_replace(true) {
                    eprintln!("stopped at once");
                    std::process::exit(1);
                }
            }
        });
        Ok(Stop(told))
    }

    /// Returns once a stop was asked for.
    pub(crate) async fn asked(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending().await // its task is gone with the runtime
        }
    }
}
