use super::Access;
use crate::calls::seconds;
use crate::ports::Fault;
use serde_json::Value;
use std::time::Duration;

/// The fault that a status and its body (a `google.rpc.Status` as JSON, or anything) stand for: the table in protocol.md 4.
/// `status` 200 means: what the body says. `access` knows what to do about a systemic one.
pub(super) fn fault(access: &dyn Access, status: u16, retry_after: Option<Duration>, body: &[u8]) -> Fault {
    let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    // Some front ends wrap the error in an array.
    let error = &body.get(0).unwrap_or(&body)["error"];
    let name = error["status"].as_str().unwrap_or("");
    let reason = details(error).find_map(|detail| known_reason(detail["reason"].as_str()?));
    let status = if status == 200 { status_within(error, name) } else { status };
    match status {
        429 => Fault::Busy { retry_after: delay(error, retry_after) },
        503 if overloaded(error) => Fault::Busy { retry_after: delay(error, retry_after) },
        408 | 499 | 504 => Fault::Ambiguous(format!("HTTP {status}")),
        401..=404 => systemic(access, status, reason),
        400 if reason.is_some() || name == "FAILED_PRECONDITION" => systemic(access, status, reason),
        400..=499 => Fault::Invalid(match known_status(name) {
            Some(name) => format!("HTTP {status} {name}"),
            None => format!("HTTP {status}"),
        }),
        _ => Fault::Unavailable(format!("HTTP {status}")),
    }
}

fn systemic(access: &dyn Access, status: u16, reason: Option<&'static str>) -> Fault {
    let what = access.advice(status, reason);
    Fault::Systemic(match reason {
        Some(reason) => format!("{what} (HTTP {status}, {reason})"),
        None => format!("{what} (HTTP {status})"),
    })
}

fn details(error: &Value) -> impl Iterator<Item = &Value> {
    error["details"].as_array().into_iter().flatten()
}

/// The status of an error that came with a 200.
fn status_within(error: &Value, name: &str) -> u16 {
    let by_name = match name {
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" => 400,
        "UNAUTHENTICATED" => 401,
        "PERMISSION_DENIED" => 403,
        "NOT_FOUND" => 404,
        "RESOURCE_EXHAUSTED" => 429,
        "CANCELLED" => 499,
        "UNAVAILABLE" => 503,
        "DEADLINE_EXCEEDED" => 504,
        _ => 500,
    };
    let code = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    code.filter(|code| (400..600).contains(code)).unwrap_or(by_name)
}

fn overloaded(error: &Value) -> bool {
    error["message"].as_str().is_some_and(|message| message.to_ascii_lowercase().contains("overloaded"))
}

/// RetryInfo's `retryDelay`, "12.5s" or {seconds, nanos}; else Retry-After.
fn delay(error: &Value, retry_after: Option<Duration>) -> Option<Duration> {
    let within = details(error).find_map(|detail| match &detail["retryDelay"] {
        Value::String(text) => seconds(text.strip_suffix('s')?),
        Value::Object(parts) => {
            let number = |name| parts.get(name).map_or(Some(0), whole);
            Some(Duration::new(number("seconds")?, 0) + Duration::from_nanos(number("nanos")?.min(999_999_999)))
        }
        _ => None,
    });
    within.or(retry_after)
}

/// A 64-bit number is a string in the JSON of a protocol buffer; both are read. The longest delay is a year's.
fn whole(value: &Value) -> Option<u64> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    Some(number.min(u64::from(u32::MAX)))
}

/// Names of statuses that may be shown: anything else in that place is the server's free text.
fn known_status(name: &str) -> Option<&'static str> {
    ["INVALID_ARGUMENT", "OUT_OF_RANGE", "ALREADY_EXISTS", "ABORTED", "UNIMPLEMENTED", "CANCELLED"]
        .into_iter()
        .find(|known| *known == name)
}

