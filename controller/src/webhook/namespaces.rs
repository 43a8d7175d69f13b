//! `/namespaces`: the annotation `ringmail.io/inject` becomes the label of that name in the same admission, so that the
//! pod webhook, which is selected by label, knows the namespace at once. The label goes with the annotation; one that
//! somebody set without an annotation stays. Beside a label of ours is `ringmail.io/labelled`, for whoever sees the
//! namespace later without the annotation.

use serde_json::{Value, json};

use super::review::{Answer, Operation, Question};
use crate::cluster::labels::{ENABLED, INJECT_LABEL};
use crate::source::annotations::{INJECT, LABELLED};

pub(super) fn answer(question: &Question) -> Answer {
    if !matches!(question.operation, Operation::Create | Operation::Update)
        || question.kind.kind != "Namespace"
    {
        return Answer::allow();
    }
    let mut answer = Answer::allow();
    let said = annotation(&question.object, INJECT);
    let label = question
        .object
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(INJECT_LABEL))
        .and_then(Value::as_str);
    let is_ours = annotation(&question.old_object, INJECT) == Some(ENABLED)
        || annotation(&question.object, LABELLED).is_some();
    match (said, label) {
        (Some(ENABLED), Some(ENABLED)) => {}
        (Some(ENABLED), _) => answer.patch = set(&question.object),
        (Some("disabled"), Some(_)) => answer.patch = remove(&question.object),
        (Some("disabled") | None, None) => {}
        (None, Some(_)) if is_ours => answer.patch = remove(&question.object),
        (None, Some(_)) => answer.warnings.push(format!(
            "label {INJECT_LABEL} without the annotation of that name"
        )),
        (Some(_), _) => answer.warnings.push(format!(
            "annotation {INJECT} is neither enabled nor disabled; nothing is injected"
        )),
    }
    answer
}

fn annotation<'a>(namespace: &'a Value, key: &str) -> Option<&'a str> {
    namespace
        .pointer("/metadata/annotations")?
        .get(key)?
        .as_str()
}

fn set(namespace: &Value) -> Vec<Value> {
    // Where the other annotation is.
    let mut patch =
        vec![json!({"op": "add", "path": path("annotations", LABELLED), "value": "true"})];
    // An operation may not name a member of what is not there.
    if !namespace
        .pointer("/metadata/labels")
        .is_some_and(Value::is_object)
    {
        patch.push(json!({"op": "add", "path": "/metadata/labels", "value": {}}));
    }
    patch.push(json!({"op": "add", "path": path("labels", INJECT_LABEL), "value": ENABLED}));
    patch
}

fn remove(namespace: &Value) -> Vec<Value> {
    let is_marked = annotation(namespace, LABELLED).is_some();
    let mark = is_marked.then(|| path("annotations", LABELLED));
    let all = mark.into_iter().chain([path("labels", INJECT_LABEL)]);
    all.map(|path| json!({"op": "remove", "path": path}))
        .collect()
}

/// RFC 6901: a slash within a name is `~1`.
fn path(of: &str, name: &str) -> String {
    format!("/metadata/{of}/{}", name.replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(annotation: Option<&str>, label: Option<&str>) -> Value {
        let mut namespace = json!({"metadata": {"name": "shop"}});
        if let Some(value) = annotation {
            namespace["metadata"]["annotations"] = json!({INJECT: value});
        }
        if let Some(value) = label {
            namespace["metadata"]["labels"] = json!({INJECT_LABEL: value});
        }
        namespace
    }

    #[test]
    fn the_label_follows_the_annotation() {
        let set = "add";
        // Annotation and label now, annotation before: the operation, and whether there is a warning.
        let rows = [
            (Some("enabled"), None, None, Some(set), false),
            (Some("enabled"), Some("enabled"), None, None, false),
            (Some("enabled"), Some("other"), None, Some(set), false),
            (
                Some("disabled"),
                Some("enabled"),
                None,
                Some("remove"),
                false,
            ),
            (Some("disabled"), None, None, None, false),
            (
                None,
                Some("enabled"),
                Some("enabled"),
                Some("remove"),
                false,
            ),
            (None, Some("enabled"), None, None, true),
            (None, None, Some("enabled"), None, false),
            (Some("yes"), None, None, None, true),
            (None, None, None, None, false),
        ];
        for (annotation, label, before, operation, warned) in rows {
            let question = Question {
                uid: "u".into(),
                kind: super::super::review::GroupKind {
                    group: String::new(),
                    kind: "Namespace".into(),
                },
                namespace: "shop".into(),
                operation: Operation::Update,
                object: namespace(annotation, label),
                old_object: namespace(before, label),
            };
            let row = (annotation, label, before);
            let answer = answer(&question);
            assert_eq!(answer.denied, None, "{row:?}");
            assert_eq!(!answer.warnings.is_empty(), warned, "{row:?}");
            let last = answer.patch.last().map(|one| one["op"].clone());
            assert_eq!(last, operation.map(Value::from), "{row:?}");
            if let Some(one) = answer.patch.last() {
                assert_eq!(one["path"], "/metadata/labels/ringmail.io~1inject");
            }
            let makes_labels = label.is_none() && operation == Some(set);
            assert_eq!(answer.patch.len() == 3, makes_labels, "{row:?}");
        }
    }

    /// The annotation went while nobody was asked; somebody writes the namespace for another reason.
    #[test]
    fn a_label_of_ours_goes_later_too() {
        let mut object = namespace(None, Some(ENABLED));
        object["metadata"]["annotations"] = json!({LABELLED: "true"});
        let question = Question {
            uid: "u".into(),
            kind: super::super::review::GroupKind {
                group: String::new(),
                kind: "Namespace".into(),
            },
            namespace: "shop".into(),
            operation: Operation::Update,
            old_object: object.clone(),
            object,
        };
        let wanted = json!([
            {"op": "remove", "path": "/metadata/annotations/ringmail.io~1labelled"},
            {"op": "remove", "path": "/metadata/labels/ringmail.io~1inject"},
        ]);
        assert_eq!(json!(answer(&question).patch), wanted);
    }
}
