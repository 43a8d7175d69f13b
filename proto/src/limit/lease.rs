//! What a proxy holds of one key. It is spent by whichever thread has a request, with one atomic operation.
//!
//! A key that holds nothing cannot be spent from, only missed: whoever misses it says so to the session that speaks of it
//! (`Calls`), which no request does that finds a token.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
pub(super) struct Calls(Mutex<Vec<u32>>);

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

    /// As both are at one moment.
    pub(super) fn held_and_in_use(&self) -> (u64, u64) {
        let tokens = self.tokens.load(Ordering::Relaxed);
        (tokens % IN_USE, tokens / IN_USE)
    }

    pub(super) fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }

    pub(super) fn take_spent_alone(&self) -> u64 {
        self.alone.swap(0, Ordering::Relaxed)
    }

    pub(super) fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }

    /// Whether nothing is held or in use.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.load(Ordering::Relaxed) == 0
    }

    /// What is held.
    pub fn held(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed) % IN_USE
    }

    pub(super) fn belong(&self, calls: &Arc<Calls>, number: u32) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        *session = Some((calls.clone(), number));
    }

    pub(super) fn add(&self, granted: u64) {
        // However many a ledger grants, those in use are counted beside them.
        let add = |tokens: u64| Some(tokens + granted.min(IN_USE - 1 - tokens % IN_USE));
        let _ = self
            .tokens
            .try_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Takes out as many as are there, of those.
    pub(super) fn withdraw(&self, tokens: u64) -> u64 {
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

    pub(super) fn take(&self) -> Vec<u32> {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut numbers)
    }
}
