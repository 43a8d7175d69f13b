//! What people are shown of the ledger: what each limit's keys use, looked up every second and put where pages find it, so
//! that no page asks the ledger anything. Never a key whose meaning is in doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ringmail_proto::limit::ledger::{LimitUse, Survey};
use ringmail_proto::limit::{KeyPart, Limit};
use tokio::sync::watch;

use super::{Kept, pace};
use crate::metrics::{LimitLabels, Metrics};

/// As it was at the last look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shown {
    pub(crate) state: State,
    /// Proxies that lease here.
    pub(crate) sessions: usize,
    pub(crate) limits: BTreeMap<Arc<str>, Used>,
}

/// How the ledger is, at this replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// It is not here.
    #[default]
    Away,
    /// It hears what others remember.
    Listening,
    Leasing,
}

/// Of one limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Used {
    pub(crate) of: LimitUse,
    /// What its keys are made of; none if that is not sure.
    pub(crate) key: Option<Vec<KeyPart>>,
}

/// Looks.
#[derive(Debug)]
pub(super) struct Surveyor {
    shown: watch::Sender<Shown>,
    metrics: Arc<Metrics>,
    /// One that is not over.
    survey: Option<Survey>,
    parts: BTreeMap<Arc<str>, Parts>,
    /// Limits whose share is among the metrics.
    counted: BTreeSet<Arc<str>>,
}

/// What a limit's keys were made of at first. If that changes, and was secret or is, no value of its keys is shown any
/// more as it is: one may be of a key that was made before.
#[derive(Debug)]
struct Parts {
    first: Vec<KeyPart>,
    is_mixed: bool,
}

impl Surveyor {
    pub(super) fn new(shown: watch::Sender<Shown>, metrics: Arc<Metrics>) -> Self {
        Self {
            shown,
            metrics,
            survey: None,
            parts: BTreeMap::new(),
            counted: BTreeSet::new(),
        }
    }

    /// It is time to look.
    pub(super) fn begin(&mut self) {
        self.survey.get_or_insert_default();
    }

    pub(super) fn is_looking(&self) -> bool {
        self.survey.is_some()
    }

    /// Goes on with a look that is not over.
    pub(super) fn look(&mut self, kept: &Kept, limits: &BTreeMap<Arc<str>, Limit>, now: Instant) {
        let Some(survey) = &mut self.survey else {
            return;
        };
        if !kept.ledger.survey(survey, now) {
            return;
        }
        let found = self.survey.take().unwrap_or_default().limits();
        self.remember(&found, limits);
        self.count(&found, limits);
        let used = found.into_iter().map(|(name, of)| {
            let parts = self.parts.get(&name).filter(|parts| !parts.is_mixed);
            let key = parts.map(|parts| parts.first.clone());
            (name, Used { of, key })
        });
        let shown = Shown {
            state: match now >= kept.opens {
                true => State::Leasing,
                false => State::Listening,
            },
            sessions: kept.sessions.len(),
            limits: used.collect(),
        };
        self.shown.send_replace(shown);
    }

    fn remember(
        &mut self,
        found: &BTreeMap<Arc<str>, LimitUse>,
        limits: &BTreeMap<Arc<str>, Limit>,
    ) {
        let parts = &mut self.parts;
        parts.retain(|name, _| limits.contains_key(name) || found.contains_key(name));
        for (name, limit) in limits {
            let Ok(terms) = &limit.terms else {
                continue;
            };
            let new = || Parts {
                first: terms.key.clone(),
                is_mixed: false,
            };
            let parts = parts.entry(name.clone()).or_insert_with(new);
            if parts.first != terms.key {
                parts.is_mixed |= parts.first.iter().chain(&terms.key).any(KeyPart::is_secret);
                parts.first.clone_from(&terms.key);
            }
        }
    }

    /// Of all limits that the ledger keeps, and no others.
    fn count(&mut self, found: &BTreeMap<Arc<str>, LimitUse>, limits: &BTreeMap<Arc<str>, Limit>) {
        let kept = limits.values().filter(|limit| pace(limit).is_some());
        let kept: BTreeSet<_> = kept.map(|limit| limit.name.clone()).collect();
        let gauges = &self.metrics.ledger_share_used;
        for gone in self.counted.difference(&kept) {
            gauges.remove(&labels(gone));
        }
        for name in &kept {
            let share = found.get(name).map_or(0.0, |used| used.share);
            gauges.get_or_create(&labels(name)).set(share);
        }
        self.counted = kept;
    }

    /// The ledger is lost.
    pub(super) fn end(&mut self) {
        self.survey = None;
        self.count(&BTreeMap::new(), &BTreeMap::new());
        self.shown.send_replace(Shown::default());
    }
}

fn labels(limit: &str) -> LimitLabels {
    LimitLabels {
        limit: limit.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ringmail_proto::limit::{Counts, Direction, Pace, Scope, Terms, Unavailable};
    use ringmail_proto::policy::Mode;

    use super::*;

    type Limits = BTreeMap<Arc<str>, Limit>;

    fn by(key: &[KeyPart], scope: Scope) -> Limits {
        let terms = Terms {
            counts: Counts::Requests,
            matches: Vec::new(),
            pace: Pace::at_once(5),
            key: key.to_vec(),
            cost: 1,
            cost_header: None,
            scope,
            unavailable: Unavailable::Deny,
            proxies: 1,
        };
        let limit = Limit {
            name: "shop/calls/0".into(),
            mode: Mode::Enforce,
            direction: Direction::Inbound,
            ports: Vec::new(),
            terms: Ok(terms),
        };
        BTreeMap::from([(limit.name.clone(), limit)])
    }

    fn surveyor() -> Surveyor {
        Surveyor::new(watch::channel(Shown::default()).0, Arc::default())
    }

    /// A key of before may be among those of now.
    #[test]
    fn a_value_that_may_have_been_a_secret_is_none_that_is_sure() {
        let user = || KeyPart::Header("x-user".to_owned());
        let rows = [
            (KeyPart::Identity, KeyPart::Namespace, false),
            (user(), KeyPart::Identity, true),
            (KeyPart::Identity, user(), true),
            (user(), user(), false),
        ];
        for (before, after, expected) in rows {
            let (mut surveyor, none) = (surveyor(), BTreeMap::new());
            surveyor.remember(&none, &by(&[before], Scope::Global));
            let after = by(&[after], Scope::Global);
            surveyor.remember(&none, &after);
            surveyor.remember(&none, &after);
            assert_eq!(surveyor.parts["shop/calls/0"].is_mixed, expected);
            // Gone for the authors, and not for the proxies.
            let found = BTreeMap::from([("shop/calls/0".into(), LimitUse::default())]);
            surveyor.remember(&found, &Limits::new());
            assert_eq!(surveyor.parts.len(), 1);
            surveyor.remember(&none, &Limits::new());
            assert!(surveyor.parts.is_empty(), "nobody speaks of it");
        }
    }

    #[test]
    fn a_share_is_counted_of_what_the_ledger_keeps_as_long_as_it_does() {
        let (mut surveyor, none) = (surveyor(), BTreeMap::new());
        let mut count = |limits: &Limits| {
            surveyor.count(&none, limits);
            surveyor.counted.len()
        };
        assert_eq!(count(&by(&[], Scope::Global)), 1);
        assert_eq!(count(&by(&[], Scope::Local)), 0);
        assert_eq!(count(&by(&[], Scope::Global)), 1);
        assert_eq!(count(&BTreeMap::new()), 0);
    }
}
