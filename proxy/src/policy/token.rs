//! What a request's JSON web token says of who asks, and what is left of the request for the app. Whose tokens are good is
//! decided in the contract ([`ringmail_proto::policy::authentication`]).
//!
//! - A request without a token goes on without claims; one with several, or one that nobody vouches for, does not.
//! - The app sees the token only where its issuer's object says so.
//! - Headers that are made of claims come from here and from nobody else, whether there is a token or not. A claim that
//!   cannot be written as one unambiguous value makes no header.
//! - An object that this version cannot act on lets nothing through: tokens could be where it does not look.
//!
//! Pure, but for what is remembered of good tokens.

/// Where tokens are, and a request without.
mod place;

/// Tokens that were good.
mod known;

use std::rc::Rc;

use aws_lc_rs::digest::{Context, SHA256};
use ringmail_proto::policy::authentication::{
    Authentication, BadToken, CLAIM_HEADER_BYTES_MAX, Issuer, Place, UNKNOWN_ISSUER, Verified,
    verify,
};
use ringmail_proto::policy::claim_of;
use serde_json::Value;

use crate::error::{Error, Reason};
use crate::http::edits::reads_alike;
use crate::http::neutral::{self, Fields, Request, put_field};
pub(super) use known::Known;
use known::{Digest, Vouched};
use place::Found;

/// A request whose token was looked at.
#[derive(Debug, Default)]
pub(crate) struct Authenticated {
    /// For the app, in neutral form, if that is not what came.
    head: Option<Vec<u8>>,
    vouched: Option<Rc<Vouched>>,
    /// Headers are made of claims there.
    makes_headers: bool,
}

impl Authenticated {
    /// Whether trailers could pass for headers that are made here.
    pub(crate) fn guards_headers(&self) -> bool {
        self.makes_headers
    }

    /// The request's head for the app; `came` is as it came.
    pub(crate) fn head<'a>(
        &'a self,
        came: (Request<'a>, Fields<'a>),
    ) -> Result<(Request<'a>, Fields<'a>), Error> {
        match &self.head {
            None => Ok(came),
            Some(head) => {
                Request::decode(head).map_err(|error| Reason::HeadTooLarge.because(error))
            }
        }
    }

    /// What its token says, if there is one.
    pub(crate) fn verified(&self) -> Option<&Verified> {
        self.vouched.as_deref().map(|vouched| &vouched.verified)
    }
}

/// A token that nobody vouches for.
#[derive(Debug)]
pub(super) struct Refused<'a> {
    /// Which object refuses it; of several, the first that knows its issuer, or looks where it is.
    pub(super) object: &'a str,
    pub(super) bad: BadToken,
}

/// Who of `here`, the objects for a port, vouches for a request. `now` is in seconds since the Unix epoch.
pub(super) fn authenticate<'a>(
    here: impl Iterator<Item = &'a Authentication> + Clone,
    port: u16,
    (request, fields): (Request<'_>, Fields<'_>),
    known: &mut Known,
    now: u64,
) -> Result<Authenticated, Refused<'a>> {
    if let Some(one) = here.clone().find(|one| one.issuers.is_err()) {
        return Err(Refused {
            object: &one.name,
            bad: BadToken("cannot be looked for: this version does not understand where"),
        });
    }
    let issuers = here.clone().flat_map(|one| one.issuers.iter().flatten());
    let places = issuers.clone().flat_map(|one| &one.places);
    let found = place::find(places, request, fields);
    let found = found.map_err(|bad| {
        let object = here.clone().next().map_or("", |one| &one.name);
        Refused { object, bad }
    })?;
    let vouched = match &found {
        None => None,
        Some(found) => Some(vouched(here, port, found, known, now)?),
    };
    let issuer = vouched
        .as_ref()
        .and_then(|vouched| issuers.clone().nth(vouched.issuer));
    let taken = found.filter(|_| issuer.is_none_or(|issuer| !issuer.forward));
    let is_made = |name: &[u8]| {
        let made = issuers.clone().flat_map(|one| &one.claims_to_headers);
        made.map(|one| one.header.as_bytes())
            .any(|made| reads_alike(made, name))
    };
    let makes_headers = issuer.is_some_and(|issuer| !issuer.claims_to_headers.is_empty());
    let is_changed =
        taken.is_some() || makes_headers || fields.into_iter().any(|(name, _)| is_made(name));
    let head = is_changed.then(|| {
        let mut head = place::without(taken.as_ref(), request, fields, is_made);
        if let (Some(issuer), Some(vouched)) = (issuer, &vouched) {
            put_claims(issuer, &vouched.verified, &mut head);
        }
        head
    });
    Ok(Authenticated {
        head,
        vouched,
        makes_headers: issuers.clone().any(|one| !one.claims_to_headers.is_empty()),
    })
}

