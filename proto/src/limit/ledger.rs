//! The sessions of all proxies and what each of them holds, without the buckets themselves: those are in memory or in
//! another store (`home`). What came in is heard at once; then, once a tick, the home is asked for everything together
//! (`Ledger::orders`), and what it gives is dealt out (`Ledger::deal`).
//!
//! Whoever breaks the protocol loses the session, and what it held is taken for spent. Limits: `KEYS_MAX` keys,
//! `SESSION_KEYS_MAX` in a session.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::bucket::tokens;
use super::home::{Answer, BucketName, Order};
use super::recent::Recent;
use super::share::share;
use super::{KEY_BYTES_MAX, LEDGER_TIME, Pace, RESYNC_TIME};
use crate::{Invalid, pb};

/// What of it people see.
mod survey;

pub use survey::{KeyUse, LimitUse, Survey};

/// Keys that are spoken of, of all limits.
pub const KEYS_MAX: usize = 200_000;
/// Keys that one session speaks of.
pub const SESSION_KEYS_MAX: usize = 20_000;
/// How much of a scarce limit is gathered before it is shared.
const GATHERING: Duration = Duration::from_millis(50);

/// Of an age by another's clock, as much as is sure: either clock may be 5 % off.
const SURE_AGE: f64 = 0.9;

/// A session, as the ledger's caller calls it.
pub type SessionId = u64;

/// All sessions.
#[derive(Debug)]
pub struct Ledger {
    opens: Instant,
    names: HashMap<BucketName, usize>,
    accounts: Vec<Option<Account>>,
    free: Vec<usize>,
    sessions: HashMap<SessionId, Session>,
    /// Accounts with something for their home.
    touched: BTreeSet<usize>,
    /// Accounts that wait for tokens, by when some may be there.
    waiting: BTreeSet<(Instant, usize)>,
    /// Sessions with something to hear.
    answers: BTreeSet<SessionId>,
}

/// One key.
#[derive(Debug)]
struct Account {
    name: BucketName,
    pace: Pace,
    order: Order,
    /// Who speaks of it, and by which number.
    holders: Vec<(SessionId, u32)>,
    /// When less was there than was wanted: nothing is dealt before this.
    due: Option<Instant>,
    /// Who is first when something does not divide.
    turn: usize,
    recent: Recent,
}

#[derive(Debug)]
struct Session {
    /// It says nothing more, and what it holds may still be spent.
    is_closed: bool,
    heard_at: Instant,
    sequence: u64,
    holdings: BTreeMap<u32, Holding>,
    /// Numbers whose grant is news.
    granted: BTreeSet<u32>,
}

#[derive(Debug)]
struct Holding {
    account: usize,
    granted: u64,
    spent: u64,
    returned: u64,
    wanted: u64,
    alone: u64,
    refused: u64,
    told: Told,
}

/// What goes with a grant.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    unspent: f64,
    wait: Duration,
    sharers: u32,
}

impl Holding {
    fn leased(&self) -> u64 {
        self.granted - self.spent - self.returned
    }
}

