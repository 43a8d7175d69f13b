//! What the process itself uses, read from `/proc` when somebody asks: names as Prometheus' own clients have them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use ringmail_proto::catalogue::Metric;

use super::catalogue;

/// Reads `/proc/self`; what cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

/// Of `/proc/self/stat`, by the number that proc(5) gives a field, less the three before the first that is read.
const UTIME: usize = 14 - 3;
const STIME: usize = 15 - 3;
const STARTTIME: usize = 22 - 3;
/// Ticks of a second in `/proc`: the same on all Linux that Rust runs on.
const TICKS: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut gauge = |row: &Metric, value: Option<i64>| match value {
            Some(value) => {
                let (gauge, kind) = (ConstGauge::new(value), MetricType::Gauge);
                gauge.encode(encoder.encode_descriptor(row.name, row.help, None, kind)?)
            }
            None => Ok(()),
        };
        gauge(&catalogue::RESIDENT_MEMORY, resident())?;
        gauge(&catalogue::OPEN_FDS, open_files())?;
        gauge(&catalogue::MAX_FDS, files_max())?;
        gauge(&catalogue::START_TIME, started())?;
        if let Some(seconds) = cpu() {
            let row = &catalogue::CPU;
            let (name, _) = row.name.rsplit_once('_').unwrap_or_default();
            let counter = ConstCounter::new(seconds);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, row.help, None, kind)?)?;
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

fn files_max() -> Option<i64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Seconds since the Unix epoch.
fn started() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    let after = own_ticks(STARTTIME)? / TICKS;
    #[allow(clippy::cast_possible_truncation, reason = "seconds of some years")]
    Some(booted.parse::<i64>().ok()? + after as i64)
}

fn cpu() -> Option<f64> {
    Some((own_ticks(UTIME)? + own_ticks(STIME)?) / TICKS)
}

fn own_ticks(index: usize) -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may have anything in it, but ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
        assert!(open_files().is_some_and(|count| count >= 3));
        assert!(files_max() >= open_files());
        assert!(cpu().is_some_and(|seconds| seconds >= 0.0));
        let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().expect("later").as_secs());
        let age = now.expect("fits") - started().expect("known");
        assert!((-2..3600).contains(&age), "{age}");
    }
}
