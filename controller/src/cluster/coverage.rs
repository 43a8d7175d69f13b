//! Pods that should have a sidecar and have none: those from before the annotation, and those that slipped through. They
//! are counted; when asked to, they are evicted, so that their owners make them anew.
//!
//! An eviction is the API server's, so disruption budgets hold. One at a time, [`EVICTION_PAUSE`] apart; never a pod that
//! nobody would make again, never in kube-system or our own namespace. An owner whose new pod has no sidecar either is
//! left alone: evicting it would never end.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Api;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use tokio::time::sleep;
use tracing::{info, warn};

use super::labels::{ENABLED, INJECT_LABEL, is_labelled};
use super::lead::{Desk, RESYNC};
use crate::metrics::Written;
use crate::source::annotations::INJECT;
use crate::source::cluster::SAID;
use crate::source::objects::Objects;

/// Before each eviction: in it the label is written by which a new pod gets its sidecar, and the one before gets ready.
const EVICTION_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Coverage {
    desk: Desk,
}

/// Running pods that should have a sidecar, in the order of their names.
fn uncovered<'a>(objects: &'a Objects, desk: &'a Desk) -> impl Iterator<Item = &'a Pod> {
    let enabled: HashSet<&str> = objects
        .namespaces()
        .filter(|one| is_enabled(one))
        .filter_map(|one| one.metadata.name.as_deref())
        .collect();
    objects.pods().filter(move |pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        !desk.is_exempt(namespace) && lacks(pod, enabled.contains(namespace))
    })
}

fn is_enabled(namespace: &Namespace) -> bool {
    let annotations = namespace.metadata.annotations.as_ref();
    match annotations.and_then(|all| all.get(INJECT)) {
        Some(said) => said == ENABLED,
        None => is_labelled(namespace, INJECT_LABEL),
    }
}

/// Whether it has no sidecar, and should and could have one.
fn lacks(pod: &Pod, inherited: bool) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let read = |key| annotations.and_then(|all| all.get(key)).map(String::as_str);
    let asked = match read(SAID) {
        Some(ENABLED) => true,
        Some("disabled") => false,
        Some(_) | None => inherited,
    };
    let spec = pod.spec.as_ref();
    let phase = pod.status.as_ref().and_then(|one| one.phase.as_deref());
    asked
        && read(INJECT) != Some(ENABLED)
        && spec.is_none_or(|spec| spec.host_network != Some(true))
        && !matches!(phase, Some("Succeeded" | "Failed"))
        && pod.metadata.deletion_timestamp.is_none()
}

/// Who makes it anew. A node makes its own pods from files, whatever is evicted.
fn owner(pod: &Pod) -> Option<&OwnerReference> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.find(|one| one.controller == Some(true) && one.kind != "Node")
}

/// What was evicted: of each owner the time of its newest pod then.
#[derive(Default)]
struct Evicted {
    newest: HashMap<String, Option<Time>>,
    /// Pods that were tried since the last round.
    tried: HashSet<String>,
}

impl Evicted {
    /// Whom to evict next.
    fn next<'a>(&self, missing: &[&'a Pod]) -> Option<&'a Pod> {
        let may_go = |pod: &Pod| {
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let is_replacement = |owner: &OwnerReference| {
                let newest = self.newest.get(&owner.uid);
                newest.is_some_and(|newest| pod.metadata.creation_timestamp > *newest)
            };
            !self.tried.contains(uid) && owner(pod).is_some_and(|owner| !is_replacement(owner))
        };
        missing.iter().copied().find(|pod| may_go(pod))
    }

    fn note(&mut self, pod: &Pod, missing: &[&Pod]) {
        self.tried
            .insert(pod.metadata.uid.clone().unwrap_or_default());
        let Some(owner) = owner(pod) else {
            return;
        };
        let same = missing
            .iter()
            .filter(|one| self::owner(one).is_some_and(|other| other.uid == owner.uid));
        let newest = same.filter_map(|one| one.metadata.creation_timestamp.clone());
        let newest = newest.max();
        self.newest.entry(owner.uid.clone()).or_insert(newest);
    }
}

impl Coverage {
    pub(super) fn new(desk: &Desk) -> Self {
        Self { desk: desk.clone() }
    }

