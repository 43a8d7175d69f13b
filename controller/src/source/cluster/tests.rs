//! What watches tell, and what is made of it; the last test measures a large cluster.

use std::time::{Duration, Instant};

use ringmail_proto::identity::WorkloadName;
use serde_json::{Value, json};

use super::read::{SAID, of_pod};
use super::*;
use crate::model::{Defaults, Mesh};
use crate::source::objects::{Key, Object};

fn pod(name: &str, uid: &str, extra: &Value) -> Pod {
    let mut pod = json!({"metadata": {"name": name, "namespace": "shop", "uid": uid,
            "managedFields": [{"manager": "kubelet"}], "annotations": {"example.com/large": "x"}},
        "spec": {"serviceAccountName": "cart", "nodeName": "n1",
            "containers": [{"name": "app", "image": "i", "env": [{"name": "A", "value": "b"}],
                "ports": [{"containerPort": 80}]}]},
        "status": {"podIP": "10.1.0.1", "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    merge(&mut pod, extra);
    serde_json::from_value(pod).expect("a pod")
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn seen(pod: Pod) -> Change {
    Change::Seen(of_pod(pod))
}

fn key(name: &str) -> Key {
    of_pod(pod(name, "", &json!({}))).key
}

fn held(store: &Store) -> Vec<String> {
    let state = store.state();
    let names = state.objects.pods().map(|pod| {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        format!("{}={uid}", pod.metadata.name.clone().unwrap_or_default())
    });
    names.collect()
}

#[test]
fn a_list_replaces_what_was_known_and_not_before_it_is_complete() {
    let none = json!({});
    let mut store = Store::new(&[Kind::Pod]);
    assert!(!store.apply(Change::Begun(Kind::Pod)));
    store.apply(seen(pod("a", "1", &none)));
    store.apply(seen(pod("b", "2", &none)));
    assert!(!store.is_complete());
    assert!(store.apply(Change::Listed(Kind::Pod)));
    assert!(store.is_complete());
    assert_eq!(held(&store), ["a=1", "b=2"]);
    assert!(!store.apply(seen(pod("a", "1", &none))), "nothing changed");

    // The watch breaks: all stays; the list that follows shows b no more.
    assert!(store.apply(Change::Broken(Kind::Pod, "gone".into())));
    assert!(!store.apply(Change::Broken(Kind::Pod, "gone".into())));
    assert_eq!(held(&store), ["a=1", "b=2"]);
    assert_eq!(
        store.state().unreadable.as_deref(),
        Some("watch of Pod: gone")
    );
    store.apply(Change::Begun(Kind::Pod));
    assert_eq!(held(&store), ["a=1", "b=2"]);
    store.apply(seen(pod("a", "1", &none)));
    assert!(store.apply(Change::Listed(Kind::Pod)));
    assert_eq!(held(&store), ["a=1"]);
    assert_eq!(store.state().unreadable, None);

    assert!(store.apply(Change::Gone(key("a"))));
    assert!(!store.apply(Change::Gone(key("a"))));
}

#[test]
fn only_routes_may_be_missing() {
    let mut store = Store::new(&[Kind::Pod, Kind::HTTPRoute]);
    store.apply(Change::Listed(Kind::HTTPRoute));
    assert!(!store.is_usable() && !store.is_complete());
    let mut store = Store::new(&[Kind::Pod, Kind::HTTPRoute]);
    store.apply(Change::Listed(Kind::Pod));
    assert!(store.is_usable() && !store.is_complete());
    let said = store.state().unreadable.expect("said");
    assert!(said.contains("HTTPRoute"), "{said}");
    store.apply(Change::Listed(Kind::HTTPRoute));
    assert!(store.is_complete());
    assert_eq!(store.state().unreadable, None);
}

#[test]
fn a_refused_object_keeps_its_last_good_value() {
    let bad = json!({"metadata": {"annotations": {"ringmail.io/inbound": "open"}}});
    let none = json!({});
    let mut store = Store::new(&[]);
    store.apply(seen(pod("a", "1", &none)));
    assert!(store.apply(seen(pod("a", "1", &bad))));
    assert_eq!(held(&store), ["a=1"]);
    let noted = store.state().noted;
    let refusal = noted[0].refused.as_ref().expect("refused");
    assert_eq!(noted[0].object.to_string(), "Pod shop/a");
    assert_eq!(refusal.field, "ringmail.io/inbound");

    // Another pod of that name has no last good value.
    store.apply(seen(pod("a", "2", &bad)));
    assert!(held(&store).is_empty());
    store.apply(seen(pod("a", "2", &none)));
    assert_eq!(held(&store), ["a=2"]);
    assert!(store.state().noted.is_empty());
}

#[test]
fn of_hooks_only_what_is_called_is_kept() {
    let extra = json!({"spec": {"containers": [{"name": "app", "lifecycle": {
        "postStart": {"exec": {"command": ["long"]}},
        "preStop": {"httpGet": {"path": "/stop", "port": 8080}},
    }}]}});
    let Ok(Object::Pod(kept)) = of_pod(pod("a", "1", &extra)).object else {
        unreachable!("refused");
    };
    let lifecycle = kept.spec.as_ref().expect("kept").containers[0]
        .lifecycle
        .clone();
    let wanted = json!({"preStop": {"httpGet": {"path": "/stop", "port": 8080}}});
    assert_eq!(json!(lifecycle), wanted);
}

#[test]
fn a_pod_is_meshed_by_its_spec_and_trimmed() {
    let annotated = json!({"metadata": {"annotations": {"ringmail.io/inject": "enabled"}}});
    let sidecar = json!({"spec": {"initContainers": [{"name": "ringmail-proxy", "restartPolicy": "Always"}]}});
    let other = json!({"spec": {"initContainers": [{"name": "istio-proxy"}]}});
    // Whether it is meshed, and what it says itself.
    for (extra, meshed, own) in [
        (json!({}), false, None),
        (annotated, false, Some("enabled")),
        (other, false, None),
        (sidecar, true, None),
    ] {
        let found = of_pod(pod("a", "1", &extra));
        let Ok(Object::Pod(kept)) = found.object else {
            unreachable!("{extra}: refused");
        };
        let said = &kept.metadata.annotations.as_ref().expect("one")["ringmail.io/inject"];
        assert_eq!(said == "enabled", meshed, "{extra}");
        assert_eq!(kept.metadata.managed_fields, None);
        let annotations = kept.metadata.annotations.clone().unwrap_or_default();
        assert_eq!(annotations.get(SAID).map(String::as_str), own, "{extra}");
        assert_eq!(annotations.len(), 1 + usize::from(own.is_some()));
        let container = &kept.spec.as_ref().expect("kept").containers[0];
        assert_eq!(container.env, None);
        assert!(container.ports.is_some());
        let objects = [(found.key, Object::Pod(kept))].into_iter().collect();
        let mesh = Mesh::build(&objects, &Defaults::of_tests());
        let name = WorkloadName::new("shop", "a").expect("a name");
        assert_eq!(mesh.is_meshed(&name), meshed, "{extra}");
        assert_eq!(mesh.pod_uid(&name), Some("1"));
    }
}

#[test]
fn routes_of_gateways_are_not_ours() {
    let route = |parents: Value, rules: Value| -> Option<Found> {
        let one = json!({"metadata": {"name": "r", "namespace": "shop", "generation": 3},
            "spec": {"parentRefs": parents, "rules": rules}});
        of_written_route(Kind::HTTPRoute, &one)
    };
    let service = json!([{"group": "", "kind": "Service", "name": "cart"}]);
    assert!(route(json!([{"name": "gateway"}]), json!([])).is_none());
    assert!(route(json!([{"kind": "Service", "name": "cart"}]), json!([])).is_none());
    let good = route(service.clone(), json!([])).expect("ours");
    assert!(good.object.is_ok());
    let odd = route(service, json!([{"surprise": 1}])).expect("ours");
    let refusal = odd.object.expect_err("refused");
    assert_eq!(refusal.field, "spec.rules[0].surprise");
}

/// Objects of a large cluster as an API server sends them: fields that nobody here reads included.
fn large(services: usize, pods: usize) -> Store {
    let mut store = Store::new(&[]);
    let namespace = json!({"metadata": {"name": "shop", "uid": "n"}});
    store.apply(Change::Seen(of_namespace(
        serde_json::from_value(namespace).expect("good"),
    )));
    let sidecar = json!({"spec": {"initContainers": [{"name": "ringmail-init"}, {"name": "ringmail-proxy",
        "restartPolicy": "Always", "ports": [{"containerPort": 15020}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 15020}}}]}});
    let address =
        |pod: usize| format!("10.{}.{}.{}", 16 + pod / 65_536, pod / 256 % 256, pod % 256);
    for number in 0..pods {
        let name = format!("app-{}-{number}", number % services);
        let mut extra = sidecar.clone();
        merge(
            &mut extra,
            &json!({"metadata": {"labels": {"app": format!("app-{}", number % services),
            "pod-template-hash": "7d4b9c6f5b"}}, "status": {"podIP": address(number),
            "podIPs": [{"ip": address(number)}]}}),
        );
        store.apply(seen(pod(&name, &format!("uid-{number}"), &extra)));
    }
    for service in 0..services {
        let name = format!("app-{service}");
        let metadata = json!({"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": name}});
        let declared = json!({"metadata": metadata, "spec": {"clusterIP": format!("10.96.{}.{}", service / 256, service % 256),
            "clusterIPs": [], "ports": [{"name": "http", "port": 80}], "selector": {"app": name}}});
        let endpoints: Vec<_> = (service..pods).step_by(services).map(|number| json!({"addresses": [address(number)],
            "conditions": {"ready": true}, "nodeName": "n1", "zone": "a",
            "targetRef": {"kind": "Pod", "name": format!("app-{service}-{number}"), "namespace": "shop", "uid": "u"}})).collect();
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]});
        let found = of_service(serde_json::from_value(declared).expect("good"));
        store.apply(Change::Seen(found));
        // Both ways to endpoints: a slice, and the selector where there is none.
        if service % 2 == 0 {
            let found = read::of_slice(serde_json::from_value(slice).expect("good"));
            store.apply(Change::Seen(found));
        }
    }
    store
}

