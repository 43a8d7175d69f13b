use super::*;
use crate::model::Mesh;
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
    let text = SERVICES.to_owned() + routes;
    let objects: Objects = crate::source::parse_text(&text).into_iter().collect();
    Mesh::build(&objects, &"mesh.local".parse().expect("domain"))
}

/// The name of the service that a request goes to; `404` and `500` for those.
fn goes_to(mesh: &Mesh, caller: &str, target: &str, fields: &[(&[u8], &[u8])]) -> String {
    let address = "10.96.0.5:80".parse().expect("address");
    let crate::model::Answer::Service(service) = mesh.answer(address, &caller.into()) else {
        return "no service".to_owned();
    };
    let Some(routes) = &service.routes else {
        return service.name.name.to_string();
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
fn kinds_do_not_share_a_port_and_the_older_has_it() {
    let http = route("HTTPRoute", "b", "shop", "", &to(V1, ""));
    let grpc = route(
        "GRPCRoute",
        "a",
        "shop",
        "",
        &to(V2, "{method: {service: s}}"),
    );
    let mesh = mesh(&(http + &grpc));
    assert_eq!(
        told(&mesh),
        [
            "GRPCRoute a: Accepted ResolvedRefs",
            "HTTPRoute b: Conflicted ResolvedRefs"
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
