//! What is acknowledged: the only place that turns a verdict into a status.
//!
//! Eventarc and Pub/Sub deliver again on everything but 2xx. So nothing that can never succeed may answer otherwise, and
//! nothing that is not done may answer 2xx.

use http::StatusCode;
use tasuki_relay::ports::{Verdict, Why};

/// What a request is answered with, and what the log says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// 200 done, 204 not ours, 503 deliver again.
    pub status: StatusCode,
    /// A word for logs.
    pub word: &'static str,
    /// What a person should know; no row text.
    pub why: Option<String>,
}

/// What came of a request that asks for work; `None` = it is still under way at the end of the request's time.
pub fn acknowledge(verdict: Option<Verdict>) -> Acknowledgement {
    let later = |word, why| Acknowledgement { status: StatusCode::SERVICE_UNAVAILABLE, word, why };
    match verdict {
        Some(Verdict::Done) => Acknowledgement { status: StatusCode::OK, word: "done", why: None },
        Some(Verdict::NotOurs) => Acknowledgement { status: StatusCode::NO_CONTENT, word: "not_ours", why: None },
        None => later("under_way", None),
        Some(Verdict::Later(why)) => match why {
            Why::LiveClaim => later("live_claim", None),
            Why::Full => later("full", None),
            Why::Stopping => later("stopping", None),
            Why::Spent => later("spent", None),
            Why::LostClaim => later("lost_claim", None),
            Why::Systemic(what) => later("systemic", Some(what)),
            Why::Unconfirmed(what) => later("unconfirmed", Some(what)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_done_or_not_ours_is_acknowledged() {
        assert_eq!(acknowledge(Some(Verdict::Done)).status, 200);
        assert_eq!(acknowledge(Some(Verdict::NotOurs)).status, 204);
        assert_eq!(acknowledge(None).status, 503);
        let whys = [
            Why::LiveClaim,
            Why::Full,
            Why::Stopping,
            Why::Spent,
            Why::LostClaim,
            Why::Systemic("a".into()),
            Why::Unconfirmed("b".into()),
        ];
        for why in whys {
            assert_eq!(acknowledge(Some(Verdict::Later(why))).status, 503);
        }
    }
}
