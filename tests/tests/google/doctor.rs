//! `tasuki doctor` against documents of Google's REST APIs, the storage stand-in and Spanner's emulator.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use tasuki_relay::clock::Clock;
use tasuki_tests::deployment::{Deployment, Desk, PIPELINE, Setup};
use tasuki_tests::emulators::{Needs, trial};
use tasuki_tests::model_server::Script;
use tasuki_tests::rest_server::RestServer;

const EMULATORS: &[Needs] = &[Needs::Spanner, Needs::PubSub];
const TOKENS: &str =
    "/v1/projects/tasuki-test/locations/global/publishers/google/models/gemini-3.5-flash-lite:countTokens";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("doctor: a deployment as Terraform made it is fine, and is only looked at", EMULATORS, all_is_well),
        trial(
            "doctor: what is wrong is told with what to do, what is hidden with its permission",
            EMULATORS,
            much_is_wrong,
        ),
    ]
}

/// A deployment whose documents say that it is as it was deployed.
async fn deployed() -> Result<(Deployment, RestServer, Desk)> {
    let deployment = Deployment::start(Script::default(), Setup::default()).await?;
    let (rest, file) = (RestServer::start().await?, deployment.file());
    let mut desk = deployment.desk()?;
    desk.set("TASUKI_DOCTOR_HOST", rest.host());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let project = "projects/tasuki-test";
    for role in ["splitter", "generator", "loader"] {
        let service = &file["services"][role];
        let subscription = json!({
            "ackDeadlineSeconds": 600, "state": "ACTIVE", "messageRetentionDuration": "604800s", "expirationPolicy": {},
            "deadLetterPolicy": {"maxDeliveryAttempts": 100}, "retryPolicy": {"minimumBackoff": "10s"},
            "pushConfig": {
                "pushEndpoint": format!("{}/?__GCP_CloudEventsMode=GCS_NOTIFICATION", text(&service["uri"])),
                "oidcToken": {"serviceAccountEmail": file["trigger_account"]},
            },
        });
        rest.set(&format!("/v1/{}", text(&file["subscriptions"][role])), 200, subscription);
        let path = format!("/v2/{project}/locations/europe-west1/services/{}", text(&service["name"]));
        rest.set(&path, 200, cloud_run(&file, role));
        let invoker = format!("serviceAccount:{}", text(&file["trigger_account"]));
        let policy = json!({"bindings": [{"role": "roles/run.invoker", "members": [invoker]}]});
        rest.set(&format!("{path}:getIamPolicy"), 200, policy);
        let ran = json!({"state": "ENABLED", "status": {}, "lastAttemptTime": Clock::system().now().to_string()});
        rest.set(&format!("/v1/{project}/locations/europe-west1/jobs/tasuki-sweep-{role}"), 200, ran);
    }
    let everyone: Vec<String> = ["splitter", "generator", "loader"]
        .map(|role| format!("serviceAccount:{}", text(&file["services"][role]["account"])))
        .into();
    for bucket in ["inbox", "shards", "answers", "state"] {
        let path = format!("/storage/v1/b/{}", text(&file[format!("{bucket}_bucket")]));
        let made = json!({
            "location": "EUROPE-WEST1", "versioning": {"enabled": true},
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": true}, "publicAccessPrevention": "enforced"},
        });
        rest.set(&path, 200, made);
        let policy = json!({"bindings": [{"role": "roles/storage.objectViewer", "members": everyone}]});
        rest.set(&format!("{path}/iam"), 200, policy);
    }
    let dead = text(&file["dead_letter_subscription"]);
    rest.set(&format!("/v1/{dead}"), 200, json!({"topic": "projects/tasuki-test/topics/dead", "expirationPolicy": {}}));
    rest.set(&format!("/v3/{project}/timeSeries"), 200, json!({}));
    rest.set(&format!("/v1/{}", text(&file["completed_topic"])), 200, json!({}));
    rest.set(TOKENS, 200, json!({"totalTokens": 1}));
    Ok((deployment, rest, desk))
}

