//! How Google's services are reached: endpoints, credentials, TLS.

use google_cloud_auth::build_errors::Error as BuildError;
use google_cloud_auth::credentials::{Builder, Credentials, anonymous};
use std::time::Duration;

/// The scope of every token: what a service account may do is said by its roles, not by scopes.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A token comes within so long, or there is none: off Google Cloud its metadata server is asked for in vain.
const TOKEN_WITHIN: Duration = Duration::from_secs(10);

/// Where one service is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `http(s)://host[:port]`, without a slash at the end; `None` = the real service.
    pub url: Option<String>,
    /// Whoever calls it.
    pub credentials: Credentials,
}

impl Endpoint {
    /// An emulator or test server, without credentials. `host` is `host:port` or a whole address, as the variables
    /// `*_EMULATOR_HOST` have it.
    pub fn emulator(host: &str) -> Endpoint {
        let host = host.trim_end_matches('/');
        let url = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        Endpoint { url: Some(url), credentials: anonymous::Builder::new().build() }
    }

    /// The real service with the application's default credentials (on Cloud Run: the service's account).
    pub fn real() -> Result<Endpoint, BuildError> {
        Ok(Endpoint { url: None, credentials: Builder::default().with_scopes([SCOPE]).build()? })
    }

    /// Whether whoever calls can say who that is, by now: credentials are read when they are first needed.
    pub async fn has_token(&self) -> bool {
        let headers = self.credentials.headers(http::Extensions::new());
        matches!(tokio::time::timeout(TOKEN_WITHIN, headers).await, Ok(Ok(_)))
    }

    /// The emulator where one is named, else the real service.
    pub fn of(emulator: Option<&str>) -> Result<Endpoint, BuildError> {
        emulator.map_or_else(Endpoint::real, |host| Ok(Endpoint::emulator(host)))
    }
}

/// Makes ring the TLS provider of this process, which Google's clients are built without. Calling it again does nothing.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
