//! What a run came to.

use super::answerers::Answerers;
use super::cost;
use super::results::replaced;
use super::runs::{self, Run};
use crate::bill::Basis;
use crate::show::{self, number, plain};
use crate::site::{self, Site};
use anyhow::Result;
use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::time::Duration;
use tasuki_relay::books::ResultRow;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::record::Counts;
use tasuki_relay::stand_in::StandIn;

/// Answers that a summary shows.
const FIRST: u64 = 5;
/// Reasons of failures that a summary shows.
const REASONS: usize = 5;

pub(crate) struct Summary<'a> {
    pub(crate) site: &'a dyn Site,
    pub(crate) run: &'a Run,
    /// What the user calls the input.
    pub(crate) called: &'a str,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) json: bool,
}

impl Summary<'_> {
    /// Of a run that was finished before the command began.
    pub(crate) async fn already(&self) -> Result<()> {
        eprintln!(
            "run {} is finished already: nothing was asked and nothing is paid (--again makes a new run)",
            self.run.run
        );
        self.show(None).await
    }

    /// Prints it all; `took` = rows that this command brought, and its time.
    pub(crate) async fn show(&self, took: Option<(u64, Duration)>) -> Result<()> {
        if self.json {
            return self.json().await;
        }
        let (mut out, counts) = (Text(String::new()), self.run.counts());
        let site = self.site;
        out.line(format!(
            "{}  {} with pipeline {}, run {}",
            self.run.state, self.called, self.run.pipeline, self.run.run
        ));
        out.count("rows", counts.rows(), "");
        out.count("loaded", counts.loaded, "");
        if let Some(text) = Answerers::of(site, self.run).await?.and_then(|answerers| answerers.text(self.run)) {
            out.line(format!("  {:<11}{:>12}  {text}", "answered by", ""));
        }
        if counts.failed > 0 {
            let reasons = site.books().failure_reasons(&self.run.run).await?;
            let more = reasons.len().saturating_sub(REASONS);
            let mut list: Vec<String> =
                reasons.iter().take(REASONS).map(|(reason, count)| format!("{reason} {}", number(*count))).collect();
            list.extend((more > 0).then(|| format!("{more} more reasons")));
            out.count("failed", counts.failed, &list.join(", "));
            out.line(format!("                       see {}", site.line(&["failures", self.run.short()])));
        } else {
            out.count("failed", 0, "");
        }
        for (name, count) in [("unchanged", counts.unchanged), ("superseded", counts.superseded)] {
            if count > 0 {
                out.count(
                    name,
                    count,
                    if name == "superseded" { "a newer run's answers stay" } else { "not asked again" },
                );
            }
        }
        let cost = cost::of(site, self.run).await?;
        let stand_in = cost.basis == Basis::StandIn;
        let paid = runs::paid(stand_in);
        let Counts { paid_calls, ambiguous_calls, wasted_answers, reused_answers, usage, .. } = cost.counts;
        let more = format!("{paid}, {} ambiguous, {} wasted", number(ambiguous_calls), number(wasted_answers));
        out.count("calls", paid_calls, &more);
        if usage.prompt > 0 {
            let of = format!(
                "in ({} cached), {} out, {} thought",
                number(usage.cached),
                number(usage.output),
                number(usage.thought)
            );
            out.count("tokens", usage.prompt, &of);
        }
        if !stand_in && paid_calls > 0 {
            let (sum, of_it) = cost.in_short();
            out.line(format!("  {:<11}{sum:>12}  {of_it}", "cost").trim_end().to_owned());
        }
        if reused_answers > 0 {
            out.count("reused", reused_answers, "from the cache, they cost nothing");
        }
        if cost.has_parts() {
            out.line(format!("                       see {}", site.line(&["cost", self.run.short()])));
        }
        if let Some((rows, time)) = took {
            let rate = rows as f64 / time.as_secs_f64().max(0.001);
            out.line(format!("  {:<11}{:>12}  {} rows/s", "time", show::time(time), number(rate.round() as u64)));
        }
        if counts.loaded + counts.unchanged > 0 {
            out.line(String::new());
            match self.first().await? {
                Some(table) => out.line(table),
                None => out.line(format!(
                    "{}: `run` with --again puts them back",
                    replaced(self.run).unwrap_or_else(|| "no row is its own".to_owned())
                )),
            }
            if stand_in {
                out.line(StandIn::note(self.pipeline.model.provider).to_owned());
            }
            out.line(String::new());
            out.line(format!("all of them  {}", site.line(&["results", self.run.short()])));
            out.line(format!("database     {}", site.database()));
            out.line(format!("             {}", site::first_answers(site, self.pipeline)));
        }
        out.print()
    }

    /// None where newer runs have taken all its rows.
    async fn first(&self) -> Result<Option<String>> {
        let head = std::iter::once(self.pipeline.key.clone());
        let head = head.chain(self.pipeline.answer.iter().map(|column| column.name.clone())).collect();
        let mut rows = Vec::new();
        let mut each = |row: ResultRow| {
            let key = std::iter::once(row.key.to_string());
            rows.push(key.chain(row.values.iter().map(|(_, value)| plain(value))).collect());
            ControlFlow::Continue(())
        };
        self.site.books().results(self.pipeline, &self.run.run, FIRST, &mut each).await?;
        Ok((!rows.is_empty()).then(|| show::table(head, rows)))
    }

    /// One JSON object on stdout.
    pub(crate) async fn json(&self) -> Result<()> {
        show::json_line(&mut stdout().lock(), &self.run.json(self.site).await?)
    }
}

/// Text that is printed at once.
struct Text(String);

impl Text {
    fn line(&mut self, line: String) {
        self.0 += &line;
        self.0.push('\n');
    }

    fn count(&mut self, name: &str, count: u64, more: &str) {
        let line = format!("  {name:<11}{:>12}  {more}", number(count));
        self.line(line.trim_end().to_owned());
    }

    fn print(self) -> Result<()> {
        Ok(stdout().write_all(self.0.as_bytes())?)
    }
}
