//! The public keys that tokens are signed with, fetched and remembered; signatures are checked by ring.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tasuki_relay::clock::{Clock, Millis};
use tokio::sync::Mutex as Turn;

/// Google's public keys ("Verify the Google ID token on your server side").
const GOOGLE: &str = "https://www.googleapis.com/oauth2/v3/certs";
/// Keys are fetched anew after so long: they change about once a week.
const FRESH_FOR: Duration = Duration::from_secs(3_600);
/// Keys are asked for at most so often: neither invented keys nor an address that hangs must become a storm of requests.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// A reply must be there within so long.
const WITHIN: Duration = Duration::from_secs(10);
/// The set of keys is 2 KB; more is something else.
const BYTES_MAX: usize = 64 << 10;

/// Why a key is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// There is no such key.
    Unknown,
    /// The keys could not be fetched: it may work later.
    Unreachable,
}

/// The keys at one address.
pub(super) struct Keys {
    address: String,
    client: reqwest::Client,
    clock: Clock,
    known: Mutex<Known>,
    /// Had by the one who fetches.
    turn: Arc<Turn<()>>,
}

#[derive(Default)]
struct Known {
    keys: BTreeMap<String, DecodingKey>,
    /// When they were fetched.
    fetched: Option<Millis>,
    /// When that was last tried.
    tried: Option<Millis>,
}

impl Known {
    fn are_old(&self, now: Millis) -> bool {
        is_past(self.fetched, FRESH_FOR, now)
    }
}

/// Whether so long has gone by since then.
fn is_past(then: Option<Millis>, time: Duration, now: Millis) -> bool {
    then.is_none_or(|then| now.since(then) >= time)
}

impl Keys {
    pub(super) fn new(address: Option<String>, client: reqwest::Client, clock: Clock) -> Arc<Keys> {
        install();
        let address = address.unwrap_or_else(|| GOOGLE.to_owned());
        Arc::new(Keys { address, client, clock, known: Mutex::default(), turn: Arc::default() })
    }

    /// The key of this name. One that is known is there at once, and old ones are fetched anew behind it: an address that
    /// hangs holds up nobody who needs nothing of it. Of those whose key is not known one fetches, the others wait for it.
    pub(super) async fn get(self: &Arc<Self>, name: &str) -> Result<DecodingKey, NoKey> {
        let found = self.known().keys.get(name).cloned();
        if let Some(key) = found {
            if self.known().are_old(self.clock.now())
                && let Ok(turn) = self.turn.clone().try_lock_owned()
            {
                let keys = self.clone();
                tokio::spawn(async move {
                    keys.refresh().await;
                    drop(turn);
                });
            }
            return Ok(key);
        }
        let _turn = self.turn.lock().await;
        if !self.known().keys.contains_key(name) {
            self.refresh().await;
        }
        let known = self.known();
        let missing = if known.fetched == known.tried { NoKey::Unknown } else { NoKey::Unreachable };
        known.keys.get(name).cloned().ok_or(missing)
    }

    /// Fetches the keys, unless that was just tried. For who has the turn. Those that are known go on to count while their
    /// address cannot be reached.
    async fn refresh(&self) {
        let begun = self.clock.now();
        if !is_past(self.known().tried, ASKED_AGAIN_AFTER, begun) {
            return;
        }
        self.known().tried = Some(begun); // a caller that goes away meanwhile has tried as well
        let keys = self.fetch().await;
        let mut known = self.known();
        // From its end: who waited for an address that hangs would else begin the next fetch, one after the other.
        known.tried = Some(self.clock.now());
        if let Some(keys) = keys {
            (known.keys, known.fetched) = (keys, known.tried);
        }
    }

    /// Held for a look, never over a wait.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) -> Option<BTreeMap<String, DecodingKey>> {
        let fetch = async {
            let mut response = self.client.get(&self.address).send().await.ok()?.error_for_status().ok()?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.ok()? {
                body.extend_from_slice(&chunk);
                if body.len() > BYTES_MAX {
                    return None;
                }
            }
            serde_json::from_slice::<JwkSet>(&body).ok()
        };
        let set = tokio::time::timeout(WITHIN, fetch).await.ok().flatten()?;
        let keys = set.keys.iter().filter_map(|key| {
            let name = key.common.key_id.clone()?;
            Some((name, DecodingKey::from_jwk(key).ok()?))
        });
        Some(keys.collect())
    }
}

/// Makes ring what `jsonwebtoken` checks signatures with: its own choices would bring a second library of the kind.
fn install() {
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
        verifier_factory: rs256,
        key_utils: KeyUtils::new_unimplemented(),
    };
    // Installed already: the same one.
    let _ = RING.install_default();
}

fn rs256(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    match (algorithm, key.kind()) {
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Ok(Box::new(Rs256 { n: n.clone(), e: e.clone() }))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

struct Rs256 {
    n: Vec<u8>,
    e: Vec<u8>,
}

impl Verifier<Vec<u8>> for Rs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let key = RsaPublicKeyComponents { n: &self.n, e: &self.e };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Rs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}
