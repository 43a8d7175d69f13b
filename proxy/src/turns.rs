//! Whose turn it is to send, when a connection's queue or window has no room for all its streams: they are served in the
//! order they came, a frame each, so that none that always has more keeps the others waiting. Pure.
//!
//! As long as a stream waits, there is no room, or a turn is out that will give way to the next one.

use std::collections::VecDeque;

/// What one stream has of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It wants nothing, or nobody else does.
    #[default]
    None,
    /// Its id is in the queue, and its owner is woken when it comes up.
    Waits,
    /// It came up. A part of the room is kept for it.
    Has,
}

/// The order of one connection's streams.
#[derive(Debug)]
pub(crate) struct Turns {
    waiting: VecDeque<u32>,
    /// How many streams have a turn.
    out: usize,
    /// What one sends in its turn, at most.
    frame_bytes: usize,
}

impl Turns {
    pub(crate) fn new(frame_bytes: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            out: 0,
            frame_bytes,
        }
    }

    /// Whether the stream may send now, as there is `room`; if not, it waits.
    pub(crate) fn asks(&mut self, id: u32, turn: &mut Turn, room: usize) -> bool {
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

    /// The stream has sent, or wants to send no more.
    pub(crate) fn done(&mut self, id: u32, turn: &mut Turn) {
        match std::mem::take(turn) {
            Turn::None => {}
            Turn::Waits => self.waiting.retain(|other| *other != id),
            Turn::Has => self.out -= 1,
        }
    }

    /// How many streams wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next stream that has a turn in so much room.
    pub(crate) fn next(&mut self, room: usize) -> Option<u32> {
        if self.out >= room.div_ceil(self.frame_bytes) {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.out += 1;
        Some(next)
    }
}
