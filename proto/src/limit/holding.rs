//! One key in a session: what is held and told of it, and what is to be said. How much it is good to hold is `demand`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Pace;
use super::demand::{Demand, Left, Target};
use super::home::BucketName;
use super::lease::Lease;
use crate::pb;

/// After how long a key's number is given up.
pub(super) const FORGOTTEN: Duration = Duration::from_secs(10);

/// One key in a session.
#[derive(Debug)]
pub(super) struct Holding {
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

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What a key's requests may expect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// No token comes before this.
    pub wait_until: Option<Instant>,
    /// Proxies that share the key.
    pub sharers: u32,
}

/// Why something is to be said of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// What is spent, held or wanted is another.
    Tokens,
    /// Nothing but that requests were refused.
    Refusals,
}

impl Holding {
    /// One whose lease is empty: what was left in it belongs to the session before, which left `memory`.
    pub(super) fn new(
        lease: Arc<Lease>,
        (limit, key): BucketName,
        pace: Pace,
        memory: Option<Memory>,
        now: Instant,
    ) -> Self {
        let left = lease.withdraw(u64::MAX);
        let alone = lease.take_spent_alone();
        let mut memory = memory.or_else(|| (alone > 0).then(|| Memory::unknown(pace, now)));
        if let Some(memory) = &mut memory {
            memory.spent += alone + memory.left.saturating_sub(left);
            memory.left = 0;
        }
        Self {
            // Those end in this session.
            granted: lease.in_use(),
            lease,
            limit,
            key,
            pace,
            memory,
            returned: 0,
            alone: 0,
            refused: 0,
            refused_said: 0,
            said: Said::default(),
            used: VecDeque::from([(0, 0)]),
            told: None,
            demand: Demand::new(now),
        }
    }

    pub(super) fn name(&self, number: u32, now: Instant) -> pb::LeaseKey {
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

    /// Looks at what there is to say, and takes it for said by the request of that number. Refusals alone are said only
    /// when those are due.
    pub(super) fn report(
        &mut self,
        sequence: u64,
        refusals_due: bool,
        now: Instant,
    ) -> Option<News> {
        let said = self.say(now);
        let news = match said {
            Some(_) => News::Tokens,
            None if refusals_due && self.has_refused() => News::Refusals,
            None => return None,
        };
        self.has_refused();
        self.refused_said = self.refused;
        self.used
            .push_back((sequence, self.said.spent + self.said.alone));
        Some(news)
    }

    /// As it is told.
    pub(super) fn usage(&self, number: u32) -> pb::LeaseUsage {
        let Said {
            spent,
            returned,
            wanted,
            alone,
        } = self.said;
        pb::LeaseUsage {
            number,
            spent,
            returned,
            wanted,
            alone,
            refused: self.refused_said,
        }
    }

    /// Takes what was granted; says whether there was anything.
    pub(super) fn receive(&mut self, grant: &pb::LeaseGrant, heard: u64, now: Instant) -> bool {
        let more = grant.granted.saturating_sub(self.granted);
        self.granted += more;
        // Nothing else tells the ledger of the next one that is wanted: none is ever spent.
        if self.pace.is_at_once() {
            self.said.wanted = self.said.wanted.saturating_sub(more);
        }
        self.lease.add(more);
        let wait = (grant.wait_us > 0).then(|| Duration::from_micros(grant.wait_us));
        self.hear(heard);
        self.told = Some(Told {
            unspent: grant.unspent,
            // It was said earlier: what came in since then is left out of account.
            at: now,
            used: self.used_heard(),
            wait_until: wait.and_then(|wait| now.checked_add(wait)),
            sharers: grant.sharers,
        });
        more > 0
    }

    /// Whether anything is held, in use or wanted.
    pub(super) fn is_held(&self) -> bool {
        !self.lease.is_empty() || self.said.wanted > 0
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.demand.is_idle(now)
    }

    pub(super) fn last_used(&self) -> Instant {
        self.demand.last_used
    }

    /// What its requests may expect, once the ledger has said anything.
    pub(super) fn outlook(&self) -> Option<Outlook> {
        let told = self.told?;
        Some(Outlook {
            wait_until: told.wait_until,
            sharers: told.sharers,
        })
    }

    /// What is to be said, if it is not what was.
    fn say(&mut self, now: Instant) -> Option<Said> {
        let missed = self.lease.take_missed();
        if self.pace.is_at_once() {
            return self.say_at_once(missed, now);
        }
        self.alone += self.lease.take_spent_alone();
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
    pub(super) fn has_refused(&mut self) -> bool {
        self.refused += self.lease.take_refused();
        self.refused > self.refused_said
    }

    /// The same of tokens that come back: as many as are of use soon are held beside those in use.
    fn say_at_once(&mut self, missed: u64, now: Instant) -> Option<Said> {
        let (held, in_use) = self.lease.held_and_in_use();
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

    pub(super) fn is_forgotten(&self, now: Instant) -> bool {
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

    pub(super) fn remembered(&self) -> Option<Memory> {
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
