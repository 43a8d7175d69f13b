//! Buckets, as this proxy knows them: shared by its workers, which spend, and by the one task that talks to the ledger
//! (`control`), which fills them. Everything in them is atomic; the table is locked where a bucket is new to a worker.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringmail_proto::limit::home::BucketName;
use ringmail_proto::limit::lease::Lease;
use ringmail_proto::limit::local::Local;
use ringmail_proto::limit::{Pace, Scope, Terms, Unavailable};
use tokio::sync::{Notify, mpsc};

/// Buckets that the ledger was not told of yet. Beyond, their requests are as without a ledger until there is room.
const NEWS_MAX: usize = 4096;
/// What who is refused waits for while the ledger is away and nothing is admitted without it.
const AWAY_WAIT: Duration = Duration::from_secs(1);

/// One bucket.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) lease: Arc<Lease>,
    pub(crate) limit: Arc<str>,
    pub(crate) name: Box<[u8]>,
    pub(crate) pace: Pace,
    scope: Scope,
    unavailable: Unavailable,
    /// Tokens came, or are known not to.
    pub(crate) granted: Notify,
    /// No token comes before; in microseconds.
    wait_until: AtomicU64,
    /// Proxies that share it.
    sharers: AtomicU32,
    /// For what is ours alone: a limit of each proxy, or our share while the ledger is away.
    pub(crate) local: Local,
    /// Whether the ledger is told of it.
    pub(crate) is_told: AtomicBool,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Buckets {
    start: Instant,
    keys: Mutex<HashMap<BucketName, Arc<Key>>>,
    /// Until when leases may be spent; in microseconds.
    spend_until: AtomicU64,
    /// Whether the ledger answers.
    is_up: AtomicBool,
    news: mpsc::Sender<Arc<Key>>,
    /// A request waits for tokens.
    pub(crate) needed: Notify,
}

/// What a request may expect of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// There are tokens.
    There,
    /// They may come any moment.
    Comes,
    /// They come no sooner.
    ComesAfter(Duration),
}

