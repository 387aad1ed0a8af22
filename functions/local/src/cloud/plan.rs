//! `tasuki plan` for a deployment: the file is read here, Vertex AI counts prompts with the user's credentials.

use super::site::{self, Deployed};
use crate::cli;
use crate::commands::Exit;
use crate::commands::plan::Planned;
use crate::commands::run::{Checked, check, readable};
use crate::model::COUNTS_AT_ONCE;
use anyhow::{Result, bail};
use std::sync::Arc;
use tasuki_google::model::{VertexConfig, VertexModel};
use tasuki_relay::pipeline::{ModelSettings, Provider};
use tasuki_relay::ports::CountTokens;

/// A test server instead of Vertex AI, without credentials.
const HOST: &str = "GOOGLE_GEMINI_BASE_URL";

pub(super) async fn plan(site: &Deployed, args: cli::Plan) -> Result<Exit> {
    let Checked { pipeline, .. } = check(&args.input, &args.pipeline, readable)?;
    if args.sample.is_some() {
        bail!(
            "--sample asks in a folder: leave --deployment out, with a key, for the same model and prompts; or run a file of \
             some rows with --deployment, and look at its tokens in `tasuki status RUN`"
        );
    }
    let planned = Planned {
        input: &args.input,
        counter: counter(site, &pipeline.model).await?,
        pipeline: Arc::new(pipeline),
        home: None,
        try_sample: "GEMINI_API_KEY=… and --sample 100 instead of --deployment".to_owned(),
        json: args.json,
    };
    planned.tell().await
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
