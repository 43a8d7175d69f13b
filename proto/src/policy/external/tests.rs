use super::*;
use crate::policy::tests::{authorizer, policy};
use crate::policy::{Asked, Authorizer, By, Caller, Decision, Finding, Http, Mode, Verdict};

fn said() -> pb::AuthorizationPolicy {
    policy("external", &[])
}

/// What is decided of a request, or of an opaque connection, and who asks about it.
fn decide(authorizer: &Authorizer, is_http: bool) -> (Decision, Vec<usize>) {
    let asked = Asked {
        caller: Caller {
            identity: None,
            address: "10.1.1.1".parse().expect("an address"),
        },
        port: 80,
        http: is_http.then_some(Http {
            method: "GET",
            path: "/a",
            host: None,
            fields: [(&b"x-role"[..], &b"admin"[..])],
            claims: None,
        }),
    };
    (authorizer.decide(&asked), authorizer.asks(&asked))
}

#[test]
fn what_cannot_be_asked_denies() {
    type Break = fn(&mut pb::ExternalAuthorizer);
    let rows: [(&str, Break); 7] = [
        ("on_failure", |one| one.on_failure = 0),
        ("timeout", |one| one.timeout_ms = 0),
        ("timeout", |one| one.timeout_ms = 10_001),
        ("body_bytes_max", |one| one.body_bytes_max = 32_769),
        ("header.name", |one| one.headers = vec!["A".to_owned()]),
        ("name", |one| one.address = "opa:80".to_owned()),
        ("context_extensions", |one| {
            let all = (0..=EXTENSIONS_MAX).map(|n| (n.to_string(), String::new()));
            one.context_extensions = all.collect();
        }),
    ];
    let denied = |wire, field: &str| {
        let authorizer = authorizer(pb::Posture::Open, vec![wire]);
        let invalid = authorizer.policies()[0].rules.as_ref().err();
        assert!(
            invalid.is_some_and(|one| one.field.contains(field)),
            "{field}: {invalid:?}"
        );
        let (decision, asks) = decide(&authorizer, true);
        assert_eq!(decision.enforced.verdict, Verdict::Deny, "{field}");
        assert!(asks.is_empty(), "{field}");
    };
    for (field, change) in rows {
        let mut wire = said();
        change(wire.external.as_mut().expect("said"));
        denied(wire, field);
    }
    denied(
        pb::AuthorizationPolicy {
            external: None,
            ..said()
        },
        "external",
    );
}

#[test]
fn in_shadow_nobody_is_asked_and_nothing_denied() {
    let authorizer = authorizer(pb::Posture::Open, vec![policy("shadow external", &[])]);
    assert_eq!(authorizer.policies()[0].mode, Mode::Shadow);
    let (decision, asks) = decide(&authorizer, true);
    assert_eq!(decision.enforced.verdict, Verdict::Allow);
    assert_eq!(decision.shadow.map(|one| one.verdict), Some(Verdict::Deny));
    assert!(asks.is_empty());
}

#[test]
fn requests_are_asked_about_and_connections_denied() {
    let policies = vec![
        policy("external", &["> header:x-role=user"]),
        policy("external", &["> header:x-role=admin", "> method=GET"]),
        policy("external@81", &[]),
        policy("external", &[]),
    ];
    let authorizer = authorizer(pb::Posture::Open, policies);
    let (decision, asks) = decide(&authorizer, true);
    assert!(decision.may_ask && decision.enforced.verdict == Verdict::Allow);
    assert_eq!(asks, [1, 3]);
    // A header cannot be looked at there: the first rule denies.
    let (decision, _) = decide(&authorizer, false);
    let denied = Finding {
        verdict: Verdict::Deny,
        by: By::Rule { policy: 0, rule: 0 },
    };
    assert_eq!((decision.may_ask, decision.enforced), (false, denied));
}

#[test]
fn so_many_at_most() {
    let check = |count, expected| {
        let authorizer = authorizer(pb::Posture::Open, vec![said(); count]);
        let (decision, _) = decide(&authorizer, true);
        assert_eq!(decision.enforced.verdict, expected, "{count}");
    };
    check(EXTERNALS_MAX, Verdict::Allow);
    check(EXTERNALS_MAX + 1, Verdict::Deny);
}

#[test]
fn as_much_as_may_be_asked() {
    let mut largest = said();
    let one = largest.external.as_mut().expect("one");
    one.timeout_ms = 10_000;
    one.body_bytes_max = 32_768;
    let all = authorizer(pb::Posture::Open, vec![largest]);
    assert!(
        all.policies()[0].rules.is_ok(),
        "{:?}",
        all.policies()[0].rules
    );
}

#[test]
fn questions_and_answers_travel() {
    use crate::ext_authz::{CheckRequest, CheckResponse};
    let asked = CheckRequest {
        attributes: Some(Default::default()),
    };
    let travelled = CheckRequest::decode(question(&asked).as_slice()).expect("one");
    assert_eq!(travelled, asked);
    assert!(!question(&asked).is_empty());
    let said = CheckResponse {
        status: Some(Default::default()),
        ..CheckResponse::default()
    };
    assert_eq!(answer(&said.encode_to_vec()), Some(said));
    assert_eq!(answer(b"\xff"), None);
}
