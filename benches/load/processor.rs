//! Which processor a process uses, and for how long, by the kernel's own accounting.
//!
//! Work on packets that the kernel does in a process's name counts as the process's; what it puts off to its own
//! threads does not, for any of the proxies: under these loads that is a thousandth.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// What is measured has one processor, so that what it costs shows as what it can serve.
pub(crate) const MEASURED: usize = 0;
/// Whoever asks, and whoever answers.
pub(crate) const OTHERS: usize = 1;

/// Processor time of all threads of a process.
pub(crate) fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        // Nanoseconds on a processor; `stat` counts only ticks.
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text
            .split(' ')
            .next()
            .context("schedstat is empty")?
            .parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Puts every thread of a process on one processor.
pub(crate) fn pin_all(process: u32, processor: usize) -> anyhow::Result<()> {
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = thread?.file_name();
        pin(name.to_string_lossy().parse()?, processor)?;
    }
    Ok(())
}

/// Puts one thread, 0 being this one, on one processor.
pub(crate) fn pin(thread: i32, processor: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    Ok(sched_setaffinity(Pid::from_raw(thread), &set)?)
}
