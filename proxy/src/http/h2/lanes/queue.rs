//! Requests that wait for a lane, because the server takes no more at once (RFC 9113 section 5.1.2): in the order they
//! came.

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

    fn wait(&mut self, ticket: u64, waker: &Waker) {
        match self.waiting.iter_mut().find(|(known, _)| *known == ticket) {
            Some((_, known)) => known.clone_from(waker),
            None => self.waiting.push_back((ticket, waker.clone())),
        }
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
        state.queue.tickets += 1;
        Self {
            lanes: lanes.clone(),
            ticket: state.queue.tickets,
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
        let waiting = &mut state.queue.waiting;
        let own = waiting.iter().position(|(known, _)| *known == self.ticket);
        if let Some(own) = own {
            waiting.remove(own);
        } else {
            // It was woken, and may have made nothing of it.
            state.admit();
        }
    }
}
