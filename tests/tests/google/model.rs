//! The model on Vertex AI, against the scripted server of this package.

use anyhow::{Context, Result, ensure};
use google_cloud_auth::credentials::{CacheableResource, Credentials, CredentialsProvider, EntityTag};
use google_cloud_gax::error::CredentialsError;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use libtest_mimic::Trial;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tasuki_google::connect::Endpoint;
use tasuki_google::model::{VertexConfig, VertexModel};
use tasuki_relay::ports::{Ask, Fault, Model, Reply};
use tasuki_relay::prices::Tier;
use tasuki_tests::emulators::trial;
use tasuki_tests::model_server::{Act, CallInfo, ModelServer, Script};
use tasuki_tests::suites::{model_questions, model_suite};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("vertex_over_http_keeps_the_model_suite", &[], || suite(Script::default())),
        trial("vertex_over_https_keeps_the_model_suite", &[], || suite(Script::default().https())),
        trial("vertex_sees_the_project_the_location_and_the_bearer", &[], addressed),
        trial("each_location_has_its_own_path", &[], located),
        trial("a_token_that_ran_out_is_replaced_once", &[], replaced),
        trial("a_second_refusal_is_no_rows_fault", &[], refused),
        trial("a_right_that_is_missing_is_no_rows_fault", &[], denied),
        trial("without_a_token_nothing_is_sent", &[], without_token),
        trial("a_tier_is_asked_of_vertex_by_headers_and_told_by_its_reply", &[], tiered),
        trial("a_tier_sends_no_row_out_of_the_deployments_location", &[], kept),
    ]
}

/// Gives these tokens one after another, then the last one again; none means an error, passing or not.
#[derive(Debug)]
struct Tokens {
    tokens: &'static [&'static str],
    transient: bool,
    asked: AtomicUsize,
}

impl CredentialsProvider for Tokens {
    async fn headers(&self, _: http::Extensions) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let at = self.asked.fetch_add(1, Ordering::Relaxed).min(self.tokens.len().saturating_sub(1));
        let token = self.tokens.get(at).ok_or_else(|| CredentialsError::from_msg(self.transient, "sekret"))?;
        let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("plain text");
        let data = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        Ok(CacheableResource::New { entity_tag: EntityTag::new(), data })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

fn tokens(tokens: &'static [&'static str]) -> Credentials {
    Credentials::from(Tokens { tokens, transient: false, asked: AtomicUsize::new(0) })
}

fn vertex(server: &ModelServer, credentials: Credentials) -> Result<VertexModel> {
    Ok(VertexModel::new(config(server, credentials))?)
}

fn config(server: &ModelServer, credentials: Credentials) -> VertexConfig {
    let https = server.base().starts_with("https");
    VertexConfig {
        project: "a-project".into(),
        location: "global".into(),
        endpoint: Endpoint { url: Some(server.base()), credentials },
        max_in_flight: 1_000,
        cert_file: https.then(|| server.ca_pem_path().to_owned()),
    }
}

fn question() -> Result<Ask> {
    model_questions()?.into_iter().next().context("the suite asks something")
}

/// Asks once; returns what came of it, and how many calls the server saw.
async fn asked(
    credentials: Credentials,
    act: impl Fn(&CallInfo) -> Act + Send + Sync + 'static,
) -> Result<(Result<Reply, Fault>, u64)> {
    let server = ModelServer::start(Script::acting(act)).await?;
    let said = vertex(&server, credentials)?.ask(&question()?).await;
    if let Err(fault) = &said {
        ensure!(!format!("{fault} {fault:?}").contains("sekret"), "{fault:?}");
    }
    Ok((said, server.tally().calls()))
}