impl Buckets {
    /// Those that the ledger should be told of come out of the receiver.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Arc<Key>>) {
        let (news, told) = mpsc::channel(NEWS_MAX);
        let buckets = Self {
            start: Instant::now(),
            keys: Mutex::default(),
            spend_until: AtomicU64::new(0),
            is_up: AtomicBool::new(false),
            news,
            needed: Notify::new(),
        };
        (Arc::new(buckets), told)
    }

    /// Since our start.
    pub(crate) fn now(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    /// The bucket of that name, which may be another worker's already.
    pub(crate) fn key(&self, limit: &Arc<str>, name: &[u8], terms: &Terms) -> Arc<Key> {
        let new = || {
            Arc::new(Key {
                lease: Arc::default(),
                limit: limit.clone(),
                name: name.into(),
                pace: terms.pace,
                scope: terms.scope,
                unavailable: terms.unavailable,
                granted: Notify::new(),
                wait_until: AtomicU64::new(0),
                sharers: AtomicU32::new(terms.proxies),
                local: Local::default(),
                is_told: AtomicBool::new(false),
            })
        };
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let key = keys.entry((limit.clone(), name.into())).or_insert_with(new);
        if key.pace != terms.pace
            || key.scope != terms.scope
            || key.unavailable != terms.unavailable
        {
            *key = new();
        }
        key.clone()
    }

    /// Nobody has used them of late.
    pub(crate) fn forget(&self, unused: &[Arc<Key>]) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in unused {
            let name = (key.limit.clone(), key.name.clone());
            if keys.get(&name).is_some_and(|held| Arc::ptr_eq(held, key)) {
                keys.remove(&name);
            }
        }
    }

    /// The ledger answers, or does not; and leases may be spent until then.
    pub(crate) fn set(&self, is_up: bool, spend_until: Option<Instant>) {
        let until = spend_until.map_or(0, |until| micros(self.now(until)));
        self.spend_until.store(until, Relaxed);
        self.is_up.store(is_up, Relaxed);
    }

    /// Whether so many tokens are leased.
    pub(super) fn holds(&self, key: &Key, cost: u32, now: Instant) -> bool {
        key.scope == Scope::Global && self.may_spend(now) && key.lease.held() >= cost.into()
    }

    /// Spends tokens that are leased, if there are so many.
    pub(super) fn spend_held(&self, key: &Key, cost: u32, now: Instant) -> bool {
        let spend = || match key.pace.is_at_once() {
            true => key.lease.take(),
            false => key.lease.spend(cost.into()),
        };
        key.scope == Scope::Global && self.may_spend(now) && spend()
    }

    /// Whether a request finds so many tokens.
    pub(super) fn look(&self, key: &Arc<Key>, cost: u32, now: Instant) -> Outlook {
        if key.scope == Scope::Local {
            return self.look_alone(key, 1, cost, now);
        }
        if self.holds(key, cost, now) {
            return Outlook::There;
        }
        if self.is_up.load(Relaxed) && self.tell(key) {
            let wait = key.wait_until.load(Relaxed);
            let wait = Duration::from_micros(wait).saturating_sub(self.now(now));
            return match wait > super::WAIT_MAX && !key.pace.is_at_once() {
                true => Outlook::ComesAfter(wait),
                false => Outlook::Comes,
            };
        }
        // The first that needs it brings the ledger back to mind.
        self.tell(key);
        match key.unavailable {
            Unavailable::LocalShare => self.look_alone(key, key.sharers.load(Relaxed), cost, now),
            Unavailable::Allow => Outlook::There,
            Unavailable::Deny => Outlook::ComesAfter(AWAY_WAIT),
        }
    }

    fn look_alone(&self, key: &Key, sharers: u32, cost: u32, now: Instant) -> Outlook {
        if key.pace.is_at_once() {
            return match key.lease.in_use() < at_once(key.pace, sharers) {
                true => Outlook::There,
                false => Outlook::ComesAfter(AWAY_WAIT),
            };
        }
        let now = self.now(now);
        match key.local.take(key.pace, sharers, cost, now, false) {
            Ok(()) => Outlook::There,
            Err(wait) => Outlook::ComesAfter(wait),
        }
    }

    /// Spends what a look has found, or takes it if it comes back; false if it is gone by now.
    pub(super) fn spend(&self, key: &Key, cost: u32, now: Instant) -> bool {
        if key.scope == Scope::Local {
            return self.spend_alone(key, 1, cost, now);
        }
        if self.spend_held(key, cost, now) {
            return true;
        }
        // As it was looked at: a bucket that the ledger has no room to hear of is as without a ledger.
        if self.is_up.load(Relaxed) && key.is_told.load(Relaxed) {
            return false;
        }
        let spent = match key.unavailable {
            Unavailable::LocalShare => self.spend_alone(key, key.sharers.load(Relaxed), cost, now),
            Unavailable::Allow if key.pace.is_at_once() => key.lease.take_alone(u64::MAX),
            Unavailable::Allow => true,
            Unavailable::Deny => false,
        };
        if spent && !key.pace.is_at_once() {
            key.lease.spend_alone(cost.into());
        }
        spent
    }

    fn spend_alone(&self, key: &Key, sharers: u32, cost: u32, now: Instant) -> bool {
        if key.pace.is_at_once() {
            return key.lease.take_alone(at_once(key.pace, sharers));
        }
        let now = self.now(now);
        key.local.take(key.pace, sharers, cost, now, true).is_ok()
    }

    /// A request did not find what it needs.
    pub(super) fn miss(&self, key: &Key, cost: u32) {
        if key.scope == Scope::Global {
            key.lease.miss(cost.into());
            self.needed.notify_one();
        }
    }

    fn may_spend(&self, now: Instant) -> bool {
        micros(self.now(now)) < self.spend_until.load(Relaxed)
    }

    /// The ledger hears of the bucket, if there is room for it.
    fn tell(&self, key: &Arc<Key>) -> bool {
        if key.is_told.swap(true, Relaxed) {
            return true;
        }
        let is_told = self.news.try_send(key.clone()).is_ok();
        key.is_told.store(is_told, Relaxed);
        is_told
    }
}

impl Key {
    /// What the ledger says beside tokens.
    pub(crate) fn expect(&self, buckets: &Buckets, wait_until: Option<Instant>, sharers: u32) {
        let until = wait_until.map_or(0, |until| micros(buckets.now(until)));
        self.wait_until.store(until, Relaxed);
        self.sharers.store(sharers.max(1), Relaxed);
        self.granted.notify_waiters();
    }

