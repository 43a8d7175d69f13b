//! The roots, for pods that have no certificate yet: ConfigMap `ringmail-trust-bundle` in our own namespace, in every
//! namespace whose pods are injected, and wherever an injected pod is. It is never deleted: a pod that is on its way may
//! need it.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::warn;

use super::labels::{INJECT_LABEL, is_labelled};
use super::lead::{Desk, FIELD_MANAGER, RESYNC};
use super::rounds::{Round, Rounds};
use crate::metrics::Written;
use crate::source::Objects;
use crate::source::annotations::INJECT;

/// The ConfigMap and its key.
pub(crate) const BUNDLE: &str = "ringmail-trust-bundle";
pub(super) const KEY: &str = "root.pem";

pub(super) struct Bundles {
    desk: Desk,
}

impl Bundles {
    pub(super) fn new(desk: &Desk) -> Self {
        Self { desk: desk.clone() }
    }

    pub(super) async fn run(mut self) {
        // What is there, by the namespace's UID: another of that name is another.
        let mut written: HashMap<String, String> = HashMap::new();
        let mut rounds = Rounds::new(RESYNC);
        loop {
            self.desk.snapshots.mark_unchanged();
            let state = self.desk.states.borrow_and_update().clone();
            let roots = self.desk.roots();
            let wanted = state.map(|state| wanted(&state.objects, &self.desk.namespace));
            let wanted = wanted.unwrap_or_default();
            written.retain(|uid, _| wanted.contains_key(uid));
            let mut round = Round::Done;
            for (uid, namespace) in wanted {
                if written.get(&uid) == Some(&roots) {
                    continue;
                }
                match self.write(&namespace, &roots).await {
                    Ok(()) => {
                        written.insert(uid, roots.clone());
                    }
                    Err(e) => {
                        warn!(namespace, "cannot write ConfigMap {BUNDLE}: {e}");
                        round = Round::Failed;
                    }
                }
            }
            if rounds.next(round, self.desk.changed()).await {
                written.clear();
            }
        }
    }

    async fn write(&self, namespace: &str, roots: &str) -> Result<(), kube::Error> {
        let api = Api::<ConfigMap>::namespaced(self.desk.client.clone(), namespace);
        let bundle = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": BUNDLE, "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER}},
            "data": {KEY: roots},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let outcome = api.patch(BUNDLE, &params, &Patch::Apply(&bundle)).await;
        self.desk.count(Written::Bundle, &outcome);
        outcome.map(drop)
    }
}

/// Namespaces that need the roots, by UID.
fn wanted(objects: &Objects, own: &str) -> BTreeMap<String, String> {
    let mut injected: Vec<&str> = objects
        .pods()
        .filter(|pod| {
            let annotations = pod.metadata.annotations.as_ref();
            annotations.is_some_and(|all| all.get(INJECT).is_some_and(|said| said == "enabled"))
        })
        .filter_map(|pod| pod.metadata.namespace.as_deref())
        .collect();
    // Pods come by namespace.
    injected.dedup();
    objects
        .namespaces()
        .filter(|one| one.metadata.deletion_timestamp.is_none())
        .filter_map(|one| {
            let name = one.metadata.name.as_deref()?;
            let is_wanted = name == own
                || is_labelled(one, INJECT_LABEL)
                || injected.binary_search(&name).is_ok();
            let uid = one.metadata.uid.clone()?;
            is_wanted.then(|| (uid, name.to_owned()))
        })
        .collect()
}
