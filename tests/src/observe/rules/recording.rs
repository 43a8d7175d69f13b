//! What alerts ask for often: requests, failures and denials of each workload, and the share of requests that failed over
//! the windows of the error budget's alerts.

use super::{Group, Rule, minutes};
use crate::observe::tempo::Tempo;

/// The part of requests that should not fail, in percent, where the chart's values say nothing else.
pub const OBJECTIVE_PERCENT: &str = "99.9";

/// Windows over which the error budget is watched, in minutes, as rules call them.
pub(super) const WINDOWS: [(u64, &str); 7] = [
    (5, "5m"),
    (30, "30m"),
    (60, "1h"),
    (120, "2h"),
    (360, "6h"),
    (1440, "1d"),
    (4320, "3d"),
];

/// The recording rules.
#[must_use]
pub fn recording(tempo: Tempo) -> Vec<Group> {
    let record = |name: &str, expression: String| Rule::Record {
        name: name.to_owned(),
        expression,
    };
    let five = minutes(tempo, 5);
    let requests = |which: &str| {
        format!(
            "sum by (namespace, workload) (rate(ringmail_requests_total{{direction=\"inbound\"{which}}}[{five}]))"
        )
    };
    let mut rules = vec![
        record(
            "ringmail:error_budget:ratio",
            format!("vector(1 - {OBJECTIVE_PERCENT} / 100)"),
        ),
        record(
            "workload:ringmail_denials:rate5m",
            format!(
                "sum by (namespace, workload) (rate(ringmail_denials_total{{reason!=\"rate_limited\"}}[{five}]))"
            ),
        ),
        record("workload:ringmail_requests:rate5m", requests("")),
        // Zero, not nothing, where nothing has failed yet: only then is a failure a part of something.
        record(
            "workload:ringmail_requests_failed:rate5m",
            format!(
                "{}\nor\n0 * workload:ringmail_requests:rate5m",
                requests(", outcome=~\"server_error|broken\"")
            ),
        ),
    ];
    for (length, name) in WINDOWS {
        let range = minutes(tempo, length);
        rules.push(record(
            &share(name),
            format!(
                "sum_over_time(workload:ringmail_requests_failed:rate5m[{range}])\n/\nsum_over_time(workload:ringmail_requests:rate5m[{range}])"
            ),
        ));
    }
    vec![Group {
        name: "ringmail-workloads",
        rules,
    }]
}

/// What the share of failures over a window is called.
pub(super) fn share(window: &str) -> String {
    format!("workload:ringmail_requests_failed:ratio_rate{window}")
}
