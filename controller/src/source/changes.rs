//! When to look again: inotify on the directory, which sees writes, renames and swapped links in it. What it cannot see
//! (the target of a link elsewhere, the directory itself replaced) the periodic look finds.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::warn;

/// Bytes of events read at once; what they say does not matter.
const EVENT_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) struct Changes {
    path: PathBuf,
    events: Option<AsyncFd<OwnedFd>>,
}

impl Changes {
    /// Without inotify only the periodic look is left, and that is said.
    pub(super) fn new(path: &Path) -> Self {
        let events = open()
            .inspect_err(|e| warn!("no inotify, changes are found more slowly: {e}"))
            .ok();
        let changes = Self {
            path: path.to_owned(),
            events,
        };
        changes.settle();
        changes
    }

    /// Returns when something may have changed. May be dropped at any time.
    pub(super) async fn next(&self) {
        let Some(events) = &self.events else {
            return pending().await;
        };
        match events.readable().await {
            Ok(mut guard) => guard.retain_ready(),
            Err(_) => pending().await,
        }
    }

    /// Forgets the events so far and watches the directory that is there now. Called before a look.
    pub(super) fn settle(&self) {
        let Some(events) = &self.events else {
            return;
        };
        let mut buffer = [0; EVENT_BYTES];
        // `try_io` on an empty queue also resets the readiness that `next` left.
        while let Ok(1..) = events.try_io(Interest::READABLE, |fd| Ok(read(fd, &mut buffer)?)) {}
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        // Adding the same directory again changes nothing; a missing one is reported by the look.
        let _ = add_watch(events.get_ref(), &self.path, flags);
    }
}

#[allow(
    deprecated,
    reason = "unsound only for types that do not own their descriptor; the replacement is an unsafe function"
)]
fn open() -> io::Result<AsyncFd<OwnedFd>> {
    let fd = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    AsyncFd::with_interest(fd, Interest::READABLE)
}
