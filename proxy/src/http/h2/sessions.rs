//! HTTP/2 connections to apps as servers, ours and those that have no sidecar: one for each address and worker, shared by
//! the requests of all peers. Requests that come before it is there wait on it, so it is dialled once.
//!
//! One peer's cancelled requests must not bring an app to close the connection that all use: servers count the resets of
//! a connection (CVE-2023-44487). After [`RESETS_MAX`] of them it is given no more requests and ends with its last one.
//! Limits: that, [`SETTINGS_TIMEOUT`] and [`IDLE_TIMEOUT`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::spawn_local;
use tokio::time::timeout;

use super::connection;
use super::lane::Lane;
use super::lanes::queue::{Place, Settling};
use super::lanes::{Lanes, Side};
use crate::buffer::Buffer;
use crate::error::{Error, Reason};
use crate::http::h1::forward::connect;
use crate::listen::Party;
use crate::metrics::Direction;
use crate::worker::Worker;

/// Resets that we send on one connection, fewer than servers bear (nghttp2: 1000).
const RESETS_MAX: u32 = 500;
/// For the app to say what it can do.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection without requests for so long is closed: below what common servers wait (nginx: 75 s).
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Kept connections to apps, by the address each listens on.
#[derive(Debug, Default)]
pub(crate) struct AppSessions {
    sessions: RefCell<HashMap<SocketAddr, Rc<Session>>>,
}

/// A connection to an app.
#[derive(Debug)]
pub(super) struct Session {
    lanes: Rc<Lanes>,
    /// There is a socket.
    is_connected: Cell<bool>,
    /// How many requests it had had when it was first seen without one.
    idle: Cell<Option<(u32, Instant)>>,
}

impl AppSessions {
    /// A connection that takes another request, and whether it had been there before.
    pub(super) fn session(
        worker: &Rc<Worker>,
        app: SocketAddr,
        party: Party,
    ) -> (Rc<Session>, bool) {
        let known = worker.app_sessions.sessions.borrow().get(&app).cloned();
        match known.filter(|known| known.takes_more()) {
            Some(known) => {
                let reused = known.is_connected.get();
                (known, reused)
            }
            None => (Self::dial(worker, app, party), false),
        }
    }

    /// Another connection than the one that failed: the one that took its place, or a new one.
    pub(super) fn again(
        worker: &Rc<Worker>,
        app: SocketAddr,
        party: Party,
        failed: &Rc<Session>,
    ) -> Rc<Session> {
        let known = worker.app_sessions.sessions.borrow().get(&app).cloned();
        match known.filter(|known| !Rc::ptr_eq(known, failed) && known.takes_more()) {
            Some(known) => known,
            None => Self::dial(worker, app, party),
        }
    }

    /// A new connection, which takes the place of the one that was there.
    fn dial(worker: &Rc<Worker>, app: SocketAddr, party: Party) -> Rc<Session> {
        let session = Rc::new(Session {
            lanes: Lanes::new(Side::Client),
            is_connected: Cell::new(false),
            idle: Cell::default(),
        });
        let sessions = &worker.app_sessions.sessions;
        let replaced = sessions.borrow_mut().insert(app, session.clone());
        if let Some(replaced) = replaced {
            replaced.lanes.retire();
        }
        let (worker, driven) = (worker.clone(), session.clone());
        spawn_local(async move {
            let ended = drive(&worker, app, party, &driven).await;
            worker.app_sessions.forget(app, &driven);
            if let Err(error) = ended {
                tracing::debug!(%app, ?error, "HTTP/2 connection to the app ended");
                // Each request that waited for a connection counts for itself, and so does each that was cut off.
                let is_counted = matches!(error.reason, Reason::AppUnreachable | Reason::AppGone);
                if party == Party::App && !is_counted {
                    worker.metrics.refused(Direction::Inbound, error.reason);
                }
            }
        });
        session
    }

    fn forget(&self, app: SocketAddr, ended: &Rc<Session>) {
        let mut sessions = self.sessions.borrow_mut();
        if sessions
            .get(&app)
            .is_some_and(|session| Rc::ptr_eq(session, ended))
        {
            sessions.remove(&app);
        }
    }

    /// Closes what has been idle too long; what has been for less holds no room for what may come.
    pub(crate) fn sweep(&self, now: Instant) {
        for session in self.sessions.borrow().values() {
            if session.is_idle(now) {
                session.lanes.retire();
            } else if session.idle.get().is_some() {
                session.lanes.rest();
            }
        }
    }
}

/// Dials, and moves the connection's frames to its end.
async fn drive(
    worker: &Worker,
    app: SocketAddr,
    party: Party,
    session: &Session,
) -> Result<(), Error> {
    let lanes = &session.lanes;
    let connected = connect(worker, app, party).await;
    let mut socket = connected.inspect_err(|error| lanes.close(error.reason))?;
    session.is_connected.set(true);
    // Servers open no streams here.
    connection::run(&mut socket, lanes, Buffer::default(), None, |_, _| {}).await
}

impl Session {
    fn takes_more(&self) -> bool {
        self.lanes.resets() < RESETS_MAX && self.lanes.takes_more()
    }

    /// Opens a lane with a request, whose block `write` makes, when the app takes another one.
    pub(super) async fn open(
        &self,
        end: bool,
        is_lengthless: bool,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Reason>,
    ) -> Result<Lane, Error> {
        let place = Place::new(&self.lanes);
        poll_fn(|cx| place.poll_turn(cx)).await?;
        Ok(self.lanes.open(end, is_lengthless, write)?)
    }

    /// Whether the app takes WebSocket (RFC 8441 section 3).
    pub(super) async fn takes_websocket(&self) -> bool {
        let settling = Settling::new(&self.lanes);
        let takes = poll_fn(|cx| settling.poll_takes_connect(cx));
        timeout(SETTINGS_TIMEOUT, takes).await.unwrap_or(false)
    }

    fn is_idle(&self, now: Instant) -> bool {
        let (had, open) = self.lanes.count();
        match self.idle.get() {
            Some((known, since)) if open == 0 && known == had => {
                now.saturating_duration_since(since) >= IDLE_TIMEOUT
            }
            _ => {
                self.idle.set((open == 0).then_some((had, now)));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_without_requests_is_idle_in_the_end() {
        let session = Session {
            lanes: Lanes::new(Side::Client),
            is_connected: Cell::new(true),
            idle: Cell::default(),
        };
        let start = Instant::now();
        let idle_at = |seconds| session.is_idle(start + Duration::from_secs(seconds));
        assert!(!idle_at(0) && !idle_at(59) && idle_at(60));
        // A request that nobody saw between two looks counts as well.
        let opened = session.lanes.open(true, false, |_| Ok(()));
        drop(opened.expect("room"));
        assert!(!idle_at(61) && !idle_at(120) && idle_at(121));
        let opened = session.lanes.open(true, false, |_| Ok(()));
        let open = opened.expect("room");
        assert!(!idle_at(122) && !idle_at(1000));
        drop(open);
        assert!(!idle_at(1001) && idle_at(1061));
    }

    #[test]
    fn a_session_on_which_much_was_reset_takes_no_more() {
        let session = Session {
            lanes: Lanes::new(Side::Client),
            is_connected: Cell::new(true),
            idle: Cell::default(),
        };
        for _ in 0..RESETS_MAX {
            assert!(session.takes_more());
            // Whatever came of the request: its end has not.
            drop(session.lanes.open(true, false, |_| Ok(())).expect("room"));
        }
        assert!(!session.takes_more());
    }
}
