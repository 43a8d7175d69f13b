//! How many requests the HTTP/2 clients of one worker may hold open, and what is left for others when one holds many.
//!
//! Limits: [`HELD_MAX`] of all together; beyond, a connection may have [`HELD_FAIR`].

use std::cell::Cell;
use std::rc::Rc;

/// Requests under way at which a worker looks who has how many: half of what fits on the connections to one peer.
const HELD_MAX: usize = 2048;
/// What each connection may always have.
const HELD_FAIR: usize = 64;

/// Requests under way, of a connection or of all.
#[derive(Debug, Default, Clone)]
pub(crate) struct Held(Rc<Cell<usize>>);

/// One of them. Dropping it says that it is over.
#[derive(Debug)]
pub(super) struct Hold {
    own: Held,
    all: Held,
}

impl Hold {
    /// One more request of a connection, if it may have it.
    pub(super) fn begin(own: &Held, all: &Held) -> Option<Self> {
        let is_fair = own.0.get() < HELD_FAIR;
        (is_fair || all.0.get() < HELD_MAX).then(|| {
            own.0.set(own.0.get() + 1);
            all.0.set(all.0.get() + 1);
            Self {
                own: own.clone(),
                all: all.clone(),
            }
        })
    }
}

impl Drop for Hold {
    /// It is over.
    fn drop(&mut self) {
        for held in [&self.own, &self.all] {
            held.0.set(held.0.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_many_leaves_some_to_others() {
        let all = Held::default();
        let (greedy, modest) = (Held::default(), Held::default());
        let many: Vec<_> = (0..HELD_MAX + 100)
            .map_while(|_| Hold::begin(&greedy, &all))
            .collect();
        assert_eq!(many.len(), HELD_MAX);
        let few: Vec<_> = (0..HELD_MAX)
            .map_while(|_| Hold::begin(&modest, &all))
            .collect();
        assert_eq!(few.len(), HELD_FAIR);
        drop(many);
        assert!(Hold::begin(&greedy, &all).is_some());
    }
}