/// A server that takes one token only.
fn takes(token: &'static str) -> impl Fn(&CallInfo) -> Act {
    move |call| match call.authorization.as_deref() == Some(&format!("Bearer {token}")) {
        true => Act::Auto,
        false => Act::Status(401, r#"{"error": {"code": 401, "status": "UNAUTHENTICATED"}}"#.to_owned()),
    }
}

async fn suite(script: Script) -> Result<()> {
    let server = ModelServer::start(script).await?;
    model_suite(&vertex(&server, tokens(&["sekret-1"]))?).await
}

async fn addressed() -> Result<()> {
    let name = question()?.pipeline.model.name.clone();
    let (said, calls) = asked(tokens(&["sekret-1"]), move |call| {
        let path = format!("/v1/projects/a-project/locations/global/publishers/google/models/{name}:generateContent");
        assert_eq!(call.path, path);
        assert_eq!(call.authorization.as_deref(), Some("Bearer sekret-1"));
        assert_eq!(call.key_header, None);
        Act::Auto
    })
    .await?;
    ensure!(said.is_ok() && calls == 1, "{said:?}");
    Ok(())
}

async fn located() -> Result<()> {
    let paths = Arc::new(Mutex::new(Vec::new()));
    let seen = paths.clone();
    let script = Script::acting(move |call| {
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(call.path.clone());
        Act::Auto
    });
    let server = ModelServer::start(script).await?;
    let vertex = vertex(&server, tokens(&["sekret-1"]))?;
    for location in [None, Some("eu"), Some("europe-west4")] {
        let mut ask = question()?;
        Arc::make_mut(&mut ask.pipeline).model.location = location.map(str::to_owned);
        vertex.ask(&ask).await?;
    }
    let paths = paths.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let locations: Vec<&str> = paths.iter().filter_map(|path| path.split('/').nth(5)).collect();
    ensure!(locations == ["global", "eu", "europe-west4"], "{paths:?}");
    Ok(())
}

async fn replaced() -> Result<()> {
    let (said, calls) = asked(tokens(&["sekret-old", "sekret-new"]), takes("sekret-new")).await?;
    ensure!(said.is_ok() && calls == 2, "{calls} calls: {said:?}");
    Ok(())
}

async fn refused() -> Result<()> {
    let (said, calls) = asked(tokens(&["sekret-1", "sekret-2", "sekret-3"]), takes("sekret-3")).await?;
    ensure!(matches!(&said, Err(Fault::Systemic(what)) if what.contains("token")), "{said:?}");
    ensure!(calls == 2, "one more try, not {calls}");
    let (said, calls) = asked(tokens(&["sekret-1"]), takes("sekret-2")).await?;
    ensure!(matches!(said, Err(Fault::Systemic(_))) && calls == 1, "the same token is no other: {calls} calls");
    Ok(())
}

async fn denied() -> Result<()> {
    let denied = r#"{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "sekret"}}"#;
    let (said, calls) = asked(tokens(&["sekret-1"]), move |_| Act::Status(403, denied.to_owned())).await?;
    ensure!(matches!(&said, Err(Fault::Systemic(what)) if what.contains("aiplatform.endpoints.predict")), "{said:?}");
    ensure!(calls == 1, "{calls}");
    Ok(())
}

fn with_tier(tier: Tier) -> Result<Ask> {
    let mut ask = question()?;
    Arc::make_mut(&mut ask.pipeline).model.tier = tier;
    Ok(ask)
}

async fn tiered() -> Result<()> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let calls = seen.clone();
    let script = Script::acting(move |call| {
        let header = |name: &str| call.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let names =
            ["x-vertex-ai-llm-request-type", "x-vertex-ai-llm-shared-request-type", "x-server-timeout"].map(header);
        assert_eq!(call.request.get("service_tier"), None, "Vertex AI would pass over it");
        calls.lock().unwrap_or_else(PoisonError::into_inner).push(names);
        let traffic = r#"{"candidates": [], "usageMetadata": {"trafficType": "ON_DEMAND_PRIORITY"}}"#;
        Act::Body(traffic.to_owned())
    });
    let server = ModelServer::start(script).await?;
    let vertex = vertex(&server, tokens(&["sekret-1"]))?;
    for tier in [Tier::Standard, Tier::Flex, Tier::Priority] {
        ensure!(vertex.ask(&with_tier(tier)?).await?.tier == Some(Tier::Priority), "the reply says what served it");
    }
    let some = |word: &str| Some(word.to_owned());
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let flex = [some("shared"), some("flex"), some("1800")];
    ensure!(seen == [[None, None, None], flex, [some("shared"), some("priority"), None]], "{seen:?}");
    Ok(())
}

async fn kept() -> Result<()> {
    let server = ModelServer::start(Script::default()).await?;
    let mut config = config(&server, tokens(&["sekret-1"]));
    config.location = "eu".into();
    let vertex = VertexModel::new(config)?;
    let said = vertex.ask(&with_tier(Tier::Flex)?).await;
    ensure!(matches!(&said, Err(Fault::Systemic(what)) if what.contains("location = \"global\"")), "{said:?}");
    ensure!(server.tally().calls() == 0, "a row left");
    let mut allowed = with_tier(Tier::Flex)?;
    Arc::make_mut(&mut allowed.pipeline).model.location = Some("global".to_owned());
    vertex.ask(&allowed).await?;
    Ok(())
}

async fn without_token() -> Result<()> {
    for transient in [true, false] {
        let none = Tokens { tokens: &[], transient, asked: AtomicUsize::new(0) };
        let (said, calls) = asked(Credentials::from(none), |_| Act::Auto).await?;
        let as_it_should = match &said {
            Err(Fault::Unavailable(_)) => transient,
            Err(Fault::Systemic(_)) => !transient,
            _ => false,
        };
        ensure!(as_it_should && calls == 0, "transient: {transient}, {calls} calls, {said:?}");
    }
    Ok(())
}
