//! What a call comes to that broke off, and when a server wants to be asked again.

use crate::clock::{Clock, Millis};
use crate::ports::Fault;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whether a request has left this process. Only then may it be paid.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent(Arc<AtomicBool>);

impl Sent {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// What was sent was not looked at.
    pub(super) fn unset(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The fault of a call that broke off. The error's own words are not used: they carry the whole address; scheme, host and port
/// are told.
pub(super) fn transport(error: &reqwest::Error, sent: &Sent) -> Fault {
    if error.is_connect() {
        let tls = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>());
        let refused = |cause: &(dyn Error + 'static)| {
            cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        };
        let what = match tls {
            _ if error.is_timeout() => "no connection in time",
            _ if error.is_dns() => "name not found (DNS)",
            Some(rustls::Error::InvalidCertificate(_)) => {
                "its certificate is not trusted: SSL_CERT_FILE names further ones that are"
            }
            Some(_) => "TLS failed",
            None if causes(error).any(refused) => "connection refused",
            // The error's type is not public; this is the fixed beginning of its text.
            None if causes(error).any(|cause| cause.to_string().starts_with("tunnel error")) => {
                "the proxy opens no way to it: see HTTPS_PROXY and NO_PROXY"
            }
            None => "no connection",
        };
        let proxied = if has_proxy() { " (perhaps by the proxy: HTTPS_PROXY or HTTP_PROXY is set)" } else { "" };
        let origin = error.url().map(|url| format!("{}: ", url.origin().ascii_serialization())).unwrap_or_default();
        return Fault::Unavailable(format!("{origin}{what}{proxied}"));
    }
    if !sent.get() {
        let what = if error.is_timeout() { "no connection in time" } else { "the connection was lost before sending" };
        return Fault::Unavailable(what.to_owned());
    }
    if unprocessed(error) {
        return Fault::Unavailable("it closed the connection before it took the call".to_owned());
    }
    Fault::Ambiguous("the connection was lost before the end of the reply".to_owned())
}

/// A failure may be the proxy's where the environment names one; `NO_PROXY` may except the address.
fn has_proxy() -> bool {
    let names = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    names.into_iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// The fault of a call that took too long.
pub(super) fn timeout(after: Duration, sent: &Sent) -> Fault {
    let after = humantime::format_duration(after);
    match sent.get() {
        true => Fault::Ambiguous(format!("nothing within {after}")),
        false => Fault::Unavailable(format!("no connection within {after}")),
    }
}

/// HTTP/2 says of some calls that nobody looked at them: a refused stream, a stream after an orderly goodbye (RFC 9113, 8.7).
pub(super) fn unprocessed(error: &reqwest::Error) -> bool {
    causes(error).filter_map(|cause| cause.downcast_ref::<h2::Error>()).any(|error| {
        error.is_remote()
            && (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
                || error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
    })
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| match cause.downcast_ref::<std::io::Error>() {
        // An io::Error passes over what it wraps: its source is that one's source.
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => cause.source(),
    })
}

/// Retry-After: seconds, or a time, which is meant by the server's own clock (RFC 9110, 10.2.3 and 6.6.1); by ours where it does not
/// tell its own.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(RETRY_AFTER)?;
    seconds(after).or_else(|| {
        let date = |text| httpdate::parse_http_date(text).ok().map(Millis::of);
        Some(date(after)?.since(text(DATE).and_then(date).unwrap_or_else(|| Clock::system().now())))
    })
}

/// Seconds as text, with or without a fraction.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_meant_by_our_clock_where_the_server_does_not_tell_its_own() {
        let after = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        let minute = Clock::system().now() + Duration::from_secs(60);
        let minute = httpdate::fmt_http_date(std::time::UNIX_EPOCH + Duration::from_millis(minute.0));
        assert!(after(&minute).is_some_and(|left| left <= Duration::from_secs(60)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(after("Fri, 01 Jan 2100 00:00:00 GMT").is_some_and(|left| left > Duration::from_secs(86_400)));
        assert_eq!(after("soon"), None);
    }
}
