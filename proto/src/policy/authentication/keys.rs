//! The keys of an issuer (RFC 7517), each for certain algorithms. Keys that are for something else are passed over.
//!
//! Limits: `JWKS_BYTES_MAX` bytes, `KEYS_MAX` keys, RSA of at least 2048 bits.

use std::fmt;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Value, json};

use super::BadToken;
use crate::Invalid;

/// Bytes of a key set.
pub const JWKS_BYTES_MAX: usize = 64 * 1024;
/// Keys of one set.
pub const KEYS_MAX: usize = 64;
/// Characters of an RSA modulus in base64url: at least 2048 bits.
const RSA_MODULUS_CHARS_MIN: usize = 342;
/// All that a key may be for.
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A key set. Two are the same if they say the same.
#[derive(Clone, Default)]
pub struct Keys {
    /// The usable ones, and of these what is used.
    json: Arc<str>,
    keys: Arc<[Key]>,
}

/// One key.
struct Key {
    id: Option<String>,
    /// What it is for, where nobody says more.
    usual: Vec<Algorithm>,
    /// What it may be for.
    possible: Vec<Algorithm>,
    decoding: DecodingKey,
}

impl Keys {
    /// A key set as its issuer writes it.
    ///
    /// # Errors
    /// When it is too large, is none, or has no usable key.
    pub fn parse(bytes: &[u8]) -> Result<Self, Invalid> {
        let refuse = |problem: &str| Invalid::new("jwks", problem);
        if bytes.len() > JWKS_BYTES_MAX {
            return Err(refuse("is larger than 65536 bytes"));
        }
        let set: Value =
            serde_json::from_slice(bytes).map_err(|e| Invalid::new("jwks", format!("is {e}")))?;
        let listed = set.get("keys").and_then(Value::as_array);
        let listed = listed.ok_or_else(|| refuse("is no key set (RFC 7517 section 5)"))?;
        if listed.len() > KEYS_MAX {
            return Err(refuse("has more than 64 keys"));
        }
        let usable = listed.iter().filter_map(usable);
        let (written, keys): (Vec<Value>, Vec<Key>) = usable.unzip();
        if keys.is_empty() {
            return Err(refuse(
                "has no key to verify with: RSA of 2048 bits, P-256, P-384 or Ed25519",
            ));
        }
        Ok(Self {
            json: json!({ "keys": written }).to_string().into(),
            keys: keys.into(),
        })
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A key set again; nothing, if none is known.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.json
    }

    /// The key that a token names; without a name, the only one for its algorithm.
    pub(super) fn choose(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        pinned: &[Algorithm],
    ) -> Result<&DecodingKey, BadToken> {
        if self.is_empty() {
            return Err(BadToken("the keys of its issuer are not known"));
        }
        let is_for = |key: &&Key| match pinned {
            [] => key.usual.contains(&algorithm),
            _ => pinned.contains(&algorithm) && key.possible.contains(&algorithm),
        };
        let named = self
            .keys
            .iter()
            .filter(|key| id.is_none() || key.id.as_deref() == id);
        let mut fitting = named.filter(is_for);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(&key.decoding),
            // Which of several is meant is not for us to guess.
            (Some(_), Some(_)) => Err(BadToken("it does not say which of several keys signed it")),
            (None, _) => Err(BadToken(
                "its issuer lists no such key for such an algorithm",
            )),
        }
    }
}

/// What of it is kept, and the key.
fn usable(written: &Value) -> Option<(Value, Key)> {
    let jwk: Jwk = serde_json::from_value(written.clone()).ok()?;
    let common = &jwk.common;
    let is_for_signatures = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature))
        && common
            .key_operations
            .as_ref()
            .is_none_or(|all| all.contains(&KeyOperations::Verify));
    if !is_for_signatures {
        return None;
    }
    let (parameters, usual, possible): (&[&str], Algorithm, &[Algorithm]) = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) if rsa.n.len() >= RSA_MODULUS_CHARS_MIN => {
            (&["n", "e"], Algorithm::RS256, &RSA)
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (&["crv", "x", "y"], Algorithm::ES256, &[Algorithm::ES256])
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => {
            (&["crv", "x", "y"], Algorithm::ES384, &[Algorithm::ES384])
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            (&["crv", "x"], Algorithm::EdDSA, &[Algorithm::EdDSA])
        }
        _ => return None,
    };
    let (usual, possible) = match common.key_algorithm {
        None => (vec![usual], possible.to_vec()),
        Some(said) => {
            let said = Algorithm::try_from(said)
                .ok()
                .filter(|said| possible.contains(said))?;
            (vec![said], vec![said])
        }
    };
    let kept = ["kty", "use", "alg", "kid"].iter().chain(parameters);
    let kept = kept.filter_map(|name| Some(((*name).to_owned(), written.get(name)?.clone())));
    let key = Key {
        id: common.key_id.clone(),
        usual,
        possible,
        decoding: DecodingKey::from_jwk(&jwk).ok()?,
    };
    Some((Value::Object(kept.collect()), key))
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| &key.id);
        f.debug_list().entries(ids).finish()
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Eq for Keys {}
