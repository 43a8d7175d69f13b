//! Whose turn it is to send DATA, when the queue or the connection's window has no room for all: lanes are served in the
//! order they came, a frame each, so that none that always has more keeps the others waiting. Pure.
//!
//! As long as a lane waits, there is no room, or a turn is out that will give way to the next one.

use std::collections::VecDeque;

use super::FRAME_BYTES_MAX;

/// What one lane has of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::http::h2) enum Turn {
    /// It wants nothing, or nobody else does.
    #[default]
    None,
    /// Its id is in the queue, and its owner is woken when it comes up.
    Waits,
    /// It came up. A part of the room is kept for it.
    Has,
}

/// The order of one connection's lanes.
#[derive(Debug, Default)]
pub(super) struct Turns {
    waiting: VecDeque<u32>,
    /// How many lanes have a turn.
    out: usize,
}

impl Turns {
    /// Whether the lane may send now, as there is `room`; if not, it waits.
    pub(super) fn asks(&mut self, id: u32, turn: &mut Turn, room: usize) -> bool {
        match turn {
            Turn::None if room > 0 && self.out == 0 && self.waiting.is_empty() => return true,
            Turn::Has if room > 0 => return true,
            Turn::None => self.waiting.push_back(id),
            Turn::Waits => {}
            // What was kept for it is gone.
            Turn::Has => {
                self.out -= 1;
                self.waiting.push_front(id);
            }
        }
        *turn = Turn::Waits;
        false
    }

    /// The lane has sent, or wants to send no more.
    pub(super) fn done(&mut self, id: u32, turn: &mut Turn) {
        match std::mem::take(turn) {
            Turn::None => {}
            Turn::Waits => self.waiting.retain(|other| *other != id),
            Turn::Has => self.out -= 1,
        }
    }

    /// The next lane that has a turn in so much room.
    pub(super) fn next(&mut self, room: usize) -> Option<u32> {
        if self.out >= room.div_ceil(FRAME_BYTES_MAX) {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.out += 1;
        Some(next)
    }
}