/// Resident memory of this process.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What one state costs, and that it grows with the cluster and no faster: `--nocapture` prints it.
#[test]
fn a_large_cluster_is_rebuilt_in_time() {
    let mut times = Vec::new();
    for (services, pods) in [(250, 2_500), (1_000, 10_000)] {
        let before = resident_kib();
        let store = large(services, pods);
        let kept = resident_kib().saturating_sub(before);
        let rounds = (0..3).map(|_| rebuild(&store, pods));
        let (time, text) = rounds.min().expect("three");
        let all = resident_kib().saturating_sub(before);
        eprintln!(
            "{services} services, {pods} pods: objects {kept} KiB, with two models {all} KiB; {text}"
        );
        times.push(time);
    }
    // Four times the cluster: sixteen times the time would be quadratic.
    assert!(times[1] < times[0] * 10, "{times:?}");
}

fn rebuild(store: &Store, pods: usize) -> (Duration, String) {
    let defaults = Defaults::of_tests();
    let begun = Instant::now();
    let state = store.state();
    let cloned = begun.elapsed();
    let mut mesh = Mesh::build(&state.objects, &defaults);
    let built = begun.elapsed() - cloned;
    let again = Mesh::build(&state.objects, &defaults);
    let begun = Instant::now();
    mesh.share(&again);
    let shared = begun.elapsed();
    assert_eq!(mesh, again);
    assert_eq!(mesh.meshed_count(), pods);
    assert!(mesh.problems().is_empty(), "{:?}", mesh.problems().first());
    let text = format!("state {cloned:?}, model {built:?}, compared {shared:?}");
    (cloned + built + shared, text)
}

