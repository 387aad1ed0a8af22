//! Judges what carries events: subscriptions, dead letters, the sweeps' jobs, the clock.

use super::check::{APPLY, Check, Findings, State};
use crate::cloud::deployment::Deployment;
use crate::show;
use serde_json::Value;
use std::time::Duration;
use tasuki_google::settings::Role;
use tasuki_relay::clock::Millis;

/// Pub/Sub's default of Eventarc's subscriptions: after it an event is dropped.
const RETENTION_DEFAULT: u64 = 24 * 3_600;
/// A sweep that has not come for so long is late: it comes each minute.
const SWEEP_LATE: Duration = Duration::from_secs(600);
/// A clock that is off by so much is told: tokens are accepted within 10 s.
const SKEW_MAX: Duration = Duration::from_secs(10);

/// The subscription that brings a leg its events.
pub(super) fn subscription(name: &str, role: Role, deployment: &Deployment, seen: &Value) -> Vec<Check> {
    let mut found = Findings::of(&format!("subscription {name} ({})", role.as_str()));
    let (ack, wanted) = (seen["ackDeadlineSeconds"].as_u64().unwrap_or(10), deployment.ack_deadline_seconds);
    let said =
        format!("its ack deadline is {ack} s, not {wanted} s: work that takes longer is delivered again meanwhile");
    found.expect(ack == wanted, State::Fail, said, &format!("{APPLY}: Eventarc has perhaps made it anew"));
    let active = seen["state"].as_str().is_none_or(|state| state == "ACTIVE");
    found.expect(active, State::Fail, format!("its state is {}: no event comes", seen["state"]), APPLY);

    let wanted = deployment.max_delivery_attempts;
    let said = match seen["deadLetterPolicy"]["maxDeliveryAttempts"].as_u64() {
        Some(attempts) => format!("it gives an event up after {attempts} attempts, not {wanted}"),
        None => "it has no dead letter policy: an event that cannot be handled is lost unseen".to_owned(),
    };
    let same = seen["deadLetterPolicy"]["maxDeliveryAttempts"].as_u64() == Some(wanted);
    found.expect(same, State::Fail, said, APPLY);
    let backoff = seconds(&seen["retryPolicy"]["minimumBackoff"]);
    let said =
        "it has no retry policy: an event that is answered 503 comes again at once, until its attempts are spent";
    found.expect(backoff.is_some(), State::Fail, said, APPLY);
    let kept = seconds(&seen["messageRetentionDuration"]).unwrap_or(RETENTION_DEFAULT);
    let said = format!("it keeps events for {}: a longer outage leaves the work to the sweeps", time(kept));
    found.expect(kept > RETENTION_DEFAULT, State::Warn, said, APPLY);
    found.expect(!expires(seen), State::Warn, "it is removed when it is not used for long", APPLY);

    let (uri, to) = (&deployment.service(role).uri, seen["pushConfig"]["pushEndpoint"].as_str().unwrap_or_default());
    let said = format!("it delivers to {to:?}, not to the {}", role.as_str());
    found.expect(to.starts_with(uri.as_str()), State::Fail, said, APPLY);
    let caller = seen["pushConfig"]["oidcToken"]["serviceAccountEmail"].as_str();
    found.same("its caller", caller, &deployment.trigger_account);
    found.or_fine(format!("{ack} s, {wanted} attempts, events are kept for {}", time(kept)))
}

/// The subscription that keeps what could not be delivered.
pub(super) fn dead_letters(name: &str, seen: &Value) -> Vec<Check> {
    let mut found = Findings::of(&format!("dead letter subscription {name}"));
    let topic = seen["topic"].as_str().unwrap_or_default();
    found.expect(topic != "_deleted-topic_", State::Fail, "its topic is gone: dead letters are lost", APPLY);
    found.expect(!expires(seen), State::Warn, "it is removed when it is not used for long", APPLY);
    found.or_fine(format!("hears {topic}"))
}

/// How many dead letters wait, by Cloud Monitoring.
pub(super) fn backlog(name: &str, seen: &Value) -> Vec<Check> {
    let mut found = Findings::of(&format!("dead letters in {name}"));
    let Some(points) = seen["timeSeries"][0]["points"].as_array() else {
        return found.or_fine("none is known of");
    };
    let waiting: u64 =
        points.first().and_then(|point| point["value"]["int64Value"].as_str()?.parse().ok()).unwrap_or(0);
    let said = format!("{} wait: events that a service refused again and again", show::number(waiting));
    let mend = format!(
        "look at them: gcloud pubsub subscriptions pull {name} --limit=10; then mend what the services' logs say"
    );
    found.expect(waiting == 0, State::Warn, said, &mend);
    found.or_fine("none waits")
}

/// A job of Cloud Scheduler that sweeps.
pub(super) fn sweep(name: &str, now: Millis, seen: &Value) -> Vec<Check> {
    let mut found = Findings::of(&format!("sweep {name}"));
    let state = seen["state"].as_str().unwrap_or("unknown");
    let resume = format!("gcloud scheduler jobs resume {name}");
    found.expect(state == "ENABLED", State::Fail, format!("it is {state}: lost events are never found"), &resume);
    let code = seen["status"]["code"].as_u64().unwrap_or(0);
    let look = "look at the service's log, and whether the job's account may call it (run.invoker)";
    found.expect(code == 0, State::Fail, format!("its last call ended with code {code}"), look);
    let last: Option<Millis> = serde_json::from_value(seen["lastAttemptTime"].clone()).ok();
    let late = last.is_none_or(|last| now.0 > (last + SWEEP_LATE).0);
    let said = last.map_or("it has not run yet".to_owned(), |last| format!("it last ran at {last}"));
    found.expect(state != "ENABLED" || !late, State::Warn, said, "look at Cloud Scheduler in the console");
    found.or_fine(last.map_or(String::new(), |last| format!("ran at {last}")))
}

