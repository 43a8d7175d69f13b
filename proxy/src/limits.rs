//! How often our app may be asked, and ask others (`leaving`): each request needs a token of every limit that is for it,
//! after policy has allowed it.
//!
//! Tokens are held here already, leased from the controller's ledger ahead of need ([`buckets`]): a request spends one with
//! one atomic operation. One that finds none waits at most [`WAIT_MAX`] for more, unless it is known that none comes so
//! soon. While the ledger is away, each limit does as it says.
//!
//! Limits: [`KEYS_MAX`] buckets of one limit and worker; those beyond share one.

/// Buckets, as this proxy knows them.
pub(crate) mod buckets;

/// What our app asks of others.
pub(crate) mod leaving;

/// What a server's proxy tells its client's.
pub(crate) mod exhausted;

/// What who is refused is told.
mod answer;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::limit::{Direction, Limit, OVERFLOW, Terms};
use ringmail_proto::policy::{Asked, Effort, Mode};
use tokio::time::timeout;

use crate::http::neutral::Fields;
use crate::metrics::Metrics;
use crate::metrics::sharded::Counter;
use crate::policy::Wanted;
use crate::snapshot::{Authorized, Snapshot};
pub(crate) use answer::Exceeded;
use buckets::{Buckets, Key, Outlook};

/// How long a request waits for a token.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// Buckets of one limit that a worker knows.
const KEYS_MAX: usize = 10_000;
/// What a limit refuses that this version cannot act on.
const UNREADABLE_WAIT: Duration = Duration::from_secs(60);

/// The limits, as one worker holds them.
#[derive(Debug)]
pub(crate) struct Limits {
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    buckets: Arc<Buckets>,
    current: RefCell<Option<Rc<Current>>>,
    /// For the name of a request's bucket.
    key: RefCell<Vec<u8>>,
    /// For what a request needs: seldom does any wait, and while it does others make their own.
    needs: RefCell<Vec<Need>>,
}

/// A bucket as this worker knows it; how often it does is counted here, and not for all workers.
type Known = Rc<Arc<Key>>;

/// What is in force.
#[derive(Debug)]
struct Current {
    authorized: Arc<Authorized>,
    limits: Vec<InForce>,
}

/// One limit's buckets and counters.
#[derive(Debug, Default)]
struct InForce {
    buckets: RefCell<HashMap<Box<[u8]>, Known>>,
    admitted: OnceCell<Counter>,
    refused: OnceCell<Counter>,
}

/// What is to be admitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) direction: Direction,
    pub(crate) asked: Asked<'a, Fields<'a>>,
    /// The route that a request takes which leaves.
    pub(crate) route: &'a str,
}

impl<'a> From<&Wanted<'a>> for Subject<'a> {
    fn from(wanted: &Wanted<'a>) -> Self {
        Self {
            direction: Direction::Inbound,
            asked: wanted.asked(),
            route: "",
        }
    }
}

/// What was taken for something under way, and comes back when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Admitted(Vec<Taken>);

#[derive(Debug)]
struct Taken(Known);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.lease.bring_back();
        self.0.granted.notify_waiters();
    }
}

/// A bucket that a request needs tokens of.
#[derive(Debug)]
struct Need {
    /// The limit's place.
    limit: usize,
    key: Known,
    cost: u32,
}

impl Admitted {
    /// Spends what is needed. None if it is gone by now: what comes back came back.
    fn spend<'a>(
        needs: impl Iterator<Item = &'a Need>,
        spend: impl Fn(&Need) -> bool,
    ) -> Option<Self> {
        let mut admitted = Self::default();
        for need in needs {
            if !spend(need) {
                return None;
            }
            if need.key.pace.is_at_once() {
                admitted.0.push(Taken(need.key.clone()));
            }
        }
        Some(admitted)
    }
}

