//! Metrics as the catalogue lists them, made and registered.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric as Registered, Registry, Unit};
use ringmail_proto::catalogue::Metric;
use ringmail_proto::identity::WorkloadName;

use super::family::{Family, Handle, Room, Sweep};
use super::sharded::{Counter, Histogram, Shards};

/// What is being made.
pub(super) struct Register {
    pub(super) registry: Registry,
    /// Families, whatever they are of.
    pub(super) families: Vec<Box<dyn Sweep>>,
    pub(super) room: Arc<Room>,
    shards: Shards,
}

impl Register {
    /// Metrics of this workload's proxy.
    pub(super) fn new(of: &WorkloadName, shards: Shards, series_max: usize) -> Self {
        let labels = [("namespace", &of.namespace), ("workload", &of.name)];
        let labels = labels.map(|(name, value)| (name.into(), value.to_string().into()));
        Self {
            registry: Registry::with_labels(labels.into_iter()),
            families: Vec::new(),
            room: Arc::new(Room::new(series_max, shards)),
            shards,
        }
    }

    /// Makes a metric known by its row of the catalogue.
    pub(super) fn add<M: Registered + Clone>(&mut self, row: &Metric, metric: &M) {
        let metric = metric.clone();
        match row.stem() {
            (name, None) => self.registry.register(name, row.help, metric),
            (name, Some("bytes")) => {
                self.registry
                    .register_with_unit(name, row.help, Unit::Bytes, metric);
            }
            (name, Some(unit)) => {
                let unit = Unit::Other(unit.to_owned());
                self.registry
                    .register_with_unit(name, row.help, unit, metric);
            }
        }
    }

    pub(super) fn gauge(&mut self, row: &Metric) -> Gauge {
        let gauge = Gauge::default();
        self.add(row, &gauge);
        gauge
    }

    pub(super) fn counter(&mut self, row: &Metric) -> Counter {
        let counter = Counter::new(self.shards);
        self.add(row, &counter);
        counter
    }

    pub(super) fn histogram(&mut self, row: &Metric) -> Histogram {
        let histogram = Histogram::new(self.shards);
        self.add(row, &histogram);
        histogram
    }

    /// A metric with labels.
    pub(super) fn family<M: Handle, const N: usize>(
        &mut self,
        row: &'static Metric,
    ) -> Family<M, N> {
        self.few(row, usize::MAX)
    }

    /// One with so many series at most.
    pub(super) fn few<M: Handle, const N: usize>(
        &mut self,
        row: &'static Metric,
        max: usize,
    ) -> Family<M, N> {
        let family = Family::new(row, self.shards, self.room.clone()).at_most(max);
        self.add(row, &family);
        self.families.push(Box::new(family.clone()));
        family
    }
}