/// Who vouches for a token: at first by its signature, then from memory.
fn vouched<'a>(
    here: impl Iterator<Item = &'a Authentication> + Clone,
    port: u16,
    found: &Found<'_>,
    known: &mut Known,
    now: u64,
) -> Result<Rc<Vouched>, Refused<'a>> {
    let digest = digest(port, found);
    if let Some(vouched) = known.find(&digest, now) {
        return Ok(vouched);
    }
    let token = std::str::from_utf8(found.token).unwrap_or_default();
    let mut refused: Option<Refused<'a>> = None;
    for one in here.clone() {
        let issuers = one.issuers.iter().flatten();
        let mut may_be_there = issuers
            .filter(|one| one.places.contains(found.place))
            .peekable();
        if may_be_there.peek().is_none() {
            continue;
        }
        let bad = match verify(may_be_there, token, now) {
            Ok((issuer, verified)) => {
                let mut all = here.flat_map(|one| one.issuers.iter().flatten());
                let issuer = all.position(|one| std::ptr::eq(one, issuer));
                let vouched = Rc::new(Vouched {
                    verified,
                    issuer: issuer.unwrap_or(usize::MAX),
                });
                known.remember(digest, token.len(), &vouched);
                return Ok(vouched);
            }
            Err(bad) => bad,
        };
        let held = refused.as_ref().map(|refused| refused.bad);
        if held.is_none_or(|held| held == UNKNOWN_ISSUER && bad != UNKNOWN_ISSUER) {
            refused = Some(Refused {
                object: &one.name,
                bad,
            });
        }
    }
    Err(refused.unwrap_or(Refused {
        object: "",
        bad: UNKNOWN_ISSUER,
    }))
}

/// Of a token at its place: what is good at one may be bad at another.
fn digest(port: u16, found: &Found<'_>) -> Digest {
    let (kind, name, prefix) = match found.place {
        Place::Header { name, prefix } => (0, name.as_str(), prefix.as_str()),
        Place::Cookie(name) => (1, name.as_str(), ""),
        Place::Query(name) => (2, name.as_str(), ""),
    };
    let [high, low] = port.to_be_bytes();
    let mut context = Context::new(&SHA256);
    context.update(&[high, low, kind]);
    for part in [name.as_bytes(), prefix.as_bytes(), found.token] {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn put_claims(issuer: &Issuer, verified: &Verified, head: &mut Vec<u8>) {
    for one in &issuer.claims_to_headers {
        let value = claim_of(&verified.claims, &one.claim).and_then(written);
        let value = value.filter(|value| {
            value.len() <= CLAIM_HEADER_BYTES_MAX && neutral::is_value(value.as_bytes())
        });
        if let Some(value) = value {
            put_field(head, one.header.as_bytes(), value.as_bytes());
        }
    }
}

/// A claim as a header's value; a list with commas, unless one of its elements could be taken for two.
fn written(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Bool(_) | Value::Number(_) => Some(claim.to_string()),
        Value::Array(all) => {
            let one = |one: &Value| match one {
                Value::Array(_) => None,
                one => written(one).filter(|text| !text.contains(',')),
            };
            Some(all.iter().map(one).collect::<Option<Vec<_>>>()?.join(","))
        }
        Value::Object(_) | Value::Null => None,
    }
}

#[cfg(test)]
mod tests;
