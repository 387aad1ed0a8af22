//! A stand-in for the Gemini API on 127.0.0.1, for hands and for tests of whole processes. Prints its address first and
//! runs until it is killed.

use clap::Parser;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;
use tasuki_tests::model_server::{ModelServer, Script};

#[derive(Parser)]
struct Arguments {
    /// The port on 127.0.0.1; 0 = a free one.
    #[arg(default_value_t = 0)]
    port: u16,
    /// Over TLS, HTTP/2 or HTTP/1.1.
    #[arg(long)]
    https: bool,
    /// Where the certificate for SSL_CERT_FILE is written.
    #[arg(long, requires = "https")]
    ca: Option<PathBuf>,
    /// Milliseconds before each reply.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// One answer text for all calls, which are then not read; else answers that fit the calls' schemas.
    #[arg(long)]
    answer: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // Over HTTP/1.1 every call in flight is a descriptor.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let script = arguments.answer.as_deref().map_or_else(Script::default, Script::fixed);
    let script = script.port(arguments.port).latency(Duration::from_millis(arguments.latency_ms));
    let server = ModelServer::start(if arguments.https { script.https() } else { script }).await?;
    if let Some(file) = &arguments.ca {
        std::fs::copy(server.ca_pem_path(), file)?;
    }
    writeln!(std::io::stdout(), "{}", server.base())?;
    std::future::pending().await
}
