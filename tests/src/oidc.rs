//! A stand-in for Google's issuer of ID tokens: signs them, and serves its public keys.

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio::net::TcpListener;

const KNOWN: &[u8] = include_bytes!("../data/oidc-known.pk8");
const FORGED: &[u8] = include_bytes!("../data/oidc-forged.pk8");
const KEY_ID: &str = "test-key";

/// The issuer.
pub struct Issuer {
    /// Where its public keys are.
    pub jwks: String,
    /// How often they were fetched.
    pub fetched: Arc<AtomicUsize>,
    /// Set: who asks for its keys waits.
    pub hangs: Arc<AtomicBool>,
}

impl Issuer {
    /// Starts on a free port of this machine. Must be called within a runtime.
    pub async fn start() -> anyhow::Result<Issuer> {
        Issuer::answering(200).await
    }

    /// One whose keys cannot be had: 500.
    pub async fn failing() -> anyhow::Result<Issuer> {
        Issuer::answering(500).await
    }

    async fn answering(status: u16) -> anyhow::Result<Issuer> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (jwks, fetched) = (format!("http://{}/certs", listener.local_addr()?), Arc::new(AtomicUsize::new(0)));
        let hangs = Arc::new(AtomicBool::new(false));
        let (count, hang) = (fetched.clone(), hangs.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (count, hang) = (count.clone(), hang.clone());
                let service = service_fn(move |_| {
                    count.fetch_add(1, Relaxed);
                    let hangs = hang.load(Relaxed);
                    async move {
                        if hangs {
                            std::future::pending::<()>().await;
                        }
                        let reply = hyper::Response::builder().status(status);
                        reply.body(Full::new(Bytes::from(keys().to_string())))
                    }
                });
                let connection = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                tokio::spawn(async move { connection.serve_connection(TokioIo::new(stream), service).await.ok() });
            }
        });
        Ok(Issuer { jwks, fetched, hangs })
    }
}

fn pair(key: &[u8]) -> RsaKeyPair {
    RsaKeyPair::from_pkcs8(key).expect("the tests' own key")
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::BASE64URL_NOPAD.encode(bytes.as_ref())
}

fn keys() -> Value {
    let public = PublicKeyComponents::<Vec<u8>>::from(pair(KNOWN).public());
    json!({"keys": [{"kty": "RSA", "alg": "RS256", "use": "sig", "kid": KEY_ID, "n": base64(&public.n), "e": base64(&public.e)}]})
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// By the issuer.
    Rightly,
    /// By somebody else, who names the issuer's key.
    Forged,
    /// Not at all: `alg: none`.
    Not,
    /// With a key that the issuer does not have.
    UnknownKey,
}

/// The claims of a good token for `audience`, from `email`, that ends `seconds` from now.
pub fn claims(audience: &str, email: &str, seconds: i64) -> Value {
    let now = tasuki_relay::clock::Clock::system().now();
    let now = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX);
    json!({"iss": "https://accounts.google.com", "aud": audience, "email": email, "email_verified": true, "sub": "1", "iat": now - 60, "exp": now + seconds})
}

/// A token.
pub fn token(claims: &Value, signed: Signed) -> String {
    let algorithm = if signed == Signed::Not { "none" } else { "RS256" };
    let key_id = if signed == Signed::UnknownKey { "another-key" } else { KEY_ID };
    let head = json!({"alg": algorithm, "typ": "JWT", "kid": key_id});
    let message = format!("{}.{}", base64(head.to_string()), base64(claims.to_string()));
    if signed == Signed::Not {
        return format!("{message}.");
    }
    let pair = pair(if signed == Signed::Forged { FORGED } else { KNOWN });
    let mut signature = vec![0; pair.public().modulus_len()];
    let chance = SystemRandom::new();
    pair.sign(&RSA_PKCS1_SHA256, &chance, message.as_bytes(), &mut signature).expect("a key of 2,048 bits signs");
    format!("{message}.{}", base64(signature))
}
