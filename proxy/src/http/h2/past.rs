//! How the last lanes of a connection ended: what may still come of them depends on it (RFC 9113 section 5.1).
//!
//! Limit: [`REMEMBERED`] lanes.

use std::collections::VecDeque;

/// Lanes that are remembered: as many as may end while something is on its way.
const REMEMBERED: usize = 1024;

/// How a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Both sides said that they were done.
    Ended,
    /// The other side reset it.
    ResetByThem,
    /// We reset it: what the other side sent before it knew is no error.
    ResetByUs,
}

/// The last lanes that ended.
#[derive(Debug, Default)]
pub(super) struct Past {
    lanes: VecDeque<(u32, How)>,
}

impl Past {
    pub(super) fn add(&mut self, id: u32, how: How) {
        if self.lanes.len() >= REMEMBERED {
            self.lanes.pop_front();
        }
        self.lanes.push_back((id, how));
    }

    pub(super) fn how(&self, id: u32) -> Option<How> {
        let found = self.lanes.iter().rev().find(|(past, _)| *past == id);
        found.map(|(_, how)| *how)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut past = Past::default();
        for id in 0..2000 {
            past.add(
                id,
                if id % 2 == 0 {
                    How::Ended
                } else {
                    How::ResetByUs
                },
            );
        }
        assert_eq!(past.how(1998), Some(How::Ended));
        assert_eq!(past.how(2000 - 1024 + 1), Some(How::ResetByUs));
        assert_eq!(past.how(2000 - 1024 - 1), None);
        assert_eq!(past.lanes.len(), REMEMBERED);
    }
}
