//! Has some prompts counted by the model, which is free, at a modest pace.

use crate::model::COUNTS_AT_ONCE;
use futures::{StreamExt, stream};
use serde_json::Map;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::estimate::{Known, Survey, guess};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Ask, CountTokens, Fault};

/// A prompt is tried so often while the model is busy: a count is worth no long wait.
const TRIES: u32 = 3;
/// Between those, and at most where the model names a time.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What was counted.
#[derive(Default)]
pub(super) struct Counted {
    /// Prompts: their tokens by their guesses.
    pub(super) prompts: Vec<Known>,
    /// Why there are none, if it is not for want of a key.
    pub(super) why_not: Option<String>,
}

/// Counts the prompts that were drawn: all of them, or none where one cannot be counted.
pub(super) async fn count(counter: Option<&dyn CountTokens>, pipeline: &Arc<Pipeline>, survey: &Survey) -> Counted {
    let Some(counter) = counter else { return Counted::default() };
    let counts = survey.prompts.items().map(|prompt| async move {
        let tokens = one(counter, pipeline, prompt).await?;
        Ok(Known { weight: guess(prompt), value: tokens as f64 })
    });
    let mut counts = stream::iter(counts).buffered(COUNTS_AT_ONCE as usize);
    let mut prompts = Vec::new();
    while let Some(counted) = counts.next().await {
        match counted {
            Ok(known) => prompts.push(known),
            Err(fault) => return Counted { prompts: Vec::new(), why_not: Some(Fault::to_string(&fault)) },
        }
    }
    Counted { prompts, why_not: None }
}

async fn one(counter: &dyn CountTokens, pipeline: &Arc<Pipeline>, prompt: &str) -> Result<u64, Fault> {
    let (pipeline, prompt) = (pipeline.clone(), prompt.to_owned());
    let ask = Ask { pipeline, prompt, row: Arc::new(Map::new()), max_output_tokens: None };
    let mut tries_left = TRIES;
    loop {
        tries_left -= 1;
        match counter.count_tokens(&ask).await {
            Err(Fault::Busy { retry_after }) if tries_left > 0 => {
                tokio::time::sleep(retry_after.unwrap_or(PAUSE).min(PAUSE_MAX)).await;
            }
            Err(Fault::Unavailable(_) | Fault::Ambiguous(_)) if tries_left > 0 => tokio::time::sleep(PAUSE).await,
            said => return said,
        }
    }
}
