//! Whose JSON web tokens (RFC 7519) are good: issuers as they were checked, and the verdict on a token. Pure: time comes
//! in, keys were fetched by somebody else.
//!
//! - The key decides the algorithm, the token does not; `none` and HMAC are never among them.
//! - Issuer and one audience are ours exactly, an expiry is required; clocks may differ by `LEEWAY_SECONDS`.
//! - What cannot be told refuses: an unknown issuer, an ambiguous key, a header field that is critical (RFC 7515).
//! - An issuer whose keys are not known has no good token. A controller that starts anew does not know them yet: what it
//!   awaits is what was known from the same place before (`keep_keys`).
//!
//! Limits: `ISSUERS_MAX` issuers an object, `AUDIENCES_MAX`, `PLACES_MAX` and `CLAIMS_TO_HEADERS_MAX` of each,
//! `TOKEN_BYTES_MAX` bytes a token, and those of `keys`.

use std::num::NonZeroU16;
use std::sync::Arc;

use jsonwebtoken::Algorithm;

use crate::Invalid;

/// The keys of an issuer.
pub mod keys;

/// The verdict on a token.
mod token;

/// The checked types as they travel.
mod wire;

use keys::Keys;
pub use token::{BadToken, UNKNOWN_ISSUER, Verified, verify};

/// Issuers of one object.
pub const ISSUERS_MAX: usize = 16;
/// Audiences of one issuer.
pub const AUDIENCES_MAX: usize = 32;
/// Places where an issuer's tokens may be.
pub const PLACES_MAX: usize = 8;
/// Headers that are made of an issuer's claims.
pub const CLAIMS_TO_HEADERS_MAX: usize = 16;
/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a header that is made of a claim.
pub const CLAIM_HEADER_BYTES_MAX: usize = 4096;
/// Seconds that our clock and an issuer's may differ.
pub const LEEWAY_SECONDS: u64 = 60;

/// One object about JSON web tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Ports of the workload that it is for; all, if there are none.
    pub ports: Vec<NonZeroU16>,
    /// Whose tokens are good; or why this version cannot act on it, and refuses all that it is for.
    pub issuers: Result<Vec<Issuer>, Invalid>,
}

/// Somebody whose tokens are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// One of these is in `aud`.
    pub audiences: Vec<String>,
    /// None, while they are not known.
    pub keys: Keys,
    /// Where they are fetched from; nothing, if they were written down.
    pub keys_from: String,
    /// Whether the controller has not fetched them yet: those that were known before stay.
    pub are_keys_awaited: bool,
    /// Those that are good; none: what each key is for.
    pub algorithms: Vec<Algorithm>,
    /// Where a token may be.
    pub places: Vec<Place>,
    /// Whether the app sees it.
    pub forward: bool,
    /// Made of claims, and of nothing else.
    pub claims_to_headers: Vec<ClaimToHeader>,
}

/// Where a token may be in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a header.
    Header {
        /// In lower case.
        name: String,
        /// Before the token, in any case.
        prefix: String,
    },
    /// In a cookie of that name.
    Cookie(String),
    /// In a query parameter of that name.
    Query(String),
}

/// A header that is made of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimToHeader {
    /// Its names, from the outermost.
    pub claim: Vec<String>,
    /// In lower case.
    pub header: String,
}

impl Authentication {
    /// Whether it is for that port of the workload.
    #[must_use]
    pub fn is_for(&self, port: u16) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|one| one.get() == port)
    }

    /// Whether bytes that are no HTTP are refused there even if that is what was declared: it names the port, or makes
    /// headers that such bytes could hold as well.
    #[must_use]
    pub fn requires_http(&self, port: u16) -> bool {
        let makes_headers = match &self.issuers {
            Ok(issuers) => issuers.iter().any(|one| !one.claims_to_headers.is_empty()),
            Err(_) => true,
        };
        self.is_for(port) && (makes_headers || !self.ports.is_empty())
    }
}

/// What an object about tokens is called among policies that a proxy cannot act on.
#[must_use]
pub fn denied_name(name: &str) -> String {
    format!("authentication {name}")
}

/// Keys that are awaited are those that the same issuer had from the same place.
pub fn keep_keys(told: &mut [Authentication], before: &[Authentication]) {
    let before = before.iter().flat_map(|one| one.issuers.iter().flatten());
    let before: Vec<&Issuer> = before.filter(|one| !one.keys.is_empty()).collect();
    let issuers = told.iter_mut().flat_map(|one| one.issuers.iter_mut());
    for issuer in issuers.flatten() {
        if !issuer.are_keys_awaited || !issuer.keys.is_empty() {
            continue;
        }
        let is_same =
            |one: &&&Issuer| one.issuer == issuer.issuer && one.keys_from == issuer.keys_from;
        if let Some(same) = before.iter().find(is_same) {
            issuer.keys = same.keys.clone();
        }
    }
}

#[cfg(test)]
mod tests;
