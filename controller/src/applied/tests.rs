use super::*;
use crate::model::{Condition, Defaults, Mesh};

const PODS: &str = "
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {ringmail.io/inject: enabled}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop}, spec: {containers: [{name: app}]}, status: {podIP: 10.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {containers: [{name: app}]}, status: {podIP: 10.1.0.2}}
";

/// A mesh whose namespace has these policies, each with what its rules are.
fn mesh(policies: &[(&str, &str)]) -> Mesh {
    let all = policies.iter().map(|(name, rules)| {
        format!("---\n{{apiVersion: ringmail.io/v1alpha1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {{targetRefs: [{{kind: Namespace}}], action: deny, rules: [{rules}]}}}}\n")
    });
    let yaml = format!("{PODS}{}", all.collect::<String>());
    let objects = crate::source::parse_text(&yaml).into_iter().collect();
    Mesh::build(&objects, &Defaults::of_tests())
}

fn pod(name: &str) -> WorkloadName {
    format!("shop/{name}").parse().expect("a name")
}

fn told(mesh: &Mesh, name: &str) -> Arc<Authorization> {
    mesh.authorization(&pod(name)).expect("a workload")
}

fn denied(names: &[&str]) -> Vec<pb::DeniedPolicy> {
    let all = names.iter().map(|name| pb::DeniedPolicy {
        name: format!("shop/{name}"),
        reason: "rules: is new to me".into(),
    });
    all.collect()
}

/// Of each policy how many have it in force, and its conditions' reasons.
fn shown(mesh: &Mesh, replicas: &[&Proxies]) -> Vec<String> {
    let said: Vec<Said> = replicas.iter().map(|proxies| say(mesh, proxies)).collect();
    let states = states(mesh.policies(), &said, 0);
    let reasons = |all: &[Condition]| {
        all.iter()
            .map(|one| one.reason)
            .collect::<Vec<_>>()
            .join(" ")
    };
    states
        .iter()
        .map(|one| format!("{} {}", one.applied, reasons(&one.conditions)))
        .collect()
}

#[test]
fn counts_proxies_that_have_taken_what_a_policy_says_now() {
    let (old, new) = (
        mesh(&[("a", "{from: [{namespaces: [x]}]}"), ("b", "")]),
        mesh(&[("a", "{from: [{namespaces: [y]}]}"), ("b", "")]),
    );
    let proxies = Arc::new(Proxies::default());
    let pending = ["0/2 Accepted Pending", "0/2 Accepted Pending"];
    assert_eq!(shown(&old, &[&proxies]), pending);
    let (cart, web) = (proxies.seat(pod("cart")), proxies.seat(pod("web")));
    assert_eq!(shown(&old, &[&proxies]), pending);
    cart.took(told(&old, "cart"), Vec::new());
    web.took(told(&old, "web"), Vec::new());
    let applied = ["2/2 Accepted Applied", "2/2 Accepted Applied"];
    assert_eq!(shown(&old, &[&proxies]), applied);
    // What another policy says does not matter.
    let one_is_new = ["0/2 Accepted Pending", "2/2 Accepted Applied"];
    assert_eq!(shown(&new, &[&proxies]), one_is_new);
    web.took(told(&new, "web"), Vec::new());
    drop(cart);
    let half = ["1/2 Accepted Pending", "1/2 Accepted Pending"];
    assert_eq!(shown(&new, &[&proxies]), half);
}

