//! What our app's API is, as its requests show: routes, who calls them, how callers say who they are, how often, and which
//! routes no policy speaks of. For people who ask (`ringmail apis`); nothing is decided by it.
//!
//! One request in so many is looked at, so that no worker looks at many more than [`LOOKS_PER_SECOND`]; each stands for
//! those that were not. What was seen waits on the worker, and is put together once a second (`seen`). No value of a
//! field or a query is kept: of credentials a salted hash tells whether one is the same again.

/// The route that a path is one of.
mod template;

/// What a request shows to say who it is.
mod credential;

/// All that was seen, put together.
mod seen;

use std::cell::{Cell, RefCell};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::http::neutral::{Fields, Request};
use crate::metrics::{Answer, NO_IDENTITY, Outcome};
use crate::policy::Client;
use credential::Credential;
use seen::Seen;

/// Requests that one worker looks at in a second, about.
const LOOKS_PER_SECOND: u32 = 64;
/// Requests that wait to be put together.
const WAITING_MAX: usize = 4 * LOOKS_PER_SECOND as usize;
/// Bytes of a path that are looked at.
const PATH_BYTES_MAX: usize = 512;

/// What all workers have seen.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    seen: Mutex<Seen>,
    salt: RandomState,
}

impl Inventory {
    /// All of it, for people, as JSON, at `now` in seconds since the Unix epoch.
    pub(crate) fn page(&self, now: u64) -> serde_json::Value {
        self.locked(|seen| seen.page(now))
    }

    fn locked<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One worker's look at requests.
#[derive(Debug)]
pub(crate) struct Observer {
    inventory: Arc<Inventory>,
    /// When this second began.
    second: Cell<Instant>,
    /// Requests in it.
    requests: Cell<u32>,
    /// One in so many is looked at.
    stride: Cell<u32>,
    waiting: RefCell<Vec<Observation>>,
}

/// A request that came, and what became of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came<'a> {
    pub(crate) client: &'a Client,
    pub(crate) port: u16,
    pub(crate) head: (Request<'a>, Fields<'a>),
    pub(crate) outcome: Outcome,
    pub(crate) answer: Answer,
    /// Whether a policy speaks of it.
    pub(crate) is_covered: bool,
}

/// One that was looked at.
#[derive(Debug)]
struct Observation {
    port: u16,
    method: &'static str,
    path: Box<str>,
    caller: Box<str>,
    is_mutual: bool,
    credentials: Vec<Credential>,
    outcome: Outcome,
    status: Option<u16>,
    is_covered: bool,
    /// How many it stands for.
    weight: u32,
}

impl Observer {
    pub(crate) fn new(inventory: Arc<Inventory>, now: Instant) -> Self {
        Self {
            inventory,
            second: Cell::new(now),
            requests: Cell::new(0),
            stride: Cell::new(1),
            waiting: RefCell::default(),
        }
    }

    /// A request of that time is over; it is asked for what came if it is to be looked at.
    pub(crate) fn see<'a>(&self, begun: Instant, came: impl FnOnce() -> Came<'a>) {
        if begun.saturating_duration_since(self.second.get()) >= Duration::from_secs(1) {
            let requests = self.requests.replace(0);
            self.stride.set((requests / LOOKS_PER_SECOND).max(1));
            self.second.set(begun);
        }
        let requests = self.requests.get();
        self.requests.set(requests.saturating_add(1));
        if requests.is_multiple_of(self.stride.get()) && self.waiting.borrow().len() < WAITING_MAX {
            let observation = self.look(&came());
            self.waiting.borrow_mut().push(observation);
        }
    }

    fn look(&self, came: &Came<'_>) -> Observation {
        let (request, fields) = came.head;
        let path = request.target.split(['?', '#']).next().unwrap_or_default();
        let svid = came.client.svid.as_ref();
        Observation {
            port: came.port,
            method: known(request.method),
            path: path[..path.floor_char_boundary(PATH_BYTES_MAX)].into(),
            caller: svid.map_or(NO_IDENTITY, |svid| svid.id.as_str()).into(),
            is_mutual: svid.is_some(),
            credentials: credential::shown(request.target, fields, &self.inventory.salt),
            outcome: came.outcome,
            status: came.answer.status,
            is_covered: came.is_covered,
            weight: self.stride.get(),
        }
    }

    /// Puts what was seen together, at `now` in seconds since the Unix epoch. Not on the way of any request.
    pub(crate) fn hand_over(&self, now: u64) {
        let waiting = self.waiting.take();
        if !waiting.is_empty() {
            self.inventory.locked(|seen| {
                for one in waiting {
                    seen.add(one, now);
                }
            });
        }
    }
}

/// Methods that there are; clients may invent others.
fn known(method: &str) -> &'static str {
    const ALL: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    let found = ALL.into_iter().find(|known| *known == method);
    found.unwrap_or("other")
}

#[cfg(test)]
mod tests;
