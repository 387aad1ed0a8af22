//! Looks at the store and at what pipelines need: Tasuki's own tables, target tables, models.

use super::check::{Check, Findings, State};
use crate::cloud::deployment::Deployment;
use crate::cloud::site;
use serde_json::json;
use std::collections::BTreeMap;
use tasuki_google::model::address;
use tasuki_google::records::schema;
use tasuki_google::rest::{Rest, Unseen};
use tasuki_relay::ddl::{self, Difference, Table};
use tasuki_relay::names::{self, Bucket};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Objects, ObjectsError, RecordsError};
use tasuki_relay::sweep::PAGE;

/// The pipelines that are stored, by name; those that are not valid are checks.
pub(super) async fn pipelines(objects: &dyn Objects, checks: &mut Vec<Check>) -> Vec<Pipeline> {
    let mut found = Vec::new();
    let listed = match objects.list(Bucket::State, names::PIPELINES, None, PAGE).await {
        Ok(listed) => listed,
        Err(error) => {
            let mend = match error {
                ObjectsError::Unknown(_) => SILENT,
                _ => "to see them takes storage.objects.list and storage.objects.get on the state bucket",
            };
            checks.extend(unknown("stored pipelines", error.to_string(), mend));
            return found;
        }
    };
    for meta in listed {
        let what = format!("pipeline {}", meta.name);
        let text = match objects.read(Bucket::State, &meta.name, None).await {
            Ok(Some(object)) => String::from_utf8_lossy(&object.body).into_owned(),
            Ok(None) => continue,
            Err(error) => {
                checks.extend(unknown(&what, error.to_string(), "to see it takes storage.objects.get on it"));
                continue;
            }
        };
        let mut judged = Findings::of(&what);
        match Pipeline::parse(&text) {
            Ok(pipeline) => {
                let named = names::pipeline(&pipeline.name) == meta.name;
                let said = format!("its name is {}: a run of it is refused", pipeline.name);
                judged.expect(named, State::Fail, said, "store it under its name, or mend its name");
                found.push(pipeline);
            }
            Err(problems) => {
                judged.expect(false, State::Fail, problems.in_file(&meta.name), "mend it and apply it again")
            }
        }
        checks.extend(judged.or_fine("valid"));
    }
    found
}

/// Tasuki's own tables and the pipelines' target tables.
pub(super) async fn tables(deployment: &Deployment, pipelines: &[Pipeline]) -> Vec<Check> {
    let books = match site::books(deployment).await {
        Ok(books) => books,
        Err(error) => return unseen("the database", &error),
    };
    let mut checks = Vec::new();
    for wanted in ddl::tables(&schema::statements().join(";\n")) {
        let there = books.table(&wanted.name).await;
        checks.extend(own_table(&wanted, there));
    }
    for pipeline in pipelines {
        let fits = books.fits(pipeline).await;
        checks.extend(target_table(pipeline, fits));
    }
    checks
}

const SILENT: &str = "look again later, or at your network";

/// The store does not let look, or does not answer.
fn unseen(what: &str, error: &anyhow::Error) -> Vec<Check> {
    let mend = match error.downcast_ref() {
        Some(RecordsError::Unknown(_)) => SILENT,
        _ => "to see it takes spanner.databases.select, or the role of the deployment's operator",
    };
    unknown(what, format!("{error:#}"), mend)
}

fn unknown(what: &str, said: String, mend: &str) -> Vec<Check> {
    let mut found = Findings::of(what);
    found.expect(false, State::Unknown, said, mend);
    found.or_fine("")
}

/// One of Tasuki's own tables, held against infra/schema.
fn own_table(wanted: &Table, there: Result<Option<Table>, RecordsError>) -> Vec<Check> {
    let what = format!("table {}", wanted.name);
    let mut found = Findings::of(&what);
    let mend = "apply what is new in infra/schema, in its order (`terraform apply` does)";
    match there {
        Err(error) => return unseen(&what, &error.into()),
        Ok(None) => found.expect(false, State::Fail, "it is not there, or you have no right to read it", mend),
        Ok(Some(there)) => {
            let differences = ddl::differences(&there, wanted).into_iter();
            for difference in differences.filter(|difference| !matches!(difference, Difference::Unwanted { .. })) {
                let said = difference.to_string().replace("the pipeline wants", "infra/schema has");
                found.expect(false, State::Fail, said, mend);
            }
        }
    }
    found.or_fine("as in infra/schema")
}