#[test]
fn what_a_proxy_cannot_act_on_is_not_applied_there() {
    let mesh = mesh(&[("a", ""), ("b", ""), ("c", "")]);
    let proxies = Arc::new(Proxies::default());
    let (cart, web) = (proxies.seat(pod("cart")), proxies.seat(pod("web")));
    cart.took(told(&mesh, "cart"), Vec::new());
    web.took(told(&mesh, "web"), denied(&["b"]));
    let one_less = [
        "2/2 Accepted Applied",
        "1/2 Accepted Refused",
        "2/2 Accepted Applied",
    ];
    assert_eq!(shown(&mesh, &[&proxies]), one_less);
    let states = states(mesh.policies(), &[say(&mesh, &proxies)], 1);
    let message = &states[1].conditions[1].message;
    assert_eq!(
        message,
        "in force on 1 of 2 proxies; shop/web says: rules: is new to me; replicas that do not say what theirs have: 1"
    );
    // It names no more than so many: what comes after is not known.
    let mut many: Vec<_> = (0..DENIED_MAX - 1).map(|n| format!("x{n}")).collect();
    many.push("b".into());
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    web.took(told(&mesh, "web"), denied(&many));
    let unknown = [
        "2/2 Accepted Applied",
        "1/2 Accepted Refused",
        "1/2 Accepted Pending",
    ];
    assert_eq!(shown(&mesh, &[&proxies]), unknown);
}

#[test]
fn a_response_that_is_refused_changes_nothing() {
    let (old, new) = (
        mesh(&[("a", ""), ("b", "")]),
        mesh(&[("a", "{from: [{namespaces: [y]}]}"), ("b", "")]),
    );
    let proxies = Arc::new(Proxies::default());
    let (cart, web) = (proxies.seat(pod("cart")), proxies.seat(pod("web")));
    for (seat, name) in [(&cart, "cart"), (&web, "web")] {
        seat.took(told(&old, name), Vec::new());
    }
    cart.refused("authorization.posture: is unknown");
    let refused = ["0/2 Accepted Refused", "2/2 Accepted Applied"];
    assert_eq!(shown(&new, &[&proxies]), refused);
}

#[test]
fn replicas_add_up_and_nobody_counts_twice() {
    let mesh = mesh(&[("a", "")]);
    let (one, two) = (Arc::new(Proxies::default()), Arc::new(Proxies::default()));
    // It went from one to two, and one has not noticed.
    let (stale, cart) = (one.seat(pod("cart")), two.seat(pod("cart")));
    stale.took(told(&mesh, "cart"), denied(&["a"]));
    cart.took(told(&mesh, "cart"), Vec::new());
    assert_eq!(shown(&mesh, &[&one, &two]), ["1/2 Accepted Pending"]);
    let web = one.seat(pod("web"));
    web.took(told(&mesh, "web"), Vec::new());
    assert_eq!(shown(&mesh, &[&one, &two]), ["2/2 Accepted Applied"]);
    // What a replica says travels as JSON.
    let said = say(&mesh, &one);
    let text = serde_json::to_string(&said).expect("JSON");
    assert_eq!(serde_json::from_str::<Said>(&text).expect("JSON"), said);
}

#[test]
fn a_proxy_that_comes_again_has_its_seat() {
    let mesh = mesh(&[("a", "")]);
    let proxies = Arc::new(Proxies::default());
    let former = proxies.seat(pod("cart"));
    let changes = proxies.changes();
    let latter = proxies.seat(pod("cart"));
    latter.took(told(&mesh, "cart"), Vec::new());
    former.refused("too late");
    drop(former);
    assert!(changes.has_changed().expect("open"));
    assert_eq!(shown(&mesh, &[&proxies]), ["1/2 Accepted Pending"]);
    drop(latter);
    assert_eq!(shown(&mesh, &[&proxies]), ["0/2 Accepted Pending"]);
}

#[test]
fn what_is_broken_or_for_nobody_says_so() {
    let broken = mesh(&[("a", "{to: [{paths: [{exact: /a/../b}]}]}")]);
    assert_eq!(shown(&broken, &[]), ["0/2 Invalid Pending"]);
    let yaml = "{apiVersion: ringmail.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: a, namespace: shop}, spec: {targetRefs: [{kind: Service, name: gone}], action: deny}}";
    let objects = crate::source::parse_text(yaml).into_iter().collect();
    let lost = Mesh::build(&objects, &Defaults::of_tests());
    assert_eq!(shown(&lost, &[]), ["0/0 TargetNotFound NoProxies"]);
}