impl Limits {
    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        metrics: Arc<Metrics>,
        buckets: Arc<Buckets>,
    ) -> Self {
        Self {
            snapshot,
            metrics,
            buckets,
            current: RefCell::default(),
            key: RefCell::default(),
            needs: RefCell::default(),
        }
    }

    /// Takes over what was learnt. Limits that did not change keep their buckets.
    pub(crate) fn adopt(&self) {
        let Some(learnt) = self.snapshot.authorization() else {
            return;
        };
        let before = self.current.borrow().clone();
        let limits = learnt.limits.iter().map(|limit| {
            let old = before.as_ref().and_then(|before| before.buckets(limit));
            InForce {
                buckets: old.unwrap_or_default().into(),
                ..InForce::default()
            }
        });
        let limits = limits.collect();
        *self.current.borrow_mut() = Some(Rc::new(Current {
            authorized: learnt,
            limits,
        }));
    }

    /// Whether what policy has allowed, at `now`, is within the limits; spends its tokens if it is.
    pub(crate) async fn admit(
        &self,
        subject: &Subject<'_>,
        now: Instant,
    ) -> Result<Admitted, Exceeded> {
        let Some(current) = self.current() else {
            return Ok(Admitted::default());
        };
        let mut needs = self.needs(&current, subject)?;
        let admitted = match self.spend_held(&current, &needs, now) {
            Some(admitted) => Ok(admitted),
            None => self.meet_all(&current, &needs, now).await,
        };
        needs.clear();
        self.needs.replace(needs);
        admitted
    }

    /// Whether anything that goes that way may be limited.
    pub(crate) fn has(&self, direction: Direction) -> bool {
        self.adopt_first();
        let current = self.current.borrow();
        let mut all = current.iter().flat_map(|one| &one.authorized.limits);
        all.any(|limit| limit.direction == direction)
    }

    /// None where there are no limits.
    fn current(&self) -> Option<Rc<Current>> {
        self.adopt_first();
        let current = self.current.borrow();
        let some = current.as_ref().filter(|one| !one.limits.is_empty());
        some.cloned()
    }

    /// Before the first change was heard of.
    fn adopt_first(&self) {
        if self.current.borrow().is_none() {
            self.adopt();
        }
    }

    /// The buckets that a request needs tokens of.
    fn needs(&self, current: &Current, subject: &Subject<'_>) -> Result<Vec<Need>, Exceeded> {
        let (effort, mut needs) = (Effort::default(), self.needs.take());
        let asked = &subject.asked;
        for (at, limit) in current.authorized.limits.iter().enumerate() {
            if !limit.is_for(subject.direction, asked.port) {
                continue;
            }
            match &limit.terms {
                Ok(terms) if terms.holds(asked, &effort) => needs.push(Need {
                    limit: at,
                    key: self.bucket(current, at, terms, subject),
                    cost: terms.cost(asked),
                }),
                Ok(_) => {}
                Err(_) if limit.mode == Mode::Shadow => {}
                Err(_) => return Err(Exceeded::new(limit, UNREADABLE_WAIT)),
            }
        }
        Ok(needs)
    }

    /// The bucket of what is asked, among those of the limit at `at`.
    fn bucket(&self, current: &Current, at: usize, terms: &Terms, subject: &Subject<'_>) -> Known {
        let mut key = self.key.borrow_mut();
        terms.write_key(&subject.asked, subject.route, &mut key);
        let mut buckets = current.limits[at].buckets.borrow_mut();
        if let Some(known) = buckets.get(key.as_slice()) {
            return known.clone();
        }
        if buckets.len() >= KEYS_MAX {
            let now = self.buckets.now(Instant::now());
            buckets.retain(|_, key| !key.is_idle(now));
        }
        if buckets.len() >= KEYS_MAX {
            key.clear();
            key.extend_from_slice(OVERFLOW);
        }
        let limit = &current.authorized.limits[at];
        let bucket = buckets.entry(key.as_slice().into());
        let new = || Rc::new(self.buckets.key(&limit.name, &key, terms));
        bucket.or_insert_with(new).clone()
    }

    /// Spends what is needed where all of it is held, as it mostly is. Who needs one bucket need not look before.
    fn spend_held(&self, current: &Current, needs: &[Need], now: Instant) -> Option<Admitted> {
        let holds = |need: &Need| self.buckets.holds(&need.key, need.cost, now);
        let spend = |need: &Need| self.buckets.spend_held(&need.key, need.cost, now);
        if needs.len() > 1 && !needs.iter().all(holds) {
            return None;
        }
        let admitted = Admitted::spend(needs.iter(), spend)?;
        for need in needs {
            current.count(need.limit, false, &self.metrics);
        }
        Some(admitted)
    }

    /// What would be refused is counted as well. Limits in shadow mode hold nobody up, so one clock reading is for both.
    async fn meet_all(
        &self,
        current: &Current,
        needs: &[Need],
        now: Instant,
    ) -> Result<Admitted, Exceeded> {
        let shadow = self.meet(current, needs, Mode::Shadow, now).await;
        let mut admitted = self.meet(current, needs, Mode::Enforce, now).await?;
        admitted.0.append(&mut shadow.unwrap_or_default().0);
        Ok(admitted)
    }

    /// Spends what is needed of limits in such a mode, all or nothing.
    async fn meet(
        &self,
        current: &Current,
        needs: &[Need],
        mode: Mode,
        mut now: Instant,
    ) -> Result<Admitted, Exceeded> {
        let limits = &current.authorized.limits;
        let own = || needs.iter().filter(|need| limits[need.limit].mode == mode);
        let (begun, until, mut has_waited) = (now, now + WAIT_MAX, false);
        let (mut outcome, mut is_first) = (Ok(Admitted::default()), true);
        let spend =
            |now| Admitted::spend(own(), |need| self.buckets.spend(&need.key, need.cost, now));
        while let Some(first) = own().next() {
            let lacking =
                own().find_map(|need| match self.buckets.look(&need.key, need.cost, now) {
                    Outlook::There => None,
                    lacking => Some((need, lacking)),
                });
            let Some((need, lacking)) = lacking else {
                if let Some(admitted) = spend(now) {
                    outcome = Ok(admitted);
                    break;
                }
                if now < until {
                    // Another thread was faster.
                    now = Instant::now();
                    continue;
                }
                outcome = Err((first.limit, WAIT_MAX));
                break;
            };
            if std::mem::take(&mut is_first) {
                self.buckets.miss(&need.key, need.cost);
            }
            let soon = until.saturating_duration_since(now);
            let wait = match lacking {
                Outlook::Comes if mode == Mode::Enforce && !soon.is_zero() => {
                    let granted = need.key.granted.notified();
                    // Whether it came or not is looked at again.
                    let _ = timeout(soon, granted).await;
                    has_waited = true;
                    now = Instant::now();
                    continue;
                }
                // Nobody is held up for what is only counted.
                Outlook::Comes if mode == Mode::Shadow => break,
                Outlook::Comes | Outlook::There => WAIT_MAX,
                Outlook::ComesAfter(wait) => wait,
            };
            outcome = Err((need.limit, wait));
            break;
        }
        let refused = outcome.as_ref().err().copied();
        for need in own() {
            let is_refused = refused.is_some_and(|(limit, _)| limit == need.limit);
            // Those that would have admitted it spent nothing.
            if refused.is_none() || is_refused {
                current.count(need.limit, is_refused, &self.metrics);
            }
            if is_refused {
                need.key.lease.refuse();
            }
        }
        if has_waited {
            self.metrics.rate_limit_waits.observe(now - begun);
        }
        outcome.map_err(|(limit, wait)| Exceeded::new(&limits[limit], wait))
    }
}

