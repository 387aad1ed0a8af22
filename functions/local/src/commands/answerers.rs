//! Who answered the rows of a run whose pipeline names more models than one.

use super::runs::{self, Run};
use crate::show::number;
use crate::site::Site;
use anyhow::Result;
use serde_json::Value;

/// Rows of the run in its table by who answered them, `model` or `model@location`; the most first.
pub(crate) struct Answerers(Vec<(String, u64)>);

impl Answerers {
    /// `None` where only one may be asked: the table, which the rows are counted in, is not looked at then.
    pub(crate) async fn of(site: &dyn Site, run: &Run) -> Result<Option<Answerers>> {
        let Some(pipeline) = runs::pipeline(site, &run.run).await? else { return Ok(None) };
        if pipeline.model.fallback.is_empty() {
            return Ok(None);
        }
        Ok(Some(Answerers(site.books().answerers(&pipeline, &run.run).await?)))
    }

    /// `gemini-3.5-flash-lite-001 280, gemini-3.5-flash-001@eu 20`; `None` where nobody answered yet.
    pub(crate) fn text(&self, run: &Run) -> Option<String> {
        let mut words: Vec<String> = self.0.iter().map(|(model, rows)| format!("{model} {}", number(*rows))).collect();
        let there: u64 = self.0.iter().map(|(_, rows)| rows).sum();
        let gone = (run.counts().loaded + run.counts().unchanged).saturating_sub(there);
        words.extend((gone > 0).then(|| format!("{} replaced by newer runs", number(gone))));
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// `{model: rows}`.
    pub(crate) fn json(&self) -> Value {
        self.0.iter().map(|(model, rows)| (model.clone(), Value::from(*rows))).collect()
    }
}
