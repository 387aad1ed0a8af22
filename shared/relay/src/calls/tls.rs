//! What every HTTPS client of this process trusts.

use super::ConfigError;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

/// Where systems keep their bundle of trusted certificates: Debian, Red Hat, SUSE, Alpine and macOS. Looked at only when
/// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set: rustls-native-certs then reads those and nothing else.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS for every connection: made once, because reading the trusted certificates takes milliseconds, and cloned, because
/// clones share the sessions that save a handshake. `cert_file` is trusted besides the system's certificates; one that holds
/// none is an error.
pub fn config(cert_file: Option<&Path>) -> Result<ClientConfig, ConfigError> {
    let roots = roots(cert_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| ConfigError("TLS cannot be set up".to_owned()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn roots(cert_file: Option<&Path>) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    // A single broken certificate of the system's is no reason to trust none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(bundle) = BUNDLES.iter().map(Path::new).find(|bundle| bundle.exists()) {
        roots.add_parsable_certificates(rustls_native_certs::load_certs_from_paths(Some(bundle), None).certs);
    }
    if let Some(file) = cert_file {
        let given = rustls_native_certs::load_certs_from_paths(Some(file), None).certs;
        let (added, _) = roots.add_parsable_certificates(given);
        if added == 0 {
            return Err(ConfigError(format!(
                "SSL_CERT_FILE: no certificate can be read from {}: unset it, or name a file in PEM",
                file.display()
            )));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    roots.roots.retain(|root| seen.insert((root.subject.to_vec(), root.subject_public_key_info.to_vec())));
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cert_file_without_a_certificate_is_named() {
        let error = config(Some(Path::new("no/such/file.pem"))).unwrap_err().to_string();
        assert!(error.contains("SSL_CERT_FILE") && error.contains("no/such/file.pem"), "{error}");
    }
}