fn cloud_run(file: &Value, role: &str) -> Value {
    let buckets = ["inbox", "shards", "answers", "state"];
    let buckets =
        buckets.map(|name| (format!("TASUKI_{}_BUCKET", name.to_uppercase()), &file[format!("{name}_bucket")]));
    let deadline = json!("585");
    let others = [
        ("TASUKI_ACK_DEADLINE", &deadline),
        ("TASUKI_SPANNER_DATABASE", &file["spanner_database"]),
        ("TASUKI_COMPLETED_TOPIC", &file["completed_topic"]),
        ("TASUKI_OIDC_EMAILS", &file["trigger_account"]),
        ("GOOGLE_CLOUD_PROJECT", &file["project"]),
    ];
    let set = buckets.into_iter().chain(others.map(|(name, value)| (name.to_owned(), value)));
    let set: Vec<Value> = set.map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({
        "ingress": "INGRESS_TRAFFIC_INTERNAL_ONLY", "terminalCondition": {"state": "CONDITION_SUCCEEDED"},
        "template": {
            "serviceAccount": file["services"][role]["account"], "timeout": "600s", "maxInstanceRequestConcurrency": 20,
            "containers": [{"env": set}],
        },
    })
}

async fn all_is_well() -> Result<()> {
    let (deployment, rest, desk) = deployed().await?;
    let before: Vec<usize> = names(&deployment);
    let done = desk.tasuki(&["doctor"]).await?;
    ensure!(done.code == Some(0), "{done:?}");
    ensure!(done.out.contains(" ok, 0 to look at, 0 wrong, 0 that cannot be seen"), "{}", done.out);
    for said in
        ["table Runs", "table row_words of pipeline words: fits", "model gemini-3.5-flash-lite in global", "clock"]
    {
        ensure!(done.out.contains(said), "{said}: {}", done.out);
    }
    let writes: Vec<String> = rest
        .calls()
        .into_iter()
        .filter(|call| !call.starts_with("GET ") && *call != format!("POST {TOKENS}"))
        .collect();
    ensure!(writes.is_empty() && names(&deployment) == before, "it only looks: {writes:?}");
    ensure!(deployment.model.tally().calls() == 0, "no call is paid for");
    Ok(())
}

fn names(deployment: &Deployment) -> Vec<usize> {
    let buckets = &deployment.buckets;
    [&buckets.inbox, &buckets.shards, &buckets.answers, &buckets.state]
        .map(|name| deployment.storage.names(name).len())
        .into()
}

async fn much_is_wrong() -> Result<()> {
    let (deployment, rest, desk) = deployed().await?;
    let file = deployment.file();
    let loader = file["subscriptions"]["loader"].as_str().context("a subscription")?;
    rest.change(&format!("/v1/{loader}"), |seen| seen["ackDeadlineSeconds"] = json!(10))?;
    let state = file["state_bucket"].as_str().context("a bucket")?;
    rest.set(
        &format!("/storage/v1/b/{state}/iam"),
        403,
        json!({"error": {"details": [{"reason": "IAM_PERMISSION_DENIED"}]}}),
    );
    rest.set(TOKENS, 404, json!({}));
    let other = PIPELINE.replace("\"words\"", "\"other\"").replace("row_words", "no_such_table");
    deployment.storage.put(&deployment.buckets.state, "pipelines/other.toml", other)?;
    deployment.storage.put(&deployment.buckets.state, "pipelines/broken.toml", "name = 3")?;
    deployment.database.apply("DROP INDEX OutboxByPublishedAt; DROP TABLE Outbox;").await?;

    let done = desk.tasuki(&["doctor", "--json"]).await?;
    ensure!(done.code == Some(1), "{done:?}");
    let told: Value = serde_json::from_str(&done.out)?;
    let checks = told["checks"].as_array().context("checks")?;
    let is_told = |what: &str, state: &str, words: &str| {
        let check = checks
            .iter()
            .find(|check| check["what"].as_str().is_some_and(|it| it.contains(what)) && check["state"] == state);
        check.is_some_and(|check| check.to_string().contains(words))
    };
    for (what, state, words) in [
        ("eventarc-loader", "fail", "10 s, not 600 s"),
        (&*format!("rights on bucket {state}"), "unknown", "storage.buckets.getIamPolicy"),
        ("model gemini-3.5-flash-lite", "fail", "not served"),
        ("no_such_table", "fail", "tasuki schema"),
        ("pipelines/broken.toml", "fail", "broken.toml"),
        ("table Outbox", "fail", "infra/schema"),
    ] {
        ensure!(is_told(what, state, words), "{what} {state} {words}: {}", done.out);
    }
    ensure!((&told["fail"], &told["unknown"]) == (&5.into(), &1.into()), "nothing else: {}", done.out);
    Ok(())
}
