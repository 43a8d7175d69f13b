//! `/namespaces`: the annotation `ringmail.io/inject` becomes the label of that name in the same admission, so that the
//! pod webhook, which is selected by label, knows the namespace at once. The label goes with the annotation; one that
//! somebody set without an annotation stays.

use serde_json::{Value, json};

use super::review::{Answer, Operation, Question};
use crate::cluster::labels::{ENABLED, INJECT_LABEL};
use crate::source::annotations::INJECT;

pub(super) fn answer(question: &Question) -> Answer {
    if !matches!(question.operation, Operation::Create | Operation::Update)
        || question.kind.kind != "Namespace"
    {
        return Answer::allow();
    }
    let mut answer = Answer::allow();
    let said = annotation(&question.object);
    let label = question
        .object
        .pointer("/metadata/labels")
        .and_then(|labels| labels.get(INJECT_LABEL))
        .and_then(Value::as_str);
    let was_said = annotation(&question.old_object) == Some(ENABLED);
    match (said, label) {
        (Some(ENABLED), Some(ENABLED)) => {}
        (Some(ENABLED), _) => answer.patch = set(&question.object),
        (Some("disabled"), Some(_)) => answer.patch = vec![remove()],
        (Some("disabled") | None, None) => {}
        (None, Some(_)) if was_said => answer.patch = vec![remove()],
        (None, Some(_)) => answer.warnings.push(format!(
            "label {INJECT_LABEL} without the annotation of that name"
        )),
        (Some(_), _) => answer.warnings.push(format!(
            "annotation {INJECT} is neither enabled nor disabled; nothing is injected"
        )),
    }
    answer
}

fn annotation(namespace: &Value) -> Option<&str> {
    namespace
        .pointer("/metadata/annotations")?
        .get(INJECT)?
        .as_str()
}

fn set(namespace: &Value) -> Vec<Value> {
    let mut patch = Vec::new();
    // An operation may not name a member of what is not there.
    if !namespace
        .pointer("/metadata/labels")
        .is_some_and(Value::is_object)
    {
        patch.push(json!({"op": "add", "path": "/metadata/labels", "value": {}}));
    }
    patch.push(json!({"op": "add", "path": path(), "value": ENABLED}));
    patch
}

fn remove() -> Value {
    json!({"op": "remove", "path": path()})
}

/// RFC 6901: a slash within a name is `~1`.
fn path() -> String {
    format!("/metadata/labels/{}", INJECT_LABEL.replace('/', "~1"))
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
            assert_eq!(answer.patch.len() == 2, makes_labels, "{row:?}");
        }
    }
}
