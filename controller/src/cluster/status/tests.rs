use super::*;

fn reference(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name})
}

fn said(kind: &'static str, status: &'static str, message: &str) -> Condition {
    Condition {
        kind,
        status,
        reason: kind,
        message: message.into(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn first(conditions: Vec<Condition>, generation: i64, now: i64) -> Vec<Value> {
    let entries = vec![(reference("cart"), conditions)];
    merged(&[], entries, Some(generation), at(now)).expect("nothing is there yet")
}

#[test]
fn what_says_the_same_is_not_written() {
    let accepted = || vec![said("Accepted", "True", "")];
    let before = first(accepted(), 1, 1000);
    assert_eq!(before[0]["controllerName"], CONTROLLER);
    assert_eq!(before[0]["conditions"][0]["observedGeneration"], 1);
    let entries = || vec![(reference("cart"), accepted())];
    assert_eq!(merged(&before, entries(), Some(1), at(2000)), None);
    let newer = merged(&before, entries(), Some(2), at(2000)).expect("another generation");
    assert_eq!(newer[0]["conditions"][0]["observedGeneration"], 2);
    let since = |parents: &[Value]| parents[0]["conditions"][0]["lastTransitionTime"].clone();
    assert_eq!(since(&newer), since(&before));
}

#[test]
fn a_time_changes_with_its_status_only() {
    let before = first(vec![said("Accepted", "False", "a limit")], 1, 1000);
    let since = |parents: &[Value]| parents[0]["conditions"][0]["lastTransitionTime"].clone();
    let again = |condition| {
        let entries = vec![(reference("cart"), vec![condition])];
        merged(&before, entries, Some(1), at(2000)).expect("something changed")
    };
    let reworded = again(said("Accepted", "False", "another limit"));
    assert_eq!(since(&reworded), since(&before));
    let healed = again(said("Accepted", "True", ""));
    assert_eq!(since(&healed), "1970-01-01T00:33:20Z");
}

#[test]
fn entries_of_others_stay_and_ours_for_parents_that_are_gone_go() {
    let other = json!({"parentRef": {"name": "gateway"}, "controllerName": "example.com/other",
        "conditions": [{"type": "Accepted", "status": "True"}]});
    let mut before = vec![other.clone()];
    before.extend(first(vec![said("Accepted", "True", "")], 1, 1000));
    let entries = vec![(reference("pay"), vec![said("Accepted", "True", "")])];
    let merged = merged(&before, entries, Some(2), at(2000)).expect("another parent");
    assert_eq!(merged.len(), 2);
    assert_eq!(merged[0], other);
    assert_eq!(merged[1]["parentRef"], reference("pay"));
}

fn live(generation: i64) -> DynamicObject {
    serde_json::from_value(json!({
        "metadata": {"name": "r", "namespace": "shop", "uid": "u", "generation": generation},
        "spec": {"parentRefs": [{"name": "gateway"}, reference("cart")]},
    }))
    .expect("good")
}

#[test]
fn gateways_are_not_ours_and_a_newer_route_waits() {
    let refusal = Refusal {
        line: 0,
        field: "spec.rules[0]".into(),
        problem: "is odd".into(),
    };
    let refused = Verdict::Refused("u".into(), refusal.clone());
    let found = entries(&live(1), &refused).expect("the same route");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, reference("cart"));
    assert_eq!(found[0].1[0].message, "spec.rules[0]: is odd");
    let other = Verdict::Refused("v".into(), refusal);
    assert_eq!(entries(&live(1), &other), None);
    let read = Verdict::Read(RouteStatus {
        kind: "HTTPRoute",
        namespace: "shop".into(),
        name: "r".into(),
        generation: Some(1),
        parents: Vec::new(),
    });
    assert_eq!(entries(&live(2), &read), None);
}