    /// The ledger is away: what was there is leased to whoever has it, and no share of it is ours.
    pub(crate) fn begin_alone(&self, buckets: &Buckets, now: Instant) {
        let sharers = self.sharers.load(Relaxed);
        self.local.empty(self.pace, sharers, buckets.now(now));
        self.granted.notify_waiters();
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        !self.is_told.load(Relaxed) && self.local.is_full(now) && self.lease.in_use() == 0
    }
}

/// Of a limit on what is under way at once, a share.
fn at_once(pace: Pace, sharers: u32) -> u64 {
    u64::from(pace.burst / sharers.max(1)).max(1)
}

fn micros(time: Duration) -> u64 {
    let seconds = time.as_secs().saturating_mul(1_000_000);
    seconds.saturating_add(time.subsec_micros().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmail_proto::limit::Limit;
    use ringmail_proto::limit::session::Session;
    use ringmail_proto::pb;

    fn terms(unavailable: pb::LimitUnavailable) -> Terms {
        let limit = Limit::try_from(pb::RateLimit {
            name: "shop/calls/0".to_owned(),
            mode: pb::PolicyMode::Enforce.into(),
            counts: pb::LimitCounts::Requests.into(),
            rate: Some(pb::LimitRate {
                tokens: 10,
                period_seconds: 1,
                burst: 10,
            }),
            scope: pb::LimitScope::Global.into(),
            on_unavailable: unavailable.into(),
            ..pb::RateLimit::default()
        });
        limit.expect("named").terms.expect("understood")
    }

    /// As a ledger does.
    fn lease(key: &Key, tokens: u64, now: Instant) {
        let mut session = Session::new();
        let name = (key.limit.clone(), key.name.clone());
        let number = session.hold(key.lease.clone(), name, key.pace, None, now);
        let request = session.report(now).expect("a key is new");
        let grant = pb::LeaseGrant {
            number,
            granted: tokens,
            ..pb::LeaseGrant::default()
        };
        let response = pb::LeaseResponse {
            heard: request.sequence,
            grants: vec![grant],
            ..pb::LeaseResponse::default()
        };
        session.receive(&response, now).expect("it was asked");
    }

    #[test]
    fn what_is_leased_is_spent_without_a_look() {
        let (buckets, _told) = Buckets::new();
        let (limit, now): (Arc<str>, _) = ("shop/calls/0".into(), Instant::now());
        let over = now + Duration::from_secs(1);
        let mut terms = terms(pb::LimitUnavailable::Allow);
        let key = buckets.key(&limit, b"", &terms);
        lease(&key, 3, now);
        buckets.set(true, Some(over));
        assert!(!buckets.spend_held(&key, 4, now), "there are fewer");
        assert!(buckets.holds(&key, 3, now));
        assert!(buckets.spend_held(&key, 2, now));
        assert!(!buckets.holds(&key, 2, now), "one is left");
        assert!(!buckets.spend_held(&key, 1, over), "its time is over");
        assert!(buckets.spend_held(&key, 1, now));
        assert!(!buckets.spend_held(&key, 1, now), "none is left");
        terms.scope = Scope::Local;
        let own = buckets.key(&limit, b"own", &terms);
        lease(&own, 1, now);
        assert!(!buckets.spend_held(&own, 1, now), "it is never leased");
    }

    /// What is looked at and what is spent agree, or a request would look for ever.
    #[test]
    fn a_bucket_that_the_ledger_has_no_room_to_hear_of_is_as_without_it() {
        use pb::LimitUnavailable::{Allow, Deny, LocalShare};
        let (buckets, _told) = Buckets::new();
        let (limit, now): (Arc<str>, _) = ("shop/calls/0".into(), Instant::now());
        buckets.set(true, None);
        for n in 0..NEWS_MAX {
            let key = buckets.key(&limit, &n.to_be_bytes(), &terms(Allow));
            assert_eq!(buckets.look(&key, 1, now), Outlook::Comes, "{n}");
            assert!(!buckets.spend(&key, 1, now), "{n}");
        }
        for (unavailable, expected) in [(Allow, true), (LocalShare, true), (Deny, false)] {
            let name = format!("{unavailable:?}");
            let key = buckets.key(&limit, name.as_bytes(), &terms(unavailable));
            assert_eq!(
                buckets.look(&key, 1, now) == Outlook::There,
                expected,
                "{name}"
            );
            assert_eq!(buckets.spend(&key, 1, now), expected, "{name}");
        }
    }
}
