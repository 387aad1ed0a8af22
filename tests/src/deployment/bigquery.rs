//! Datasets on bqemulator: a source with one table, and staging.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tasuki_relay::clock::Chance;

const PROJECT: &str = "tasuki-test";

/// Two datasets that no other test of this emulator has.
pub struct Dataset {
    source: String,
    staging: String,
    base: String,
}

impl Dataset {
    /// With a table `entries` of `rows` rows like those of [`super::Deployment::drop_rows`].
    pub async fn fresh(rows: u64) -> Result<Dataset> {
        let id = Chance::system().identity().replace('-', "_");
        let base = format!("http://{}/bigquery/v2/projects/{PROJECT}", std::env::var("BIGQUERY_EMULATOR_HOST")?);
        let dataset = Dataset { source: format!("s{id}"), staging: format!("t{id}"), base };
        for name in [&dataset.source, &dataset.staging] {
            let reference = json!({"projectId": PROJECT, "datasetId": name});
            dataset.post("datasets", &json!({"datasetReference": reference, "location": "US"})).await?;
        }
        let sql = format!(
            "CREATE TABLE {}.entries AS SELECT CONCAT('k', CAST(n AS STRING)) AS id, CONCAT('entry ', CAST(n AS STRING)) AS text
             FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS n",
            dataset.source
        );
        dataset.post("queries", &json!({"query": sql, "useLegacySql": false})).await?;
        Ok(dataset)
    }

    /// The run file that names the table.
    pub fn run_file(&self) -> String {
        format!("[source]\ntable = \"{PROJECT}.{}.entries\"\n", self.source)
    }

    /// What the splitter needs to know; BigQuery is at these `host:port`, as [`Dataset::hosts`] or with a proxy between.
    pub fn variables(&self, rest: &str, read: &str) -> Vec<(&'static str, String)> {
        vec![
            ("TASUKI_BIGQUERY_SOURCES", format!("{PROJECT}.{}", self.source)),
            ("TASUKI_BIGQUERY_STAGING", format!("{PROJECT}.{}", self.staging)),
            ("BIGQUERY_EMULATOR_HOST", rest.to_owned()),
            ("BIGQUERY_STORAGE_EMULATOR_HOST", read.to_owned()),
        ]
    }

    /// Where bqemulator's REST API is, and its Storage Read API.
    pub fn hosts() -> Result<(String, String)> {
        Ok((std::env::var("BIGQUERY_EMULATOR_HOST")?, std::env::var("BIGQUERY_STORAGE_EMULATOR_HOST")?))
    }

    async fn post(&self, path: &str, body: &Value) -> Result<()> {
        let request = reqwest::Client::new().post(format!("{}/{path}", self.base)).body(body.to_string());
        let reply = request.header("content-type", "application/json").send().await?;
        let (status, text) = (reply.status(), reply.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(())
    }
}
