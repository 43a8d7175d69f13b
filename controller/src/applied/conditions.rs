//! What authors of policies are told: whether a policy is accepted, and on how many proxies it is in force. Pure; the same
//! in a cluster and for a directory.

use ringmail_proto::identity::WorkloadName;
use serde::Serialize;

use super::tally::{Said, Tally, sum};
use crate::model::{Condition, PolicyReport};

/// Proxies that are named in one message.
const NAMED_MAX: usize = 3;

/// A policy and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyState {
    namespace: String,
    name: String,
    /// Which version of it this is about; a file has none.
    #[serde(rename = "observedGeneration", skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
    /// On how many proxies of how many.
    pub(crate) applied: String,
    pub(crate) conditions: Vec<Condition>,
}

/// One a report, by what all replicas have `said`. `silent`: replicas that did not say what their proxies have in force.
pub(crate) fn states(reports: &[PolicyReport], said: &[Said], silent: usize) -> Vec<PolicyState> {
    let all = reports.iter().zip(sum(reports, said));
    all.map(|(report, tally)| PolicyState {
        namespace: report.key.namespace.to_string(),
        name: report.key.name.to_string(),
        generation: report.generation,
        applied: format!("{}/{}", tally.applied.len(), report.workloads.len()),
        conditions: vec![accepted(report), applied(report, &tally, silent)],
    })
    .collect()
}

fn accepted(report: &PolicyReport) -> Condition {
    let (status, reason, message) = match (&report.broken, report.missing.as_slice()) {
        (Some(broken), _) => ("False", "Invalid", broken.clone()),
        (None, []) if report.asks_itself.is_empty() => ("True", "Accepted", String::new()),
        (None, missing) if !missing.is_empty() => (
            "False",
            "TargetNotFound",
            format!("there is no {}", missing.join(", no ")),
        ),
        (None, _) => (
            "False",
            "AsksItself",
            format!(
                "it is for {}, which it asks: these calls are refused",
                named(&report.asks_itself)
            ),
        ),
    };
    Condition {
        kind: "Accepted",
        status,
        reason,
        message,
    }
}

fn named(workloads: &[WorkloadName]) -> String {
    let named = workloads.iter().take(NAMED_MAX).map(ToString::to_string);
    named.collect::<Vec<_>>().join(", ")
}

fn applied(report: &PolicyReport, tally: &Tally, silent: usize) -> Condition {
    let (applied, all) = (tally.applied.len(), report.workloads.len());
    let mut message = format!("in force on {applied} of {all} proxies");
    let (status, reason) = if all == 0 {
        message = "there is no meshed pod that it is for".to_owned();
        ("True", "NoProxies")
    } else if applied == all {
        ("True", "Applied")
    } else if tally.refused.is_empty() {
        let names = report.workloads.iter();
        let open = names.filter(|name| !tally.applied.contains(name));
        let open = open.take(NAMED_MAX).map(ToString::to_string);
        let open: Vec<String> = open.collect();
        message = format!("{message}; not yet on {}", open.join(", "));
        ("False", "Pending")
    } else {
        let refused = tally.refused.iter().take(NAMED_MAX);
        let refused: Vec<String> = refused
            .map(|(name, why)| format!("{name} says: {why}"))
            .collect();
        message = format!("{message}; {}", refused.join("; "));
        ("False", "Refused")
    };
    if silent > 0 && status == "False" {
        message = format!("{message}; replicas that do not say what theirs have: {silent}");
    }
    Condition {
        kind: "Applied",
        status,
        reason,
        message,
    }
}
