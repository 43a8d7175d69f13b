//! What one decision may cost in expressions, however many rules have one and however often they are come by: so that
//! nobody's request holds up those of others.
//!
//! Limits: [`COST_MAX`], in parts looked at and bytes compared; what is beyond cannot be told. What rules say of `when` is
//! remembered for the first [`REMEMBERED_MAX`] of a workload for which that is worth it.

use std::cell::Cell;

/// Of one decision.
pub(super) const COST_MAX: usize = 1024 * 1024;
/// Rules whose `when` is looked at once.
pub(super) const REMEMBERED_MAX: u8 = 64;

/// It cannot be told: something is not there, is of another kind, or costs too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unknown;

/// What was spent so far, and found out.
#[derive(Debug, Default)]
pub struct Effort {
    cost: Cell<usize>,
    /// A bit for each rule: whether it was looked at, and whether it held.
    known: Cell<u64>,
    held: Cell<u64>,
}

impl Effort {
    pub(crate) fn spend(&self, cost: usize) -> Result<(), Unknown> {
        self.cost.set(self.cost.get().saturating_add(cost));
        match self.cost.get() > COST_MAX {
            true => Err(Unknown),
            false => Ok(()),
        }
    }

    /// What `look` says, once for each number below [`REMEMBERED_MAX`].
    pub(crate) fn once(&self, number: Option<u8>, look: impl FnOnce() -> bool) -> bool {
        let Some(number) = number.filter(|number| *number < REMEMBERED_MAX) else {
            return look();
        };
        let bit = 1 << number;
        if self.known.get() & bit == 0 {
            self.known.set(self.known.get() | bit);
            self.held.set(self.held.get() | (bit * u64::from(look())));
        }
        self.held.get() & bit != 0
    }
}
