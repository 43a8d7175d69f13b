//! What is counted of records.

use super::catalogue;
use super::register::Register;
use super::sharded::Counter;

/// How much was recorded, and how much was lost.
#[derive(Debug, Clone)]
pub(crate) struct Counts {
    /// Lines of the access log that were written.
    pub(crate) access_log: Counter,
    /// And that were not.
    pub(crate) access_log_lost: Counter,
    /// Lines of the audit that were written, but for those about itself: refusals.
    pub(crate) refusals: Counter,
    /// And uses of what policies protect.
    pub(crate) uses: Counter,
    /// And that were not.
    pub(crate) audit_lost: Counter,
    /// Spans that the collector took.
    pub(crate) spans_exported: Counter,
    /// And that it did not get.
    pub(crate) spans_lost: Counter,
    /// Lines of the audit that it took.
    pub(crate) lines_exported: Counter,
    /// And that it did not get.
    pub(crate) lines_lost: Counter,
}

impl Counts {
    pub(super) fn register(register: &mut Register) -> Self {
        let audit = register.family(&catalogue::AUDIT_RECORDS);
        let lines = register.family(&catalogue::AUDIT_EXPORTS);
        let spans = register.family(&catalogue::SPANS);
        Self {
            access_log: register.counter(&catalogue::ACCESS_LOG_RECORDS),
            access_log_lost: register.counter(&catalogue::ACCESS_LOG_LOST),
            refusals: audit.get(["deny".into()]),
            uses: audit.get(["allow".into()]),
            audit_lost: register.counter(&catalogue::AUDIT_LOST),
            spans_exported: spans.get(["exported".into()]),
            spans_lost: spans.get(["lost".into()]),
            lines_exported: lines.get(["exported".into()]),
            lines_lost: lines.get(["lost".into()]),
        }
    }

    /// Counts nothing.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn nowhere() -> Self {
        let nowhere = Counter::nowhere;
        Self {
            access_log: nowhere(),
            access_log_lost: nowhere(),
            refusals: nowhere(),
            uses: nowhere(),
            audit_lost: nowhere(),
            spans_exported: nowhere(),
            spans_lost: nowhere(),
            lines_exported: nowhere(),
            lines_lost: nowhere(),
        }
    }
}
