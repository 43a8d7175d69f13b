//! Labels of namespaces: `ringmail.io/inject=enabled` where the annotation of that name says so.
//!
//! Users annotate; webhooks are selected by label, since an API server selects by nothing else. The namespace webhook
//! does the same at admission; this finds namespaces that were annotated while no webhook ran. What has a label and no
//! annotation is left alone: somebody set it.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::{info, warn};

use super::lead::{Desk, FIELD_MANAGER, RESYNC};
use super::rounds::{Round, Rounds};
use crate::metrics::Written;
use crate::source::annotations::INJECT;

/// The label by which webhooks are selected; its name is the annotation's.
pub(crate) const INJECT_LABEL: &str = INJECT;
/// The value of annotation and label.
pub(crate) const ENABLED: &str = "enabled";
/// Namespaces whose pods are never injected, beside our own.
pub(crate) const EXEMPT: [&str; 3] = ["kube-system", "kube-public", "kube-node-lease"];

pub(super) struct Labels {
    desk: Desk,
}

pub(super) fn is_labelled(namespace: &Namespace, label: &str) -> bool {
    let labels = namespace.metadata.labels.as_ref();
    labels.is_some_and(|all| all.get(label).is_some_and(|value| value == ENABLED))
}

/// What the label should be, when it is not.
fn wrong(namespace: &Namespace, own: &str) -> Option<Option<&'static str>> {
    let name = namespace.metadata.name.as_deref()?;
    if name == own || EXEMPT.contains(&name) || namespace.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let annotations = namespace.metadata.annotations.as_ref();
    let said = annotations.and_then(|all| all.get(INJECT));
    match (
        said.map(String::as_str),
        is_labelled(namespace, INJECT_LABEL),
    ) {
        (Some(ENABLED), false) => Some(Some(ENABLED)),
        (Some("disabled"), true) => Some(None),
        (Some(_), _) | (None, _) => None,
    }
}

impl Labels {
    pub(super) fn new(desk: &Desk) -> Self {
        Self { desk: desk.clone() }
    }

    pub(super) async fn run(mut self) {
        let api = Api::<Namespace>::all(self.desk.client.clone());
        // Written and not seen back yet, by UID: another namespace of that name is another.
        let mut written: HashMap<String, Option<&str>> = HashMap::new();
        let mut rounds = Rounds::new(RESYNC);
        loop {
            self.desk.snapshots.mark_unchanged();
            let state = self.desk.states.borrow_and_update().clone();
            let mut round = Round::Done;
            let own = &self.desk.namespace;
            let all = state.iter().flat_map(|state| state.objects.namespaces());
            let all =
                all.filter_map(|one| Some((one.metadata.uid.as_deref()?, one, wrong(one, own)?)));
            let wrong: Vec<_> = all.collect();
            // What was seen to be right may become wrong again.
            written.retain(|uid, _| wrong.iter().any(|(other, ..)| other == uid));
            for (uid, namespace, value) in wrong {
                let name = namespace.metadata.name.clone().unwrap_or_default();
                if written.get(uid) == Some(&value) {
                    continue;
                }
                let patch = json!({"metadata": {
                    "uid": uid,
                    "labels": {INJECT_LABEL: value},
                }});
                let params = PatchParams {
                    field_manager: Some(FIELD_MANAGER.into()),
                    ..PatchParams::default()
                };
                let outcome = api.patch(&name, &params, &Patch::Merge(&patch)).await;
                self.desk.count(Written::Label, &outcome);
                match outcome {
                    Ok(_) => {
                        info!(namespace = name, ?value, "label {INJECT_LABEL} put right");
                        written.insert(uid.to_owned(), value);
                    }
                    Err(e) => {
                        warn!(namespace = name, "cannot label: {e}");
                        round = Round::Failed;
                    }
                }
            }
            if rounds.next(round, self.desk.changed()).await {
                written.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn labels_follow_annotations() {
        let rows = [
            ("shop", Some("enabled"), None, Some(Some("enabled"))),
            (
                "shop",
                Some("enabled"),
                Some("disabled"),
                Some(Some("enabled")),
            ),
            ("shop", Some("enabled"), Some("enabled"), None),
            ("shop", Some("disabled"), Some("enabled"), Some(None)),
            ("shop", Some("disabled"), None, None),
            ("shop", Some("Enabled"), None, None),
            ("shop", None, Some("enabled"), None),
            ("shop", None, None, None),
            ("kube-system", Some("enabled"), None, None),
            ("ringmail-system", Some("enabled"), None, None),
        ];
        for (name, annotation, label, wanted) in rows {
            let one = |value: Option<&str>| {
                value.map(|value| BTreeMap::from([(INJECT.to_owned(), value.to_owned())]))
            };
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.into());
            namespace.metadata.annotations = one(annotation);
            namespace.metadata.labels = one(label);
            let found = wrong(&namespace, "ringmail-system");
            assert_eq!(found, wanted, "{name} {annotation:?} {label:?}");
        }
    }
}
