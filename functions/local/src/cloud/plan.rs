//! `tasuki plan` for a deployment: the file is read here, Vertex AI counts prompts with the user's credentials, a sample is asked
//! by the services.

use super::run::{Job, is_deployed};
use super::site::{self, Deployed};
use crate::cli;
use crate::commands::Exit;
use crate::commands::plan::sample::{SUFFIX, Sample};
use crate::commands::plan::{Planned, words};
use crate::commands::run::{Checked, check, readable};
use crate::model::COUNTS_AT_ONCE;
use crate::signals::Stop;
use crate::site::Site;
use anyhow::{Context, Result};
use std::sync::Arc;
use tasuki_google::model::{VertexConfig, VertexModel};
use tasuki_relay::pipeline::{ModelSettings, Provider};
use tasuki_relay::ports::CountTokens;

/// A test server instead of Vertex AI, without credentials.
const HOST: &str = "GOOGLE_GEMINI_BASE_URL";

pub(super) async fn plan(site: &Deployed, args: cli::Plan) -> Result<Exit> {
    let Checked { pipeline, text, .. } = check(&args.input, &args.pipeline, readable)?;
    let line = |rows| site.line(&words(&args, rows).iter().map(String::as_str).collect::<Vec<_>>());
    let planned = Planned {
        input: &args.input,
        counter: counter(site, &pipeline.model).await?,
        pipeline: Arc::new(pipeline),
        home: None,
        try_sample: line(100),
        json: args.json,
    };
    let Some(rows) = args.sample else { return planned.tell().await };
    is_deployed(site, &planned.pipeline.name, &text).await?;
    let sample = Sample { planned: &planned, site, text: &text, rows: rows.into(), resume: line(rows) };
    let Some(drawn) = sample.draw().await? else { return planned.tell().await };
    let job = Job {
        site,
        pipeline: &planned.pipeline,
        text: &text,
        suffix: SUFFIX,
        identity: Some(&drawn.identity),
        called: drawn.called.clone(),
        again: false,
        json: args.json,
        resume: sample.resume.clone(),
    };
    let driven = job.driven(&drawn.file, Stop::listen().context("signals cannot be listened for")?).await?;
    sample.tell(&drawn, driven).await
}

async fn counter(site: &Deployed, model: &ModelSettings) -> Result<Option<Arc<dyn CountTokens>>> {
    if model.provider != Provider::Google {
        return Ok(None);
    }
    let config = VertexConfig {
        project: site.deployment.project.clone(),
        location: site.deployment.model_location.clone(),
        endpoint: site::endpoint(HOST).await?,
        max_in_flight: COUNTS_AT_ONCE,
        cert_file: None,
    };
    Ok(Some(Arc::new(VertexModel::new(config)?)))
}
