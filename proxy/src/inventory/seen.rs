//! All that was seen of an API. Pure.
//!
//! Limits: [`ROUTES_MAX`], [`CALLERS_MAX`] and [`FINGERPRINTS_MAX`]; what is beyond is counted together.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Observation;
use super::credential::Kind;
use super::template::Templates;
use crate::metrics::Outcome;

/// Routes of an API.
const ROUTES_MAX: usize = 512;
/// Callers of a route that are told apart.
const CALLERS_MAX: usize = 64;
/// Credentials of one kind and caller that are told apart.
const FINGERPRINTS_MAX: usize = 32;
/// One that is seen for so long, in seconds, never changes: tokens of issuers live an hour.
const STATIC_AFTER: u64 = 2 * 3600;
/// Over which a rate is taken, in seconds.
const RATE_SECONDS: f64 = 60.0;
/// Whom all callers are that find no place.
const OVERFLOW: &str = "overflow";
/// Answers to requests for what is not there: no route is learnt from them.
const NOT_THERE: [u16; 4] = [400, 404, 405, 414];

/// Every route.
#[derive(Debug, Default)]
pub(super) struct Seen {
    routes: BTreeMap<RouteKey, Route>,
    templates: Templates,
    /// Requests for what is not there, and beyond the routes there may be.
    unmatched: u64,
}

/// Port, path, method.
type RouteKey = (u16, String, &'static str);

#[derive(Debug, Default)]
struct Route {
    tally: Tally,
    is_covered: bool,
    authentication: BTreeSet<&'static str>,
    callers: BTreeMap<Box<str>, Caller>,
}

#[derive(Debug, Default)]
struct Caller {
    tally: Tally,
    credentials: BTreeMap<Kind, Followed>,
}

/// Requests.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    errors: u64,
    refused: u64,
    last_seen: u64,
    /// A mean that forgets.
    per_second: f64,
}

/// Credentials of one kind.
#[derive(Debug, Default)]
struct Followed {
    /// First and last seen.
    known: BTreeMap<u64, (u64, u64)>,
    /// Of those that were forgotten.
    more: u64,
}

impl Tally {
    fn add(&mut self, one: &Observation, now: u64) {
        let weight = u64::from(one.weight);
        self.per_second = self.rate(now) + f64::from(one.weight) / RATE_SECONDS;
        self.last_seen = now;
        self.requests += weight;
        match one.outcome {
            Outcome::Success | Outcome::ClientError => {}
            Outcome::ServerError | Outcome::Broken => self.errors += weight,
            Outcome::Refused => self.refused += weight,
        }
    }

    fn rate(&self, now: u64) -> f64 {
        let age = now.saturating_sub(self.last_seen);
        #[allow(clippy::cast_precision_loss, reason = "seconds")]
        let forgotten = (-(age as f64) / RATE_SECONDS).exp();
        self.per_second * forgotten
    }

    fn page(&self, now: u64) -> Value {
        json!({
            "requests": self.requests,
            "per_second": (self.rate(now) * 100.0).round() / 100.0,
            "errors": self.errors,
            "refused": self.refused,
            "last_seen": self.last_seen,
        })
    }
}

impl Followed {
    fn add(&mut self, fingerprint: u64, now: u64) {
        if let Some((_, last)) = self.known.get_mut(&fingerprint) {
            *last = now;
            return;
        }
        if self.known.len() >= FINGERPRINTS_MAX {
            // The one that was not seen for longest makes room: what never changes stays.
            let oldest = self.known.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(fingerprint, _)| *fingerprint) {
                self.known.remove(&oldest);
                self.more += 1;
            }
        }
        self.known.insert(fingerprint, (now, now));
    }

    fn page(&self, kind: Kind) -> Value {
        let seconds = self.known.values().map(|(first, last)| last - first);
        let longest = seconds.max().unwrap_or_default();
        json!({
            "kind": kind.label(),
            "different": self.known.len() as u64 + self.more,
            "same_for_seconds": longest,
            "static": kind.is_static() || longest >= STATIC_AFTER,
        })
    }
}

impl Seen {
    pub(super) fn add(&mut self, one: Observation, now: u64) {
        let is_there = one
            .status
            .is_some_and(|status| !NOT_THERE.contains(&status));
        let Some(path) = self.templates.of(&one.path, is_there) else {
            self.unmatched += u64::from(one.weight);
            return;
        };
        let key = (one.port, path, one.method);
        if !self.routes.contains_key(&key) && (!is_there || self.routes.len() >= ROUTES_MAX) {
            self.unmatched += u64::from(one.weight);
            return;
        }
        let route = self.routes.entry(key).or_default();
        route.tally.add(&one, now);
        route.is_covered = one.is_covered;
        let shown = one.credentials.iter().map(|one| one.kind.label());
        route.authentication.extend(shown);
        if one.is_mutual {
            route.authentication.insert("mtls");
        }
        let is_full = route.callers.len() >= CALLERS_MAX;
        let caller = match is_full && !route.callers.contains_key(&one.caller) {
            true => OVERFLOW.into(),
            false => one.caller.clone(),
        };
        let caller = route.callers.entry(caller).or_default();
        caller.tally.add(&one, now);
        for credential in one.credentials.iter().filter(|one| one.kind.is_followed()) {
            let followed = caller.credentials.entry(credential.kind).or_default();
            followed.add(credential.fingerprint, now);
        }
    }

    pub(super) fn page(&self, now: u64) -> Value {
        let routes = self.routes.iter().map(|((port, path, method), route)| {
            let callers = route.callers.iter().map(|(identity, caller)| {
                let credentials = caller.credentials.iter();
                let credentials = credentials.map(|(kind, followed)| followed.page(*kind));
                let mut page = caller.tally.page(now);
                page["identity"] = (**identity).into();
                page["credentials"] = credentials.collect();
                page
            });
            let mut page = route.tally.page(now);
            page["port"] = (*port).into();
            page["method"] = (*method).into();
            page["route"] = path.as_str().into();
            page["covered"] = route.is_covered.into();
            page["authentication"] = route.authentication.iter().copied().collect();
            page["callers"] = callers.collect();
            page
        });
        let routes: Vec<Value> = routes.collect();
        json!({"routes": routes, "unmatched": self.unmatched})
    }
}
