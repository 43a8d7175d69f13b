//! Ctrl-C: the story stops at its next pause, and everything it started ends with it. A second one ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{process, thread};

use anyhow::bail;
use ringmail_tests::wait;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a program that SIGINT ended.
const INTERRUPTED: i32 = 130;

/// Whether somebody wants the end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes SIGINT and SIGTERM from now on.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let wanted = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&wanted);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = {
            let _guard = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            )
        };
        thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if told.swap(true, Ordering::Relaxed) {
                        process::exit(INTERRUPTED);
                    }
                }
            });
        });
        Ok(Self(wanted))
    }

    /// Has it come?
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once it has come.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.came() {
            bail!("interrupted")
        }
        Ok(())
    }

    /// Waits until `holds`, but not past an interrupt.
    pub(crate) fn until(
        &self,
        limit: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let waited = wait::until(limit, || self.came() || holds());
        self.check()?;
        waited
    }

    /// Lets time pass, but not past an interrupt.
    pub(crate) fn pause(&self, time: Duration) -> anyhow::Result<()> {
        let _ = wait::until(time, || self.came());
        self.check()
    }
}
