//! Series of one metric, one for each combination of its labels' values.
//!
//! A value is a word of ours, or a name: of a peer, a service, a policy. There are few words; of names there may be many,
//! and they go. So series with a name in them have a budget for the whole process, [`SERIES_MAX`]: beyond it all names
//! are [`OVERFLOW`]. And they are dropped when nobody holds them and they have not changed for [`IDLE`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, EncodeMetric};
use prometheus_client::encoding::{LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use ringmail_proto::catalogue::Metric;

use super::sharded::{BUCKETS, Counter, Histogram, Shards};

/// Series with a name among their labels, of all metrics together; a histogram has one for each bucket.
pub(crate) const SERIES_MAX: usize = 20_000;
/// The name of all that find no series of their own.
const OVERFLOW: &str = "overflow";
/// How long a series stays that nothing counts in.
pub(super) const IDLE: Duration = Duration::from_secs(600);

/// A label's value: borrowed if it is a word of ours, owned if it is a name.
pub(crate) type Value = Cow<'static, str>;

/// A name.
pub(crate) fn name(text: &str) -> Value {
    Cow::Owned(text.to_owned())
}

/// What series with names have left.
#[derive(Debug)]
pub(super) struct Room {
    max: usize,
    used: AtomicUsize,
    overflows: Counter,
}

impl Room {
    pub(super) fn new(max: usize, shards: Shards) -> Self {
        Self {
            max,
            used: AtomicUsize::new(0),
            overflows: Counter::new(shards),
        }
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    pub(super) fn overflows(&self) -> &Counter {
        &self.overflows
    }

    fn take(&self, series: usize) -> bool {
        let more = |used: usize| Some(used + series).filter(|used| *used <= self.max);
        self.used.try_update(Relaxed, Relaxed, more).is_ok()
    }

    fn give_back(&self, series: usize) {
        self.used.fetch_sub(series, Relaxed);
    }
}

/// What a series counts with.
pub(super) trait Handle: Clone + fmt::Debug + EncodeMetric + Send + Sync + 'static {
    /// What a scrape has of it.
    const SERIES: usize;
    fn new(shards: Shards) -> Self;
    /// Whether anybody but the family can count with it.
    fn is_held(&self) -> bool;
    /// What is another whenever something was counted.
    fn mark(&self) -> u64;
}

impl Handle for Counter {
    const SERIES: usize = 1;
    fn new(shards: Shards) -> Self {
        Self::new(shards)
    }
    fn is_held(&self) -> bool {
        self.holders() > 1
    }
    fn mark(&self) -> u64 {
        self.sum()
    }
}

impl Handle for Histogram {
    const SERIES: usize = BUCKETS + 2;
    fn new(shards: Shards) -> Self {
        Self::new(shards)
    }
    fn is_held(&self) -> bool {
        self.holders() > 1
    }
    fn mark(&self) -> u64 {
        self.count()
    }
}

/// Of gauges, words alone tell series apart.
impl Handle for Gauge {
    const SERIES: usize = 1;
    fn new(_: Shards) -> Self {
        Self::default()
    }
    fn is_held(&self) -> bool {
        true
    }
    fn mark(&self) -> u64 {
        0
    }
}

/// One series.
#[derive(Debug)]
struct Series<M> {
    handle: M,
    mark: u64,
    changed: Instant,
}

/// A metric with `N` labels.
#[derive(Debug)]
pub(super) struct Family<M, const N: usize> {
    row: &'static Metric,
    shards: Shards,
    room: Arc<Room>,
    /// Of this family.
    max: usize,
    known: Arc<RwLock<HashMap<[Value; N], Series<M>>>>,
}

impl<M, const N: usize> Clone for Family<M, N> {
    fn clone(&self) -> Self {
        Self {
            room: self.room.clone(),
            known: self.known.clone(),
            ..*self
        }
    }
}

impl<M: Handle, const N: usize> Family<M, N> {
    pub(super) fn new(row: &'static Metric, shards: Shards, room: Arc<Room>) -> Self {
        assert_eq!(row.labels.len(), N, "{}", row.name);
        Self {
            row,
            shards,
            room,
            max: usize::MAX,
            known: Arc::default(),
        }
    }

    /// With at most so many series of its own.
    pub(super) fn at_most(self, max: usize) -> Self {
        Self { max, ..self }
    }

    /// The handle of the series with these values, in the order of the catalogue. To be kept where much is counted.
    pub(super) fn get(&self, labels: [Value; N]) -> M {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = known.get(&labels) {
            return series.handle.clone();
        }
        drop(known);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = is_named(&labels) && !known.contains_key(&labels);
        let labels = match is_new && !(known.len() < self.max && self.room.take(M::SERIES)) {
            true => {
                self.room.overflows.add(1);
                labels.map(|value| match value {
                    Cow::Borrowed(word) => word.into(),
                    Cow::Owned(_) => OVERFLOW.into(),
                })
            }
            false => labels,
        };
        let series = known.entry(labels).or_insert_with(|| Series {
            handle: M::new(self.shards),
            mark: 0,
            changed: Instant::now(),
        });
        series.handle.clone()
    }
}

fn is_named(labels: &[Value]) -> bool {
    labels.iter().any(|value| matches!(value, Cow::Owned(_)))
}

/// What can lose series.
pub(super) trait Sweep: Send + Sync {
    /// Drops those that nothing was counted in for [`IDLE`].
    fn sweep(&self, now: Instant);
}

impl<M: Handle, const N: usize> Sweep for Family<M, N> {
    fn sweep(&self, now: Instant) {
        // Whoever would count with a handle gets it under this lock, or holds it.
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|labels, series| {
            let mark = series.handle.mark();
            if !is_named(labels) || series.handle.is_held() || mark != series.mark {
                (series.mark, series.changed) = (mark, now);
                return true;
            }
            let is_idle = now.saturating_duration_since(series.changed) >= IDLE;
            if is_idle {
                self.room.give_back(M::SERIES);
            }
            !is_idle
        });
    }
}

impl<M: Handle, const N: usize> EncodeMetric for Family<M, N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        for (labels, series) in known.iter() {
            let labels = Labels(self.row.labels, labels);
            series.handle.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::new(Shards(0)).metric_type()
    }
}

/// Names and values of a series.
#[derive(Debug)]
struct Labels<'a>(&'a [&'static str], &'a [Value]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.0.iter().zip(self.1) {
            (*name, value.as_ref()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}
