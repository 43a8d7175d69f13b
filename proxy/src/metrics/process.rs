//! What the process itself uses, read from `/proc` when somebody asks: names as Prometheus' own clients have them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads `/proc/self`; what cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

/// Of `/proc/self/stat`, by the number that proc(5) gives a field, less the three before the first that is read.
const UTIME: usize = 14 - 3;
const STIME: usize = 15 - 3;
/// Ticks of a second in `/proc`: the same on all Linux that Rust runs on.
const TICKS: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |name, help, value: Option<i64>| match value {
            Some(value) => {
                let gauge = ConstGauge::new(value);
                let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
                gauge.encode(metric)
            }
            None => Ok(()),
        };
        gauge(
            "process_resident_memory_bytes",
            "Resident memory size in bytes",
            resident(),
        )?;
        gauge(
            "process_open_fds",
            "Number of open file descriptors",
            open_files(),
        )?;
        if let Some(seconds) = cpu() {
            let counter = ConstCounter::new(seconds);
            let kind = counter.metric_type();
            let help = "Total user and system CPU time spent in seconds";
            let metric = encoder.encode_descriptor("process_cpu_seconds", help, None, kind)?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

fn resident() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_files() -> Option<i64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is this reading's.
    i64::try_from(count).ok().map(|count| count - 1)
}

fn cpu() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may have anything in it, but ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some((f64::from(ticks(UTIME)?) + f64::from(ticks(STIME)?)) / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        assert!(open_files().is_some_and(|count| count >= 3));
        assert!(cpu().is_some_and(|seconds| seconds >= 0.0));
    }
}
