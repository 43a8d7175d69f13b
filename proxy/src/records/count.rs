//! How much was recorded, and how much was lost. Whatever counts here does so for many records at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Since the process began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Lines of the access log that were written.
    pub(crate) access_log: Count,
    /// And that were not.
    pub(crate) access_log_lost: Count,
    /// Spans that the collector took.
    pub(crate) spans_exported: Count,
    /// And that it did not get.
    pub(crate) spans_lost: Count,
}

/// Only goes up.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Relaxed);
    }
}