/// This machine's clock, held against what Google says.
pub(super) fn clock(here: Millis, there: Option<Millis>) -> Vec<Check> {
    let mut found = Findings::of("clock of this machine");
    let Some(there) = there else { return Vec::new() };
    let skew = Duration::from_millis(here.0.abs_diff(there.0));
    let said = format!("it is {} off: times that are shown are wrong by that", show::time(skew));
    found.expect(skew <= SKEW_MAX, State::Warn, said, "set it by NTP");
    found.or_fine("right within 10 s")
}

/// `"600s"`.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    value.as_str()?.strip_suffix('s')?.parse::<f64>().ok().map(|seconds| seconds as u64)
}

fn time(seconds: u64) -> String {
    show::time(Duration::from_secs(seconds))
}

/// Without a policy Pub/Sub's default holds: 31 days.
fn expires(seen: &Value) -> bool {
    seen.get("expirationPolicy").is_none_or(|policy| policy.get("ttl").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::deployment::tests::deployment;
    use crate::cloud::doctor::tests::{said, worst};
    use serde_json::json;

    fn good() -> Value {
        json!({
            "ackDeadlineSeconds": 600, "state": "ACTIVE", "messageRetentionDuration": "604800s", "expirationPolicy": {},
            "deadLetterPolicy": {"deadLetterTopic": "projects/p/topics/dead", "maxDeliveryAttempts": 100},
            "retryPolicy": {"minimumBackoff": "10s", "maximumBackoff": "600s"},
            "pushConfig": {
                "pushEndpoint": "https://loader.run.app/?__GCP_CloudEventsMode=GCS_NOTIFICATION",
                "oidcToken": {"serviceAccountEmail": "trigger@p.iam.gserviceaccount.com"},
            },
        })
    }

    fn judged(change: impl FnOnce(&mut Value)) -> Vec<Check> {
        let mut seen = good();
        change(&mut seen);
        subscription("s", Role::Loader, &deployment(), &seen)
    }

    #[test]
    fn a_subscription_as_it_was_deployed_is_fine() {
        assert_eq!(worst(&judged(|_| ())), State::Ok, "{:?}", judged(|_| ()));
    }

    #[test]
    fn every_setting_that_eventarc_has_taken_back_is_told() {
        for (path, value, words) in [
            ("/ackDeadlineSeconds", json!(10), "ack deadline is 10 s"),
            ("/state", json!("RESOURCE_ERROR"), "RESOURCE_ERROR"),
            ("/deadLetterPolicy", json!({}), "no dead letter policy"),
            ("/deadLetterPolicy/maxDeliveryAttempts", json!(5), "after 5 attempts"),
            ("/retryPolicy", json!({}), "no retry policy"),
            ("/pushConfig/pushEndpoint", json!("https://splitter.run.app/"), "not to the loader"),
            ("/pushConfig/oidcToken", json!({}), "its caller is not set"),
        ] {
            let checks = judged(|seen| *seen.pointer_mut(path).unwrap() = value);
            assert_eq!(worst(&checks), State::Fail, "{path}");
            assert!(said(&checks).contains(words), "{path}: {}", said(&checks));
        }
        let checks = judged(|seen| seen["messageRetentionDuration"] = json!("86400s"));
        assert_eq!((worst(&checks), said(&checks).contains("leaves the work to the sweeps")), (State::Warn, true));
    }

    #[test]
    fn a_sweep_that_is_paused_refused_or_late_is_told() {
        let now = Millis(1_763_740_000_000);
        let ran = |time: Millis| json!({"state": "ENABLED", "lastAttemptTime": time.to_string(), "status": {}});
        assert_eq!(worst(&sweep("j", now, &ran(now))), State::Ok);
        assert_eq!(worst(&sweep("j", now, &ran(Millis(now.0 - 3_600_000)))), State::Warn);
        assert_eq!(worst(&sweep("j", now, &json!({"state": "PAUSED"}))), State::Fail);
        let refused = json!({"state": "ENABLED", "lastAttemptTime": now.to_string(), "status": {"code": 7}});
        assert!(said(&sweep("j", now, &refused)).contains("code 7"));
    }

    #[test]
    fn a_clock_that_is_far_off_and_letters_that_wait_are_told() {
        assert_eq!(worst(&clock(Millis(100_000), Some(Millis(109_000)))), State::Ok);
        assert_eq!(worst(&clock(Millis(100_000), Some(Millis(60_000)))), State::Warn);
        let waiting = json!({"timeSeries": [{"points": [{"value": {"int64Value": "3"}}]}]});
        assert!(said(&backlog("d", &waiting)).contains("3 wait"));
        assert_eq!(worst(&backlog("d", &json!({}))), State::Ok);
    }
}
