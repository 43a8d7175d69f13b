//! What a proxy holds of each key, and what it says to the ledger about it.
//!
//! A `Lease` is spent by whichever thread has a request, with one atomic operation. A `Session` belongs to the one
//! task that talks to the ledger: it asks for what will be spent soon (`demand`), and gives back what is not needed.
//!
//! A session looks only at keys in use. A key that holds nothing cannot be spent from, only missed: whoever misses it says
//! so (`Calls`), which no request does that finds a token.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::demand::{Demand, Left, Target};
use super::{LEASE_TIME, Pace};
use crate::{Invalid, pb};

/// Silence while something is held or wanted, at most.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Between two reports of refusals, while there is nothing else to say of their keys.
const REFUSALS: Duration = Duration::from_secs(1);
/// After how long a key's number is given up.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// Tokens of one key.
#[derive(Debug, Default)]
pub struct Lease {
    /// Those that are held; and above them, by `IN_USE`, those that are in use and come back.
    tokens: AtomicU64,
    /// Asked for in vain since the last report.
    missed: AtomicU64,
    /// Spent without a lease, and not reported.
    alone: AtomicU64,
    /// Requests refused, and not reported.
    refused: AtomicU64,
    /// Whom to tell of either, and by which number.
    session: Mutex<Option<(Arc<Calls>, u32)>>,
}

/// Keys that something was said of which is not reported.
#[derive(Debug, Default)]
struct Calls(Mutex<Vec<u32>>);

/// One token in use. No limit has so many.
const IN_USE: u64 = 1 << 32;

impl Lease {
    /// Takes a token that comes back, if there is one that is held.
    pub fn take(&self) -> bool {
        let take = |tokens: u64| {
            let is_held = !tokens.is_multiple_of(IN_USE);
            is_held.then(|| tokens - 1 + IN_USE)
        };
        self.tokens
            .try_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Takes one though none is held, as long as fewer than `most` are in use: the ledger is away.
    pub fn take_alone(&self, most: u64) -> bool {
        let take = |tokens: u64| (tokens / IN_USE < most).then(|| tokens + IN_USE);
        self.tokens
            .try_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// Brings back one that was taken.
    pub fn bring_back(&self) {
        self.tokens.fetch_sub(IN_USE - 1, Ordering::Relaxed);
    }

    /// Tokens that were taken and come back.
    pub fn in_use(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed) / IN_USE
    }

    /// Spends `cost` tokens, if there are so many.
    pub fn spend(&self, cost: u64) -> bool {
        let take = |tokens: u64| tokens.checked_sub(cost);
        self.tokens
            .try_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    /// So many would be spent if they were there.
    pub fn miss(&self, cost: u64) {
        self.count(&self.missed, cost);
    }

    /// So many were spent though none were leased: the ledger was away.
    pub fn spend_alone(&self, cost: u64) {
        self.count(&self.alone, cost);
    }

    /// A request that asked in vain was refused. Nobody is told in haste: whoever missed a token has said so.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The first that counts after a report tells the session.
    fn count(&self, what: &AtomicU64, cost: u64) {
        if what.fetch_add(cost, Ordering::AcqRel) > 0 {
            return;
        }
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((calls, number)) = &*session {
            calls.call(*number);
        }
    }

    /// Whether nothing is held or in use.
    fn is_empty(&self) -> bool {
        self.tokens.load(Ordering::Relaxed) == 0
    }

    /// What is held.
    pub fn held(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed) % IN_USE
    }

    fn belong(&self, calls: &Arc<Calls>, number: u32) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        *session = Some((calls.clone(), number));
    }

    fn add(&self, granted: u64) {
        self.tokens.fetch_add(granted, Ordering::Relaxed);
    }

    /// Takes out as many as are there, of those.
    fn withdraw(&self, tokens: u64) -> u64 {
        let keep = |held: u64| Some(held - (held % IN_USE).min(tokens));
        let held = self
            .tokens
            .try_update(Ordering::Relaxed, Ordering::Relaxed, keep);
        held.map_or(0, |held| (held % IN_USE).min(tokens))
    }
}

