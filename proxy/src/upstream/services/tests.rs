use super::*;
use ringmail_proto::destination::{DestinationKind, WEIGHT_DEFAULT};

fn announced(address: &str, hints: &[&str]) -> Announced {
    Announced {
        address: address.parse().expect("valid"),
        workload: WorkloadName::new("shop", "cart-0").expect("valid"),
        identity: Some(
            "spiffe://mesh.local/ns/shop/sa/cart"
                .parse()
                .expect("valid"),
        ),
        zone_hints: hints.iter().map(|hint| (*hint).into()).collect(),
        weight: WEIGHT_DEFAULT,
    }
}

fn destination(endpoints: Vec<Announced>) -> Arc<Destination> {
    let service = Service {
        name: WorkloadName::new("shop", "cart").expect("valid"),
        port: 80,
        protocol: Protocol::Detect,
        endpoints,
        routes: None,
        backends: Vec::new(),
        timeouts: Default::default(),
    };
    Arc::new(Destination {
        address: "10.96.0.1:80".parse().expect("valid"),
        kind: DestinationKind::Service(service),
    })
}

fn target(destination: &Arc<Destination>) -> Target<'_> {
    crate::upstream::dialled(destination).expect("a service")
}

const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

#[test]
fn zones_as_kubernetes_prefers_them() {
    let (a, b) = ("10.0.0.2:80", "10.0.0.3:80");
    let check = |hints: [&[&str]; 2], zone: Option<&str>, expected: &[&str]| {
        let all = [announced(a, hints[0]), announced(b, hints[1])];
        let found = chosen(&all, Protocol::Detect, SOURCE, zone);
        let found: Vec<_> = found
            .iter()
            .map(|(one, _)| one.address.to_string())
            .collect();
        assert_eq!(found, expected, "{hints:?} {zone:?}");
    };
    check([&["x"], &["y"]], Some("x"), &[a]);
    check([&["x"], &["y", "x"]], Some("x"), &[a, b]);
    check([&["x"], &["y"]], Some("z"), &[a, b]);
    check([&["x"], &["y"]], None, &[a, b]);
    check([&["x"], &[]], Some("x"), &[a, b]);
    check([&[], &[]], Some("x"), &[a, b]);
}

#[test]
fn our_own_pod_and_pods_without_a_sidecar_are_for_want_of_others() {
    let mut plain = announced("10.0.0.3:80", &["x"]);
    plain.identity = None;
    let all = [
        announced("10.0.0.1:80", &["x"]),
        announced("10.0.0.2:80", &["y"]),
        plain,
    ];
    let found = chosen(&all, Protocol::Detect, SOURCE, Some("x"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0.address.to_string(), "10.0.0.2:80");
    for lone in [&all[..1], &all[2..]] {
        let found = chosen(lone, Protocol::Http1, SOURCE, None);
        assert_eq!(found, [(&lone[0], Is::App(Protocol::Http1))]);
    }
}

#[test]
fn a_service_is_resolved_once_and_what_is_known_of_endpoints_outlives_it() {
    let (snapshot, _lookups) = Snapshot::new();
    let (services, peers) = (Services::default(), Peers::default());
    let (kept, gone) = (announced("10.0.0.2:80", &[]), announced("10.0.0.3:80", &[]));
    let resolve = |destination: &Arc<Destination>| {
        services.resolve(target(destination), SOURCE, &snapshot, &peers)
    };
    let first = destination(vec![kept.clone(), gone]);
    let resolved = resolve(&first);
    assert!(Rc::ptr_eq(&resolved, &resolve(&first)));
    let second = destination(vec![kept]);
    let changed = resolve(&second);
    assert!(Rc::ptr_eq(
        &resolved.endpoints[0].endpoint,
        &changed.endpoints[0].endpoint
    ));
    assert!(Rc::ptr_eq(&resolved.budget, &changed.budget));
    // None of the two is in the snapshot: both are forgotten, and endpoints with them, but not at once.
    drop(resolved);
    services.sweep(&snapshot);
    assert_eq!(services.resolved.borrow().len(), 0);
    assert_eq!(services.endpoints.borrow().len(), 2);
    services.sweep(&snapshot);
    assert_eq!(services.endpoints.borrow().len(), 1, "one is still in use");
    drop(changed);
    services.sweep(&snapshot);
    services.sweep(&snapshot);
    assert_eq!(services.endpoints.borrow().len(), 0);
}