impl Current {
    /// Of a limit that was in force before as it is now.
    fn buckets(&self, limit: &Limit) -> Option<HashMap<Box<[u8]>, Known>> {
        let at = self.authorized.limits.iter().position(|old| {
            let same = |old: &Terms, new: &Terms| old.is_same_bucket(new);
            let both = old.terms.as_ref().ok().zip(limit.terms.as_ref().ok());
            old.name == limit.name && both.is_some_and(|(old, new)| same(old, new))
        })?;
        Some(self.limits[at].buckets.take())
    }

    fn count(&self, at: usize, is_refused: bool, metrics: &Metrics) {
        let (own, limit) = (&self.limits[at], &self.authorized.limits[at]);
        let (cell, outcome) = match is_refused {
            true => (&own.refused, "refused"),
            false => (&own.admitted, "admitted"),
        };
        cell.get_or_init(|| metrics.rate_limits(limit, outcome))
            .add(1);
    }
}

impl Exceeded {
    fn new(limit: &Limit, wait: Duration) -> Self {
        let terms = limit.terms.as_ref().ok();
        Self {
            limit: limit.name.clone(),
            pace: terms
                .map(|terms| terms.pace)
                .filter(|pace| !pace.is_at_once()),
            is_of_caller: terms.is_some_and(Terms::is_of_caller),
            wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmail_proto::limit::{Counts, Pace, Scope, Unavailable};

    /// Another thread may be faster between two of them.
    #[test]
    fn what_comes_back_does_so_where_not_all_is_there() {
        let (buckets, _told) = Buckets::new();
        let terms = Terms {
            counts: Counts::Requests,
            matches: Vec::new(),
            pace: Pace::at_once(1),
            key: Vec::new(),
            cost: 1,
            cost_header: None,
            scope: Scope::Local,
            unavailable: Unavailable::Deny,
            proxies: 1,
        };
        let now = Instant::now();
        let need = |name: &str| Need {
            limit: 0,
            key: Rc::new(buckets.key(&"shop/calls/0".into(), name.as_bytes(), &terms)),
            cost: 1,
        };
        let (both, other) = ([need("a"), need("b")], [need("b")]);
        let spend = |need: &Need| buckets.spend(&need.key, need.cost, now);
        let held = Admitted::spend(other.iter(), spend).expect("one");
        assert!(Admitted::spend(both.iter(), spend).is_none());
        assert_eq!(both.each_ref().map(|one| one.key.lease.in_use()), [0, 1]);
        drop(held);
        let held = Admitted::spend(both.iter(), spend).expect("both");
        assert_eq!(both.each_ref().map(|one| one.key.lease.in_use()), [1, 1]);
        drop(held);
        assert_eq!(both.each_ref().map(|one| one.key.lease.in_use()), [0, 0]);
    }
}