    pub(super) async fn run(mut self) {
        let mut evicted = Evicted::default();
        let mut is_due = false;
        loop {
            let state = self.desk.states.borrow_and_update().clone();
            let desk = self.desk.clone();
            let missing: Vec<&Pod> = state
                .iter()
                .flat_map(|state| uncovered(&state.objects, &desk))
                .collect();
            let count = i64::try_from(missing.len()).unwrap_or(i64::MAX);
            self.desk.metrics.pods_uncovered.set(count);
            let next = evicted.next(&missing).filter(|_| self.desk.evict);
            match next {
                Some(pod) if is_due => {
                    evicted.note(pod, &missing);
                    self.evict(pod).await;
                    is_due = false;
                }
                Some(_) => {
                    sleep(EVICTION_PAUSE).await;
                    is_due = true;
                }
                None => tokio::select! {
                    Ok(()) = self.desk.states.changed() => {}
                    () = sleep(RESYNC) => evicted.tried.clear(),
                },
            }
        }
    }

    async fn evict(&self, pod: &Pod) {
        let (namespace, name) = (
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
        );
        // Never its successor of the same name.
        let this = Preconditions {
            uid: pod.metadata.uid.clone(),
            ..Preconditions::default()
        };
        let params = EvictParams {
            delete_options: Some(DeleteParams::default().preconditions(this)),
            ..EvictParams::default()
        };
        let api = Api::<Pod>::namespaced(self.desk.client.clone(), &namespace);
        let outcome = api.evict(&name, &params).await;
        self.desk.count(Written::Eviction, &outcome);
        match outcome {
            Ok(_) => info!(namespace, pod = name, "evicted: it had no sidecar"),
            // A disruption budget, most often; the next round tries again.
            Err(e) => warn!(namespace, pod = name, "cannot evict: {e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(annotations: &Value, more: &Value, owner: Option<&str>, created: u32) -> Pod {
        let owners = owner.map(|uid| {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "uid": uid, "controller": true}])
        });
        let mut pod = json!({"metadata": {"name": "cart", "namespace": "shop", "uid": format!("{created}"),
            "annotations": annotations, "ownerReferences": owners,
            "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"containers": []}});
        if let (Some(pod), Some(more)) = (pod.as_object_mut(), more.as_object()) {
            pod.extend(more.clone());
        }
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn who_lacks_a_sidecar() {
        let none = json!({});
        let host = json!({"spec": {"containers": [], "hostNetwork": true}});
        let over = json!({"status": {"phase": "Succeeded"}});
        let rows = [
            (json!({INJECT: "disabled"}), &none, true, true),
            (json!({INJECT: "enabled"}), &none, true, false),
            (json!({INJECT: "disabled"}), &none, false, false),
            (
                json!({INJECT: "disabled", SAID: "disabled"}),
                &none,
                true,
                false,
            ),
            (
                json!({INJECT: "disabled", SAID: "enabled"}),
                &none,
                false,
                true,
            ),
            (json!({INJECT: "disabled"}), &host, true, false),
            (json!({INJECT: "disabled"}), &over, true, false),
        ];
        for (annotations, more, inherited, wanted) in rows {
            let found = lacks(&pod(&annotations, more, None, 1), inherited);
            assert_eq!(found, wanted, "{annotations} {more} {inherited}");
        }
    }

    #[test]
    fn evictions_end() {
        let of = |owner, created| pod(&Value::Null, &Value::Null, owner, created);
        let (alone, first, second, replacement) = (
            of(None, 1),
            of(Some("a"), 2),
            of(Some("a"), 3),
            of(Some("a"), 4),
        );
        let mut evicted = Evicted::default();
        let missing = [&alone, &first, &second];
        assert_eq!(evicted.next(&missing), Some(&first));
        evicted.note(&first, &missing);
        assert_eq!(evicted.next(&missing), Some(&second));
        evicted.note(&second, &missing);
        assert_eq!(evicted.next(&missing), None);
        // It has no sidecar either: the next would have none.
        evicted.tried.clear();
        assert_eq!(evicted.next(&[&alone, &replacement]), None);
        assert_eq!(evicted.next(&missing), Some(&first));
    }
}
