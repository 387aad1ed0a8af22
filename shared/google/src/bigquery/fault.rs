//! What BigQuery's errors mean. Its messages may quote values: only its reason and the place in the query are passed on.

use serde::Deserialize;
use tasuki_relay::ports::RowsError;

/// Reasons that pass (BigQuery, "Error messages"; quotas pass with the minute or the day).
const PASSES: &[&str] = &[
    "backendError",
    "internalError",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "quotaExceeded",
    "rateLimitExceeded",
    "tableUnavailable",
    "timeout",
];
/// Reasons that the author of the source can mend.
const AUTHORS: &[&str] = &[
    "accessDenied",
    "billingTierLimitExceeded",
    "bytesBilledLimitExceeded",
    "duplicate",
    "invalid",
    "invalidQuery",
    "notFound",
    "notImplemented",
    "resourcesExceeded",
    "responseTooLarge",
    "stopped",
];

/// One error of BigQuery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ErrorProto {
    reason: String,
    message: String,
}

/// What an error of a job that exists means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobFault {
    /// Another job may succeed. Holds the reason.
    Passes(String),
    /// None will. Holds the reason and the place.
    Refused(String),
}

impl ErrorProto {
    /// The reason, if it is a word, and the place in the query: "invalidQuery at [3:15]".
    pub fn words(&self) -> String {
        let is_word = (1..=40).contains(&self.reason.len()) && self.reason.bytes().all(|b| b.is_ascii_alphanumeric());
        let reason = if is_word { &self.reason } else { "no reason" };
        place(&self.message).map_or_else(|| reason.to_owned(), |place| format!("{reason} at {place}"))
    }

    /// A reason that is not known may pass: attempts are counted.
    pub fn of_job(&self) -> JobFault {
        if AUTHORS.contains(&self.reason.as_str()) {
            JobFault::Refused(self.words())
        } else {
            JobFault::Passes(self.words())
        }
    }
}

/// The last `[line:column]` in a message of BigQuery.
fn place(message: &str) -> Option<&str> {
    let is_place = |text: &str| {
        let digits = |text: &str| (1..=9).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        text.split_once(':').is_some_and(|(line, column)| digits(line) && digits(column))
    };
    message.rmatch_indices('[').find_map(|(at, _)| {
        let end = at + message[at..].find(']')?;
        is_place(&message[at + 1..end]).then_some(&message[at..=end])
    })
}

/// What a call came to that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status of the reply; `None` when there was none, or none that is readable.
    pub status: Option<u16>,
    /// The first error of the reply.
    pub error: ErrorProto,
}

/// What a call was about: the same status means another thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The author's query, run dry.
    Source,
    /// What the deployment set up: the staging dataset, jobs.
    Setup,
}

impl Failure {
    /// No reply.
    pub fn silent() -> Failure {
        Failure { status: None, error: ErrorProto::default() }
    }

    /// From the body of a reply.
    pub fn of(status: u16, body: &[u8]) -> Failure {
        #[derive(Deserialize)]
        struct Body {
            error: Errors,
        }
        #[derive(Deserialize)]
        struct Errors {
            #[serde(default)]
            errors: Vec<ErrorProto>,
        }
        let body: Option<Body> = serde_json::from_slice(body).ok();
        let error = body.and_then(|body| body.error.errors.into_iter().next()).unwrap_or_default();
        Failure { status: Some(status), error }
    }

    /// Another call may succeed, however this one went.
    fn passes(&self) -> bool {
        PASSES.contains(&self.error.reason.as_str())
            || self.status.is_none_or(|status| matches!(status, 200 | 408 | 409 | 429 | 500..))
    }

    /// For the splitter.
    pub fn rows_error(&self, about: About) -> RowsError {
        let words = self.error.words();
        let status = self.status.map_or_else(|| "no reply".to_owned(), |status| format!("status {status}"));
        match (self.status, about) {
            _ if self.passes() => RowsError::Unknown(format!("BigQuery: {status}, {words}")),
            (Some(400 | 403 | 404), About::Source) => RowsError::Refused(format!(
                "BigQuery does not run the source: {words}: mend it (tables must exist, lie where the staging dataset lies, and be readable)"
            )),
            (Some(400), About::Setup) => RowsError::Refused(format!("BigQuery does not take the snapshot: {words}")),
            _ => RowsError::Systemic(format!(
                "BigQuery does not let the splitter work ({status}, {words}): check its account's rights and the staging dataset"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, reason: &str) -> Failure {
        let body = format!(
            r#"{{"error":{{"errors":[{{"reason":"{reason}","message":"Syntax error: 'secret' at [3:15]"}}]}}}}"#
        );
        Failure::of(status, body.as_bytes())
    }

    #[test]
    fn a_message_is_never_passed_on_but_its_place_is() {
        for about in [About::Source, About::Setup] {
            for (status, reason) in
                [(400, "invalidQuery"), (500, "backendError"), (403, "accessDenied"), (418, "a secret reason")]
            {
                let text = failure(status, reason).rows_error(about).to_string();
                assert!(!text.contains("secret") && text.contains("at [3:15]"), "{text}");
            }
        }
        assert_eq!(place("a[0] of [12:3] and [x:1]"), Some("[12:3]"));
        assert_eq!(place("[1:]["), None);
    }

    #[test]
    fn what_an_author_can_mend_refuses_and_what_the_deployment_must_stops() {
        let is = |status, reason, about| failure(status, reason).rows_error(about);
        assert!(matches!(is(400, "invalidQuery", About::Source), RowsError::Refused(_)));
        assert!(matches!(is(404, "notFound", About::Source), RowsError::Refused(_)));
        assert!(matches!(is(403, "accessDenied", About::Source), RowsError::Refused(_)));
        assert!(matches!(is(404, "notFound", About::Setup), RowsError::Systemic(_)));
        assert!(matches!(is(403, "accessDenied", About::Setup), RowsError::Systemic(_)));
        assert!(matches!(is(401, "authError", About::Source), RowsError::Systemic(_)));
    }

    #[test]
    fn quotas_and_outages_pass() {
        for (status, reason) in
            [(403, "rateLimitExceeded"), (403, "quotaExceeded"), (500, ""), (503, "backendError"), (429, "")]
        {
            for about in [About::Source, About::Setup] {
                assert!(
                    matches!(failure(status, reason).rows_error(about), RowsError::Unknown(_)),
                    "{status} {reason}"
                );
            }
        }
        assert!(matches!(Failure::silent().rows_error(About::Setup), RowsError::Unknown(_)));
    }

    #[test]
    fn a_jobs_error_is_tried_again_unless_the_author_must_mend_it() {
        let of = |reason: &str| ErrorProto { reason: reason.into(), message: String::new() }.of_job();
        assert_eq!(of("backendError"), JobFault::Passes("backendError".into()));
        assert_eq!(of("newReason"), JobFault::Passes("newReason".into()));
        assert_eq!(of("resourcesExceeded"), JobFault::Refused("resourcesExceeded".into()));
    }
}
