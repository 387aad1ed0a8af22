//! Judges what stands: buckets, services, and who may use them.

use super::check::{APPLY, Check, Findings, State};
use super::events::seconds;
use crate::cloud::deployment::Deployment;
use serde_json::Value;
use tasuki_google::settings::{self, Model, Role, Settings};
use tasuki_relay::names::Bucket;

/// Shards, answers and what was dropped are needed so long: late events and retries (protocol.md 6).
const KEPT_DAYS: u64 = 45;
/// Requests of a service beside its jobs: redeliveries that are answered at once, and the sweep (protocol.md 4).
const REQUESTS_BESIDE: u64 = 4;
/// Members that are everybody.
const EVERYBODY: [&str; 2] = ["allUsers", "allAuthenticatedUsers"];

/// A bucket's settings.
pub(super) fn bucket(bucket: Bucket, name: &str, region: &str, seen: &Value) -> Vec<Check> {
    let mut found = Findings::of(&format!("bucket {name}"));
    let access = &seen["iamConfiguration"];
    let uniform = access["uniformBucketLevelAccess"]["enabled"] == true;
    found.expect(uniform, State::Fail, "objects in it have rights of their own", APPLY);
    let closed = access["publicAccessPrevention"] == "enforced";
    found.expect(closed, State::Fail, "nothing keeps it from being opened to everybody", APPLY);
    for rule in seen["lifecycle"]["rule"].as_array().into_iter().flatten() {
        judge_rule(&mut found, bucket, rule);
    }
    let kept = seen["versioning"]["enabled"] == true
        || number(&seen["softDeletePolicy"]["retentionDurationSeconds"]).is_some_and(|seconds| seconds > 0);
    let precious = matches!(bucket, Bucket::Inbox | Bucket::Answers);
    let said = "what is removed from it by mistake is gone: neither versioning nor soft delete is on";
    found.expect(kept || !precious, State::Warn, said, APPLY);
    let location = seen["location"].as_str().unwrap_or_default().to_lowercase();
    // A multi-region holds the region or not: its name does not say.
    let apart = location.contains('-') && location != region.to_lowercase();
    found.expect(
        !apart,
        State::Warn,
        format!("it is in {location}, the services are in {region}: each read crosses"),
        "",
    );
    found.or_fine(location)
}

