//! Counters and histograms that workers count in without ever touching each other's cache lines.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// This thread counts in shard `n` from now on.
pub(crate) fn enter_shard(n: usize) {
    SHARD.set(n);
}

/// How many threads count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shards(pub(crate) usize);

/// A cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Padded<T>(T);

/// Only goes up.
#[derive(Debug, Clone)]
pub(crate) struct Counter(Arc<[Padded<AtomicU64>]>);

impl Counter {
    pub(crate) fn new(shards: Shards) -> Self {
        Self((0..shards.0).map(|_| Padded::default()).collect())
    }

    /// Counts nothing.
    pub(crate) fn nowhere() -> Self {
        Self(Arc::new([]))
    }

    pub(crate) fn add(&self, n: u64) {
        // A thread that never entered a shard shares the first one, which is right, only slower.
        if let Some(shard) = self.0.get(SHARD.get()) {
            shard.0.fetch_add(n, Relaxed);
        }
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|shard| shard.0.load(Relaxed)).sum()
    }

    /// How many can count with it.
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl TypedMetric for Counter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.sum(), None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Upper bounds of latency buckets in microseconds; one more bucket holds the rest.
const BOUNDS_MICROS: [u64; 19] = [
    100, 250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000, 30_000, 50_000, 100_000,
    250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Latencies, in buckets from 100 µs to 10 s.
#[derive(Debug, Clone)]
pub(crate) struct Histogram(Arc<[Padded<Buckets>]>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

/// Buckets of a histogram, the one of the rest included.
pub(super) const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

impl Histogram {
    pub(crate) fn new(shards: Shards) -> Self {
        Self((0..shards.0).map(|_| Padded::default()).collect())
    }

    /// How many can count with it.
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// How many were observed that fell into bucket `n`.
    fn bucket(&self, n: usize) -> u64 {
        let shards = self.0.iter();
        shards.map(|shard| shard.0.counts[n].load(Relaxed)).sum()
    }

    /// How many were observed.
    pub(super) fn count(&self) -> u64 {
        (0..BUCKETS).map(|n| self.bucket(n)).sum()
    }

    pub(crate) fn observe(&self, value: Duration) {
        let Some(Padded(buckets)) = self.0.get(SHARD.get()) else {
            return;
        };
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        buckets.counts[bucket].fetch_add(1, Relaxed);
        buckets.sum_micros.fetch_add(micros, Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let seconds = |micros: u64| Duration::from_micros(micros).as_secs_f64();
        let bounds = BOUNDS_MICROS
            .iter()
            .map(|bound| seconds(*bound))
            // What is beyond: without this bucket no quantile can be told.
            .chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds
            .enumerate()
            .map(|(n, bound)| (bound, self.bucket(n)))
            .collect();
        let sum = self
            .0
            .iter()
            .map(|shard| shard.0.sum_micros.load(Relaxed))
            .sum();
        let total = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(sum), total, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
