//! `tasuki doctor`: looks at a deployment with the user's credentials, changes nothing, and says what to do.
//!
//! Here is only what is asked for; what is made of the answers is in functions without I/O (`events`, `resources`, `store`).

mod check;
mod events;
mod resources;
mod store;

use super::deployment::Deployment;
use super::site;
use crate::cli;
use crate::commands::Exit;
use crate::show;
use anyhow::{Context, Result};
use check::{Check, counts, text};
use serde_json::{Value, json};
use std::io::{Write, stdout};
use tasuki_google::rest::Rest;
use tasuki_google::settings::Role;
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::names::Bucket;

/// A test server instead of the REST APIs that are asked here, without credentials.
const HOST: &str = "TASUKI_DOCTOR_HOST";

const PUBSUB: &str = "pubsub.googleapis.com";
const STORAGE: &str = "storage.googleapis.com";
const RUN: &str = "run.googleapis.com";
const SCHEDULER: &str = "cloudscheduler.googleapis.com";
const MONITORING: &str = "monitoring.googleapis.com";

/// The version of IAM policies that has conditions.
const POLICY: u32 = 3;

/// How far back the number of dead letters is looked for: it is written each minute, some minutes late.
const BACKLOG_MINUTES: u64 = 10;

pub(super) async fn doctor(deployment: &Deployment, args: cli::Doctor) -> Result<Exit> {
    let rest = Rest::new(site::endpoint(HOST).await?).context("no HTTP client")?;
    let (doctor, clock) = (Doctor { deployment, rest: &rest }, Clock::system());
    let mut checks = doctor.subscriptions().await;
    checks.extend(doctor.schedulers(clock.now()).await);
    checks.extend(doctor.services().await);
    checks.extend(doctor.buckets().await);
    let here = clock.now();
    checks.extend(events::clock(here, rest.date()));
    let objects = site::objects(deployment).await?;
    let pipelines = store::pipelines(&objects, &mut checks).await;
    checks.extend(store::tables(deployment, &pipelines).await);
    checks.extend(store::models(&rest, deployment, &pipelines).await);
    let [ok, warn, fail, unknown] = counts(&checks);
    match args.json {
        true => {
            let told = json!({ "checks": checks, "ok": ok, "warn": warn, "fail": fail, "unknown": unknown });
            show::json_line(&mut stdout().lock(), &told)?;
        }
        false => stdout().write_all(text(&checks).as_bytes())?,
    }
    // Who saw nothing has found nothing well.
    Ok(if fail == 0 && ok > 0 { Exit::Done } else { Exit::NotDone })
}

struct Doctor<'a> {
    deployment: &'a Deployment,
    rest: &'a Rest,
}

