//! The HTTP server of a deployed leg, over real sockets: what it acknowledges, whom it lets in, what it bears.

use anyhow::Result;
use async_trait::async_trait;
use futures::FutureExt;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tasuki_google::http::{Callers, Refused, Server, serve};
use tasuki_google::settings::{self, Role};
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::leg::Leg;
use tasuki_relay::names::Bucket;
use tasuki_relay::names::RunId;
use tasuki_relay::ports::{Event, Verdict, Why};
use tasuki_relay::sweep::{Due, Sweep};
use tasuki_tests::oidc::{Issuer, Signed, claims, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const CALLER: &str = "eventarc@p.iam.gserviceaccount.com";

/// A leg that notes what it is asked and says what it is told to say.
#[derive(Default)]
struct Scripted {
    events: Mutex<Vec<Event>>,
    verdict: Mutex<Option<Verdict>>,
    let_go: Notify,
    hangs: AtomicBool,
    sweeps: AtomicUsize,
    drained: AtomicBool,
}

#[async_trait]
impl Leg for Scripted {
    async fn handle(self: Arc<Self>, event: &Event) -> Verdict {
        self.events.lock().expect("nobody panics with it").push(event.clone());
        if self.hangs.load(SeqCst) {
            self.let_go.notified().await;
        }
        self.verdict.lock().expect("nobody panics with it").clone().unwrap_or(Verdict::Done)
    }
    async fn due(&self, _: Sweep, _: Option<&RunId>) -> Due {
        Due::default()
    }
    fn drove(&self, _: &Event) {}
    async fn sweep(self: Arc<Self>) -> Result<usize, Why> {
        self.sweeps.fetch_add(1, SeqCst);
        Ok(3)
    }
    async fn drain(&self) {
        self.drained.store(true, SeqCst);
        self.hangs.store(false, SeqCst);
        self.let_go.notify_waiters();
    }
}

struct Running {
    leg: Arc<Scripted>,
    address: String,
    host: String,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
    client: Client,
}

impl Running {
    async fn start(ack_deadline: Duration, issuer: Option<&Issuer>) -> Result<Running> {
        tasuki_google::connect::install_tls();
        let (leg, stop) = (Arc::new(Scripted::default()), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let host = listener.local_addr()?.to_string();
        let callers = issuer.map(|issuer| {
            let callers = settings::Callers { emails: vec![CALLER.to_owned()], jwks: Some(issuer.jwks.clone()) };
            Callers::new(&callers, Client::new(), Clock::system())
        });
        let server = Server {
            role: Role::Generator,
            leg: leg.clone(),
            bucket: "p-shards".to_owned(),
            ack_deadline,
            callers,
            stop: stop.clone(),
        };
        let served = tokio::spawn(serve(listener, server));
        Ok(Running { leg, address: format!("http://{host}"), host, stop, served, client: Client::new() })
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.address))
    }

    fn event(&self, bucket: &str) -> RequestBuilder {
        let resource = json!({"bucket": bucket, "name": "r/00000001.ndjson", "generation": "17"}).to_string();
        self.post("/events").header("ce-type", "google.cloud.storage.object.v1.finalized").body(resource)
    }

    async fn status(&self, request: RequestBuilder) -> Result<u16> {
        Ok(request.send().await?.status().as_u16())
    }
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn an_event_reaches_the_leg_and_its_verdict_the_caller() -> Result<()> {
    let server = Running::start(LONG, None).await?;
    let cases = [
        (Verdict::Done, 200),
        (Verdict::NotOurs, 204),
        (Verdict::Later(Why::LiveClaim), 503),
        (Verdict::Later(Why::Systemic("set the key".into())), 503),
    ];
    for (verdict, status) in cases {
        *server.leg.verdict.lock().unwrap() = Some(verdict);
        assert_eq!(server.status(server.event("p-shards")).await?, status);
    }
    let event = Event { bucket: Bucket::Shards, name: "r/00000001.ndjson".into(), generation: 17 };
    assert_eq!(*server.leg.events.lock().unwrap(), vec![event; 4]);
    Ok(())
}

#[tokio::test]
async fn what_can_never_succeed_is_acknowledged_and_does_not_reach_the_leg() -> Result<()> {
    let server = Running::start(LONG, None).await?;
    assert_eq!(server.status(server.event("another-bucket")).await?, 204);
    assert_eq!(server.status(server.post("/events").body("no event")).await?, 200);
    assert_eq!(server.status(server.post("/events").body(vec![b' '; (1 << 20) + 1])).await?, 200);
    assert_eq!(server.status(server.post("/events").header("ce-type", "other")).await?, 204);
    assert!(server.leg.events.lock().unwrap().is_empty());
    assert_eq!(server.status(server.client.get(format!("{}/events", server.address))).await?, 405);
    assert_eq!(server.status(server.post("/elsewhere")).await?, 404);
    Ok(())
}

#[tokio::test]
async fn a_body_of_just_the_largest_size_is_read() -> Result<()> {
    let server = Running::start(LONG, None).await?;
    let mut body = json!({"bucket": "p-shards", "name": "r", "generation": "1"}).to_string().into_bytes();
    body.resize(1 << 20, b' ');
    let request = server.post("/events").header("ce-type", "google.cloud.storage.object.v1.finalized").body(body);
    assert_eq!(server.status(request).await?, 200);
    assert_eq!(server.leg.events.lock().unwrap().len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_request_waits_for_its_work_until_its_deadline_and_then_says_later() -> Result<()> {
    let server = Running::start(Duration::from_millis(50), None).await?;
    server.leg.hangs.store(true, SeqCst);
    assert_eq!(server.status(server.event("p-shards")).await?, 503);
    Ok(())
}

#[tokio::test]
async fn http_2_without_tls_is_served_too() -> Result<()> {
    let server = Running::start(LONG, None).await?;
    let client = Client::builder().http2_prior_knowledge().build()?;
    let response = client.post(format!("{}/sweep", server.address)).send().await?;
    assert_eq!((response.version(), response.status()), (reqwest::Version::HTTP_2, StatusCode::OK));
    assert_eq!(response.text().await?, "driven 3\n");
    Ok(())
}

#[tokio::test]
async fn a_stop_lets_the_leg_save_its_work_and_answers_whoever_waits() -> Result<()> {
    let server = Running::start(LONG, None).await?;
    server.leg.hangs.store(true, SeqCst);
    *server.leg.verdict.lock().unwrap() = Some(Verdict::Later(Why::Stopping));
    let waits = tokio::spawn(server.event("p-shards").send());
    while server.leg.events.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.stop.cancel();
    assert_eq!(waits.await??.status(), StatusCode::SERVICE_UNAVAILABLE);
    server.served.await??;
    assert!(server.leg.drained.load(SeqCst));
    assert!(Client::new().get(format!("{}/live", server.address)).send().await.is_err(), "nobody listens any more");
    Ok(())
}

#[tokio::test]
async fn only_a_caller_on_the_list_with_a_token_for_this_service_gets_in() -> Result<()> {
    let issuer = Issuer::start().await?;
    let server = Running::start(LONG, Some(&issuer)).await?;
    let ours = format!("https://{}/events", server.host);
    let good = claims(&ours, CALLER, 3_600);
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let cases = [
        ("right", good.clone(), Signed::Rightly, 200),
        ("right, ended within the skew", claims(&ours, CALLER, -5), Signed::Rightly, 200),
        ("expired", claims(&ours, CALLER, -60), Signed::Rightly, 401),
        ("for another service", but("aud", json!("https://other.run.app")), Signed::Rightly, 403),
        ("for this name without https", but("aud", json!(format!("http://{}", server.host))), Signed::Rightly, 403),
        ("from somebody else", but("email", json!("eve@p.iam.gserviceaccount.com")), Signed::Rightly, 403),
        ("not verified", but("email_verified", json!(false)), Signed::Rightly, 403),
        ("of another issuer", but("iss", json!("https://accounts.example.com")), Signed::Rightly, 401),
        ("alg: none", good.clone(), Signed::Not, 401),
        ("forged", good.clone(), Signed::Forged, 401),
        ("of an unknown key", good.clone(), Signed::UnknownKey, 401),
    ];
    for (what, claims, signed, status) in cases {
        let request = server.event("p-shards").bearer_auth(token(&claims, signed));
        assert_eq!(server.status(request).await?, status, "a token {what}");
    }
    assert_eq!(server.status(server.event("p-shards")).await?, 401, "no token");
    assert_eq!(server.status(server.post("/sweep")).await?, 401, "no token for a sweep");
    assert_eq!(server.status(server.event("p-shards").bearer_auth("a.b.c")).await?, 401, "no token at all");
    assert_eq!(server.leg.events.lock().unwrap().len(), 2);
    assert_eq!(issuer.fetched.load(SeqCst), 1, "its keys are fetched once, also for tokens with unknown keys");
    let live = server.client.get(format!("{}/live", server.address));
    assert_eq!(server.status(live).await?, 200, "probes carry no token");
    Ok(())
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_are_not_the_callers_fault() -> Result<()> {
    let nobody = TcpListener::bind("127.0.0.1:0").await?;
    let jwks = format!("http://{}/certs", nobody.local_addr()?);
    let issuer = Issuer { jwks, fetched: Arc::default(), hangs: Arc::default() };
    drop(nobody);
    let server = Running::start(LONG, Some(&issuer)).await?;
    let good = claims(&format!("https://{}", server.host), CALLER, 3_600);
    let request = server.event("p-shards").bearer_auth(token(&good, Signed::Rightly));
    assert_eq!(server.status(request).await?, 503);
    Ok(())
}

#[tokio::test]
async fn keys_whose_address_fails_or_hangs_are_asked_for_once_however_many_call() -> Result<()> {
    let hangs = Issuer::start().await?;
    hangs.hangs.store(true, SeqCst);
    for issuer in [Issuer::failing().await?, hangs] {
        let server = Running::start(LONG, Some(&issuer)).await?;
        let good = claims(&format!("https://{}", server.host), CALLER, 3_600);
        let calls = (0..40).map(|call| {
            let signed = if call % 2 == 0 { Signed::Rightly } else { Signed::UnknownKey };
            tokio::spawn(server.event("p-shards").bearer_auth(token(&good, signed)).send())
        });
        let calls: Vec<_> = calls.collect();
        while issuer.fetched.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await; // the other calls are there and wait
        tokio::time::pause();
        for call in calls {
            let reply = tokio::time::timeout(Duration::from_secs(15), call).await;
            assert_eq!(reply.expect("it waits for one fetch at most")??.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        tokio::time::resume();
        assert_eq!(issuer.fetched.load(SeqCst), 1);
        assert!(server.leg.events.lock().unwrap().is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_known_lets_in_at_once_while_the_keys_address_hangs() -> Result<()> {
    tasuki_google::connect::install_tls();
    let (issuer, clock) = (Issuer::start().await?, Clock::starting_at(Millis(0)));
    let callers = settings::Callers { emails: vec![CALLER.to_owned()], jwks: Some(issuer.jwks.clone()) };
    let callers = Callers::new(&callers, Client::new(), clock);
    let good = claims("https://a.run.app", CALLER, 3_600);
    let bearer = |signed| format!("Bearer {}", token(&good, signed)).parse().map(|value| (AUTHORIZATION, value));
    let known: HeaderMap = [bearer(Signed::Rightly)?].into_iter().collect();
    callers.check(&known, "a.run.app").await?;
    issuer.hangs.store(true, SeqCst);
    for (fetch, pause) in [(2, 3_601), (3, 21)] {
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(pause)).await; // 21: a fetch is given up, and the pause after it is over
        tokio::time::resume();
        for _ in 0..3 {
            let checked = callers.check(&known, "a.run.app").now_or_never();
            assert_eq!(checked, Some(Ok(())), "it waits for the address");
        }
        while issuer.fetched.load(SeqCst) < fetch {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(issuer.fetched.load(SeqCst), 3, "one caller fetches");
    tokio::time::pause();
    let unknown: HeaderMap = [bearer(Signed::UnknownKey)?].into_iter().collect();
    assert_eq!(
        callers.check(&unknown, "a.run.app").await,
        Err(Refused::NoKeys),
        "whose key is not known needs the address"
    );
    Ok(())
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_connection_that_has_said_nothing() -> Result<()> {
    let server = Running::start(LONG, None).await?;
    let _silent = TcpStream::connect(&server.host).await?;
    let mut later = TcpStream::connect(&server.host).await?;
    later.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
    later.read_to_end(&mut Vec::new()).await?; // the silent one was taken before it
    tokio::time::pause();
    let clock = Clock::starting_at(Millis(0));
    server.stop.cancel();
    server.served.await??;
    assert_eq!(clock.now(), Millis(0), "it waited");
    Ok(())
}

#[tokio::test]
async fn a_connection_on_which_nothing_more_comes_is_closed() -> Result<()> {
    let server = Running::start(LONG, None).await?;
    let whole = "GET /live HTTP/1.1\r\nhost: a\r\n\r\n";
    // The preface of HTTP/2 and empty settings: such a connection is asked whether it lives, and does not say.
    let http_2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    for said in ["", "GET /live HT", "PRI * HTTP/2.0\r\n\r\nS", whole, http_2] {
        let mut stream = TcpStream::connect(&server.host).await?;
        stream.write_all(said.as_bytes()).await?;
        let mut heard = Vec::new();
        let soon = tokio::time::timeout(Duration::from_millis(200), stream.read_to_end(&mut heard)).await;
        assert!(soon.is_err(), "it is closed at once after {said:?}");
        assert_eq!(heard.starts_with(b"HTTP/1.1 200"), said == whole, "{said:?}");
        tokio::time::pause();
        let later = tokio::time::timeout(Duration::from_secs(100), stream.read_to_end(&mut heard)).await;
        tokio::time::resume();
        assert!(later.is_ok(), "it stays open after {said:?}");
    }
    assert_eq!(server.status(server.client.get(format!("{}/live", server.address))).await?, 200);
    Ok(())
}
