//! A deployment as a place where runs are.

use super::deployment::Deployment;
use crate::model::Answerer;
use crate::show;
use crate::site::{Driver, Site};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tasuki_google::connect::Endpoint;
use tasuki_google::objects::{Buckets, GoogleObjects};
use tasuki_google::records::SpannerBooks;
use tasuki_relay::books::Books;
use tasuki_relay::clock::Clock;
use tasuki_relay::names::RunId;
use tasuki_relay::ports::Objects;

/// A deployment that is open.
pub(super) struct Deployed {
    pub(super) deployment: Deployment,
    pub(super) objects: Arc<GoogleObjects>,
    pub(super) books: SpannerBooks,
    clock: Clock,
    /// The deployment's file as the user wrote it.
    file: PathBuf,
}

impl Deployed {
    /// Opens buckets and store with the user's credentials.
    pub(super) async fn open(file: &Path, deployment: Deployment) -> Result<Deployed> {
        let (objects, books) = (objects(&deployment).await?, books(&deployment).await?);
        Ok(Deployed { deployment, objects: Arc::new(objects), books, clock: Clock::system(), file: file.to_owned() })
    }
}

/// The deployment's buckets.
pub(super) async fn objects(deployment: &Deployment) -> Result<GoogleObjects> {
    let buckets = Buckets {
        inbox: deployment.inbox_bucket.clone(),
        shards: deployment.shards_bucket.clone(),
        answers: deployment.answers_bucket.clone(),
        state: deployment.state_bucket.clone(),
    };
    Ok(GoogleObjects::new(&endpoint("STORAGE_EMULATOR_HOST").await?, buckets, Arc::new(|| None)).await?)
}

/// The deployment's store.
pub(super) async fn books(deployment: &Deployment) -> Result<SpannerBooks> {
    let (database, role) = (&deployment.spanner_database, deployment.spanner_role.as_deref());
    let books = SpannerBooks::connect(database, endpoint("SPANNER_EMULATOR_HOST").await?, role).await;
    books.with_context(|| database.clone())
}

/// The emulator that a variable names, else the real service with the user's credentials.
pub(super) async fn endpoint(emulator: &str) -> Result<Endpoint> {
    let emulator = std::env::var(emulator).ok().filter(|host| !host.trim().is_empty());
    match Endpoint::of(emulator.as_deref()) {
        Ok(endpoint) if emulator.is_some() || endpoint.has_token().await => Ok(endpoint),
        _ => bail!("no credentials: run `gcloud auth application-default login` first, or look at your network"),
    }
}

impl Site for Deployed {
    fn objects(&self) -> Arc<dyn Objects> {
        self.objects.clone()
    }
    fn books(&self) -> &dyn Books {
        &self.books
    }
    fn clock(&self) -> &Clock {
        &self.clock
    }
    fn inbox(&self) -> &str {
        &self.deployment.inbox_bucket
    }
    fn name(&self) -> String {
        format!("the deployment in project {}", self.deployment.project)
    }
    fn line(&self, words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|word| show::quoted(word)).collect();
        format!("tasuki --deployment {} {}", show::quoted(&self.file.to_string_lossy()), words.join(" "))
    }
    fn database(&self) -> String {
        self.deployment.spanner_database.clone()
    }
    fn query(&self, sql: &str) -> String {
        let mut parts = self.deployment.spanner_database.split('/').skip(1).step_by(2);
        let mut part = || show::quoted(parts.next().unwrap_or_default());
        let (project, instance, database) = (part(), part(), part());
        let sql = show::quoted(sql);
        format!("gcloud spanner databases execute-sql {database} --instance={instance} --project={project} --sql={sql}")
    }
    fn quoted(&self, name: &str) -> String {
        tasuki_relay::ddl::quoted(name)
    }
    fn scratch(&self) -> PathBuf {
        std::env::temp_dir()
    }
    fn driver(&self) -> Result<Driver> {
        Ok(Driver::Services)
    }
    /// A deployed leg never falls back to the stand-in.
    fn answerer_of(&self, _: &RunId) -> Option<Answerer> {
        Some(Answerer::Gemini)
    }
    fn command_of(&self, _: &RunId) -> Option<String> {
        None
    }
    fn input_of(&self, _: &RunId) -> Option<String> {
        None
    }
}