/// The table of a pipeline.
fn target_table(pipeline: &Pipeline, fits: Result<bool, RecordsError>) -> Vec<Check> {
    let what = format!("table {} of pipeline {}", pipeline.table, pipeline.name);
    let mut found = Findings::of(&what);
    let mend = "apply what `tasuki schema` writes for the pipeline";
    match fits {
        Ok(there) => found.expect(there, State::Fail, "it is not there, or you have no right to read it", mend),
        Err(RecordsError::Systemic(why)) => found.expect(false, State::Fail, why, mend),
        Err(error) => return unseen(&what, &error.into()),
    }
    found.or_fine("fits")
}

/// The models of the pipelines, each where it is asked.
pub(super) async fn models(rest: &Rest, deployment: &Deployment, pipelines: &[Pipeline]) -> Vec<Check> {
    let mut asked = BTreeMap::new();
    for pipeline in pipelines {
        let location = pipeline.model.location.as_ref().unwrap_or(&deployment.model_location);
        asked.entry((pipeline.model.name.as_str(), location.as_str())).or_insert(pipeline.name.as_str());
    }
    let mut checks = Vec::new();
    for ((model, location), pipeline) in asked {
        let path = format!(
            "v1/projects/{}/locations/{location}/publishers/google/models/{model}:countTokens",
            deployment.project
        );
        let host = address(location);
        let host = host.trim_start_matches("https://");
        // Counting tokens costs nothing (peers.md 5.4), and says whether this project has this model here.
        let body = json!({"contents": [{"role": "user", "parts": [{"text": "."}]}]});
        checks.extend(judge_model(model, location, pipeline, rest.ask(host, &path, &body).await.map(drop)));
    }
    checks
}

fn judge_model(model: &str, location: &str, pipeline: &str, counted: Result<(), Unseen>) -> Vec<Check> {
    let what = format!("model {model} in {location}");
    let mut found = Findings::of(&what);
    match counted {
        Ok(()) => (),
        Err(Unseen::Absent) => {
            let mend =
                format!("name another [model] name or location in pipeline {pipeline}, or another model_location");
            found.expect(false, State::Fail, "it is not served there, or no longer", &mend);
        }
        Err(unseen) => return vec![Check::unseen(&what, "aiplatform.endpoints.predict on the project", &unseen)],
    }
    found.or_fine("served")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::doctor::tests::{said, worst};

    fn wanted() -> Table {
        ddl::tables(&schema::statements().join(";\n")).into_iter().find(|table| table.name == "Failures").unwrap()
    }

    #[test]
    fn own_tables_are_those_of_infra_schema_or_what_they_lack_is_told() {
        assert_eq!(worst(&own_table(&wanted(), Ok(Some(wanted())))), State::Ok);
        let mut old = wanted();
        old.columns.pop();
        old.columns[1].kind = "STRING(9)".into();
        let told = said(&own_table(&wanted(), Ok(Some(old))));
        assert!(told.contains("no column attempts") && told.contains("infra/schema has INT64"), "{told}");
        assert_eq!(worst(&own_table(&wanted(), Ok(None))), State::Fail);
        assert_eq!(worst(&own_table(&wanted(), Err(RecordsError::Unknown("x".into())))), State::Unknown);
    }

    #[test]
    fn a_model_that_is_gone_fails_and_one_that_may_not_be_asked_is_unknown() {
        let judged = |counted| worst(&judge_model("gemini-x", "global", "p", counted));
        assert_eq!(judged(Ok(())), State::Ok);
        assert_eq!(judged(Err(Unseen::Absent)), State::Fail);
        assert_eq!(judged(Err(Unseen::Denied(None))), State::Unknown);
    }
}