impl Doctor<'_> {
    /// Looks at one thing and judges it.
    async fn see(
        &self,
        what: &str,
        (host, path): (&str, &str),
        permission: &str,
        judge: impl FnOnce(&Value) -> Vec<Check>,
    ) -> Vec<Check> {
        match self.rest.get(host, path).await {
            Ok(seen) => judge(&seen),
            Err(unseen) => vec![Check::unseen(what, permission, &unseen)],
        }
    }

    async fn subscriptions(&self) -> Vec<Check> {
        const PERMISSION: &str = "pubsub.subscriptions.get";
        let (deployment, mut checks) = (self.deployment, Vec::new());
        for role in Role::ALL {
            let name = deployment.subscriptions[role.as_str()].as_str();
            let short = short(name);
            let judge = |seen: &Value| events::subscription(short, role, deployment, seen);
            let path = format!("v1/{name}");
            checks.extend(self.see(&format!("subscription {short}"), (PUBSUB, &path), PERMISSION, judge).await);
        }
        let name = deployment.dead_letter_subscription.as_str();
        let (short, path) = (short(name), format!("v1/{name}"));
        let judge = |seen: &Value| events::dead_letters(short, seen);
        checks.extend(self.see(&format!("dead letter subscription {short}"), (PUBSUB, &path), PERMISSION, judge).await);
        let path = backlog(name, Clock::system().now());
        let judge = |seen: &Value| events::backlog(short, seen);
        let what = format!("dead letters in {short}");
        checks.extend(self.see(&what, (MONITORING, &path), "monitoring.timeSeries.list", judge).await);
        let path = format!("v1/{}", deployment.completed_topic);
        let what = format!("topic {}", self::short(&deployment.completed_topic));
        let judge = |_: &Value| check::Findings::of(&what).or_fine("there");
        checks.extend(self.see(&what, (PUBSUB, &path), "pubsub.topics.get", judge).await);
        checks
    }

    async fn schedulers(&self, now: Millis) -> Vec<Check> {
        let mut checks = Vec::new();
        for job in &self.deployment.schedulers {
            let full = match job.contains('/') {
                true => job.clone(),
                false => {
                    format!("projects/{}/locations/{}/jobs/{job}", self.deployment.project, self.deployment.region)
                }
            };
            let (short, path) = (short(job), format!("v1/{full}"));
            let judge = |seen: &Value| events::sweep(short, now, seen);
            checks.extend(
                self.see(&format!("sweep {short}"), (SCHEDULER, &path), "cloudscheduler.jobs.get", judge).await,
            );
        }
        checks
    }

    async fn services(&self) -> Vec<Check> {
        let (deployment, mut checks) = (self.deployment, Vec::new());
        for role in Role::ALL {
            let name = &deployment.service(role).name;
            let what = format!("service {name}");
            let path = format!("v2/projects/{}/locations/{}/services/{name}", deployment.project, deployment.region);
            let judge = |seen: &Value| resources::service(role, deployment, seen);
            checks.extend(self.see(&what, (RUN, &path), "run.services.get", judge).await);
            let path = format!("{path}:getIamPolicy?options.requestedPolicyVersion={POLICY}");
            let callers = [deployment.trigger_account.as_str()];
            let judge = |seen: &Value| resources::policy(&what, &callers, seen);
            let rights = format!("rights on {what}");
            checks.extend(self.see(&rights, (RUN, &path), "run.services.getIamPolicy", judge).await);
        }
        checks
    }

    async fn buckets(&self) -> Vec<Check> {
        let (deployment, mut checks) = (self.deployment, Vec::new());
        for bucket in Bucket::ALL {
            let name = match bucket {
                Bucket::Inbox => &deployment.inbox_bucket,
                Bucket::Shards => &deployment.shards_bucket,
                Bucket::Answers => &deployment.answers_bucket,
                Bucket::State => &deployment.state_bucket,
            };
            let what = format!("bucket {name}");
            let path = format!("storage/v1/b/{name}");
            let judge = |seen: &Value| resources::bucket(bucket, name, &deployment.region, seen);
            checks.extend(self.see(&what, (STORAGE, &path), "storage.buckets.get", judge).await);
            let path = format!("{path}/iam?optionsRequestedPolicyVersion={POLICY}");
            let users = resources::users(bucket, deployment);
            let judge = |seen: &Value| resources::policy(&what, &users, seen);
            let rights = format!("rights on {what}");
            checks.extend(self.see(&rights, (STORAGE, &path), "storage.buckets.getIamPolicy", judge).await);
        }
        checks
    }
}

/// The last part of a name with slashes.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Where Cloud Monitoring says how many messages of a subscription wait.
fn backlog(subscription: &str, now: Millis) -> String {
    let project = subscription.split('/').nth(1).unwrap_or_default();
    let filter = format!(
        "metric.type%3D%22pubsub.googleapis.com%2Fsubscription%2Fnum_undelivered_messages%22%20AND%20\
         resource.labels.subscription_id%3D%22{}%22",
        short(subscription)
    );
    let from = Millis(now.0.saturating_sub(BACKLOG_MINUTES * 60_000));
    format!("v3/projects/{project}/timeSeries?filter={filter}&interval.startTime={from}&interval.endTime={now}")
}

#[cfg(test)]
mod tests {
    use super::check::{Check, State};

    /// The worst of some checks.
    pub(super) fn worst(checks: &[Check]) -> State {
        let rank =
            |state: State| [State::Ok, State::Unknown, State::Warn, State::Fail].iter().position(|it| *it == state);
        checks.iter().map(|check| check.state).max_by_key(|state| rank(*state)).expect("there is a check")
    }

    /// All that they say.
    pub(super) fn said(checks: &[Check]) -> String {
        checks.iter().map(|check| format!("{}: {}; ", check.what, check.said)).collect()
    }
}
