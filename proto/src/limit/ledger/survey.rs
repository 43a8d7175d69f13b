//! What of each limit is used, and by which keys most: for people. All keys are looked at, some at a time, so that nobody
//! waits for it. Limits: [`KEYS_AT_ONCE`], [`TOP_MAX`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::{Account, Ledger, tokens};
use crate::limit::recent::Rates;

/// Keys that one call looks at: less than a millisecond.
const KEYS_AT_ONCE: usize = 4096;
/// Keys of a limit that are told apart.
const TOP_MAX: usize = 20;

/// A look at all keys.
#[derive(Debug, Default)]
pub struct Survey {
    next: usize,
    limits: BTreeMap<Arc<str>, LimitUse>,
}

/// Of one limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitUse {
    /// Keys that proxies speak of.
    pub keys: usize,
    /// The part of what it lets through that its busiest key uses.
    pub share: f64,
    /// Tokens spent in a second, of late; of what is under way at once, tokens that proxies hold now.
    pub used: f64,
    /// Requests refused in a second, of late.
    pub refused: f64,
    /// Its busiest keys, those first that use most.
    pub top: Vec<KeyUse>,
}

/// Of one key, as of its limit.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyUse {
    /// Its name.
    pub key: Box<[u8]>,
    /// The part of what the limit lets through.
    pub share: f64,
    /// As in [`LimitUse`].
    pub used: f64,
    /// As in [`LimitUse`].
    pub refused: f64,
}

impl Survey {
    /// Once it is over: all limits that proxies speak of.
    #[must_use]
    pub fn limits(self) -> BTreeMap<Arc<str>, LimitUse> {
        self.limits
    }

    fn add(&mut self, account: &Account, used: Figures) {
        let (limit, key) = &account.name;
        let limit = self.limits.entry(limit.clone()).or_default();
        limit.keys += 1;
        limit.share = limit.share.max(used.share);
        limit.used += used.used;
        limit.refused += used.refused;
        let place = limit.top.partition_point(|one| one.is_before(used, key));
        if place < TOP_MAX {
            let key = KeyUse {
                key: key.clone(),
                share: used.share,
                used: used.used,
                refused: used.refused,
            };
            limit.top.insert(place, key);
            limit.top.truncate(TOP_MAX);
        }
    }
}

/// What a [`KeyUse`] says of a key.
#[derive(Debug, Clone, Copy)]
struct Figures {
    share: f64,
    used: f64,
    refused: f64,
}

impl KeyUse {
    fn is_before(&self, other: Figures, key: &[u8]) -> bool {
        let by_use = other.share.total_cmp(&self.share);
        let by_refusals = other.refused.total_cmp(&self.refused);
        let order = by_use.then(by_refusals).then((*self.key).cmp(key));
        order.is_lt()
    }
}

impl Ledger {
    /// Goes on with a look at all keys; true when it is over. Keys that come or go meanwhile may be missed.
    pub fn survey(&self, survey: &mut Survey, now: Instant) -> bool {
        let rest = self.accounts.get(survey.next..).unwrap_or_default();
        for account in rest.iter().take(KEYS_AT_ONCE).flatten() {
            // Nobody speaks of it any more.
            if !account.holders.is_empty() {
                survey.add(account, self.used(account, now));
            }
        }
        survey.next += KEYS_AT_ONCE;
        rest.len() <= KEYS_AT_ONCE
    }

    fn used(&self, account: &Account, now: Instant) -> Figures {
        let Rates { spent, refused } = account.recent.rates(account.pace, now);
        let (used, most) = match account.pace.is_at_once() {
            true => (tokens(self.leased(account)), account.pace.burst_tokens()),
            false => (spent, account.pace.per_second()),
        };
        Figures {
            share: used / most,
            used,
            refused,
        }
    }

    fn leased(&self, account: &Account) -> u64 {
        let holders = account.holders.iter();
        let leased = holders.filter_map(|(id, number)| {
            let holding = self.sessions.get(id)?.holdings.get(number)?;
            Some(holding.leased())
        });
        leased.sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limit::Pace;
    use crate::pb;

    const TEN: Pace = Pace {
        tokens: 10,
        period: Duration::from_secs(1),
        burst: 10,
    };

    fn surveyed(ledger: &Ledger, now: Instant) -> BTreeMap<Arc<str>, LimitUse> {
        let mut survey = Survey::default();
        while !ledger.survey(&mut survey, now) {}
        survey.limits()
    }

    fn hear(ledger: &mut Ledger, request: &pb::LeaseRequest, now: Instant) {
        let pace = |limit: &str| match limit {
            "shop/at-once/0" => Some(Pace::at_once(10)),
            _ => Some(TEN),
        };
        ledger.hear(1, request, pace, now).expect("heard");
    }

    fn name(limit: &str, number: u32) -> pb::LeaseKey {
        pb::LeaseKey {
            number,
            limit: limit.to_owned(),
            key: format!("key {number}").into_bytes(),
            in_use: 3,
            ..pb::LeaseKey::default()
        }
    }

    #[test]
    fn the_busiest_keys_come_first_and_all_are_counted() {
        // Two parts of a look, and some more.
        const KEYS: u32 = 8199;
        let now = Instant::now();
        let mut ledger = Ledger::reopened(now);
        ledger.open(1, now);
        assert_eq!(surveyed(&ledger, now), BTreeMap::new());
        let usage = |number: u32| pb::LeaseUsage {
            number,
            // Spent without a lease: nothing has to be granted first.
            alone: (number % 50).into(),
            refused: number.into(),
            ..pb::LeaseUsage::default()
        };
        let request = pb::LeaseRequest {
            sequence: 1,
            keys: (0..KEYS)
                .map(|number| name("shop/calls/0", number))
                .collect(),
            usages: (0..KEYS).map(usage).collect(),
            ..pb::LeaseRequest::default()
        };
        hear(&mut ledger, &request, now);
        let found = surveyed(&ledger, now);
        let limit = &found["shop/calls/0"];
        assert_eq!(limit.keys, KEYS as usize);
        assert_eq!(limit.top.len(), TOP_MAX);
        let first = &limit.top[0];
        assert_eq!(
            &*first.key, b"key 8149",
            "the most refused of those that spent 49"
        );
        assert!((first.share - 49.0 / 50.0).abs() < 0.01, "{first:?}");
        assert!((limit.share - first.share).abs() < 0.001);
        let figures = |one: &KeyUse| (one.share, one.refused);
        let is_sorted = limit.top.is_sorted_by(|a, b| figures(a) >= figures(b));
        assert!(is_sorted);
    }

    #[test]
    fn of_what_is_under_way_at_once_what_proxies_hold_is_used() {
        let now = Instant::now();
        let mut ledger = Ledger::reopened(now);
        ledger.open(1, now);
        let request = pb::LeaseRequest {
            sequence: 1,
            keys: vec![name("shop/at-once/0", 1)],
            ..pb::LeaseRequest::default()
        };
        hear(&mut ledger, &request, now);
        let found = surveyed(&ledger, now);
        let limit = &found["shop/at-once/0"];
        assert!((limit.used - 3.0).abs() < 0.001, "{limit:?}");
        assert!((limit.share - 0.3).abs() < 0.001, "{limit:?}");
        ledger.close(1);
        let over = now + super::super::LEDGER_TIME * 2;
        ledger.expire(over);
        assert_eq!(
            surveyed(&ledger, over),
            BTreeMap::new(),
            "nobody speaks of it"
        );
    }
}