/// Reasons (`google.rpc.ErrorInfo`) that no row is to blame for.
fn known_reason(reason: &str) -> Option<&'static str> {
    [
        "API_KEY_INVALID",
        "API_KEY_SERVICE_BLOCKED",
        "API_KEY_HTTP_REFERRER_BLOCKED",
        "API_KEY_IP_ADDRESS_BLOCKED",
        "API_KEY_ANDROID_APP_BLOCKED",
        "API_KEY_IOS_APP_BLOCKED",
        "ACCESS_TOKEN_EXPIRED",
        "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
        "ACCESS_TOKEN_TYPE_UNSUPPORTED",
        "BILLING_DISABLED",
        "CONSUMER_INVALID",
        "CONSUMER_SUSPENDED",
        "CREDENTIALS_MISSING",
        "IAM_PERMISSION_DENIED",
        "SERVICE_DISABLED",
        "USER_PROJECT_DENIED",
    ]
    .into_iter()
    .find(|known| *known == reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::Key;
    use crate::gemini::access::GeminiApi;
    use proptest::prelude::*;
    use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
    use serde_json::json;

    fn fault(status: u16, retry_after: Option<&str>, body: &[u8]) -> Fault {
        let date = (DATE, "Wed, 21 Oct 2026 07:28:00 GMT".parse().unwrap());
        let after = retry_after.and_then(|text| Some((RETRY_AFTER, text.parse().ok()?)));
        let headers = HeaderMap::from_iter(after.into_iter().chain([date]));
        super::fault(&GeminiApi(Key::new("k").unwrap()), status, crate::calls::retry_after(&headers), body)
    }

    fn of(status: u16, error: Value) -> Fault {
        fault(status, None, json!({ "error": error }).to_string().as_bytes())
    }

    fn retry_info(delay: Value) -> Value {
        json!({ "code": 429, "status": "RESOURCE_EXHAUSTED", "details": [
            { "@type": "type.googleapis.com/google.rpc.QuotaFailure" },
            { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay },
        ] })
    }

    fn busy(seconds: f64) -> Fault {
        Fault::Busy { retry_after: Some(Duration::from_secs_f64(seconds)) }
    }

    #[test]
    fn a_busy_model_says_for_how_long_in_four_ways() {
        assert_eq!(of(429, retry_info(json!("12.5s"))), busy(12.5));
        assert_eq!(of(429, retry_info(json!({ "seconds": "12", "nanos": 500_000_000 }))), busy(12.5));
        assert_eq!(of(429, retry_info(json!({ "seconds": 3 }))), busy(3.0));
        assert_eq!(fault(429, Some("7"), b"busy"), busy(7.0));
        for nonsense in
            [json!("-1s"), json!("soon"), json!("NaNs"), json!("1e300s"), json!(null), json!({"seconds": -1})]
        {
            assert_eq!(of(429, retry_info(nonsense)), Fault::Busy { retry_after: None });
        }
        assert_eq!(fault(429, Some("Wed, 21 Oct 2026 07:28:42 GMT"), b""), busy(42.0));
        assert_eq!(fault(429, Some("Wed, 21 Oct 2026 07:27:00 GMT"), b""), busy(0.0));
        assert_eq!(fault(429, Some("Wed, 21 Oct"), b""), Fault::Busy { retry_after: None });
    }

    #[test]
    fn an_overloaded_503_is_busy_and_another_is_unavailable() {
        let overloaded = json!({ "message": "The model is overloaded. Please try again later." });
        assert_eq!(of(503, overloaded), Fault::Busy { retry_after: None });
        for status in [500, 502, 503, 599, 302] {
            assert!(matches!(of(status, json!({})), Fault::Unavailable(_)), "{status}");
        }
    }

    #[test]
    fn who_may_have_been_paid_is_ambiguous() {
        for status in [408, 499, 504] {
            assert!(matches!(fault(status, None, b""), Fault::Ambiguous(_)), "{status}");
        }
    }

    #[test]
    fn a_rows_fault_and_nobodys_fault_are_told_apart() {
        let invalid = of(400, json!({ "status": "INVALID_ARGUMENT", "message": "canary API_KEY_INVALID" }));
        assert_eq!(invalid, Fault::Invalid("HTTP 400 INVALID_ARGUMENT".to_owned()));
        assert!(matches!(fault(413, None, b""), Fault::Invalid(_)));
        let key = json!({ "status": "INVALID_ARGUMENT", "details": [{ "reason": "API_KEY_INVALID" }] });
        let Fault::Systemic(advice) = of(400, key) else { panic!("a row is blamed for the key") };
        assert!(advice.contains("GEMINI_API_KEY"), "{advice}");
        assert!(matches!(of(400, json!({ "status": "FAILED_PRECONDITION" })), Fault::Systemic(_)));
        for status in [401, 402, 403, 404] {
            assert!(matches!(fault(status, None, b"<html>"), Fault::Systemic(_)), "{status}");
        }
    }

    #[test]
    fn nothing_that_the_server_wrote_freely_is_passed_on() {
        let canary = json!({ "code": 0, "status": "canary", "message": "canary",
            "details": [{ "reason": "canary", "metadata": { "x": "canary" } }] });
        for status in (300..=599).chain([200]) {
            let fault = of(status, canary.clone());
            assert!(!format!("{fault} {fault:?}").contains("canary"), "{status}: {fault:?}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(status in any::<u16>(), after in ".{0,12}", body in proptest::collection::vec(any::<u8>(), 0..99)) {
            let _ = fault(status, Some(&after), &body);
        }
    }
}
