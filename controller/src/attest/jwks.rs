//! The keys that signed tokens are verified with: from a file, read again when it changes, or from a URL, fetched again
//! from time to time and when a token names a key that is not known. The last good keys serve up to `AGE_MAX`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Mutex;
use tracing::warn;

use super::Denied;
use crate::config::JwksLocation;
use crate::fetch::{Client, JWKS_BYTES_MAX, Reach};
use crate::files;
use crate::metrics::Metrics;
use crate::stop::Stop;

/// Keys of one set.
const KEYS_MAX: usize = 64;
/// Bytes of an RSA modulus in base64url: at least 2048 bits.
const RSA_MODULUS_CHARS_MIN: usize = 342;
/// Between two fetches.
const REFRESH: Duration = Duration::from_secs(300);
/// Between two fetches that unknown keys ask for.
const REFRESH_MIN: Duration = Duration::from_secs(10);
/// How long the last good keys serve when the issuer is away.
pub(super) const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// One key and the only algorithm it is for.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct Jwks {
    origin: Origin,
    /// Held while keys are fetched, so that many tokens cause one fetch.
    held: Mutex<Held>,
    refreshes: Counter,
    failures: Counter,
}

#[derive(Debug)]
enum Origin {
    File(PathBuf),
    Url(Client),
}

#[derive(Debug, Default)]
struct Held {
    keys: Arc<[Key]>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
    /// Of the file they are from.
    modified: Option<(SystemTime, u64)>,
}

impl Jwks {
    pub(super) fn new(location: JwksLocation, metrics: &Metrics) -> io::Result<Self> {
        let origin = match location {
            JwksLocation::File(path) => Origin::File(path),
            JwksLocation::Url { url, root_cert } => {
                Origin::Url(Client::new(url, &root_cert, Reach::Anywhere)?)
            }
        };
        Ok(Self {
            origin,
            held: Mutex::default(),
            refreshes: metrics.jwks_refreshes.clone(),
            failures: metrics.jwks_failures.clone(),
        })
    }

    /// The key that a token names; without a name, the only one of its algorithm.
    pub(super) async fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Key, Denied> {
        let mut held = self.held.lock().await;
        self.refresh(&mut held, REFRESH).await;
        if let Some(key) = find(&held.keys, id, algorithm) {
            return Ok(key);
        }
        self.refresh(&mut held, REFRESH_MIN).await;
        if held.keys.is_empty() {
            return Err(Denied::Jwks);
        }
        find(&held.keys, id, algorithm)
            .ok_or_else(|| Denied::Jwt("is signed with a key that its issuer does not list".into()))
    }

    /// Keeps the keys fresh until told to stop.
    pub(crate) async fn follow(&self, mut stop: Stop) {
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                mut held = self.held.lock() => self.refresh(&mut held, REFRESH).await,
            }
            tokio::select! {
                () = stop.stopped() => return,
                () = tokio::time::sleep(REFRESH_MIN) => {}
            }
        }
    }

    /// Reads again when the keys are older than `age` or the file changed.
    async fn refresh(&self, held: &mut Held, age: Duration) {
        let now = Instant::now();
        let read = match &self.origin {
            Origin::File(path) => {
                let modified = modified(path);
                if modified.is_some() && held.modified == modified {
                    return;
                }
                held.modified = modified;
                files::read(path, JWKS_BYTES_MAX)
            }
            Origin::Url(client) => {
                let recent = |at: Option<Instant>, age| at.is_some_and(|at| now - at < age);
                if recent(held.fetched, age) || recent(held.tried, REFRESH_MIN) {
                    return;
                }
                held.tried = Some(now);
                client.fetch().await
            }
        };
        self.refreshes.inc();
        let keys = read
            .map_err(|e| e.to_string())
            .and_then(|bytes| parse(&bytes));
        match keys {
            Ok(keys) => {
                held.keys = keys;
                held.fetched = Some(now);
            }
            Err(problem) => {
                self.failures.inc();
                warn!("keys of the JWT issuer cannot be read, the last good ones stay: {problem}");
                if held.fetched.is_some_and(|at| now - at > AGE_MAX) {
                    held.keys = Arc::default();
                }
            }
        }
    }
}

fn modified(path: &Path) -> Option<(SystemTime, u64)> {
    let data = fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len()))
}

fn find(keys: &[Key], id: Option<&str>, algorithm: Algorithm) -> Option<Key> {
    let mut fitting = keys.iter().filter(|key| match id {
        Some(id) => key.id.as_deref() == Some(id),
        None => key.algorithm == algorithm,
    });
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Some(key.clone()),
        // Which of several is meant is not for us to guess.
        (Some(_), Some(_)) | (None, _) => None,
    }
}

fn parse(bytes: &[u8]) -> Result<Arc<[Key]>, String> {
    let set: JwkSet = serde_json::from_slice(bytes).map_err(|e| format!("no key set: {e}"))?;
    if set.keys.len() > KEYS_MAX {
        return Err("more than 64 keys".into());
    }
    let keys: Arc<[Key]> = set.keys.iter().filter_map(usable).collect();
    if keys.is_empty() {
        return Err("no key for RS256, ES256 or EdDSA".into());
    }
    Ok(keys)
}

/// The key's type pins its algorithm; keys for anything else are passed over.
fn usable(jwk: &Jwk) -> Option<Key> {
    if !matches!(
        jwk.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    ) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if rsa.n.len() >= RSA_MODULUS_CHARS_MIN => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let said = jwk.common.key_algorithm.map(|said| said.to_string());
    if said.is_some_and(|said| said != format!("{algorithm:?}")) {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        decoding: DecodingKey::from_jwk(jwk).ok()?,
    })
}
