//! Logs on stderr, written around the progress bar.

use indicatif::ProgressBar;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::EnvFilter;

/// The bar that is on the screen now.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// `TASUKI_LOG` says what is logged. The breaker is silent by default: the command says itself what stopped it.
const DEFAULT: &str = "warn,tasuki_generator::breaker=off,tasuki_loader=off";

/// Starts logging.
pub(crate) fn start() {
    let asked = std::env::var("TASUKI_LOG").ok().filter(|text| !text.trim().is_empty());
    let filter = asked.and_then(|text| match EnvFilter::try_new(text) {
        Ok(filter) => Some(filter),
        Err(_) => {
            eprintln!(
                "TASUKI_LOG is no level (error, warn, info, debug, trace) and no list of directives: it is not used"
            );
            None
        }
    });
    let filter = filter.unwrap_or_else(|| EnvFilter::new(DEFAULT));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Around(Vec::new()));
    logs.with_ansi(false).without_time().init();
}

/// From now on logs are written above this bar; `None` when it is gone.
pub(crate) fn around(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// One line, written when it is whole.
struct Around(Vec<u8>);

impl Write for Around {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(text);
        Ok(text.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let write = || io::stderr().write_all(&self.0);
        // There is nowhere to say that stderr is closed.
        let _ = match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
    }
}
