//! What abuse costs: the proxy's processor time and memory, and what a neighbour on the same proxy notices.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ringmail_tests::netns::Pod;

use crate::raw::{dial, expect, read_head};

/// What a neighbour may wait.
const NEIGHBOUR_LIMIT: Duration = Duration::from_millis(50);
/// Its requests are looked at in so many groups: the machine may be busy for the slowest of one, not of most.
const GROUPS: usize = 20;

/// What it cost.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) cpu: Duration,
    /// By how much the proxy's memory grew, at its highest.
    pub(super) memory_kib: u64,
    /// The median of the slowest answers of each group.
    pub(super) neighbour: Duration,
}

/// Does `work` while a neighbour in `pod` asks `web` again and again; `proxy` is the process that both go through.
pub(super) fn watch<T>(
    proxy: u32,
    pod: &Pod,
    web: SocketAddr,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Cost)> {
    let mut neighbour = dial(pod, web)?;
    ask(&mut neighbour)?;
    let (cpu_before, memory_before) = (cpu(proxy)?, memory_kib(proxy)?);
    let over = AtomicBool::new(false);
    let (done, waited, memory) = thread::scope(|scope| {
        let asking = scope.spawn(|| -> anyhow::Result<_> {
            let (mut waited, mut memory) = (Vec::new(), 0);
            while !over.load(Ordering::Relaxed) || waited.len() < GROUPS {
                let begun = Instant::now();
                ask(&mut neighbour)?;
                waited.push(begun.elapsed());
                memory = memory.max(memory_kib(proxy)?);
            }
            Ok((waited, memory))
        });
        let done = work();
        over.store(true, Ordering::Relaxed);
        let asked = asking.join().ok().context("the neighbour panicked")?;
        let (waited, memory) = asked.context("the neighbour's request failed")?;
        anyhow::Ok((done, waited, memory))
    })?;
    let cost = Cost {
        cpu: cpu(proxy)?.saturating_sub(cpu_before),
        memory_kib: memory.saturating_sub(memory_before),
        neighbour: median_of_slowest(&waited),
    };
    Ok((done?, cost))
}

impl Cost {
    /// The neighbour noticed nothing.
    pub(super) fn assert_unnoticed(&self) -> anyhow::Result<()> {
        ensure!(
            self.neighbour < NEIGHBOUR_LIMIT,
            "the neighbour waited {:?}",
            self.neighbour
        );
        Ok(())
    }
}

fn median_of_slowest(waited: &[Duration]) -> Duration {
    let mut slowest: Vec<_> = waited
        .chunks(waited.len().div_ceil(GROUPS).max(1))
        .filter_map(|group| group.iter().max().copied())
        .collect();
    slowest.sort();
    slowest[slowest.len() / 2]
}

fn ask(client: &mut TcpStream) -> anyhow::Result<()> {
    client.write_all(b"GET /bytes/2 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let head = read_head(client)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head:?}");
    expect(client, b"xx")
}

/// Processor time of all threads of a process.
fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let spent = text.split(' ').next().context("schedstat is empty")?;
        nanos += spent.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn memory_kib(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let text = line.context("no VmRSS")?.trim();
    Ok(text.trim_end_matches(" kB").parse()?)
}
