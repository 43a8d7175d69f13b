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

fn told(mesh: &Mesh, name: &str) -> Told {
    Told {
        authorization: Some(mesh.authorization(&pod(name)).expect("a workload")),
        ..Told::default()
    }
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
    let states = states(mesh, &said, 0);
    let reasons = |all: &[Condition]| {
        all.iter()
            .map(|one| one.reason)
            .collect::<Vec<_>>()
            .join(" ")
    };
    states
        .policies
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
    let states = states(&mesh, &[say(&mesh, &proxies)], 1);
    let message = &states.policies[1].conditions[1].message;
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
    cart.refused(told(&new, "cart"), "authorization.posture: is unknown");
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
    former.refused(told(&mesh, "cart"), "too late");
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

const CART: &str = "10.96.0.5:80";

/// A mesh in which the Service cart has a route of its own namespace to `backend`, and one of namespace `other` if so said.
fn routed(backend: &str, is_consumed: bool) -> Mesh {
    let route = |namespace: &str, backend: &str| {
        format!(
            "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r, namespace: {namespace}}}, spec: {{parentRefs: [{{group: '', kind: Service, name: cart, namespace: shop}}], rules: [{{backendRefs: [{{name: {backend}, namespace: shop, port: 80}}]}}]}}}}\n"
        )
    };
    let service = |name: &str, ip: &str| {
        format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: shop}}, spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}}}\n"
        )
    };
    let consumer = match is_consumed {
        true => route("other", "old"),
        false => String::new(),
    };
    let yaml = [
        PODS.to_owned(),
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: far, namespace: other, annotations: {ringmail.io/inject: enabled}}, spec: {containers: [{name: app}]}, status: {podIP: 10.1.0.3}}\n".to_owned(),
        service("cart", "10.96.0.5"),
        service("old", "10.96.0.6"),
        service("new", "10.96.0.7"),
        route("shop", backend),
        consumer,
    ];
    let objects = crate::source::parse_text(&yaml.concat());
    Mesh::build(&objects.into_iter().collect(), &Defaults::of_tests())
}

#[test]
fn tokens_and_revocations_have_a_state_as_well() {
    let yaml = [
        PODS,
        "---\n{apiVersion: ringmail.io/v1alpha1, kind: RequestAuthentication, metadata: {name: t, namespace: shop}, spec: {targetRefs: [{kind: Namespace}], issuers: [{issuer: 'https://idp', audiences: [shop], jwks: {uri: 'https://idp/keys'}}]}}\n",
        "---\n{apiVersion: ringmail.io/v1alpha1, kind: IdentityRevocation, metadata: {name: r}, spec: {serials: ['07'], until: '2040-01-01T00:00:00Z'}}\n",
    ];
    let objects = crate::source::parse_text(&yaml.concat());
    let mesh = Mesh::build(&objects.into_iter().collect(), &Defaults::of_tests());
    let proxies = Arc::new(Proxies::default());
    let revoked = |mesh: &Mesh| Told {
        revocations: Some(mesh.revocations().clone()),
        ..Told::default()
    };
    let rows =
        |tokens: &str, revocation: &str| [format!("{tokens} NotFetched"), revocation.to_owned()];
    let pending = "0/2 Accepted Pending";
    assert_eq!(shown(&mesh, &[&proxies]), rows(pending, pending));
    let (cart, web) = (proxies.seat(pod("cart")), proxies.seat(pod("web")));
    cart.took(told(&mesh, "cart"), Vec::new());
    web.took(revoked(&mesh), Vec::new());
    let half = "1/2 Accepted Pending";
    assert_eq!(shown(&mesh, &[&proxies]), rows(half, half));
    web.took(
        told(&mesh, "web"),
        vec![pb::DeniedPolicy {
            name: "authentication shop/t".into(),
            reason: "issuers: are new to me".into(),
        }],
    );
    cart.took(revoked(&mesh), Vec::new());
    assert_eq!(
        shown(&mesh, &[&proxies]),
        rows("1/2 Accepted Refused", "2/2 Accepted Applied")
    );
}

/// What a proxy of that namespace is told of the Service.
fn of_cart(mesh: &Mesh, namespace: &str) -> Told {
    let address = CART.parse().expect("an address");
    let answer = mesh.answer(address, &namespace.into());
    Told {
        destinations: vec![(address, answer.routed().cloned())],
        ..Told::default()
    }
}

/// Of each route what is said of it being in force.
fn routes(mesh: &Mesh, proxies: &Proxies) -> Vec<String> {
    let states = states(mesh, &[say(mesh, proxies)], 0);
    let parents = states.routes.iter().flat_map(|route| &route.parents);
    let last = parents.filter_map(|parent| parent.conditions.last());
    last.map(|one| format!("{} {}", one.reason, one.message))
        .collect()
}

#[test]
fn a_route_is_in_force_where_its_present_value_was_taken() {
    let (old, new) = (routed("old", false), routed("new", false));
    let proxies = Arc::new(Proxies::default());
    let nobody = ["NoProxies no pod has called the Service yet"];
    let (cart, web) = (proxies.seat(pod("cart")), proxies.seat(pod("web")));
    assert_eq!(routes(&old, &proxies), nobody);
    for seat in [&cart, &web] {
        seat.took(of_cart(&old, "shop"), Vec::new());
    }
    assert_eq!(
        routes(&old, &proxies),
        ["Programmed in force on 2 of 2 proxies"]
    );
    let pending = "Pending in force on 0 of 2 proxies; not yet on shop/cart, shop/web";
    assert_eq!(
        routes(&new, &proxies),
        [pending],
        "only a backend's name differs"
    );
    cart.took(of_cart(&new, "shop"), Vec::new());
    web.refused(of_cart(&new, "shop"), "destination: is new to me");
    let refused = "Refused in force on 1 of 2 proxies; shop/web says: destination: is new to me";
    assert_eq!(routes(&new, &proxies), [refused]);
    web.left(&[CART.parse().expect("an address")]);
    assert_eq!(
        routes(&new, &proxies),
        ["Programmed in force on 1 of 1 proxies"]
    );
}

#[test]
fn a_consumers_route_is_for_its_own_proxies() {
    let mesh = routed("new", true);
    let proxies = Arc::new(Proxies::default());
    let near = proxies.seat(pod("cart"));
    near.took(of_cart(&mesh, "shop"), Vec::new());
    let far = proxies.seat("other/far".parse().expect("a name"));
    far.took(of_cart(&mesh, "shop"), Vec::new());
    let not_yet = [
        "Pending in force on 0 of 1 proxies; not yet on other/far",
        "Programmed in force on 1 of 1 proxies",
    ];
    assert_eq!(routes(&mesh, &proxies), not_yet);
    far.took(of_cart(&mesh, "other"), Vec::new());
    let both = ["Programmed in force on 1 of 1 proxies"; 2];
    assert_eq!(routes(&mesh, &proxies), both);
}
