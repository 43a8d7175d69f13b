//! The verdict on a token. What is said of a bad one is never a part of it.

use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::Value;

use super::{Issuer, LEEWAY_SECONDS, TOKEN_BYTES_MAX};
use crate::policy::Claims;

/// Why a token is not good; a part of a sentence that begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadToken(pub &'static str);

/// Of a token that somebody else may vouch for.
pub const UNKNOWN_ISSUER: BadToken = BadToken("is of an issuer that is not known here");

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// All of it.
    pub claims: Claims,
    /// Seconds since the Unix epoch from which on it is good no more, whatever the clocks.
    pub expires: u64,
}

/// Which of the issuers vouches for a token, and what it says. `now` is in seconds since the Unix epoch.
///
/// # Errors
/// When none does.
pub fn verify<'a>(
    issuers: impl Iterator<Item = &'a Issuer>,
    token: &str,
    now: u64,
) -> Result<(&'a Issuer, Verified), BadToken> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(BadToken("is larger than 16384 bytes"));
    }
    // Nobody has verified a word of it: it only says where to look.
    let said: Claims =
        insecure_decode_claims(token).map_err(|_| BadToken("is no signed JSON web token"))?;
    let said = said.get("iss").and_then(Value::as_str);
    let said = said.ok_or(BadToken("names no issuer"))?;
    let mut problem = UNKNOWN_ISSUER;
    for issuer in issuers.filter(|issuer| issuer.issuer == said) {
        match issuer.verify(token, now) {
            Ok(verified) => return Ok((issuer, verified)),
            Err(bad) => problem = bad,
        }
    }
    Err(problem)
}

impl Issuer {
    fn verify(&self, token: &str, now: u64) -> Result<Verified, BadToken> {
        let header =
            decode_header(token).map_err(|_| BadToken("has a header that is not understood"))?;
        // RFC 7515 section 4.1.11: we understand none of these.
        if header.crit.is_some() {
            return Err(BadToken("has a critical header field"));
        }
        let key = self
            .keys
            .choose(header.kid.as_deref(), header.alg, &self.algorithms)?;
        // Claims are looked at below, by our own clock.
        let mut signature = Validation::new(header.alg);
        signature.required_spec_claims.clear();
        signature.validate_exp = false;
        signature.validate_aud = false;
        let claims = decode::<Claims>(token, key, &signature)
            .map_err(|_| BadToken("has a signature that is not its issuer's"))?
            .claims;
        self.check(claims, now)
    }

    fn check(&self, claims: Claims, now: u64) -> Result<Verified, BadToken> {
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(BadToken("is of another issuer"));
        }
        let is_ours =
            |one: &Value| matches!(one, Value::String(one) if self.audiences.contains(one));
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if !is_for_us {
            return Err(BadToken("is for another audience"));
        }
        let expires = claims.get("exp").ok_or(BadToken("never expires"))?;
        let expires = seconds(expires).ok_or(BadToken("expires at no date"))?;
        let expires = expires.saturating_add(LEEWAY_SECONDS);
        if now >= expires {
            return Err(BadToken("is expired"));
        }
        if let Some(begins) = claims.get("nbf") {
            let begins = seconds(begins).ok_or(BadToken("begins at no date"))?;
            if begins > now.saturating_add(LEEWAY_SECONDS) {
                return Err(BadToken("is not good yet"));
            }
        }
        Ok(Verified { claims, expires })
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
fn seconds(date: &Value) -> Option<u64> {
    let whole = date.as_u64();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast saturates, and it is not negative"
    )]
    let fraction = || {
        date.as_f64()
            .filter(|date| *date >= 0.0)
            .map(|date| date as u64)
    };
    whole.or_else(fraction)
}
