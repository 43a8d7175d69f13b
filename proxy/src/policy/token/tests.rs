//! Requests with tokens in every place, and what the app gets of them.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ringmail_proto::pb;
use serde_json::json;

use super::*;
use crate::http::neutral::Version;

const NOW: u64 = 1_800_000_000;

struct Idp {
    key: EncodingKey,
    jwks: String,
}

impl Idp {
    fn new() -> Self {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).expect("listed");
        let jwks = json!({ "keys": [jwk] }).to_string();
        Self { key, jwks }
    }

    fn token(&self, issuer: &str, more: &Value) -> String {
        let mut claims = json!({"iss": issuer, "aud": "shop", "exp": NOW + 300});
        let object = claims.as_object_mut().expect("an object");
        object.extend(more.as_object().expect("an object").clone());
        encode(&Header::new(Algorithm::ES256), &claims, &self.key).expect("signed")
    }

    /// One that vouches for tokens of `issuer`.
    fn object(&self, issuer: &str, change: impl FnOnce(&mut pb::JwtIssuer)) -> Authentication {
        let mut one = pb::JwtIssuer {
            issuer: issuer.to_owned(),
            audiences: vec!["shop".to_owned()],
            jwks: self.jwks.clone().into_bytes(),
            ..pb::JwtIssuer::default()
        };
        change(&mut one);
        let wire = pb::RequestAuthentication {
            name: "shop/one".to_owned(),
            ports: Vec::new(),
            issuers: vec![one],
        };
        let object = Authentication::try_from(wire).expect("named");
        assert!(object.issuers.is_ok(), "{object:?}");
        object
    }
}

/// A request for `target` with fields like `Name: value`, as the app gets it.
fn pass(
    objects: &[Authentication],
    target: &str,
    fields: &[&str],
) -> Result<(String, Option<Verified>), &'static str> {
    let mut head = Vec::new();
    let request = Request {
        version: Version::Http11,
        upgrade: false,
        method: "GET",
        target,
    };
    request.encode(&mut head);
    for field in fields {
        let (name, value) = field.split_once(": ").expect("a field");
        put_field(&mut head, name.as_bytes(), value.as_bytes());
    }
    let came = Request::decode(&head).expect("a request");
    let mut known = Known::default();
    let mut judge =
        || authenticate(objects.iter(), 80, came, &mut known, NOW).map_err(|refused| refused.bad.0);
    let (first, again) = (judge()?, judge()?);
    let verified = |one: &Authenticated| one.verified().cloned();
    assert_eq!(
        verified(&first),
        verified(&again),
        "from memory it is the same"
    );
    assert_eq!(first.head, again.head);
    let (request, fields) = first.head(came).expect("decoded");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = fields.into_iter();
    let fields = fields.map(|(name, value)| format!("\n{}: {}", text(name), text(value)));
    let whole = request.target.to_owned() + &fields.collect::<String>();
    Ok((whole, first.verified().cloned()))
}

fn header_of(claim: &str, header: &str) -> pb::ClaimToHeader {
    pb::ClaimToHeader {
        claim: claim.to_owned(),
        header: header.to_owned(),
    }
}

fn place(kind: pb::token_place::Kind) -> pb::TokenPlace {
    pb::TokenPlace { kind: Some(kind) }
}

#[test]
fn tokens_are_found_and_taken() {
    use pb::token_place::Kind;
    let idp = Idp::new();
    let token = idp.token("idp", &json!({"sub": "alice"}));
    let bearer = idp.object("idp", |_| {});
    let kept = idp.object("idp", |one| one.forward = true);
    let anywhere = idp.object("idp", |one| {
        let header = |name: &str, prefix: &str| pb::TokenHeader {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        };
        one.places = vec![
            place(Kind::Header(header("x-token", ""))),
            place(Kind::Cookie("sid".to_owned())),
            place(Kind::QueryParameter("access_token".to_owned())),
        ];
    });
    let rows = [
        (&bearer, "/", format!("Authorization: Bearer {token}"), "/"),
        (
            &bearer,
            "/",
            format!("authorization: bEARER   {token}"),
            "/",
        ),
        (&anywhere, "/", format!("X-Token: {token}"), "/"),
        (
            &anywhere,
            "/",
            format!("Cookie: a=1; sid={token};b=2"),
            "/\nCookie: a=1; b=2",
        ),
        (&anywhere, "/", format!("Cookie: sid={token}"), "/"),
    ];
    for (object, target, field, expected) in rows {
        let (left, verified) = pass(std::slice::from_ref(object), target, &[&field]).expect(&field);
        assert_eq!(left, expected, "{field}");
        assert_eq!(verified.expect("verified").claims["sub"], "alice");
    }
    let query = format!("/a?b=1&access_token={token}&c=2");
    let anywhere = [anywhere];
    assert_eq!(pass(&anywhere, &query, &[]).expect("good").0, "/a?b=1&c=2");
    let only = format!("/a?access_token={token}");
    assert_eq!(pass(&anywhere, &only, &[]).expect("good").0, "/a");
    let field = format!("Authorization: Bearer {token}");
    let (left, _) = pass(&[kept], "/", &[&field]).expect("good");
    assert_eq!(left, format!("/\n{field}"));
    // Elsewhere it is nobody's token.
    let (left, verified) = pass(&anywhere, "/", &[&field]).expect("no token");
    assert_eq!((left, verified), (format!("/\n{field}"), None));
}