impl Ledger {
    /// One without sessions. Nothing is leased before those that another ledger had have had time to come back.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            opens: now + RESYNC_TIME,
            names: HashMap::new(),
            accounts: Vec::new(),
            free: Vec::new(),
            sessions: HashMap::new(),
            touched: BTreeSet::new(),
            waiting: BTreeSet::new(),
            answers: BTreeSet::new(),
        }
    }

    /// One whose home has kept what was before, or says itself when it opens.
    #[must_use]
    pub fn reopened(opens: Instant) -> Self {
        Self {
            opens,
            ..Self::new(opens)
        }
    }

    /// Whether anybody waits to be told that it was heard.
    #[must_use]
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// A session begins.
    pub fn open(&mut self, id: SessionId, now: Instant) {
        let session = Session {
            is_closed: false,
            heard_at: now,
            sequence: 0,
            holdings: BTreeMap::new(),
            granted: BTreeSet::new(),
        };
        self.sessions.insert(id, session);
    }

    /// A session is over. What it holds may still be spent, and keeps its room until that time is over; nobody will tell.
    pub fn close(&mut self, id: SessionId) {
        self.answers.remove(&id);
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.is_closed = true;
        for holding in session.holdings.values_mut() {
            holding.wanted = 0;
        }
        if !session.is_owing() {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        for (number, holding) in &session.holdings {
            self.leave((id, *number), holding);
        }
    }

    /// What a session says. `pace` knows the limits that it may speak of. A request that was sent before one that was heard
    /// says nothing new.
    pub fn hear(
        &mut self,
        id: SessionId,
        request: &pb::LeaseRequest,
        pace: impl Fn(&str) -> Option<Pace>,
        now: Instant,
    ) -> Result<(), Invalid> {
        let session = self.sessions.get_mut(&id);
        let Some(session) = session.filter(|session| !session.is_closed) else {
            return Err(Invalid::new("session", "is over"));
        };
        let is_late = now.saturating_duration_since(session.heard_at) > LEDGER_TIME;
        if is_late && session.is_owing() {
            return Err(Invalid::new("sequence", "came too late: leases have ended"));
        }
        if request.sequence <= session.sequence {
            return Ok(());
        }
        session.sequence = request.sequence;
        session.heard_at = now;
        self.answers.insert(id);
        for key in &request.keys {
            self.name(id, key, &pace, now)?;
        }
        for usage in &request.usages {
            self.usage(id, usage, now)?;
        }
        for number in &request.forgotten {
            self.forget(id, *number)?;
        }
        Ok(())
    }

    fn name(
        &mut self,
        id: SessionId,
        key: &pb::LeaseKey,
        pace: impl Fn(&str) -> Option<Pace>,
        now: Instant,
    ) -> Result<(), Invalid> {
        let refuse =
            |field: &str, problem: &str| Err(Invalid::new(format!("keys.{field}"), problem));
        let Some(pace) = pace(&key.limit) else {
            return refuse("limit", "is none that is for this workload");
        };
        if key.key.len() > KEY_BYTES_MAX {
            return refuse("key", "is too long");
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return refuse("number", "is of no session");
        };
        if session.holdings.len() >= SESSION_KEYS_MAX {
            return refuse("number", "is one more than a session may have");
        }
        if session.holdings.contains_key(&key.number) {
            return refuse("number", "is in use");
        }
        let name: BucketName = (key.limit.as_str().into(), key.key.as_slice().into());
        let Some(at) = self.account(name, pace, now) else {
            return refuse("number", "is of one key more than the ledger keeps");
        };
        let claimed = match pace.is_at_once() {
            true => key.in_use.min(pace.burst.into()),
            false => 0,
        };
        let holding = Holding {
            account: at,
            granted: claimed,
            spent: 0,
            returned: 0,
            wanted: 0,
            alone: 0,
            refused: 0,
            told: Told::default(),
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.holdings.insert(key.number, holding);
        }
        if let Some(account) = self.accounts.get_mut(at).and_then(Option::as_mut) {
            account.pace = pace;
            account.holders.push((id, key.number));
            account.order.claimed += claimed;
            if claimed > 0 {
                self.touched.insert(at);
            }
            if let Some(memory) = &key.memory
                && !pace.is_at_once()
            {
                account.remember(memory);
                self.touched.insert(at);
            }
        }
        Ok(())
    }

    fn account(&mut self, name: BucketName, pace: Pace, now: Instant) -> Option<usize> {
        if let Some(at) = self.names.get(&name) {
            return Some(*at);
        }
        if self.names.len() >= KEYS_MAX {
            return None;
        }
        let account = Account {
            name: name.clone(),
            pace,
            order: Order::default(),
            holders: Vec::new(),
            due: None,
            turn: 0,
            recent: Recent::new(now),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.accounts[at] = Some(account);
                at
            }
            None => {
                self.accounts.push(Some(account));
                self.accounts.len() - 1
            }
        };
        self.names.insert(name, at);
        Some(at)
    }

    fn usage(
        &mut self,
        id: SessionId,
        usage: &pb::LeaseUsage,
        now: Instant,
    ) -> Result<(), Invalid> {
        let refuse =
            |field: &str, problem: &str| Err(Invalid::new(format!("usages.{field}"), problem));
        let session = self.sessions.get_mut(&id);
        let Some(holding) = session.and_then(|session| session.holdings.get_mut(&usage.number))
        else {
            return refuse("number", "was not named");
        };
        let Some(account) = self
            .accounts
            .get_mut(holding.account)
            .and_then(Option::as_mut)
        else {
            return refuse("number", "was not named");
        };
        let spent = usage.spent.checked_sub(holding.spent);
        let returned = usage.returned.checked_sub(holding.returned);
        let alone = usage.alone.checked_sub(holding.alone);
        let refused = usage.refused.checked_sub(holding.refused);
        let (Some(spent), Some(returned), Some(alone), Some(refused)) =
            (spent, returned, alone, refused)
        else {
            return refuse("spent", "is less than it was");
        };
        if account.pace.is_at_once() && spent + alone > 0 {
            return refuse("spent", "is of a limit whose tokens come back");
        }
        let used = usage.spent.checked_add(usage.returned);
        if used.is_none_or(|used| used > holding.granted) {
            return refuse("spent", "is more than was granted");
        }
        holding.spent = usage.spent;
        holding.returned = usage.returned;
        holding.alone = usage.alone;
        holding.refused = usage.refused;
        holding.wanted = usage.wanted.min(account.pace.burst.into());
        account.order.spent += spent;
        account.order.returned += returned;
        account.order.debit = account.order.debit.saturating_add(alone);
        let used = spent.saturating_add(alone);
        account.recent.count(account.pace, used, refused, now);
        // What came back need not be waited for.
        if returned > 0
            && let Some(due) = account.due.take()
        {
            self.waiting.remove(&(due, holding.account));
        }
        // Others wait already: so does this one, until there is enough to share.
        let is_due = account.due.is_none_or(|due| due <= now);
        if spent + returned + alone > 0 || is_due {
            self.touched.insert(holding.account);
        }
        Ok(())
    }

    fn forget(&mut self, id: SessionId, number: u32) -> Result<(), Invalid> {
        let session = self.sessions.get_mut(&id);
        let Some(holding) = session.and_then(|session| session.holdings.remove(&number)) else {
            return Err(Invalid::new("forgotten", "was not named"));
        };
        self.leave((id, number), &holding);
        Ok(())
    }

    /// A holder is gone; what it held is taken for spent, or for over.
    fn leave(&mut self, holder: (SessionId, u32), holding: &Holding) {
        let Some(account) = self
            .accounts
            .get_mut(holding.account)
            .and_then(Option::as_mut)
        else {
            return;
        };
        account.holders.retain(|one| *one != holder);
        match account.pace.is_at_once() {
            true => account.order.returned += holding.leased(),
            false => account.order.spent += holding.leased(),
        }
        self.touched.insert(holding.account);
    }

    /// Sessions that were not heard of for so long that what they held is taken for spent. They are over.
    pub fn expire(&mut self, now: Instant) -> Vec<SessionId> {
        let expired = self.sessions.iter().filter(|(_, session)| {
            now.saturating_duration_since(session.heard_at) > LEDGER_TIME && session.is_owing()
        });
        let expired: Vec<_> = expired.map(|(id, _)| *id).collect();
        for id in &expired {
            self.answers.remove(id);
            self.remove(*id);
        }
        expired
    }

    /// When there is something to do that nobody says.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// What the home is to be asked now.
    pub fn orders(&mut self, now: Instant) -> Vec<(usize, BucketName, Pace, Order)> {
        let is_open = now >= self.opens;
        while let Some((due, at)) = self.waiting.first().copied()
            && due <= now
        {
            self.waiting.pop_first();
            if let Some(account) = self.accounts.get_mut(at).and_then(Option::as_mut) {
                account.due = None;
            }
            self.touched.insert(at);
        }
        let mut orders = Vec::new();
        for at in std::mem::take(&mut self.touched) {
            if !is_open {
                self.wait(at, self.opens);
            }
            let Some(account) = self.accounts.get_mut(at).and_then(Option::as_mut) else {
                continue;
            };
            let has_told = account.order != Order::default();
            let mut order = std::mem::take(&mut account.order);
            if account.due.is_none() {
                let wants = wants(&self.sessions, account);
                order.wanted = wants.iter().fold(0, |sum, want| sum.saturating_add(*want));
            }
            order.sharers = u32::try_from(account.holders.len()).unwrap_or(u32::MAX);
            // What is remembered is told at once: another controller of the same home may open first.
            if is_open || has_told {
                orders.push((at, account.name.clone(), account.pace, order));
            }
        }
        orders
    }

    fn wait(&mut self, at: usize, until: Instant) {
        if let Some(account) = self.accounts.get_mut(at).and_then(Option::as_mut) {
            if let Some(due) = account.due.replace(until) {
                self.waiting.remove(&(due, at));
            }
            self.waiting.insert((until, at));
        }
    }

    /// Deals out what the home gave.
    pub fn deal(&mut self, at: usize, answer: Answer, now: Instant) {
        // It was told, and nobody was promised anything.
        if now < self.opens {
            return self.give_up(at);
        }
        let Some(account) = self.accounts.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        let mut shares = wants(&self.sessions, account);
        let wanted: u64 = shares.iter().fold(0, |sum, want| sum.saturating_add(*want));
        account.turn += 1;
        account.recent.learn(account.pace, answer.unspent, now);
        share(&mut shares, answer.leased, account.turn);
        let dealt: u64 = shares.iter().sum();
        // Those who wanted it do no more.
        account.order.returned += answer.leased - dealt;
        let unmet = wanted - dealt;
        let wait = match unmet {
            0 => Duration::ZERO,
            _ => account.pace.gathering(unmet).max(answer.wait),
        };
        let told = Told {
            unspent: answer.unspent,
            wait,
            sharers: answer.sharers,
        };
        for ((id, number), share) in account.holders.iter().zip(shares) {
            let Some(session) = self.sessions.get_mut(id) else {
                continue;
            };
            let Some(holding) = session.holdings.get_mut(number) else {
                continue;
            };
            // Who holds some that are not in use can give them back.
            let is_short = unmet > 0 && account.pace.is_at_once() && holding.leased() > 0;
            let is_news = is_short && holding.told.unspent >= 1.0;
            if holding.wanted == 0 && !is_news {
                continue;
            }
            holding.granted += share;
            holding.wanted -= share;
            holding.told = told;
            session.granted.insert(*number);
            self.answers.insert(*id);
        }
        if account.order.returned > 0 {
            self.touched.insert(at);
        }
        if unmet > 0 && account.due.is_none() {
            self.wait(at, now + wait);
        }
        self.give_up(at);
    }

    /// An account that nobody speaks of, and that owes its home nothing, is the home's alone.
    fn give_up(&mut self, at: usize) {
        let account = self.accounts.get_mut(at).and_then(Option::as_mut);
        let Some(account) = account
            .filter(|account| account.holders.is_empty() && account.order == Order::default())
        else {
            return;
        };
        if let Some(due) = account.due {
            self.waiting.remove(&(due, at));
        }
        self.names.remove(&account.name);
        self.accounts[at] = None;
        self.free.push(at);
    }

    /// What sessions are told: that they were heard, and what they were granted.
    pub fn responses(&mut self, now: Instant) -> Vec<(SessionId, pb::LeaseResponse)> {
        let opens = self.opens.saturating_duration_since(now);
        let opens_us = u64::try_from(opens.as_micros()).unwrap_or(u64::MAX);
        let ids = std::mem::take(&mut self.answers);
        let responses = ids.into_iter().filter_map(|id| {
            let session = self.sessions.get_mut(&id)?;
            let response = pb::LeaseResponse {
                opens_us,
                ..session.response()
            };
            Some((id, response))
        });
        responses.collect()
    }
}

