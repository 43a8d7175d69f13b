use super::*;
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::pb;
use ringmail_proto::route::Routes;
use std::sync::Arc;

fn named(name: &str) -> Service {
    Service {
        name: WorkloadName::new("shop", name).expect("valid"),
        port: 80,
        protocol: ringmail_proto::workload::Protocol::Http1,
        endpoints: Vec::new(),
        routes: None,
        backends: Vec::new(),
        timeouts: Default::default(),
    }
}

/// A service with one rule for everything below `/a`.
fn with(rule: pb::RouteRule) -> Service {
    let path = pb::path_match::Kind::Prefix("/a".to_owned());
    let wire = pb::Routes {
        matches: vec![pb::RouteMatch {
            path: Some(pb::PathMatch { kind: Some(path) }),
            ..pb::RouteMatch::default()
        }],
        rules: vec![rule],
        tls: false,
    };
    Service {
        routes: Some(Arc::new(Routes::from_wire(wire, 1).expect("valid"))),
        backends: vec![Arc::new(named("backend"))],
        ..named("front")
    }
}

fn edits(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> Option<pb::HeaderEdits> {
    let headers = |all: &[(&str, &str)]| {
        let header = |(name, value): &(&str, &str)| pb::Header {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        all.iter().map(header).collect()
    };
    Some(pb::HeaderEdits {
        set: headers(set),
        add: headers(add),
        remove: remove.iter().map(|name| (*name).to_owned()).collect(),
    })
}

fn request(target: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    Request {
        version: Version::Http11,
        upgrade: false,
        method: "GET",
        target,
    }
    .encode(&mut out);
    for (name, value) in fields {
        put_field(&mut out, name.as_bytes(), value.as_bytes());
    }
    out
}

fn lines(fields: Fields<'_>) -> Vec<String> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let line = |(name, value)| format!("{}: {}", text(name), text(value));
    fields.into_iter().map(line).collect()
}

fn backend(backend: Option<u32>) -> pb::WeightedBackend {
    pb::WeightedBackend {
        weight: 1,
        backend,
        ..pb::WeightedBackend::default()
    }
}

#[test]
fn without_routes_nothing_changes() {
    let (service, head) = (named("plain"), request("/", &[("Host", "shop")]));
    let Ok(Routed::Forward(forward)) = route(&service, head.clone(), 0) else {
        unreachable!("it goes on");
    };
    assert_eq!(forward.head, head);
    assert_eq!(forward.service, &service);
    assert_eq!(*forward.policy, Policy::default());
}

#[test]
fn what_no_rule_is_for_or_no_backend_serves_is_refused() {
    let check = |target: &str, rule: pb::RouteRule, expected: Reason| {
        let service = with(rule);
        let head = request(target, &[("Host", "shop")]);
        let refused = route(&service, head.clone(), 0).expect_err("refused");
        assert_eq!(refused.reason, expected);
    };
    let rule = |backends| pb::RouteRule {
        backends,
        ..pb::RouteRule::default()
    };
    check("/b", rule(vec![backend(Some(0))]), Reason::NoRoute);
    check("/a", rule(vec![backend(None)]), Reason::NoBackend);
    check("/a", rule(vec![]), Reason::NoBackend);
}

#[test]
fn requests_are_edited_by_the_rule_and_then_by_the_backend() {
    let rule = pb::RouteRule {
        request: Some(pb::RequestEdits {
            headers: edits(
                &[("X-Set", "rule")],
                &[("x-add", "2"), ("x-both", "rule")],
                &["x-gone"],
            ),
            host: "other.example".to_owned(),
            path: Some(pb::PathEdit {
                kind: Some(pb::path_edit::Kind::Prefix("/new".to_owned())),
            }),
        }),
        backends: vec![pb::WeightedBackend {
            request: edits(&[("x-both", "backend")], &[], &[]),
            ..backend(Some(0))
        }],
        ..pb::RouteRule::default()
    };
    let service = with(rule);
    let head = request(
        "/a/b?c=/a",
        &[
            ("Host", "shop"),
            ("x-set", "client"),
            ("X-Add", "1"),
            ("X-Gone", "x"),
            ("x-stay", "y"),
        ],
    );
    let Ok(Routed::Forward(forward)) = route(&service, head.clone(), 0) else {
        unreachable!("it goes on");
    };
    assert_eq!(&*forward.service.name.name, "backend");
    let (edited, fields) = Request::decode(&forward.head).expect("valid");
    assert_eq!(edited.target, "/new/b?c=/a");
    assert_eq!(
        lines(fields),
        [
            "Host: other.example",
            "X-Add: 1",
            "x-stay: y",
            "X-Set: rule",
            "x-add: 2",
            "x-both: backend"
        ]
    );
}

#[test]
fn responses_are_edited_but_not_informational_ones() {
    let rule = pb::RouteRule {
        response: edits(&[("x-by", "rule")], &[], &["server"]),
        backends: vec![pb::WeightedBackend {
            response: edits(&[], &[("x-by", "backend")], &[]),
            ..backend(Some(0))
        }],
        ..pb::RouteRule::default()
    };
    let service = with(rule);
    let head = request("/a", &[("Host", "shop")]);
    let Ok(Routed::Forward(forward)) = route(&service, head.clone(), 0) else {
        unreachable!("it goes on");
    };
    let response = |status| {
        let mut out = Vec::new();
        Response {
            version: Version::Http11,
            upgrade: false,
            status,
            phrase: b"Fine",
        }
        .encode(&mut out);
        put_field(&mut out, b"Server", b"app");
        out
    };
    assert_eq!(*forward.response.apply(&response(103)), response(103));
    let edited = forward.response.apply(&response(200)).into_owned();
    let (head, fields) = Response::decode(&edited).expect("valid");
    assert_eq!((head.status, head.phrase), (200, &b"Fine"[..]));
    assert_eq!(lines(fields), ["x-by: rule"]);
}

#[test]
fn a_redirect_is_an_answer() {
    let rule = pb::RouteRule {
        redirect: Some(pb::Redirect {
            scheme: "https".to_owned(),
            status: 308,
            ..pb::Redirect::default()
        }),
        response: edits(&[("x-by", "rule")], &[], &[]),
        ..pb::RouteRule::default()
    };
    let service = with(rule);
    let head = request("/a?b", &[("Host", "shop:8080")]);
    let Ok(Routed::Answer(answer)) = route(&service, head, 0) else {
        unreachable!("it is answered");
    };
    let (head, fields) = Response::decode(&answer).expect("valid");
    assert_eq!(head.status, 308);
    assert_eq!(
        lines(fields),
        [
            "location: https://shop/a?b",
            "content-length: 0",
            "x-by: rule"
        ]
    );
}
