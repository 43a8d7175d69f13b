//! What a replica says of its proxies, and the sum of what all say. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ringmail_proto::identity::WorkloadName;
use ringmail_proto::policy::{Authorization, Policy};
use serde::{Deserialize, Serialize};

use super::{InForce, Proxies};
use crate::model::{Mesh, PolicyReport};

/// What one replica says, by policies as it knows them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Said {
    /// `namespace/name` and generation.
    policies: Vec<(String, Option<i64>)>,
    proxies: Vec<Proxy>,
}

/// What one proxy has in force, by places in `Said::policies`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Proxy {
    /// `namespace/name` of its pod.
    workload: String,
    applied: Vec<usize>,
    /// What it cannot act on, or has not taken, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<(usize, String)>,
}

/// How far a policy has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Workloads whose proxies have it in force.
    pub(super) applied: BTreeSet<WorkloadName>,
    /// Those whose proxies do not, with their reasons.
    pub(super) refused: BTreeMap<WorkloadName, String>,
}

/// Of the proxies that watch this replica.
pub(crate) fn say(mesh: &Mesh, proxies: &Proxies) -> Said {
    let reports = mesh.policies();
    let places: HashMap<String, usize> = reports
        .iter()
        .enumerate()
        .map(|(place, report)| (full_name(report), place))
        .collect();
    let mut said = Said {
        policies: reports
            .iter()
            .map(|report| (full_name(report), report.generation))
            .collect(),
        proxies: Vec::new(),
    };
    for (name, in_force) in proxies.in_force() {
        let Some(wanted) = mesh.authorization(&name) else {
            continue;
        };
        let proxy = proxy(&name, &in_force, &wanted, &places);
        if !proxy.applied.is_empty() || !proxy.refused.is_empty() {
            said.proxies.push(proxy);
        }
    }
    said
}

fn proxy(
    name: &WorkloadName,
    in_force: &InForce,
    wanted: &Authorization,
    places: &HashMap<String, usize>,
) -> Proxy {
    let taken: HashMap<&str, &Policy> = in_force
        .authorization
        .iter()
        .flat_map(|taken| &taken.policies)
        .map(|policy| (&*policy.name, policy))
        .collect();
    let mut proxy = Proxy {
        workload: name.to_string(),
        ..Proxy::default()
    };
    let mut is_known = true;
    for policy in &wanted.policies {
        let Some(place) = places.get(&*policy.name).copied() else {
            continue;
        };
        let is_taken = taken.get(&*policy.name) == Some(&policy);
        match (is_taken, in_force.denied.get(&*policy.name)) {
            (true, Some(reason)) => proxy.refused.push((place, reason.clone())),
            (true, None) if is_known => proxy.applied.push(place),
            (true, None) => {}
            (false, _) => {
                let refused = in_force.refused.iter();
                proxy
                    .refused
                    .extend(refused.map(|why| (place, why.clone())));
            }
        }
        is_known &= in_force.known_up_to.as_deref() != Some(&*policy.name);
    }
    proxy
}

/// For each of `reports`, what all replicas say of that generation of it. A proxy that is known to several has in force
/// what one of them says, for it was there last.
pub(super) fn sum(reports: &[PolicyReport], said: &[Said]) -> Vec<Tally> {
    let places: HashMap<(String, Option<i64>), usize> = reports
        .iter()
        .enumerate()
        .map(|(place, report)| ((full_name(report), report.generation), place))
        .collect();
    let mut tallies = vec![Tally::default(); reports.len()];
    for one in said {
        let ours: Vec<Option<usize>> = one
            .policies
            .iter()
            .map(|policy| places.get(policy).copied())
            .collect();
        for proxy in &one.proxies {
            let Ok(name) = proxy.workload.parse::<WorkloadName>() else {
                continue;
            };
            let meant = |theirs: usize| {
                let place = ours.get(theirs).copied().flatten()?;
                let workloads = &reports.get(place)?.workloads;
                workloads.binary_search(&name).is_ok().then_some(place)
            };
            for place in proxy.applied.iter().filter_map(|place| meant(*place)) {
                tallies[place].applied.insert(name.clone());
            }
            for (place, reason) in &proxy.refused {
                if let Some(place) = meant(*place) {
                    let refused = &mut tallies[place].refused;
                    refused.insert(name.clone(), reason.clone());
                }
            }
        }
    }
    for tally in &mut tallies {
        let Tally { applied, refused } = tally;
        refused.retain(|name, _| !applied.contains(name));
    }
    tallies
}

fn full_name(report: &PolicyReport) -> String {
    format!("{}/{}", report.key.namespace, report.key.name)
}