/// What each holder wants, in their order.
fn wants(sessions: &HashMap<SessionId, Session>, account: &Account) -> Vec<u64> {
    let want = |(id, number): &(SessionId, u32)| {
        let holding = sessions.get(id)?.holdings.get(number)?;
        Some(holding.wanted)
    };
    let all = account.holders.iter();
    all.map(|holder| want(holder).unwrap_or_default()).collect()
}

impl Account {
    /// What was there, by the memory of whoever knows it to have been least, less what anybody has spent since. What was
    /// spent before that moment counts twice: that is the safe side.
    fn remember(&mut self, memory: &pb::LeaseMemory) {
        let age = Duration::from_micros(memory.age_us).as_secs_f64() * SURE_AGE;
        let refilled = self.pace.per_second() * age;
        let left = memory.unspent + refilled;
        let least = self.order.cap.map_or(left, |cap| cap.min(left));
        self.order.cap = Some(least);
        self.order.debit = self.order.debit.saturating_add(memory.spent);
    }
}

impl Pace {
    /// How long to gather before sharing, when so many are wanted.
    fn gathering(self, wanted: u64) -> Duration {
        let all = tokens(wanted) / self.per_second();
        Duration::try_from_secs_f64(all).map_or(GATHERING, |all| all.min(GATHERING))
    }
}

impl Session {
    fn is_owing(&self) -> bool {
        let mut all = self.holdings.values();
        all.any(|holding| holding.leased() > 0)
    }

    fn response(&mut self) -> pb::LeaseResponse {
        let granted = std::mem::take(&mut self.granted);
        let grants = granted.into_iter().filter_map(|number| {
            let holding = self.holdings.get(&number)?;
            Some(pb::LeaseGrant {
                number,
                granted: holding.granted,
                unspent: holding.told.unspent,
                wait_us: u64::try_from(holding.told.wait.as_micros()).unwrap_or(u64::MAX),
                sharers: holding.told.sharers,
            })
        });
        pb::LeaseResponse {
            heard: self.sequence,
            grants: grants.collect(),
            opens_us: 0,
        }
    }
}