#[test]
fn a_namespace_that_cannot_be_read_is_no_more_open_for_it() {
    let namespace = |annotations: &Value| -> Namespace {
        let written = json!({"metadata": {"name": "shop", "uid": "1", "annotations": annotations}});
        serde_json::from_value(written).expect("a namespace")
    };
    let rows = [
        (
            json!({"ringmail.io/default-policy": "deny", "ringmail.io/egress": "nope"}),
            [Some("deny"), None, Some("deny")],
        ),
        (
            json!({"ringmail.io/default-policy": "denny", "ringmail.io/inbound": "strickt"}),
            [Some("deny"), Some("strict"), None],
        ),
        (
            json!({"ringmail.io/default-policy": "open", "config.ringmail.io/weight": "heavy"}),
            [Some("open"), None, None],
        ),
    ];
    for (annotations, expected) in rows {
        // As after a restart: nothing is known of it.
        let mut store = Store::new(&[Kind::Namespace]);
        store.apply(Change::Seen(of_namespace(namespace(&annotations))));
        let state = store.state();
        let kept = state.objects.namespace("shop").expect("kept");
        let found = |key: &str| {
            kept.metadata
                .annotations
                .as_ref()?
                .get(key)
                .map(String::as_str)
        };
        let keys = ["default-policy", "inbound", "egress"];
        let found = keys.map(|key| found(&format!("ringmail.io/{key}")));
        assert_eq!(found, expected, "{annotations}");
        assert_eq!(state.noted.len(), 1, "and it is said");
    }
}
