//! The roots, for pods that have no certificate yet: ConfigMap `ringmail-trust-bundle` in our own namespace, in every
//! namespace whose pods are injected, and wherever an injected pod is. It is deleted `UNNEEDED_FOR` after the last of these
//! is gone: a pod that is on its way may need it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::labels::{INJECT_LABEL, is_labelled};
use super::lead::{Desk, FIELD_MANAGER, RESYNC};
use super::rounds::{Round, Rounds};
use crate::metrics::Written;
use crate::source::Objects;
use crate::source::annotations::INJECT;

/// The ConfigMap and its key.
pub(crate) const BUNDLE: &str = "ringmail-trust-bundle";
pub(super) const KEY: &str = "root.pem";
/// On each: it is ours to delete.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// How long nobody must have needed one.
const UNNEEDED_FOR: Duration = Duration::from_secs(10);

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
        let mut left = Left::default();
        let mut rounds = Rounds::new(RESYNC);
        let mut is_new = true;
        loop {
            if is_new {
                self.find(&mut left).await;
            }
            self.desk.snapshots.mark_unchanged();
            let state = self.desk.states.borrow_and_update().clone();
            let roots = self.desk.roots();
            let wanted = state
                .as_ref()
                .map(|state| wanted(&state.objects, &self.desk));
            if let Some(wanted) = &wanted {
                left.look(wanted.values(), Instant::now());
            }
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
                        left.there.insert(namespace);
                    }
                    Err(e) => {
                        warn!(namespace, "cannot write ConfigMap {BUNDLE}: {e}");
                        round = Round::Failed;
                    }
                }
            }
            for namespace in left.due(Instant::now()) {
                match self.delete(&namespace).await {
                    Ok(()) => left.forget(&namespace),
                    Err(e) => {
                        warn!(namespace, "cannot delete ConfigMap {BUNDLE}: {e}");
                        round = Round::Failed;
                    }
                }
            }
            let next = left.next();
            let wake = async {
                tokio::select! {
                    () = self.desk.changed() => {}
                    () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                }
            };
            is_new = rounds.next(round, wake).await;
            if is_new {
                written.clear();
            }
        }
    }

    /// All that are there: another replica, or one before this, wrote them.
    async fn find(&self, left: &mut Left) {
        let api = Api::<ConfigMap>::all(self.desk.client.clone());
        let ours = ListParams::default()
            .fields(&format!("metadata.name={BUNDLE}"))
            .labels(&format!("{MANAGED_BY}={FIELD_MANAGER}"));
        match api.list_metadata(&ours).await {
            Ok(found) => {
                let namespaces = found.items.into_iter();
                left.there
                    .extend(namespaces.filter_map(|one| one.metadata.namespace));
            }
            Err(e) => warn!("cannot list ConfigMaps {BUNDLE}, none of formerly is deleted: {e}"),
        }
    }

    async fn delete(&self, namespace: &str) -> Result<(), kube::Error> {
        let api = Api::<ConfigMap>::namespaced(self.desk.client.clone(), namespace);
        let outcome = api.delete(BUNDLE, &DeleteParams::default()).await;
        let outcome = match outcome {
            // With its namespace, most often.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            other => other.map(drop),
        };
        self.desk.count(Written::Bundle, &outcome);
        if outcome.is_ok() {
            info!(
                namespace,
                "ConfigMap {BUNDLE} deleted: nobody needs it there"
            );
        }
        outcome
    }

    async fn write(&self, namespace: &str, roots: &str) -> Result<(), kube::Error> {
        let api = Api::<ConfigMap>::namespaced(self.desk.client.clone(), namespace);
        let bundle = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": BUNDLE, "labels": {MANAGED_BY: FIELD_MANAGER}},
            "data": {KEY: roots},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let outcome = api.patch(BUNDLE, &params, &Patch::Apply(&bundle)).await;
        self.desk.count(Written::Bundle, &outcome);
        outcome.map(drop)
    }
}

/// Where the roots are, needed or not.
#[derive(Default)]
struct Left {
    there: BTreeSet<String>,
    /// Those that nobody needs, since when.
    unneeded: HashMap<String, Instant>,
}

impl Left {
    fn look<'a>(&mut self, wanted: impl Iterator<Item = &'a String>, now: Instant) {
        let wanted: BTreeSet<&String> = wanted.collect();
        self.unneeded.retain(|one, _| !wanted.contains(one));
        for one in self.there.iter().filter(|one| !wanted.contains(one)) {
            self.unneeded.entry(one.clone()).or_insert(now);
        }
    }

    fn due(&self, now: Instant) -> Vec<String> {
        let due = self.unneeded.iter();
        let due = due.filter(|(_, since)| now >= **since + UNNEEDED_FOR);
        due.map(|(namespace, _)| namespace.clone()).collect()
    }

    /// When the next is due.
    fn next(&self) -> Option<Instant> {
        self.unneeded
            .values()
            .min()
            .map(|since| *since + UNNEEDED_FOR)
    }

    fn forget(&mut self, namespace: &str) {
        self.there.remove(namespace);
        self.unneeded.remove(namespace);
    }
}

/// Namespaces that need the roots, by UID.
fn wanted(objects: &Objects, desk: &Desk) -> BTreeMap<String, String> {
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
            let is_wanted = name == desk.namespace
                || is_labelled(one, INJECT_LABEL) && !desk.is_exempt(name)
                || injected.binary_search(&name).is_ok();
            let uid = one.metadata.uid.clone()?;
            is_wanted.then(|| (uid, name.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_needs_goes_after_a_while() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let both = ["shop".to_owned(), "pay".to_owned()];
        let mut left = Left::default();
        left.there.extend(both.clone());
        left.look(both.iter(), at(0));
        assert_eq!((left.next(), left.due(at(100))), (None, vec![]));
        left.look(both[..1].iter(), at(1));
        // Somebody comes back in time, and goes again.
        left.look(both.iter(), at(5));
        left.look(both[..1].iter(), at(6));
        left.look(both[..1].iter(), at(15));
        assert_eq!(left.next(), Some(at(16)));
        assert_eq!(left.due(at(15)), Vec::<String>::new());
        assert_eq!(left.due(at(16)), ["pay"]);
        left.forget("pay");
        assert_eq!(left.next(), None);
        left.look(both[..1].iter(), at(60));
        assert_eq!(left.next(), None, "it is not there any more");
    }
}
