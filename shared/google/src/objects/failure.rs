use google_cloud_gax::error::Error;
use tasuki_relay::ports::ObjectsError;

/// Why a request did not work, told by its code alone: the service's own words may quote what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// 404: the object, that version of it, or its bucket.
    Absent,
    /// 412.
    Precondition,
    /// 416: the range begins behind the object's end.
    BeyondEnd,
    /// 401, or no token.
    Unauthenticated,
    /// 403. For a write it may be a 412: see [`super`].
    Forbidden,
    /// Anything else. The request may have had its effect.
    Unconfirmed(String),
}

impl Failure {
    pub(super) fn unconfirmed(why: &str) -> Failure {
        Failure::Unconfirmed(why.to_owned())
    }

    /// Of a reply. 400 is not confirmed either: it is also said of a body that arrived with another checksum.
    pub(super) fn of_status(code: u16) -> Failure {
        match code {
            401 => Failure::Unauthenticated,
            403 => Failure::Forbidden,
            404 => Failure::Absent,
            412 => Failure::Precondition,
            416 => Failure::BeyondEnd,
            code => Failure::Unconfirmed(format!("HTTP {code}")),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        match error.http_status_code() {
            Some(code) => Failure::of_status(code),
            None if error.is_authentication() && !error.is_transient_and_before_rpc() => Failure::Unauthenticated,
            None if error.is_authentication() => Failure::unconfirmed("no token for now"),
            None if error.is_connect() => Failure::unconfirmed("no connection"),
            None if error.is_deserialization() || error.is_serialization() => {
                Failure::unconfirmed("a reply or a checksum that is not right")
            }
            None if error.is_timeout() || error.is_exhausted() => Failure::unconfirmed("no reply in time"),
            None => Failure::unconfirmed("the connection broke"),
        }
    }
}

impl Failure {
    /// For the port's caller: `what` was done in `bucket`.
    pub(super) fn told(self, what: &str, bucket: &str) -> ObjectsError {
        let denied = |why: &str| ObjectsError::Denied(format!("{what} in {bucket}: {why}"));
        let unknown = |why: &str| ObjectsError::Unknown(format!("{what} in {bucket}: {why}"));
        match self {
            // Whoever knows that absence is an answer has taken it out before.
            Failure::Absent => denied("HTTP 404, is there such a bucket?"),
            Failure::Unauthenticated => denied("HTTP 401, the credentials are not accepted"),
            Failure::Forbidden => denied("HTTP 403, a role is missing"),
            Failure::Precondition => ObjectsError::Precondition,
            Failure::BeyondEnd => unknown("HTTP 416"),
            Failure::Unconfirmed(why) => unknown(&why),
        }
    }
}

/// Absence as an answer.
pub(super) fn absent_is_none<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Failure::Absent) => Ok(None),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u16) -> ObjectsError {
        Failure::of_status(code).told("create", "b")
    }

    #[test]
    fn only_412_says_that_the_object_is_another() {
        assert_eq!(told(412), ObjectsError::Precondition);
        for code in [200, 308, 400, 408, 409, 410, 429, 500, 502, 503, 504] {
            assert!(matches!(told(code), ObjectsError::Unknown(_)), "{code}");
        }
        for code in [401, 403, 404] {
            assert!(matches!(told(code), ObjectsError::Denied(_)), "{code}");
        }
    }

    #[test]
    fn the_words_of_the_service_are_not_passed_on() {
        let payload = r#"{"error": {"message": "CANARY"}}"#;
        for code in [400, 401, 403, 404, 429, 500] {
            let error = Error::http(code, Default::default(), payload.into());
            let told = Failure::from(error).told("create", "b").to_string();
            assert!(!told.contains("CANARY") && told.contains(&code.to_string()), "{told}");
        }
        for error in [Error::io("CANARY"), Error::connect("CANARY"), Error::deser("CANARY"), Error::timeout("CANARY")] {
            let told = Failure::from(error).told("create", "b");
            assert!(matches!(told, ObjectsError::Unknown(_)) && !told.to_string().contains("CANARY"), "{told}");
        }
    }
}