/// A rule that removes what is still needed.
fn judge_rule(found: &mut Findings, bucket: Bucket, rule: &Value) {
    let condition = &rule["condition"];
    let older = ["numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore"];
    let live = condition["isLive"] != false && older.iter().all(|name| condition.get(*name).is_none());
    let live = live && rule["action"]["type"] == "Delete";
    let Some(age) = number(&condition["age"]).filter(|_| live) else { return };
    let prefixes: Vec<&str> =
        condition["matchesPrefix"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let meets =
        |kept: &str| prefixes.is_empty() || prefixes.iter().any(|it| kept.starts_with(it) || it.starts_with(kept));
    if bucket == Bucket::State {
        found.expect(!meets("pipelines/"), State::Fail, format!("pipelines are removed after {age} days"), APPLY);
        let short = age < KEPT_DAYS && meets("plans/");
        found.expect(
            !short,
            State::Fail,
            format!("plans are removed after {age} days: they outlive their files"),
            APPLY,
        );
    } else {
        let said =
            format!("objects are removed after {age} days: a retry or a late event may need them for {KEPT_DAYS}");
        found.expect(age >= KEPT_DAYS, State::Warn, said, APPLY);
    }
}

/// Who may use a bucket or a service: nobody unknown by name, and each of `expected`.
pub(super) fn policy(what: &str, expected: &[&str], seen: &Value) -> Vec<Check> {
    let mut found = Findings::of(&format!("rights on {what}"));
    let bindings = || seen["bindings"].as_array().into_iter().flatten();
    let members = |binding: &Value| binding["members"].as_array().cloned().unwrap_or_default();
    for binding in bindings() {
        let open = members(binding).iter().any(|member| EVERYBODY.iter().any(|all| member == all));
        let said = format!("everybody has {}", binding["role"].as_str().unwrap_or("a role"));
        found.expect(!open, State::Fail, said, "remove that binding at once, and look at what was read or written");
    }
    for account in expected {
        let member = format!("serviceAccount:{account}");
        let known = bindings().any(|binding| members(binding).iter().any(|each| *each == *member));
        let said = format!("{account} has no role here (it may have one on the project)");
        found.expect(known, State::Warn, said, APPLY);
    }
    found.or_fine("as deployed, not open to everybody")
}

/// The accounts that need a role on a bucket.
pub(super) fn users(bucket: Bucket, deployment: &Deployment) -> Vec<&str> {
    let roles: &[Role] = match bucket {
        Bucket::Inbox => &[Role::Splitter],
        Bucket::Shards => &Role::ALL,
        Bucket::Answers => &[Role::Generator, Role::Loader],
        Bucket::State => &Role::ALL,
    };
    roles.iter().map(|role| deployment.service(*role).account.as_str()).collect()
}

/// A service of Cloud Run.
pub(super) fn service(role: Role, deployment: &Deployment, seen: &Value) -> Vec<Check> {
    let wanted = deployment.service(role);
    let mut found = Findings::of(&format!("service {}", wanted.name));
    let condition = &seen["terminalCondition"];
    let ready = condition["state"] == "CONDITION_SUCCEEDED";
    let reason = ["reason", "revisionReason", "executionReason"].iter().find_map(|name| condition[*name].as_str());
    let said = format!("its last revision does not serve ({})", reason.unwrap_or("no reason is given"));
    let log = format!("gcloud run services logs read {} --region={} says why", wanted.name, deployment.region);
    found.expect(ready, State::Fail, said, &log);
    let ingress = seen["ingress"].as_str().unwrap_or("unknown");
    let said = format!("its ingress is {ingress}: it can be called from outside");
    found.expect(ingress == "INGRESS_TRAFFIC_INTERNAL_ONLY", State::Fail, said, APPLY);
    let template = &seen["template"];
    found.same("its account", template["serviceAccount"].as_str(), &wanted.account);
    let timeout = seconds(&template["timeout"]).unwrap_or(0);
    let ack = deployment.ack_deadline_seconds;
    let said = format!("its requests are cut after {timeout} s, the subscription waits {ack} s");
    found.expect(timeout >= ack, State::Fail, said, APPLY);
    let concurrency = template["maxInstanceRequestConcurrency"].as_u64().unwrap_or(0);
    match settings::read(role, environment(&template["containers"][0]["env"])) {
        Ok(settings) => judge_settings(&mut found, deployment, &settings, concurrency),
        // It shows no value.
        Err(mistakes) => found.expect(
            false,
            State::Fail,
            format!("it would not start with its environment: {}", mistakes.0.join("; ")),
            &format!("{APPLY}; and see that this tasuki is of the version that was deployed"),
        ),
    }
    found.or_fine(format!("{timeout} s, {concurrency} requests at once"))
}

/// Its environment as the service reads it. What a secret holds is not seen, and need not be.
fn environment(list: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("a secret").to_owned();
    let set = list.as_array().into_iter().flatten().map(|set| (text(&set["name"]), text(&set["value"])));
    // So that what is refused there is refused here.
    set.chain([("K_SERVICE".to_owned(), "here".to_owned())]).collect()
}

fn judge_settings(found: &mut Findings, deployment: &Deployment, settings: &Settings, concurrency: u64) {
    let buckets = [
        (Bucket::Inbox, &deployment.inbox_bucket),
        (Bucket::Shards, &deployment.shards_bucket),
        (Bucket::Answers, &deployment.answers_bucket),
        (Bucket::State, &deployment.state_bucket),
    ];
    for (bucket, wanted) in buckets {
        found.same(&format!("its {} bucket", bucket.as_str()), Some(settings.bucket(bucket)), wanted);
    }
    if settings.database.is_some() || settings.role == Role::Loader {
        found.same("its database", settings.database.as_deref(), &deployment.spanner_database);
    }
    if settings.role == Role::Loader {
        found.same("its topic", Some(&settings.topic), &deployment.completed_topic);
    }
    if let Some(Model::Vertex { location, .. }) = &settings.model {
        found.same("its model location", Some(location), &deployment.model_location);
    }
    if settings.role == Role::Splitter {
        let sources = settings.bigquery.as_ref().map(|bigquery| bigquery.sources.join(","));
        let wanted = deployment.bigquery_sources.join(",");
        found.same("its list of BigQuery sources", Some(&sources.unwrap_or_default()), &wanted);
    }
    let (ack, wanted) = (settings.ack_deadline.as_secs(), deployment.ack_deadline_seconds);
    // A little below: its own clock starts last.
    let said =
        format!("TASUKI_ACK_DEADLINE is {ack} s, not below the subscription's {wanted} s: it is cut before it answers");
    found.expect(ack < wanted, State::Fail, said, APPLY);
    let needed = settings.concurrency as u64 + REQUESTS_BESIDE;
    let said = format!(
        "it takes {concurrency} requests at once, and needs {needed} (TASUKI_CONCURRENCY and {REQUESTS_BESIDE})"
    );
    found.expect(concurrency >= needed, State::Fail, said, APPLY);
    match &settings.callers {
        Some(callers) => found.expect(
            callers.emails.contains(&deployment.trigger_account),
            State::Fail,
            format!("TASUKI_OIDC_EMAILS does not name {}: its events are refused", deployment.trigger_account),
            APPLY,
        ),
        None => found.expect(false, State::Warn, "TASUKI_OIDC is off: it does not ask who calls", APPLY),
    }
}

/// A number, which some APIs write as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::deployment::tests::deployment;
    use crate::cloud::doctor::tests::{said, worst};
    use serde_json::json;

    fn a_bucket() -> Value {
        json!({
            "location": "EUROPE-WEST1", "softDeletePolicy": {"retentionDurationSeconds": "604800"},
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": true}, "publicAccessPrevention": "enforced"},
            "lifecycle": {"rule": [
                {"action": {"type": "Delete"}, "condition": {"age": 45}},
                {"action": {"type": "Delete"}, "condition": {"age": 7, "isLive": false}},
                {"action": {"type": "Delete"}, "condition": {"age": 7, "numNewerVersions": 1}},
                {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}},
            ]},
        })
    }

    fn judged(of: Bucket, change: impl FnOnce(&mut Value)) -> Vec<Check> {
        let mut seen = a_bucket();
        change(&mut seen);
        bucket(of, "b", "europe-west1", &seen)
    }

    #[test]
    fn a_bucket_as_it_was_deployed_is_fine() {
        assert_eq!(worst(&judged(Bucket::Inbox, |_| ())), State::Ok, "{:?}", judged(Bucket::Inbox, |_| ()));
    }

    #[test]
    fn an_open_or_forgetful_bucket_is_told() {
        let open = judged(Bucket::Shards, |seen| seen["iamConfiguration"] = json!({}));
        assert_eq!(open.len(), 2, "{open:?}");
        let short = judged(Bucket::Answers, |seen| seen["lifecycle"]["rule"][0]["condition"]["age"] = json!(3));
        assert!(worst(&short) == State::Warn && said(&short).contains("after 3 days"), "{short:?}");
        let bare = judged(Bucket::Inbox, |seen| seen["softDeletePolicy"] = json!({"retentionDurationSeconds": "0"}));
        assert_eq!(worst(&bare), State::Warn);
        let far = judged(Bucket::Inbox, |seen| seen["location"] = json!("US-EAST1"));
        assert!(said(&far).contains("us-east1"), "{far:?}");
    }

    #[test]
    fn a_rule_that_takes_pipelines_or_young_plans_fails_and_one_for_claims_does_not() {
        let rule = |prefixes: Value, age: u64| {
            judged(Bucket::State, |seen| {
                seen["lifecycle"]["rule"] =
                    json!([{"action": {"type": "Delete"}, "condition": {"age": age, "matchesPrefix": prefixes}}]);
            })
        };
        assert_eq!(worst(&rule(json!(["claims/", "ckpt/"]), 7)), State::Ok);
        assert_eq!(worst(&rule(json!(["plans/"]), 100)), State::Ok);
        assert_eq!(worst(&rule(json!(["plans/"]), 7)), State::Fail);
        assert!(said(&rule(json!([]), 100)).contains("pipelines are removed"));
    }

    #[test]
    fn rights_for_everybody_fail_and_a_missing_account_is_told() {
        let seen = json!({"bindings": [{"role": "roles/storage.objectViewer", "members": ["serviceAccount:a@p"]}]});
        assert_eq!(worst(&policy("b", &["a@p"], &seen)), State::Ok);
        assert!(said(&policy("b", &["b@p"], &seen)).contains("b@p has no role"));
        let open = json!({"bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]});
        assert!(
            worst(&policy("s", &[], &open)) == State::Fail && said(&policy("s", &[], &open)).contains("run.invoker")
        );
    }

    fn a_service() -> Value {
        let set = |name: &str, value: &str| json!({"name": name, "value": value});
        json!({
            "ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY", "terminalCondition": {"state": "CONDITION_SUCCEEDED"},
            "template": {
                "serviceAccount": "loader@p.iam.gserviceaccount.com", "timeout": "600s",
                "maxInstanceRequestConcurrency": 20,
                "containers": [{"env": [
                    set("TASUKI_INBOX_BUCKET", "p-inbox"), set("TASUKI_SHARDS_BUCKET", "p-shards"),
                    set("TASUKI_ANSWERS_BUCKET", "p-answers"), set("TASUKI_STATE_BUCKET", "p-state"),
                    set("TASUKI_SPANNER_DATABASE", "projects/p/instances/i/databases/d"),
                    set("TASUKI_COMPLETED_TOPIC", "projects/p/topics/completed"),
                    set("TASUKI_OIDC_EMAILS", "trigger@p.iam.gserviceaccount.com"),
                    set("TASUKI_ACK_DEADLINE", "585"),
                ]}],
            },
        })
    }

    #[test]
    fn a_service_as_it_was_deployed_is_fine() {
        let checks = service(Role::Loader, &deployment(), &a_service());
        assert_eq!(worst(&checks), State::Ok, "{checks:?}");
    }

    #[test]
    fn every_way_in_which_a_service_is_another_is_told() {
        let env = |at: usize| format!("/template/containers/0/env/{at}/value");
        for (path, value, words) in [
            ("/ingress".to_owned(), json!("INGRESS_TRAFFIC_ALL"), "from outside"),
            (
                "/terminalCondition".to_owned(),
                json!({"state": "CONDITION_FAILED", "reason": "X"}),
                "does not serve (X)",
            ),
            ("/template/timeout".to_owned(), json!("300s"), "cut after 300 s"),
            ("/template/maxInstanceRequestConcurrency".to_owned(), json!(16), "needs 20"),
            ("/template/serviceAccount".to_owned(), json!("default@p"), "its account is default@p"),
            (env(0), json!("other-inbox"), "its inbox bucket is other-inbox"),
            (env(4), json!("projects/p/instances/i/databases/e"), "its database"),
            (env(6), json!("other@p.iam"), "does not name trigger@p"),
            (env(6), json!(""), "TASUKI_OIDC_EMAILS is not set"),
            (env(5), json!("completed"), "TASUKI_COMPLETED_TOPIC"),
            (env(7), json!("600"), "cut before it answers"),
        ] {
            let mut seen = a_service();
            *seen.pointer_mut(&path).unwrap() = value;
            let checks = service(Role::Loader, &deployment(), &seen);
            assert!(worst(&checks) == State::Fail && said(&checks).contains(words), "{path}: {}", said(&checks));
        }
    }
}
