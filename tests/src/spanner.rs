//! Databases on Spanner's emulator: a fresh one for each test.

use crate::emulators::Needs;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use tasuki_google::records::schema;

const INSTANCE: &str = "projects/tasuki-test/instances/tests";

/// A database with Tasuki's own tables.
#[derive(Clone, Debug)]
pub struct Database {
    /// `projects/…/instances/…/databases/…`.
    pub name: String,
    /// `host:port` of the emulator's gRPC.
    pub host: String,
    rest: String,
}

impl Database {
    /// A fresh database on the emulator of `needs` ([`Needs::Spanner`] or [`Needs::SpannerWithFaults`]).
    pub async fn fresh(needs: Needs) -> Result<Database> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let [host, rest] = needs.variables() else { anyhow::bail!("{needs:?} has no database") };
        let (host, rest) = (std::env::var(host)?, std::env::var(rest)?);
        let id = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let database = Database { name: format!("{INSTANCE}/databases/{id}"), host, rest };
        database.make_instance().await?;
        let create = json!({"createStatement": format!("CREATE DATABASE `{id}`"), "extraStatements": known(schema::statements())});
        let (code, _) = database.post(&format!("{INSTANCE}/databases"), &create).await?;
        ensure!(code == 200, "the emulator makes no database: {code}");
        Ok(database)
    }

    /// Applies DDL, a text of statements.
    pub async fn apply(&self, ddl: &str) -> Result<()> {
        let body = json!({"statements": known(tasuki_relay::ddl::statements(ddl))});
        let response =
            reqwest::Client::new().patch(self.url(&format!("{}/ddl", self.name))).body(body.to_string()).send().await?;
        let code = response.status().as_u16();
        ensure!(code == 200, "the emulator refuses the DDL: {code} {}", response.text().await?);
        Ok(())
    }

    /// The rows of a query, each a list of values as Spanner's JSON has them.
    pub async fn query(&self, sql: &str) -> Result<Vec<Value>> {
        let (_, session) = self.post(&format!("{}/sessions", self.name), &json!({})).await?;
        let session = session["name"].as_str().context("a session has a name")?;
        let (code, answer) = self.post(&format!("{session}:executeSql"), &json!({"sql": sql})).await?;
        ensure!(code == 200, "the emulator refuses {sql:?}: {answer}");
        Ok(answer["rows"].as_array().cloned().unwrap_or_default())
    }

    async fn make_instance(&self) -> Result<()> {
        let config = "projects/tasuki-test/instanceConfigs/emulator-config";
        let instance = json!({"config": config, "displayName": "tests", "nodeCount": 1});
        let body = json!({"instanceId": "tests", "instance": instance});
        let (code, _) = self.post("projects/tasuki-test/instances", &body).await?;
        ensure!([200, 409].contains(&code), "the emulator makes no instance: {code}");
        Ok(())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let response = reqwest::Client::new().post(self.url(path)).body(body.to_string()).send().await?;
        let code = response.status().as_u16();
        Ok((code, serde_json::from_str(&response.text().await?)?))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v1/{path}", self.rest)
    }
}

/// What the emulator knows: it has no roles.
fn known(statements: Vec<String>) -> Vec<String> {
    let role = |text: &String| text.starts_with("CREATE ROLE") || text.starts_with("GRANT");
    statements.into_iter().filter(|text| !role(text)).collect()
}
