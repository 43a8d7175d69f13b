//! What the process itself uses, read from `/proc` when somebody asks: names as Prometheus' own clients have them.

use std::{fmt, fs};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::catalogue::{Kind, Metric};

/// Memory in use.
pub const RESIDENT: &Metric = &Metric::new(
    Kind::Gauge,
    "process_resident_memory_bytes",
    &[],
    "Resident memory size in bytes",
);
/// CPU time so far.
pub const CPU: &Metric = &Metric::new(
    Kind::Counter,
    "process_cpu_seconds_total",
    &[],
    "Total user and system CPU time spent in seconds",
);
/// Files and sockets that are open.
pub const OPEN_FILES: &Metric = &Metric::new(
    Kind::Gauge,
    "process_open_fds",
    &[],
    "Number of open file descriptors",
);
/// How many may be; none where there is no limit.
pub const FILES_MAX: &Metric = &Metric::new(
    Kind::Gauge,
    "process_max_fds",
    &[],
    "Maximum number of open file descriptors",
);
/// When it began, in Unix time.
pub const START: &Metric = &Metric::new(
    Kind::Gauge,
    "process_start_time_seconds",
    &[],
    "Start time of the process since unix epoch in seconds",
);

/// Adds these to a page of metrics; what cannot be read is left out.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let usage = Usage::read();
        let e = &mut encoder;
        write(e, RESIDENT, usage.resident_bytes.map(ConstGauge::new))?;
        write(e, CPU, usage.cpu_seconds.map(ConstCounter::new))?;
        write(e, OPEN_FILES, usage.open_files.map(ConstGauge::new))?;
        write(e, FILES_MAX, usage.files_max.map(ConstGauge::new))?;
        write(e, START, usage.start_seconds.map(ConstGauge::new))
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    row: &Metric,
    metric: Option<impl EncodeMetric>,
) -> fmt::Result {
    let Some(metric) = metric else {
        return Ok(());
    };
    // The library adds what counters end in.
    let name = row.name.strip_suffix("_total").unwrap_or(row.name);
    let kind = metric.metric_type();
    metric.encode(encoder.encode_descriptor(name, row.help, None, kind)?)
}

/// What could be read, in the order of the metrics.
struct Usage {
    resident_bytes: Option<i64>,
    cpu_seconds: Option<f64>,
    open_files: Option<i64>,
    files_max: Option<i64>,
    start_seconds: Option<f64>,
}

/// Of `/proc/self/stat`, by the number that proc(5) gives a field, less the three before the first that is read.
const UTIME: usize = 14 - 3;
const STIME: usize = 15 - 3;
const STARTTIME: usize = 22 - 3;
/// Ticks of a second in `/proc`: the same on all Linux that Rust runs on.
const TICKS: f64 = 100.0;

impl Usage {
    /// Of this process, now.
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).ok();
        let stat = text("/proc/self/stat");
        Self {
            resident_bytes: text("/proc/self/status").and_then(|status| resident(&status)),
            cpu_seconds: stat.as_deref().and_then(cpu),
            open_files: open_files(),
            files_max: text("/proc/self/limits").and_then(|limits| files_max(&limits)),
            start_seconds: stat
                .zip(text("/proc/stat"))
                .and_then(|(own, machine)| start(&own, &machine)),
        }
    }
}

fn resident(status: &str) -> Option<i64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_files() -> Option<i64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is this reading's.
    i64::try_from(count).ok().map(|count| count - 1)
}

fn files_max(limits: &str) -> Option<i64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn cpu(stat: &str) -> Option<f64> {
    Some((ticks(stat, UTIME)? + ticks(stat, STIME)?) / TICKS)
}

fn start(own: &str, machine: &str) -> Option<f64> {
    let boot = machine
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot: f64 = boot.parse().ok()?;
    Some(boot + ticks(own, STARTTIME)? / TICKS)
}

fn ticks(stat: &str, field: usize) -> Option<f64> {
    // The name of the program may have anything in it, but ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let usage = Usage::read();
        assert!(usage.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(usage.open_files.is_some_and(|count| count >= 3));
        assert!(usage.cpu_seconds.is_some_and(|seconds| seconds >= 0.0));
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64();
        // The time of boot is in whole seconds.
        let ago = now - usage.start_seconds.expect("it began");
        assert!((-2.0..86_400.0).contains(&ago), "{ago}");
    }

    #[test]
    fn what_the_kernel_writes_is_read() {
        let stat =
            "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 1 0 12300 1000 100 18446744";
        assert_eq!(cpu(stat), Some(2.0));
        assert_eq!(start(stat, "cpu 1\nbtime 1000\n"), Some(1123.0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096 files\n";
        assert_eq!(files_max(limits), Some(1024));
        assert_eq!(files_max("Max open files unlimited unlimited files"), None);
    }
}
