//! What the one task says that talks to the ledger: it asks for what will be spent soon, and gives back what is not needed,
//! key by key (`holding`). It looks only at keys in use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::holding::{FORGOTTEN, Holding, News};
use super::home::BucketName;
use super::lease::{Calls, Lease};
use super::{LEASE_TIME, Pace};
use crate::{Invalid, pb};

pub use super::holding::{Memory, Outlook};

/// Silence while something is held or wanted, at most.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Between two reports of refusals, while there is nothing else to say of their keys.
const REFUSALS: Duration = Duration::from_secs(1);

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
        name: BucketName,
        pace: Pace,
        memory: Option<Memory>,
        now: Instant,
    ) -> u32 {
        let number = self.next;
        self.next += 1;
        lease.belong(&self.calls, number);
        self.unnamed.push(number);
        self.in_use.insert(number);
        let holding = Holding::new(lease, name, pace, memory, now);
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
        self.holdings.get(&number)?.outlook()
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
            let news = holding.report(sequence, is_due, now);
            let has_said_all = news.is_none() && !holding.has_refused();
            if news == Some(News::Refusals) {
                *refusals_said = Some(now);
            }
            if news.is_some() {
                usages.push(holding.usage(*number));
            }
            let is_held = holding.is_held();
            is_alive |= is_held;
            let is_unused = has_said_all && !is_held && holding.is_idle(now);
            if is_unused {
                unused.push_back((holding.last_used(), *number));
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
            if holding.receive(grant, response.heard, now) {
                self.in_use.insert(grant.number);
            }
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
