use super::*;
use crate::model::{Answer, Defaults, Mesh};
use crate::source::objects::{Key, Object};
use crate::source::parse_text;
use ringmail_proto::destination::BYTES_MAX;
use ringmail_proto::route::Asked;

const SERVICES: &str = "
---
{apiVersion: v1, kind: Service, metadata: {name: echo, namespace: shop}, spec: {clusterIP: 10.96.0.5, ports: [{name: http, port: 80}, {name: db, port: 5432}, {name: grpc, port: 90}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: v1, namespace: shop}, spec: {clusterIP: 10.96.0.6, ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: v2, namespace: other}, spec: {clusterIP: 10.96.0.7, ports: [{port: 81}]}}
";

/// A route of `namespace` to echo's port 80, unless `parent` says otherwise.
fn route(kind: &str, name: &str, namespace: &str, parent: &str, rules: &str) -> String {
    let parent = match parent {
        "" => "{group: '', kind: Service, name: echo, namespace: shop, port: 80}",
        other => other,
    };
    format!(
        "---\n{{apiVersion: gateway.networking.k8s.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{parentRefs: [{parent}], rules: [{rules}]}}}}\n"
    )
}

fn to(backend: &str, matches: &str) -> String {
    format!("{{matches: [{matches}], backendRefs: [{backend}]}}")
}

const V1: &str = "{name: v1, port: 80}";
const V2: &str = "{name: v2, namespace: other, port: 81}";

fn mesh(routes: &str) -> Mesh {
    mesh_of(parse_text(&(SERVICES.to_owned() + routes)))
}

fn mesh_of(objects: Vec<(Key, Object)>) -> Mesh {
    let objects: Objects = objects.into_iter().collect();
    Mesh::build(&objects, &Defaults::of_tests())
}

/// The name of the service that a request goes to; `404` and `500` for those.
fn goes_to(mesh: &Mesh, caller: &str, target: &str, fields: &[(&[u8], &[u8])]) -> String {
    let address = "10.96.0.5:80".parse().expect("address");
    let Answer::Service(service) = mesh.answer(address, &caller.into()) else {
        return "no service".to_owned();
    };
    let Some(routes) = &service.routes else {
        return service.service.name.name.to_string();
    };
    let asked = Asked {
        method: "GET",
        target,
    };
    let Some((rule, _)) = routes.pick(asked, fields.iter().copied()) else {
        return "404".to_owned();
    };
    let backend = rule.backend(0).and_then(|one| one.backend);
    backend.map_or("500".to_owned(), |index| {
        service.backends[index].name.name.to_string()
    })
}

/// Kind, name, and per parent the reasons of both conditions.
fn told(mesh: &Mesh) -> Vec<String> {
    let parent = |parent: &ParentStatus| {
        let reasons = parent.conditions.iter().map(|one| one.reason);
        reasons.collect::<Vec<_>>().join(" ")
    };
    let route = |route: &RouteStatus| {
        let parents: Vec<_> = route.parents.iter().map(parent).collect();
        format!("{} {}: {}", route.kind, route.name, parents.join(", "))
    };
    mesh.routes().iter().map(route).collect()
}

#[test]
fn precedence_is_the_gateway_apis() {
    let rules = [
        to(
            V1,
            "{path: {value: /}}, {headers: [{name: version, value: one}]}",
        ),
        to(
            V2,
            "{path: {value: /v2}}, {headers: [{name: version, value: two}]}",
        ),
        to(V1, "{path: {type: Exact, value: /v2/exact}}"),
        to(V1, "{path: {type: RegularExpression, value: '/v2/x+'}}"),
    ];
    let mesh = mesh(&route("HTTPRoute", "r", "shop", "", &rules.join(", ")));
    let two: &[(&[u8], &[u8])] = &[(b"Version", b"two")];
    for (target, fields, expected) in [
        ("/", &[][..], "v1"),
        ("/v2", &[], "v2"),
        ("/v2/", &[], "v2"),
        ("/v2example", &[], "v1"),
        ("/v2/exact?q", &[], "v1"),
        ("/v2/xx", &[], "v1"),
        ("/v2/xy", &[], "v2"),
        ("/", two, "v2"),
    ] {
        assert_eq!(goes_to(&mesh, "shop", target, fields), expected, "{target}");
    }
    assert_eq!(told(&mesh), ["HTTPRoute r: Accepted ResolvedRefs"]);
}

#[test]
fn consumers_see_their_own_routes_instead_of_the_producers() {
    let producer = route("HTTPRoute", "producer", "shop", "", &to(V1, ""));
    let consumer = route(
        "HTTPRoute",
        "consumer",
        "other",
        "",
        &to("{name: v2, port: 81}", "{path: {value: /mine}}"),
    );
    let mesh = mesh(&(producer + &consumer));
    assert_eq!(goes_to(&mesh, "shop", "/mine", &[]), "v1");
    assert_eq!(goes_to(&mesh, "third", "/mine", &[]), "v1");
    assert_eq!(goes_to(&mesh, "other", "/mine", &[]), "v2");
    assert_eq!(goes_to(&mesh, "other", "/", &[]), "404");
}

#[test]
fn what_is_not_there_keeps_its_share() {
    let rules = [
        to("{name: gone, port: 80}", "{path: {value: /gone}}"),
        to("{name: v1, port: 81}", "{path: {value: /port}}"),
        to(
            "{name: v1, kind: Bucket, port: 80}",
            "{path: {value: /kind}}",
        ),
        "{matches: [{path: {value: /none}}]}".to_owned(),
    ];
    let mesh = mesh(&route("HTTPRoute", "r", "shop", "", &rules.join(", ")));
    for target in ["/gone", "/port", "/kind", "/none"] {
        assert_eq!(goes_to(&mesh, "shop", target, &[]), "500", "{target}");
    }
    assert_eq!(told(&mesh), ["HTTPRoute r: Accepted BackendNotFound"]);
}

#[test]
fn authors_are_told_why_a_route_does_not_apply() {
    let parent = |more: &str| format!("{{group: '', kind: Service, name: echo, {more}}}");
    for (parent, expected) in [
        (parent("port: 80"), "Accepted"),
        (parent("sectionName: http"), "Accepted"),
        // One of the ports takes it, another speaks no HTTP.
        (parent(""), "Accepted"),
        (parent("port: 81"), "NoMatchingParent"),
        (parent("sectionName: none"), "NoMatchingParent"),
        (parent("port: 5432"), "UnsupportedProtocol"),
        (parent("namespace: other"), "NoMatchingParent"),
        ("{name: gateway}".to_owned(), "InvalidKind"),
    ] {
        let mesh = mesh(&route("HTTPRoute", "r", "shop", &parent, &to(V1, "")));
        assert_eq!(
            told(&mesh),
            [format!("HTTPRoute r: {expected} ResolvedRefs")],
            "{parent}"
        );
    }
}

#[test]
fn kinds_do_not_share_a_port_and_grpc_has_it() {
    let http = route("HTTPRoute", "a", "shop", "", &to(V1, ""));
    let grpc = route(
        "GRPCRoute",
        "b",
        "shop",
        "",
        &to(V2, "{method: {service: s}}"),
    );
    let mesh = mesh(&(http + &grpc));
    assert_eq!(
        told(&mesh),
        [
            "GRPCRoute b: Accepted ResolvedRefs",
            "HTTPRoute a: Conflicted ResolvedRefs"
        ]
    );
    assert_eq!(goes_to(&mesh, "shop", "/s/Call", &[]), "v2");
    assert_eq!(goes_to(&mesh, "shop", "/t/Call", &[]), "404");
}

#[test]
fn grpc_methods_are_paths() {
    let rules = [
        to(V1, "{method: {method: Call}}"),
        to(
            V2,
            "{method: {service: s, method: Call}}, {method: {service: long.er}}",
        ),
        to(
            V1,
            "{method: {type: RegularExpression, service: 'x.*', method: 'Get.*'}}",
        ),
    ];
    let mesh = mesh(&route("GRPCRoute", "r", "shop", "", &rules.join(", ")));
    for (target, expected) in [
        ("/s/Call", "v2"),
        ("/t/Call", "v1"),
        ("/long.er/Call", "v2"),
        ("/long.er/Other", "v2"),
        ("/xy/GetIt", "v1"),
        ("/xy/PutIt", "404"),
    ] {
        assert_eq!(goes_to(&mesh, "shop", target, &[]), expected, "{target}");
    }
}

#[test]
fn paths_are_compared_in_normal_form() {
    let rules = [
        to(V1, "{path: {type: Exact, value: '/caf%c3%a9'}}"),
        to(V2, "{path: {value: '/%7euser//x/'}}"),
    ];
    let mesh = mesh(&route("HTTPRoute", "r", "shop", "", &rules.join(", ")));
    for (target, expected) in [
        ("/caf%C3%A9", "v1"),
        ("/~user/x", "v2"),
        ("/~user/x/y", "v2"),
        ("/~user", "404"),
    ] {
        assert_eq!(goes_to(&mesh, "shop", target, &[]), expected, "{target}");
    }
}

#[test]
fn a_route_over_a_limit_is_refused_whole_and_leaves_nobody_without_routes() {
    let older = route("HTTPRoute", "a", "shop", "", &to(V1, "{path: {value: /a}}"));
    let many = |count: usize, one: &str| vec![one; count].join(", ");
    let header = "{headers: [{type: RegularExpression, name: a, value: b+}]}";
    for (limit, rules) in [
        ("512 rules", many(513, &to(V2, ""))),
        (
            "2048 matches",
            many(33, &to(V2, &many(64, "{method: GET}"))),
        ),
        (
            "256 regular expressions",
            many(5, &to(V2, &many(64, header))),
        ),
    ] {
        let over = route("HTTPRoute", "b", "shop", "", &rules);
        let both = mesh(&(older.clone() + &over));
        let expected = [
            "HTTPRoute a: Accepted ResolvedRefs",
            "HTTPRoute b: LimitExceeded ResolvedRefs",
        ];
        assert_eq!(told(&both), expected, "{limit}");
        let problem = format!("route shop/b: with it port 80 would have more than {limit}");
        assert!(both.problems().contains(&problem), "{:?}", both.problems());
        assert_eq!(goes_to(&both, "shop", "/a", &[]), "v1");
        assert_eq!(goes_to(&both, "shop", "/", &[]), "404");
        assert_eq!(goes_to(&mesh(&over), "shop", "/", &[]), "404", "{limit}");
    }
}

#[test]
fn what_outgrows_a_destination_is_answered_500() {
    let small = route("HTTPRoute", "a", "shop", "", &to(V1, "{path: {value: /a}}"));
    let other = route("HTTPRoute", "b", "other", "", &to(V1, ""));
    let mut objects = parse_text(&(SERVICES.to_owned() + &small + &other));
    for (key, object) in &mut objects {
        if let Object::Route(route) = object
            && &*key.name == "a"
        {
            let route = Arc::make_mut(route);
            route.rules[0].rule.name = "x".repeat(BYTES_MAX);
        }
    }
    let mesh = mesh_of(objects);
    assert_eq!(goes_to(&mesh, "shop", "/a", &[]), "500");
    assert_eq!(goes_to(&mesh, "shop", "/b", &[]), "500");
    assert_eq!(goes_to(&mesh, "other", "/b", &[]), "500", "v1 is not there");
    assert_eq!(
        told(&mesh),
        [
            "HTTPRoute b: Accepted BackendNotFound",
            "HTTPRoute a: LimitExceeded ResolvedRefs"
        ]
    );
    assert_eq!(mesh.problems().len(), 1, "{:?}", mesh.problems());
}

#[test]
fn endpoints_are_there_once_for_all_who_see_them() {
    let dialled = |mesh: &Mesh, caller: &str| {
        let answer = mesh.answer("10.96.0.5:80".parse().expect("address"), &caller.into());
        let Answer::Service(dialled) = answer else {
            unreachable!("a service answers");
        };
        dialled
    };
    let producer = route("HTTPRoute", "producer", "shop", "", &to(V2, ""));
    let consumer = |path: &str| {
        let rule = to(V2, &format!("{{path: {{value: {path}}}}}"));
        producer.clone() + &route("HTTPRoute", "consumer", "other", "", &rule)
    };
    let (old, mut new) = (mesh(&consumer("/a")), mesh(&consumer("/b")));
    new.share(&old);
    let (shop, other) = (dialled(&new, "shop"), dialled(&new, "other"));
    assert!(Arc::ptr_eq(&shop, &dialled(&old, "shop")));
    assert_ne!(other, dialled(&old, "other"));
    assert!(Arc::ptr_eq(&shop.service, &other.service));
    assert!(Arc::ptr_eq(&shop.backends[0], &other.backends[0]));
}
