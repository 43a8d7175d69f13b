//! What a process used, by the kernel's own accounting, and which processor it uses.
//!
//! Work on packets that the kernel does in a process's name counts as the process's; what it puts off to its own
//! threads does not, for any of the proxies: under these loads that is a thousandth.

use std::fs;
use std::time::Duration;

use anyhow::Context;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// Both proxies share one, so that what they cost shows as what they can serve.
pub(crate) const PROXIES_PROCESSOR: usize = 0;
/// Client and server.
pub(crate) const APPS_PROCESSOR: usize = 1;

/// Resident memory, in MiB.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

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

/// Resident memory of a process.
pub(crate) fn memory(process: u32) -> anyhow::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let mib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name}"))?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        anyhow::Ok(kib / 1024.0)
    };
    Ok(Memory {
        now: mib("VmRSS:")?,
        peak: mib("VmHWM:")?,
    })
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