impl Calls {
    fn call(&self, number: u32) {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.push(number);
    }

    fn take(&self) -> Vec<u32> {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut numbers)
    }
}

/// One stream to a ledger.
#[derive(Debug)]
pub struct Session {
    sequence: u64,
    /// Requests that were not heard yet, and when they were sent; none of them is older than the last that was heard.
    sent: VecDeque<(u64, Instant)>,
    last_sent: Option<Instant>,
    /// When something was last said of a key only because requests were refused.
    refusals_said: Option<Instant>,
    /// When the last request that was heard was sent.
    last_heard: Option<Instant>,
    /// When the ledger leases.
    opens: Option<Instant>,
    holdings: BTreeMap<u32, Holding>,
    /// Numbers of keys in use; all others hold nothing, want nothing, and have said all.
    in_use: BTreeSet<u32>,
    /// When keys were used last that were in use no more then.
    unused: VecDeque<(Instant, u32)>,
    calls: Arc<Calls>,
    next: u32,
    /// Numbers that the ledger was not told of.
    unnamed: Vec<u32>,
    given_up: Vec<u32>,
}

/// One key in a session.
#[derive(Debug)]
struct Holding {
    lease: Arc<Lease>,
    limit: Arc<str>,
    key: Box<[u8]>,
    pace: Pace,
    memory: Option<Memory>,
    granted: u64,
    returned: u64,
    alone: u64,
    refused: u64,
    refused_said: u64,
    /// As the ledger was told.
    said: Said,
    /// What requests said of what was spent, leased or not: the last that was heard, and those since.
    used: VecDeque<(u64, u64)>,
    told: Option<Told>,
    demand: Demand,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Said {
    spent: u64,
    returned: u64,
    wanted: u64,
    alone: u64,
}

/// What the ledger said last.
#[derive(Debug, Clone, Copy)]
struct Told {
    unspent: f64,
    /// When that was heard here, and what was spent by the last request that it answers.
    at: Instant,
    used: u64,
    wait_until: Option<Instant>,
    sharers: u32,
}

/// What a key's last session leaves to the next.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    unspent: f64,
    at: Instant,
    spent: u64,
    /// What was left in the lease, to be spent until its time is over.
    left: u64,
}

impl Memory {
    /// Nothing is known but what was spent: there may have been a full bucket.
    fn unknown(pace: Pace, now: Instant) -> Self {
        Self {
            unspent: pace.burst_tokens(),
            at: now,
            spent: 0,
            left: 0,
        }
    }
}

/// What a key's requests may expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// No token comes before this.
    pub wait_until: Option<Instant>,
    /// Proxies that share the key.
    pub sharers: u32,
}

impl Session {
    /// A stream that begins.
    #[must_use]
    pub fn new() -> Self {
        Self {
            sequence: 0,
            sent: VecDeque::new(),
            last_sent: None,
            refusals_said: None,
            last_heard: None,
            opens: None,
            holdings: BTreeMap::new(),
            in_use: BTreeSet::new(),
            unused: VecDeque::new(),
            calls: Arc::default(),
            next: 0,
            unnamed: Vec::new(),
            given_up: Vec::new(),
        }
    }

    /// Speaks of a key from now on, by the number that is returned. Its lease is empty: what an earlier session left in it
    /// belongs to that.
    pub fn hold(
        &mut self,
        lease: Arc<Lease>,
        (limit, key): (Arc<str>, Box<[u8]>),
        pace: Pace,
        memory: Option<Memory>,
        now: Instant,
    ) -> u32 {
        let number = self.next;
        self.next += 1;
        lease.belong(&self.calls, number);
        let left = lease.withdraw(u64::MAX);
        // Those end in this session.
        let in_use = lease.in_use();
        let alone = lease.alone.swap(0, Ordering::Relaxed);
        let mut memory = memory.or_else(|| (alone > 0).then(|| Memory::unknown(pace, now)));
        if let Some(memory) = &mut memory {
            memory.spent += alone + memory.left.saturating_sub(left);
            memory.left = 0;
        }
        self.unnamed.push(number);
        self.in_use.insert(number);
        let holding = Holding {
            lease,
            limit,
            key,
            pace,
            memory,
            granted: in_use,
            returned: 0,
            alone: 0,
            refused: 0,
            refused_said: 0,
            said: Said::default(),
            used: VecDeque::from([(0, 0)]),
            told: None,
            demand: Demand::new(now),
        };
        self.holdings.insert(number, holding);
        number
    }

