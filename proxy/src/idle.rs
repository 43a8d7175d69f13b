//! Connections of clients that wait for their next request: told all at once when they have waited for a while, for too
//! long, or when the proxy drains.
//!
//! A request costs a look at a flag, and neither a timer nor a lock: who waits is looked at now and then by the worker.
//! Limits: [`REST_AFTER`], [`IDLE_TIMEOUT`].

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A connection that waits for so long holds no room for what may come.
const REST_AFTER: Duration = Duration::from_secs(1);
/// A connection that waits for so long is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// Everyone who waits on one worker.
#[derive(Debug, Default)]
pub(crate) struct Idlers {
    seats: RefCell<Vec<Weak<Seat>>>,
}

/// One connection's place. Dropping it gives it up.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// Set while the connection waits.
    waiting: RefCell<Option<Waker>>,
    /// When it was first seen to.
    since: Cell<Option<Instant>>,
    told: Cell<Option<Told>>,
}

/// What a connection that waits is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// Hold nothing, and wait on.
    Rest,
    /// Close.
    Leave,
}

impl Idlers {
    /// A place for a connection.
    pub(crate) fn seat(&self) -> Rc<Seat> {
        let seat = Rc::new(Seat::default());
        self.seats.borrow_mut().push(Rc::downgrade(&seat));
        seat
    }

    /// Looks at who waits, and for how long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.seats.borrow_mut().retain(|seat| {
            let seat = seat.upgrade();
            if let Some(seat) = &seat {
                seat.look(now);
            }
            seat.is_some()
        });
    }

    /// Tells everyone to leave.
    pub(crate) fn dismiss(&self) {
        for seat in self.seats.borrow().iter().filter_map(Weak::upgrade) {
            seat.tell(Told::Leave);
        }
    }
}

impl Seat {
    /// Ready when the connection is to be told something. Call [`Self::rise`] when a request came.
    pub(crate) fn poll_told(&self, cx: &Context<'_>) -> Poll<Told> {
        if let Some(told) = self.told.take() {
            return Poll::Ready(told);
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// The wait is over.
    pub(crate) fn rise(&self) {
        self.waiting.take();
        self.since.take();
        self.told.take();
    }

    fn look(&self, now: Instant) {
        if self.waiting.borrow().is_none() {
            return;
        }
        let Some(since) = self.since.get() else {
            return self.since.set(Some(now));
        };
        let passed = now.saturating_duration_since(since);
        if passed >= IDLE_TIMEOUT {
            self.tell(Told::Leave);
        } else if passed >= REST_AFTER && passed < 2 * REST_AFTER {
            self.tell(Told::Rest);
        }
    }

    fn tell(&self, told: Told) {
        if let Some(waiting) = &*self.waiting.borrow() {
            self.told.set(Some(told));
            waiting.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_to_rest_and_then_to_leave() {
        let (idlers, start) = (Idlers::default(), Instant::now());
        let seat = idlers.seat();
        let cx = Context::from_waker(Waker::noop());
        let at = |seconds| idlers.sweep(start + Duration::from_secs(seconds));
        at(0);
        assert_eq!(seat.poll_told(&cx), Poll::Pending, "nobody waited yet");
        at(0);
        at(1);
        assert_eq!(seat.poll_told(&cx), Poll::Ready(Told::Rest));
        assert_eq!(seat.poll_told(&cx), Poll::Pending);
        at(3600);
        assert_eq!(seat.poll_told(&cx), Poll::Ready(Told::Leave));
        seat.rise();
        idlers.dismiss();
        assert_eq!(
            seat.poll_told(&cx),
            Poll::Pending,
            "who is served is not disturbed"
        );
        idlers.dismiss();
        assert_eq!(seat.poll_told(&cx), Poll::Ready(Told::Leave));
        drop(seat);
        at(0);
        assert!(idlers.seats.borrow().is_empty());
    }
}
