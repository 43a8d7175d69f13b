//! Requests that wait: for a lane, because the server takes no more at once (RFC 9113 section 5.1.2), in the order they
//! came; or to know what the server can do.

use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::Lanes;
use crate::error::Reason;

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    tickets: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Wakes the first ones.
    pub(super) fn wake(&mut self, count: usize) {
        let count = count.min(self.waiting.len());
        self.waiting
            .drain(..count)
            .for_each(|(_, waker)| waker.wake());
    }

    pub(super) fn wake_all(&mut self) {
        self.wake(usize::MAX);
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn wait(&mut self, ticket: u64, waker: &Waker) {
        match self.waiting.iter_mut().find(|(known, _)| *known == ticket) {
            Some((_, known)) => known.clone_from(waker),
            None => self.waiting.push_back((ticket, waker.clone())),
        }
    }

    /// Whether it had still waited.
    fn leave(&mut self, ticket: u64) -> bool {
        let place = self.waiting.iter().position(|(known, _)| *known == ticket);
        place.is_some_and(|place| self.waiting.remove(place).is_some())
    }
}

/// A place in the queue. Dropping it gives it up, and what it was woken for to the next.
#[derive(Debug)]
pub(in crate::http::h2) struct Place {
    lanes: Rc<Lanes>,
    ticket: u64,
}

impl Place {
    pub(in crate::http::h2) fn new(lanes: &Rc<Lanes>) -> Self {
        let mut state = lanes.state.borrow_mut();
        Self {
            lanes: lanes.clone(),
            ticket: state.queue.ticket(),
        }
    }

    /// Ready when a lane may be opened, which has to be done at once.
    pub(in crate::http::h2) fn poll_turn(&self, cx: &Context<'_>) -> Poll<Result<(), Reason>> {
        let mut state = self.lanes.state.borrow_mut();
        if let Some(reason) = state.closed {
            return Poll::Ready(Err(reason));
        }
        if !state.takes_more() {
            return Poll::Ready(Err(Reason::AppRefused));
        }
        if !state.has_slot() {
            state.queue.wait(self.ticket, cx.waker());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lanes.state.borrow_mut();
        if !state.queue.leave(self.ticket) {
            // It was woken, and may have made nothing of it.
            state.admit();
        }
    }
}

/// Whoever waits for the server's first settings. Dropping it gives the wait up.
#[derive(Debug)]
pub(in crate::http::h2) struct Settling {
    lanes: Rc<Lanes>,
    ticket: u64,
}

impl Settling {
    pub(in crate::http::h2) fn new(lanes: &Rc<Lanes>) -> Self {
        Self {
            lanes: lanes.clone(),
            ticket: lanes.state.borrow_mut().settling.ticket(),
        }
    }

    /// Ready once they have come, or nothing comes any more: whether it takes a CONNECT with a protocol (RFC 8441
    /// section 3).
    pub(in crate::http::h2) fn poll_takes_connect(&self, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.lanes.state.borrow_mut();
        if state.is_settled || state.closed.is_some() {
            return Poll::Ready(state.theirs.takes_connect);
        }
        state.settling.wait(self.ticket, cx.waker());
        Poll::Pending
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.lanes.state.borrow_mut().settling.leave(self.ticket);
    }
}
