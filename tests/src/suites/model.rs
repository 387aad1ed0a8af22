//! What every model must do.

use anyhow::{Context, ensure};
use futures::future::join_all;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::answer;
use tasuki_relay::outcome::{Class, classify};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Ask, Model};
use tasuki_relay::prompt::Prompter;

/// Calls at once.
const AT_ONCE: usize = 200;

/// The questions of the suite: the model must have an answer to each.
pub fn questions() -> anyhow::Result<Vec<Ask>> {
    let pipeline = "name = \"p\"\nkey = \"id\"\n[prompt]\nsystem = \"Be brief.\"\ntemplate = \"{{ about }}\"\n\
        [answer.themes]\ntype = \"string\"\ncount = 3\ndistinct = true\nmax_chars = 40\n\
        [answer.score]\ntype = \"integer\"\n[target]\ntable = \"t\"\n";
    let pipeline = Pipeline::parse(pipeline).map_err(|problems| anyhow::anyhow!(problems.in_file("suite")))?;
    let prompter = Prompter::new(Arc::new(pipeline))?;
    let ask = |about: &str| {
        let row = json!({"id": about, "about": about}).as_object().cloned().unwrap_or_default();
        prompter.ask(Arc::new(row)).map_err(|failed| anyhow::anyhow!(failed.message))
    };
    ["a steel kettle with a long spout", "木製の譜面台", "\"quotes\" and {{ braces }}", ""]
        .into_iter()
        .map(ask)
        .collect()
}

/// Runs the suite.
///
/// # Errors
/// Names the step that failed.
pub async fn model_suite(model: &dyn Model) -> anyhow::Result<()> {
    let questions = questions()?;
    for ask in &questions {
        let said = model.ask(ask).await;
        let class = classify(&said, |text| answer::validate(&ask.pipeline, text).map_err(|invalid| invalid.0));
        ensure!(matches!(class, Class::Answer(_)), "an answer fits the pipeline: {class:?}");
        ensure!(!said?.model.is_empty(), "a reply says which model gave it");
    }
    let more = Ask { max_output_tokens: Some(2_048), ..questions[0].clone() };
    model.ask(&more).await.context("a call with another limit of output tokens")?;

    let many = (0..AT_ONCE).map(|n| model.ask(&questions[n % questions.len()]));
    for said in join_all(many).await {
        said.context("many calls at once")?;
    }

    // A call that is given up leaves the model usable.
    tokio::time::timeout(Duration::from_micros(1), model.ask(&questions[0])).await.ok();
    model.ask(&questions[0]).await.context("a call after one that was given up")?;
    Ok(())
}