#[test]
fn what_is_no_good_token_is_refused() {
    use pb::token_place::Kind;
    let idp = Idp::new();
    let token = idp.token("idp", &json!({}));
    let bearer = format!("Authorization: Bearer {token}");
    let expired = idp.token("idp", &json!({"exp": NOW - 61}));
    let objects = [
        idp.object("idp", |_| {}),
        idp.object("other", |one| {
            one.places = vec![place(Kind::Cookie("t".to_owned()))]
        }),
    ];
    let rows: [(&[&str], &str); 8] = [
        (&[&bearer, &bearer], "is not the only one"),
        (
            &[&bearer, &format!("Cookie: t={token}")],
            "is not the only one",
        ),
        (&["Authorization: Bearer"], "is no signed JSON web token"),
        (&["Authorization: Bearer x"], "is no signed JSON web token"),
        (&["Cookie: t="], "is no signed JSON web token"),
        (
            &[&format!("{bearer}, Bearer {token}")],
            "has a header that is not understood",
        ),
        (&[&format!("Authorization: Bearer {expired}")], "is expired"),
        // Good, but at a place where only others' are.
        (
            &[&format!("Cookie: t={token}")],
            "is of an issuer that is not known here",
        ),
    ];
    for (fields, problem) in rows {
        assert_eq!(
            pass(&objects, "/", fields).err(),
            Some(problem),
            "{fields:?}"
        );
    }
    for field in [
        "Authorization: Basic Zm9vOmJhcg==",
        "Authorization: Bearerx y",
        "X-A: b",
    ] {
        let (left, verified) = pass(&objects, "/", &[field]).expect("no token of ours");
        assert_eq!((left, verified), (format!("/\n{field}"), None));
    }
    let broken = Authentication {
        issuers: Err(ringmail_proto::Invalid::new("a", "b")),
        ..objects[0].clone()
    };
    assert!(pass(&[broken], "/", &[]).is_err());
}

#[test]
fn headers_of_claims_are_nobody_elses() {
    let idp = Idp::new();
    let object = idp.object("idp", |one| {
        one.claims_to_headers = vec![
            header_of("sub", "x-user"),
            header_of("realm.roles", "x-roles"),
            header_of("age", "x-age"),
            header_of("odd", "x-odd"),
        ];
    });
    let objects = [object];
    let spoofs = [
        "X-User: root",
        "x_user: root",
        "X-ROLES: admin",
        "X-Else: 1",
    ];
    let (left, _) = pass(&objects, "/", &spoofs).expect("no token");
    assert_eq!(left, "/\nX-Else: 1");

    let rows = [
        (
            json!({"sub": "alice", "age": 7, "realm": {"roles": ["a", "b"]}}),
            "\nx-user: alice\nx-roles: a,b\nx-age: 7",
        ),
        (json!({"sub": "a\r\nx-roles: admin", "odd": {"a": 1}}), ""),
        (
            json!({"realm": {"roles": ["user,admin"]}, "odd": [["a"]]}),
            "",
        ),
        (
            json!({"sub": "a".repeat(CLAIM_HEADER_BYTES_MAX + 1), "odd": null}),
            "",
        ),
    ];
    for (claims, expected) in rows {
        let bearer = format!("Authorization: Bearer {}", idp.token("idp", &claims));
        let fields = [&spoofs[..], &[&bearer]].concat();
        let (left, _) = pass(&objects, "/", &fields).expect("good");
        assert_eq!(left, format!("/\nX-Else: 1{expected}"), "{claims}");
    }
}

#[test]
fn the_object_that_refuses_is_named() {
    let (idp, other) = (Idp::new(), Idp::new());
    let named = |name: &str, object: Authentication| Authentication {
        name: name.into(),
        ..object
    };
    let objects = [
        named("a", idp.object("a", |_| {})),
        named("b", idp.object("b", |_| {})),
        named("c", idp.object("c", |_| {})),
    ];
    let check = |objects: &[Authentication], token: &str, expected: &str| {
        let mut head = Vec::new();
        Request {
            version: Version::Http11,
            upgrade: false,
            method: "GET",
            target: "/",
        }
        .encode(&mut head);
        let bearer = format!("Bearer {token}");
        put_field(&mut head, b"authorization", bearer.as_bytes());
        let came = Request::decode(&head).expect("a request");
        let refused = authenticate(objects.iter(), 80, came, &mut Known::default(), NOW);
        assert_eq!(refused.expect_err("refused").object, expected, "{token}");
    };
    check(&objects, &other.token("b", &json!({})), "b");
    check(&objects, &other.token("c", &json!({})), "c");
    check(&objects, &idp.token("d", &json!({})), "a");
    check(&objects, "x", "a");
    let broken = Authentication {
        issuers: Err(ringmail_proto::Invalid::new("issuers", "are odd")),
        ..objects[1].clone()
    };
    check(
        &[objects[0].clone(), broken],
        &idp.token("a", &json!({})),
        "b",
    );
}
