//! Where runs are kept and worked on, as the operator's commands see it: a folder of this machine, or a deployment.

use crate::home::{Holder, Home};
use crate::model::Answerer;
use crate::show;
use anyhow::Result;
use std::path::PathBuf;
use std::sync::Arc;
use tasuki_relay::books::Books;
use tasuki_relay::clock::Clock;
use tasuki_relay::names::RunId;
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::Objects;

/// Who works on the runs of a site.
pub(crate) enum Driver {
    /// Deployed services, always.
    #[cfg_attr(not(feature = "cloud"), expect(dead_code, reason = "a newcomer's build knows folders alone"))]
    Services,
    /// A process of this machine.
    Process(Holder),
    /// Nobody, now.
    Nobody,
}

/// Where runs are.
pub(crate) trait Site {
    /// The four buckets.
    fn objects(&self) -> Arc<dyn Objects>;
    /// The store, to look at.
    fn books(&self) -> &dyn Books;
    /// The machine's clock.
    fn clock(&self) -> &Clock;
    /// The inbox's real name: part of every run's identity.
    fn inbox(&self) -> &str;
    /// What a person calls the site.
    fn name(&self) -> String;
    /// A command line of ours for this site as a person would type it.
    fn line(&self, words: &[&str]) -> String;
    /// Where the store is.
    fn database(&self) -> String;
    /// The command that shows the result of this query.
    fn query(&self, sql: &str) -> String;
    /// A column or table between the quotes of the store's SQL.
    fn quoted(&self, name: &str) -> String;
    /// Where rows that a command makes are kept while it works.
    fn scratch(&self) -> PathBuf;
    /// Who works on the runs.
    fn driver(&self) -> Result<Driver>;
    /// Who answers the run, where that is known.
    fn answerer_of(&self, run: &RunId) -> Option<Answerer>;
    /// How a person resumes the run, where that was noted.
    fn command_of(&self, run: &RunId) -> Option<String>;
    /// What a person calls the run's input, where that was noted.
    fn input_of(&self, run: &RunId) -> Option<String>;
}

/// A look at the first answers in the store's own SQL.
pub(crate) fn first_answers(site: &dyn Site, pipeline: &Pipeline) -> String {
    // Between quotes: a column may be called select, and a folder have a space.
    let columns = std::iter::once(&pipeline.key).chain(pipeline.answer.iter().map(|column| &column.name));
    let columns: Vec<String> = columns.map(|name| site.quoted(name)).collect();
    site.query(&format!("SELECT {} FROM {} LIMIT 5", columns.join(", "), site.quoted(&pipeline.table)))
}

impl Site for Home {
    fn objects(&self) -> Arc<dyn Objects> {
        self.objects.clone()
    }
    fn books(&self) -> &dyn Books {
        &self.reader
    }
    fn clock(&self) -> &Clock {
        &self.clock
    }
    fn inbox(&self) -> &str {
        &self.inbox
    }
    fn name(&self) -> String {
        self.dir.display().to_string()
    }
    fn line(&self, words: &[&str]) -> String {
        show::line(&self.dir, words)
    }
    fn database(&self) -> String {
        self.database().display().to_string()
    }
    fn query(&self, sql: &str) -> String {
        format!("sqlite3 {} {}", show::quoted(&Site::database(self)), show::quoted(sql))
    }
    fn quoted(&self, name: &str) -> String {
        format!("\"{name}\"")
    }
    fn scratch(&self) -> PathBuf {
        self.dir.join("tmp")
    }
    fn driver(&self) -> Result<Driver> {
        Ok(self.holder()?.map_or(Driver::Nobody, Driver::Process))
    }
    fn answerer_of(&self, run: &RunId) -> Option<Answerer> {
        self.answerer_of(run)
    }
    fn command_of(&self, run: &RunId) -> Option<String> {
        self.command_of(run)
    }
    fn input_of(&self, run: &RunId) -> Option<String> {
        self.input_of(run)
    }
}
