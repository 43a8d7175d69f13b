//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Waits until `holds`; an error after `limit`. Not for asynchronous code.
pub fn until(limit: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !holds() {
        if Instant::now() > deadline {
            bail!("not within {limit:?}");
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