    /// Until when tokens may be spent.
    #[must_use]
    pub fn spend_until(&self) -> Option<Instant> {
        self.last_heard.map(|at| at + LEASE_TIME)
    }

    /// Whether the ledger leases: it has answered, and listens no more to what others remember.
    #[must_use]
    pub fn is_open(&self, now: Instant) -> bool {
        self.opens.is_some_and(|opens| opens <= now)
    }

    /// Since when an answer is outstanding.
    #[must_use]
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.sent.front().map(|(_, at)| *at)
    }

    /// What a key's requests may expect.
    #[must_use]
    pub fn outlook(&self, number: u32) -> Option<Outlook> {
        let told = self.holdings.get(&number)?.told?;
        Some(Outlook {
            wait_until: told.wait_until,
            sharers: told.sharers,
        })
    }

    /// Numbers that were given up since this was asked last.
    pub fn take_given_up(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.given_up)
    }

    /// What there is to say, if there is anything.
    pub fn report(&mut self, now: Instant) -> Option<pb::LeaseRequest> {
        let beat = self.last_sent.is_none_or(|at| now >= at + HEARTBEAT);
        let sequence = self.sequence + 1;
        let named = std::mem::take(&mut self.unnamed);
        let named = named.iter().filter_map(|number| {
            let holding = self.holdings.get(number)?;
            Some(holding.name(*number, now))
        });
        let keys: Vec<_> = named.collect();
        let (usages, is_alive) = self.usages(sequence, now);
        let forgotten = self.forget(now);
        self.given_up.extend(&forgotten);
        let is_silent = keys.is_empty() && usages.is_empty() && forgotten.is_empty();
        if is_silent && !(beat && is_alive) {
            return None;
        }
        self.sequence = sequence;
        self.sent.push_back((sequence, now));
        self.last_sent = Some(now);
        Some(pb::LeaseRequest {
            workload: None,
            sequence,
            keys,
            usages,
            forgotten,
        })
    }

    /// What is to be said of keys in use, and whether any of them holds or wants something.
    fn usages(&mut self, sequence: u64, now: Instant) -> (Vec<pb::LeaseUsage>, bool) {
        self.in_use.extend(self.calls.take());
        let (mut usages, mut is_alive) = (Vec::new(), false);
        let is_due = self.refusals_said.is_none_or(|at| now >= at + REFUSALS);
        let Self {
            holdings,
            in_use,
            unused,
            refusals_said,
            ..
        } = self;
        in_use.retain(|number| {
            // Those that were given up meanwhile.
            let Some(holding) = holdings.get_mut(number) else {
                return false;
            };
            let mut said = holding.say(now);
            let has_refused = holding.has_refused();
            let is_said = said.is_none() && !has_refused;
            if said.is_none() && has_refused && is_due {
                said = Some(holding.said);
                *refusals_said = Some(now);
            }
            if let Some(said) = said {
                holding.used.push_back((sequence, said.spent + said.alone));
                holding.refused_said = holding.refused;
                usages.push(usage(*number, said, holding.refused));
            }
            let is_held = !holding.lease.is_empty() || holding.said.wanted > 0;
            is_alive |= is_held;
            let is_unused = is_said && !is_held && holding.demand.is_idle(now);
            if is_unused {
                unused.push_back((holding.demand.last_used, *number));
            }
            !is_unused
        });
        (usages, is_alive)
    }

    /// Gives up numbers of keys that were not used for long.
    fn forget(&mut self, now: Instant) -> Vec<u32> {
        let mut forgotten = Vec::new();
        while let Some((_, number)) = self
            .unused
            .pop_front_if(|(last_used, _)| now >= *last_used + FORGOTTEN)
        {
            // It may have been used since, and may be in use.
            let holding = self.holdings.get(&number);
            if !self.in_use.contains(&number) && holding.is_some_and(|one| one.is_forgotten(now)) {
                self.holdings.remove(&number);
                forgotten.push(number);
            }
        }
        forgotten
    }

    /// Takes what was granted. A message may come twice, or after those that were sent after it.
    pub fn receive(&mut self, response: &pb::LeaseResponse, now: Instant) -> Result<(), Invalid> {
        if response.heard > self.sequence {
            return Err(Invalid::new("heard", "was never sent"));
        }
        self.heard(response.heard);
        self.opens = now.checked_add(Duration::from_micros(response.opens_us));
        for grant in &response.grants {
            // Those that were given up meanwhile.
            let Some(holding) = self.holdings.get_mut(&grant.number) else {
                continue;
            };
            let more = grant.granted.saturating_sub(holding.granted);
            holding.granted += more;
            // Nothing else tells the ledger of the next one that is wanted: none is ever spent.
            if holding.pace.is_at_once() {
                holding.said.wanted = holding.said.wanted.saturating_sub(more);
            }
            if more > 0 {
                holding.lease.add(more);
                self.in_use.insert(grant.number);
            }
            let wait = (grant.wait_us > 0).then(|| Duration::from_micros(grant.wait_us));
            holding.hear(response.heard);
            holding.told = Some(Told {
                unspent: grant.unspent,
                // It was said earlier: what came in since then is left out of account.
                at: now,
                used: holding.used_heard(),
                wait_until: wait.and_then(|wait| now.checked_add(wait)),
                sharers: grant.sharers,
            });
        }
        Ok(())
    }

    fn heard(&mut self, sequence: u64) {
        while let Some((_, at)) = self.sent.pop_front_if(|(sent, _)| *sent <= sequence) {
            self.last_heard = Some(at);
        }
    }

    /// What the next session should tell another ledger, by number.
    #[must_use]
    pub fn memories(&self) -> BTreeMap<u32, Memory> {
        let known = self.holdings.iter();
        known
            .filter_map(|(number, holding)| Some((*number, holding.remembered()?)))
            .collect()
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

fn usage(number: u32, said: Said, refused: u64) -> pb::LeaseUsage {
    pb::LeaseUsage {
        number,
        spent: said.spent,
        returned: said.returned,
        wanted: said.wanted,
        alone: said.alone,
        refused,
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Holding {
    fn name(&self, number: u32, now: Instant) -> pb::LeaseKey {
        let memory = self.memory.map(|memory| pb::LeaseMemory {
            unspent: memory.unspent,
            age_us: micros(now.saturating_duration_since(memory.at)),
            spent: memory.spent,
        });
        pb::LeaseKey {
            number,
            limit: self.limit.to_string(),
            key: self.key.to_vec(),
            memory: memory.filter(|_| !self.pace.is_at_once()),
            in_use: match self.pace.is_at_once() {
                true => self.granted,
                false => 0,
            },
        }
    }

    fn spent(&self) -> u64 {
        match self.pace.is_at_once() {
            true => 0,
            false => self.granted - self.returned - self.lease.held(),
        }
    }

    /// What is to be said, if it is not what was.
    fn say(&mut self, now: Instant) -> Option<Said> {
        let missed = self.lease.missed.swap(0, Ordering::Relaxed);
        if self.pace.is_at_once() {
            return self.say_at_once(missed, now);
        }
        self.alone += self.lease.alone.swap(0, Ordering::Relaxed);
        self.demand.count(self.used(), missed, now);
        let burst = u64::from(self.pace.burst);
        let left = self.told.map(|told| Left {
            unspent: told.unspent,
            sharers: told.sharers,
        });
        let Target {
            target,
            spare,
            waiting,
        } = self.demand.target(self.pace, left, now);
        let held = self.lease.held();
        // What jitters need not be given back, unless others may lack it.
        let too_many = (target * 2 + spare.min(1)).max(waiting);
        if held > too_many || self.demand.is_idle(now) {
            self.returned += self
                .lease
                .withdraw(held.saturating_sub(target.max(waiting)));
        }
        let low = held <= target / 2;
        let wanted = target.max(missed).min(burst).saturating_sub(held);
        let wanted = if low || missed > 0 { wanted } else { 0 };
        let said = Said {
            spent: self.spent(),
            returned: self.returned,
            wanted: self.settled(wanted, missed),
            alone: self.alone,
        };
        if said == self.said {
            return None;
        }
        self.said = said;
        Some(said)
    }

    /// Whether requests were refused that the ledger was not told of.
    fn has_refused(&mut self) -> bool {
        self.refused += self.lease.refused.swap(0, Ordering::Relaxed);
        self.refused > self.refused_said
    }

    /// The same of tokens that come back: as many as are of use soon are held beside those in use.
    fn say_at_once(&mut self, missed: u64, now: Instant) -> Option<Said> {
        let tokens = self.lease.tokens.load(Ordering::Relaxed);
        let (held, in_use) = (tokens % IN_USE, tokens / IN_USE);
        self.demand.count_at_once(in_use, missed, now);
        // Taken while the ledger was away, and brought back since: they are nobody's.
        let extra = (held + in_use).saturating_sub(self.granted - self.returned);
        let held = held - self.lease.withdraw(extra);
        let left = self.told.map(|told| Left {
            unspent: told.unspent,
            sharers: told.sharers,
        });
        let target = self.demand.target_at_once(in_use, left, now);
        // What jitters need not be given back, unless others lack it.
        let is_scarce = left.is_some_and(|left| left.unspent < 1.0);
        let too_many = if is_scarce { target } else { target * 2 };
        if held > too_many {
            self.returned += self.lease.withdraw(held - target);
        }
        let wanted = target.max(missed).min(self.pace.burst.into());
        let is_low = held <= target / 2 || missed > 0;
        let wanted = if is_low {
            wanted.saturating_sub(held)
        } else {
            0
        };
        let said = Said {
            spent: 0,
            returned: self.returned,
            wanted: self.settled(wanted, missed),
            alone: 0,
        };
        if said == self.said {
            return None;
        }
        self.said = said;
        Some(said)
    }

    /// While less is there than is wanted, it makes no difference to the ledger how much less: it is told of no more than
    /// a doubling or a halving.
    fn settled(&self, wanted: u64, missed: u64) -> u64 {
        let before = self.said.wanted;
        let is_waiting = missed > 0 && self.lease.held() == 0;
        if is_waiting && wanted / 2 < before && before < wanted * 2 {
            before
        } else {
            wanted
        }
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        now >= self.demand.last_used + FORGOTTEN && self.lease.is_empty()
    }

    fn hear(&mut self, sequence: u64) {
        while self.used.get(1).is_some_and(|(sent, _)| *sent <= sequence) {
            self.used.pop_front();
        }
    }

    /// Leased or not.
    fn used(&self) -> u64 {
        self.spent() + self.alone
    }

    /// As the ledger knows.
    fn used_heard(&self) -> u64 {
        self.used.front().map_or(0, |(_, used)| *used)
    }

    fn remembered(&self) -> Option<Memory> {
        let Some(told) = self.told else {
            let mut memory = self.memory?;
            memory.spent += self.used();
            memory.left = self.lease.held();
            return Some(memory);
        };
        Some(Memory {
            unspent: told.unspent,
            at: told.at,
            spent: self.used().saturating_sub(told.used),
            left: self.lease.held(),
        })
    }
}
