//! How many tokens of a key it is good for a proxy to hold: by how much it spent of late, and by what the ledger said is
//! left for how many. Never what it may spend, nor when it speaks.
//!
//! What is held nobody else can spend. So it is what will be spent soon, for about `HORIZON`, less where little is left;
//! and what may be needed beside that, as far as there is so much for every proxy.

use std::time::{Duration, Instant};

use super::Pace;
use super::bucket::tokens;

/// How far ahead tokens are asked for.
const HORIZON: Duration = Duration::from_millis(100);
/// Of what nobody has spent yet, the part that all proxies together may hold in advance.
const IN_ADVANCE: f64 = 0.5;
/// Of what a limit brings in a horizon, the most that one proxy asks for because of a few requests at once.
const SURGE_MAX: f64 = 0.25;
/// Of the horizon, what is asked for at least, however little is left.
const HORIZON_LEAST: f64 = 0.3;
/// Requests in the last second, from which on a key is one in regular use. One request says nothing of another.
const REGULAR: f64 = 1.2;
/// For a request that missed its token to spend the one that came.
const WAITING: Duration = Duration::from_millis(20);
/// A key that was not used for so long keeps no token.
const IDLE: Duration = Duration::from_secs(1);

/// Of tokens that come back, what is held beside the most that were in use of late.
const BESIDE: f64 = 0.125;

/// How much is spent, or would be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand {
    /// Tokens in the last horizon; what is older fades.
    recent: f64,
    /// Tokens in a horizon if it went on as it was at its most; that fades as well.
    surge: f64,
    /// Requests in the last second; what is older fades.
    lately: f64,
    /// Up to here it was counted, and when.
    counted: u64,
    /// Missed by the last look: such a request spends its token once it is there.
    missed: u64,
    /// Those of the last time that any were, and when that was.
    waiting: u64,
    waiting_since: Instant,
    at: Instant,
    pub(super) last_used: Instant,
}

/// What the ledger said of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    pub(super) unspent: f64,
    pub(super) sharers: u32,
}

/// Tokens that it is good to hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) target: u64,
    /// Of these, as many as there are for every proxy whether it needs them or not.
    pub(super) spare: u64,
    /// What requests wait for, and is not to be given back before they could spend it.
    pub(super) waiting: u64,
}

impl Demand {
    /// Of a key that is new, and may be used at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            recent: 0.0,
            surge: 0.0,
            lately: 0.0,
            counted: 0,
            missed: 0,
            waiting: 0,
            waiting_since: now,
            at: now,
            last_used: now,
        }
    }

    /// Tokens that were spent until now, and that were missed since this was asked last.
    pub(super) fn count(&mut self, spent: u64, missed: u64, now: Instant) {
        let spent_since = spent.saturating_sub(self.counted);
        let used = missed + spent_since.saturating_sub(self.missed);
        (self.counted, self.missed) = (spent, missed);
        if missed > 0 || now >= self.waiting_since + WAITING {
            (self.waiting, self.waiting_since) = (missed, now);
        }
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        if used > 0 {
            self.last_used = now;
        }
        let faded = (-passed.as_secs_f64() / HORIZON.as_secs_f64()).exp();
        let used = tokens(used);
        self.recent = self.recent * faded + used;
        let faded_lately = (-passed.as_secs_f64() / IDLE.as_secs_f64()).exp();
        self.lately = self.lately * faded_lately + used;
        // Less than this between two looks says nothing of the pace.
        let passed = passed.max(HORIZON / 10);
        self.surge = (self.surge * faded).max(used * HORIZON.div_duration_f64(passed));
    }

    /// Tokens that are in use now and come back, and that were missed since this was asked last.
    pub(super) fn count_at_once(&mut self, in_use: u64, missed: u64, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        if in_use + missed > 0 {
            self.last_used = now;
        }
        let faded = (-passed.as_secs_f64() / IDLE.as_secs_f64()).exp();
        self.surge = (self.surge * faded).max(tokens(in_use + missed));
    }

    /// Of those, how many it is good to hold beside the ones in use: as many as were in use at once of late, as far as
    /// nobody else lacks them.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates; tokens that are less than none are none"
    )]
    pub(super) fn target_at_once(&self, in_use: u64, left: Option<Left>, now: Instant) -> u64 {
        if self.is_idle(now) {
            return 0;
        }
        let spare = |left: Left| (left.unspent * IN_ADVANCE / f64::from(left.sharers)) as u64;
        let perhaps = (self.surge * (1.0 + BESIDE) + 1.0) as u64 - in_use;
        // Before the ledger has said anything, one.
        perhaps.min(left.map_or(1, spare))
    }

    /// Whether it was not used for so long that nothing is held for it.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        now >= self.last_used + IDLE
    }

    /// Before the ledger has said anything, one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates; tokens that are less than none are none"
    )]
    pub(super) fn target(&self, pace: Pace, left: Option<Left>, now: Instant) -> Target {
        let in_advance = left.map_or(pace.burst_tokens(), |left| left.unspent) * IN_ADVANCE;
        let horizon = pace.per_second() * HORIZON.as_secs_f64();
        let part = (in_advance / horizon).clamp(HORIZON_LEAST, 1.0);
        let soon = ((self.recent - 1.0) * part) as u64;
        // How many share it is not known at first: that is no reason to take what others need.
        let spare = |left: Left| (in_advance / f64::from(left.sharers)) as u64;
        let spare = left.map_or(1, spare);
        let is_new = left.is_none();
        let least = u64::from((is_new || self.lately > REGULAR) && !self.is_idle(now));
        let surge = self.surge.min(horizon * SURGE_MAX);
        let perhaps = (surge as u64).max(least).min(spare);
        Target {
            target: soon.max(perhaps).min(pace.burst.into()),
            spare,
            waiting: self.waiting,
        }
    }
}
