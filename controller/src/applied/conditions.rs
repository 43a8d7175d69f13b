//! What authors of policies and routes are told: whether what they wrote is accepted, and on how many proxies it is in
//! force. Pure; the same in a cluster and for a directory.

use ringmail_proto::identity::WorkloadName;
use serde::Serialize;

use super::tally::{Said, Tally, sum};
use crate::model::{Condition, Mesh, PolicyReport, RouteStatus};
use crate::source::objects::{Key, Kind};

/// Proxies that are named in one message.
const NAMED_MAX: usize = 3;

/// Everything that authors are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct States {
    pub(crate) policies: Vec<PolicyState>,
    pub(crate) routes: Vec<RouteStatus>,
}

/// A policy and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyState {
    #[serde(skip)]
    pub(crate) key: Key,
    kind: String,
    namespace: String,
    name: String,
    /// Which version of it this is about; a file has none.
    #[serde(rename = "observedGeneration", skip_serializing_if = "Option::is_none")]
    pub(crate) generation: Option<i64>,
    /// On how many proxies of how many.
    pub(crate) applied: String,
    pub(crate) conditions: Vec<Condition>,
}

/// By what all replicas have `said`. `silent`: replicas that did not say what their proxies have in force.
pub(crate) fn states(mesh: &Mesh, said: &[Said], silent: usize) -> States {
    let tallies = sum(mesh, said);
    let policies = mesh.policies().iter().zip(&tallies.policies);
    let policies = policies.map(|(report, tally)| PolicyState {
        key: report.key.clone(),
        kind: format!("{:?}", report.key.kind),
        namespace: report.key.namespace.to_string(),
        name: report.key.name.to_string(),
        generation: report.generation,
        applied: format!("{}/{}", tally.applied.len(), tally.all()),
        conditions: [accepted(report), POLICY.said(tally, silent)]
            .into_iter()
            .chain(keys_known(report))
            .collect(),
    });
    let routes = mesh.routes().iter().zip(&tallies.routes);
    States {
        policies: policies.collect(),
        routes: routes
            .map(|(route, tallies)| programmed(route, tallies, silent))
            .collect(),
    }
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

/// Of an object about tokens.
fn keys_known(report: &PolicyReport) -> Option<Condition> {
    if report.key.kind != Kind::RequestAuthentication || report.broken.is_some() {
        return None;
    }
    let (status, reason, message) = match report.keyless.as_slice() {
        [] => ("True", "Known", String::new()),
        keyless => (
            "False",
            "NotFetched",
            format!(
                "keys of {} are not known here; the controller's status says why",
                keyless.join(", ")
            ),
        ),
    };
    Some(Condition {
        kind: "KeysKnown",
        status,
        reason,
        message,
    })
}

fn named(workloads: &[WorkloadName]) -> String {
    let named = workloads.iter().take(NAMED_MAX).map(ToString::to_string);
    named.collect::<Vec<_>>().join(", ")
}

/// A route that is not accepted is in force nowhere: why is said already.
fn programmed(route: &RouteStatus, tallies: &[Tally], silent: usize) -> RouteStatus {
    let mut route = route.clone();
    for (parent, tally) in route.parents.iter_mut().zip(tallies) {
        let mut said = ROUTE.said(tally, silent);
        if parent.conditions.iter().any(Condition::is_not_accepted) {
            (said.status, said.reason) = ("False", "NotAccepted");
            said.message = "it is not accepted".to_owned();
        }
        parent.conditions.push(said);
    }
    route
}

/// What "in force" is called.
struct InForce {
    kind: &'static str,
    done: &'static str,
    /// When no proxy is to have it.
    nobody: &'static str,
}

const POLICY: InForce = InForce {
    kind: "Applied",
    done: "Applied",
    nobody: "there is no meshed pod that it is for",
};

/// Of a route: on the proxies that follow the Service.
const ROUTE: InForce = InForce {
    kind: "ringmail.io/Programmed",
    done: "Programmed",
    nobody: "no pod has called the Service yet",
};

impl InForce {
    fn said(&self, tally: &Tally, silent: usize) -> Condition {
        let (applied, all) = (tally.applied.len(), tally.all());
        let mut message = format!("in force on {applied} of {all} proxies");
        let (status, reason) = if all == 0 {
            self.nobody.clone_into(&mut message);
            ("True", "NoProxies")
        } else if applied == all {
            ("True", self.done)
        } else if tally.refused.is_empty() {
            let open = tally.open.iter().take(NAMED_MAX);
            let open: Vec<String> = open.map(ToString::to_string).collect();
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
            kind: self.kind,
            status,
            reason,
            message,
        }
    }
}
