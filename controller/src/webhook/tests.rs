//! Reviews as the API server sends them, through the parser and back.

use serde_json::{Value, json};

use super::review::Question;
use super::*;
use crate::inject::Resources;

fn review(kind: (&str, &str), object: &Value) -> Question {
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "kind": {"group": kind.0, "version": "v1", "kind": kind.1}, "namespace": "shop",
        "operation": "CREATE", "object": object, "oldObject": null, "dryRun": false}});
    Question::read(body.to_string().as_bytes()).expect("a review")
}

#[test]
fn our_reading_warns_and_denies_nothing() {
    let route = |rules: Value, kind: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"parentRefs": [{"group": "", "kind": kind, "name": "cart"}], "rules": rules}})
    };
    let annotated = |key: &str, value: &str| {
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "annotations": {key: value}}, "spec": {}})
    };
    let odd = json!([{"matches": [{"path": {"type": "Wildcard", "value": "/"}}]}]);
    let routes = ("gateway.networking.k8s.io", "HTTPRoute");
    let rows = [
        (
            ("", "Namespace"),
            annotated("ringmail.io/inject", "enabled"),
            None,
        ),
        (
            ("", "Namespace"),
            annotated("ringmail.io/injekt", "enabled"),
            Some("ringmail.io/injekt"),
        ),
        (
            ("", "Namespace"),
            annotated("ringmail.io/inbound", "open"),
            Some("permissive"),
        ),
        (
            ("", "Namespace"),
            annotated("config.ringmail.io/log-level", "loud"),
            Some("no pod can be made"),
        ),
        (
            ("", "Namespace"),
            annotated("config.ringmail.io/log-level", "debug"),
            None,
        ),
        (
            ("", "Namespace"),
            annotated("example.com/inject", "x"),
            None,
        ),
        (routes, route(json!([]), "Service"), None),
        (
            routes,
            route(odd.clone(), "Service"),
            Some("spec.rules[0].matches[0].path.type"),
        ),
        // A gateway's route is not ours.
        (routes, route(odd, "Gateway"), None),
        (("apps", "Deployment"), json!({"metadata": {}}), None),
    ];
    for (kind, object, wanted) in rows {
        let answer = validate::answer(&review(kind, &object));
        assert_eq!(answer.denied, None);
        let said = answer.warnings.join(" ");
        match wanted {
            Some(part) => assert!(said.contains(part), "{object}: {said}"),
            None => assert_eq!(said, "", "{object}"),
        }
    }
}

#[test]
fn an_answer_names_its_question_and_carries_its_patch() {
    let namespace =
        json!({"metadata": {"name": "shop", "annotations": {"ringmail.io/inject": "enabled"}}});
    let question = review(("", "Namespace"), &namespace);
    let written = namespaces::answer(&question).write(&question.uid);
    let answer: Value = serde_json::from_slice(&written).expect("JSON");
    assert_eq!(answer["response"]["uid"], "u-1");
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    let patch: k8s_openapi::ByteString =
        serde_json::from_value(answer["response"]["patch"].clone()).expect("base64");
    let patch: Value = serde_json::from_slice(&patch.0).expect("JSON");
    assert_eq!(patch[2]["value"], "enabled");
    for bad in ["", "{}", "[]", "{\"request\": {}}", "{\"request\": 7}"] {
        assert!(Question::read(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn a_pod_of_a_namespace_that_is_not_known_is_not_made_without_what_that_says() {
    let pod = json!({"metadata": {"name": "cart-0"}, "spec": {"containers": []}});
    let question = review(("", "Pod"), &pod);
    let settings = Settings {
        image: "ringmail/proxy:1".into(),
        pull_policy: "Always".into(),
        trust_domain: "cluster.local".parse().expect("valid"),
        namespace: "ringmail-system".into(),
        telemetry: Default::default(),
        resources: Resources::default(),
    };
    let refused = pods::answer(&question, None, &settings);
    assert!(refused.denied.is_some_and(|why| why.contains("shop")));
    let known = pods::answer(&question, Some(&Surroundings::default()), &settings);
    assert_eq!(known.denied, None);
    assert!(!known.patch.is_empty());
}
