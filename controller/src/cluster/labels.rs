//! Labels of namespaces: `ringmail.io/inject=enabled` where the annotation of that name says so.
//!
//! Users annotate; webhooks are selected by label, since an API server selects by nothing else. The namespace webhook
//! does the same at admission; this finds namespaces that were annotated, or lost their annotation, while no webhook ran.
//! Beside a label of ours is an annotation that says so: a label alone is somebody's, and is left alone.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::{info, warn};

use super::lead::{Desk, FIELD_MANAGER, RESYNC};
use super::rounds::{Round, Rounds};
use crate::metrics::Written;
use crate::source::annotations::{INJECT, LABELLED};

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
fn wrong(namespace: &Namespace) -> Option<Option<&'static str>> {
    if namespace.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let annotations = namespace.metadata.annotations.as_ref();
    let said = annotations.and_then(|all| all.get(INJECT));
    let is_ours = annotations.is_some_and(|all| all.contains_key(LABELLED));
    match (
        said.map(String::as_str),
        is_labelled(namespace, INJECT_LABEL),
    ) {
        (Some(ENABLED), false) => Some(Some(ENABLED)),
        (Some("disabled"), true) => Some(None),
        (None, true) if is_ours => Some(None),
        (Some(_) | None, _) => None,
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
            let all = state.iter().flat_map(|state| state.objects.namespaces());
            let all = all.filter(|one| {
                let name = one.metadata.name.as_deref().unwrap_or_default();
                !self.desk.is_exempt(name)
            });
            let all = all.filter_map(|one| Some((one.metadata.uid.as_deref()?, one, wrong(one)?)));
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
                    "annotations": {LABELLED: value.map(|_| "true")},
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
            (Some("enabled"), None, false, Some(Some("enabled"))),
            (
                Some("enabled"),
                Some("disabled"),
                false,
                Some(Some("enabled")),
            ),
            (Some("enabled"), Some("enabled"), false, None),
            (Some("enabled"), Some("enabled"), true, None),
            (Some("disabled"), Some("enabled"), false, Some(None)),
            (Some("disabled"), None, false, None),
            (Some("Enabled"), None, false, None),
            (Some("Enabled"), Some("enabled"), true, None),
            (None, Some("enabled"), false, None),
            (None, Some("enabled"), true, Some(None)),
            (None, None, true, None),
            (None, None, false, None),
        ];
        for (annotation, label, is_ours, wanted) in rows {
            let one = |value: Option<&str>| {
                value.map(|value| BTreeMap::from([(INJECT.to_owned(), value.to_owned())]))
            };
            let mut namespace = Namespace::default();
            let mut annotations = one(annotation).unwrap_or_default();
            if is_ours {
                annotations.insert(LABELLED.into(), "true".into());
            }
            namespace.metadata.annotations = Some(annotations);
            namespace.metadata.labels = one(label);
            let row = (annotation, label, is_ours);
            assert_eq!(wrong(&namespace), wanted, "{row:?}");
        }
    }
}
