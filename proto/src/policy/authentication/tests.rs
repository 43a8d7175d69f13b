//! Every token that must not be good, and the few that must.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};

use super::*;
use crate::pb;

/// When all tokens here are judged.
const NOW: u64 = 1_800_000_000;

/// A private key and what its issuer lists.
struct Pair {
    private: EncodingKey,
    listed: Value,
}

/// The key of such an algorithm, under such a name.
fn pair(algorithm: Algorithm, id: Option<&str>) -> Pair {
    let kind = match algorithm {
        Algorithm::ES256 => &PKCS_ECDSA_P256_SHA256,
        Algorithm::EdDSA => &PKCS_ED25519,
        _ => &PKCS_RSA_SHA256,
    };
    let mut der = KeyPair::generate_for(kind).expect("a key").serialize_der();
    if algorithm == Algorithm::EdDSA {
        // Without its public half (RFC 8410 section 7): the library takes no other.
        der[..5].copy_from_slice(&[0x30, 0x2e, 0x02, 0x01, 0x00]);
        der.truncate(48);
    }
    let private = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_der(&der),
        Algorithm::EdDSA => EncodingKey::from_ed_der(&der),
        // Without the envelope of PKCS #8, which is always as long.
        _ => EncodingKey::from_rsa_der(&der[26..]),
    };
    let jwk = Jwk::from_encoding_key(&private, algorithm).expect("listed");
    let mut listed = serde_json::to_value(jwk).expect("JSON");
    let object = listed.as_object_mut().expect("an object");
    object.remove("alg");
    if let Some(id) = id {
        object.insert("kid".to_owned(), id.into());
    }
    Pair { private, listed }
}

fn issuer(name: &str, keys: &[&Pair], algorithms: &[&str]) -> Issuer {
    let listed: Vec<_> = keys.iter().map(|pair| &pair.listed).collect();
    let wire = pb::JwtIssuer {
        issuer: name.to_owned(),
        audiences: vec!["shop".to_owned(), "store".to_owned()],
        jwks: json!({ "keys": listed }).to_string().into_bytes(),
        algorithms: algorithms.iter().map(|one| (*one).to_owned()).collect(),
        ..pb::JwtIssuer::default()
    };
    Issuer::try_from(wire).expect("valid")
}

fn good() -> Value {
    json!({"iss": "idp", "aud": "shop", "exp": NOW + 300, "sub": "alice"})
}

/// The claims with some changed; null takes one away.
fn but(changes: Value) -> Value {
    let mut claims = good();
    let object = claims.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => object.remove(name),
            value => object.insert(name.clone(), value.clone()),
        };
    }
    claims
}

fn signed(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    encode(header, claims, key).expect("signed")
}

fn header(algorithm: Algorithm, id: Option<&str>) -> Header {
    let mut header = Header::new(algorithm);
    header.kid = id.map(ToOwned::to_owned);
    header
}

fn problem(issuers: &[Issuer], token: &str) -> &'static str {
    match verify(issuers.iter(), token, NOW) {
        Ok(_) => "",
        Err(BadToken(problem)) => problem,
    }
}

#[test]
fn claims() {
    let key = pair(Algorithm::ES256, Some("k"));
    let issuers = [issuer("idp", &[&key], &[])];
    let rows = [
        (json!({}), ""),
        (json!({"aud": ["other", "store"]}), ""),
        (json!({"nbf": NOW + LEEWAY_SECONDS}), ""),
        (json!({"exp": NOW - LEEWAY_SECONDS + 1}), ""),
        (json!({"exp": (NOW as f64) + 0.5}), ""),
        (
            json!({"iss": "other"}),
            "is of an issuer that is not known here",
        ),
        (
            json!({"iss": "idp/"}),
            "is of an issuer that is not known here",
        ),
        (json!({"iss": null}), "names no issuer"),
        (json!({"iss": ["idp"]}), "names no issuer"),
        (json!({"aud": "shop.example"}), "is for another audience"),
        (json!({"aud": []}), "is for another audience"),
        (json!({"aud": {"shop": "shop"}}), "is for another audience"),
        (json!({"aud": null}), "is for another audience"),
        (json!({"exp": null}), "never expires"),
        (json!({"exp": "tomorrow"}), "expires at no date"),
        (json!({"exp": -5}), "expires at no date"),
        (json!({"exp": NOW - LEEWAY_SECONDS}), "is expired"),
        (json!({"nbf": NOW + LEEWAY_SECONDS + 1}), "is not good yet"),
        (json!({"nbf": "soon"}), "begins at no date"),
    ];
    for (changes, expected) in rows {
        let token = signed(
            &header(Algorithm::ES256, Some("k")),
            &but(changes.clone()),
            &key.private,
        );
        assert_eq!(problem(&issuers, &token), expected, "{changes}");
    }
}

#[test]
fn keys_and_algorithms() {
    let (ec, rsa, ed) = (
        pair(Algorithm::ES256, Some("ec")),
        pair(Algorithm::RS256, Some("rsa")),
        pair(Algorithm::EdDSA, Some("ed")),
    );
    let foreign = pair(Algorithm::ES256, Some("ec"));
    let no_key = "its issuer lists no such key for such an algorithm";
    let forged = "has a signature that is not its issuer's";
    let all = [&ec, &rsa, &ed];
    type Row<'a> = (
        &'a [&'a str],
        Algorithm,
        Option<&'a str>,
        &'a EncodingKey,
        &'a str,
    );
    let rows: [Row<'_>; 12] = [
        (&[], Algorithm::ES256, Some("ec"), &ec.private, ""),
        (&[], Algorithm::RS256, Some("rsa"), &rsa.private, ""),
        (&[], Algorithm::EdDSA, Some("ed"), &ed.private, ""),
        (&[], Algorithm::RS256, None, &rsa.private, ""),
        (&["PS256"], Algorithm::PS256, Some("rsa"), &rsa.private, ""),
        (&[], Algorithm::PS256, Some("rsa"), &rsa.private, no_key),
        (
            &["PS256"],
            Algorithm::RS256,
            Some("rsa"),
            &rsa.private,
            no_key,
        ),
        (
            &["RS256"],
            Algorithm::ES256,
            Some("ec"),
            &ec.private,
            no_key,
        ),
        (&[], Algorithm::ES256, Some("rsa"), &ec.private, no_key),
        (&[], Algorithm::ES256, Some("unknown"), &ec.private, no_key),
        (&[], Algorithm::ES256, Some("ec"), &foreign.private, forged),
        (&[], Algorithm::EdDSA, Some("ec"), &ed.private, no_key),
    ];
    for (pinned, algorithm, id, key, expected) in rows {
        let issuers = [issuer("idp", &all, pinned)];
        let token = signed(&header(algorithm, id), &good(), key);
        assert_eq!(
            problem(&issuers, &token),
            expected,
            "{pinned:?} {algorithm:?} {id:?}"
        );
    }
    let twins = [issuer("idp", &[&ec, &foreign], &[])];
    let token = signed(&header(Algorithm::ES256, None), &good(), &ec.private);
    assert_eq!(
        problem(&twins, &token),
        "it does not say which of several keys signed it"
    );
    let unknown = [Issuer {
        keys: Keys::default(),
        ..issuer("idp", &all, &[])
    }];
    assert_eq!(
        problem(&unknown, &token),
        "the keys of its issuer are not known"
    );
}

/// Whoever has the public key has all that such a signature needs.
#[test]
fn public_keys_are_no_secrets() {
    let rsa = pair(Algorithm::RS256, Some("k"));
    let issuers = [issuer("idp", &[&rsa], &[])];
    let modulus = rsa.listed["n"].as_str().expect("a modulus");
    for secret in [modulus.as_bytes(), b"", rsa.listed.to_string().as_bytes()] {
        let key = EncodingKey::from_secret(secret);
        let token = signed(&header(Algorithm::HS256, Some("k")), &good(), &key);
        assert_ne!(problem(&issuers, &token), "");
    }
    let secret = json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "HS256"}]});
    assert!(Keys::parse(secret.to_string().as_bytes()).is_err());
    for pinned in ["HS256", "none", "", "ES512"] {
        let wire = pb::JwtIssuer {
            algorithms: vec![pinned.to_owned()],
            ..pb::JwtIssuer::from(&issuers[0])
        };
        assert!(Issuer::try_from(wire).is_err(), "{pinned}");
    }
}

#[test]
fn forms() {
    let key = pair(Algorithm::ES256, Some("k"));
    let issuers = [issuer("idp", &[&key], &[])];
    let token = signed(&header(Algorithm::ES256, Some("k")), &good(), &key.private);
    assert_eq!(problem(&issuers, &token), "");
    let parts: Vec<&str> = token.split('.').collect();
    let (head, body, signature) = (parts[0], parts[1], parts[2]);
    // {"alg":"none"}, {"alg":"NONE"}, []
    let (none, shouted, list) = ("eyJhbGciOiJub25lIn0", "eyJhbGciOiJOT05FIn0", "W10");
    let other = signed(
        &header(Algorithm::ES256, Some("k")),
        &but(json!({"sub": "mallory"})),
        &key.private,
    );
    let other_body = other.split('.').nth(1).expect("a body");
    let bad = [
        String::new(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        format!("{head}.{body}"),
        format!("{head}.{body}."),
        format!("{head}.{body}.{signature}.{signature}"),
        format!("{none}.{body}."),
        format!("{none}.{body}.{signature}"),
        format!("{shouted}.{body}."),
        format!("{list}.{body}.{signature}"),
        format!("{head}.{list}.{signature}"),
        format!("{head}.{other_body}.{signature}"),
        format!("{head}.{body}.{}", &signature[..signature.len() - 4]),
        format!("{head}.{body}.{signature}="),
        format!("{token}, {token}"),
        format!(" {token}"),
        format!("{head}.{body}.{}", "A".repeat(TOKEN_BYTES_MAX)),
    ];
    for token in bad {
        assert_ne!(problem(&issuers, &token), "", "{token}");
    }
    let mut critical = header(Algorithm::ES256, Some("k"));
    critical.crit = Some(vec!["exp".to_owned()]);
    let token = signed(&critical, &good(), &key.private);
    assert_eq!(problem(&issuers, &token), "has a critical header field");
}

#[test]
fn what_travels_is_what_was_checked() {
    let key = pair(Algorithm::RS256, Some("k"));
    let with_extras = json!({"keys": [key.listed, {"kty": "later"}, {"kid": 7}]});
    let keys = Keys::parse(with_extras.to_string().as_bytes()).expect("one is usable");
    let said: Value = serde_json::from_str(keys.as_str()).expect("JSON");
    assert_eq!(said["keys"].as_array().map(Vec::len), Some(1));
    let checked = Authentication {
        name: "shop/one".into(),
        ports: vec![NonZeroU16::MIN],
        issuers: Ok(vec![Issuer {
            forward: true,
            places: vec![Place::Cookie("t".to_owned()), Place::Query("q".to_owned())],
            claims_to_headers: vec![ClaimToHeader {
                claim: vec!["realm".to_owned(), "roles".to_owned()],
                header: "x-roles".to_owned(),
            }],
            ..issuer("idp", &[&key], &["RS256"])
        }]),
    };
    let again = Authentication::try_from(pb::RequestAuthentication::from(&checked));
    assert_eq!(again.expect("valid"), checked);

    let broken = Authentication {
        issuers: Err(Invalid::new("x", "y")),
        ..checked
    };
    let again = Authentication::try_from(pb::RequestAuthentication::from(&broken));
    assert!(again.expect("named").issuers.is_err());
}

#[test]
fn what_cannot_be_acted_on_is_said() {
    let base = pb::JwtIssuer {
        issuer: "idp".to_owned(),
        audiences: vec!["shop".to_owned()],
        ..pb::JwtIssuer::default()
    };
    let header = |name: &str| pb::ClaimToHeader {
        claim: "sub".to_owned(),
        header: name.to_owned(),
    };
    let place = |kind| pb::TokenPlace { kind };
    let cookie = |name: &str| place(Some(pb::token_place::Kind::Cookie(name.to_owned())));
    let fields = |change: &dyn Fn(&mut pb::JwtIssuer)| {
        let mut one = base.clone();
        change(&mut one);
        Issuer::try_from(one).err().map(|e| e.field)
    };
    assert_eq!(fields(&|_| {}), None);
    assert_eq!(fields(&|one| one.issuer.clear()).as_deref(), Some("issuer"));
    assert_eq!(
        fields(&|one| one.audiences.clear()).as_deref(),
        Some("audiences")
    );
    assert_eq!(
        fields(&|one| one.jwks = b"{}".to_vec()).as_deref(),
        Some("jwks")
    );
    assert_eq!(
        fields(&|one| one.places = vec![place(None)]).as_deref(),
        Some("places")
    );
    assert_eq!(
        fields(&|one| one.places = vec![cookie("a b")]).as_deref(),
        Some("places")
    );
    for name in ["host", "x-ringmail-peer", "authorization", "cookie"] {
        let found = fields(&|one| one.claims_to_headers = vec![header(name)]);
        assert_eq!(found.as_deref(), Some("claims_to_headers"), "{name}");
    }
    let twice = pb::RequestAuthentication {
        name: "shop/one".to_owned(),
        ports: Vec::new(),
        issuers: vec![base.clone(), base.clone()],
    };
    let twice = Authentication::try_from(twice).expect("named");
    assert!(twice.issuers.is_err());
}

#[test]
fn bytes_that_are_no_http_are_refused_where_they_could_pass_for_more() {
    let key = pair(Algorithm::ES256, None);
    let makes_headers = Issuer {
        claims_to_headers: vec![ClaimToHeader {
            claim: vec!["sub".to_owned()],
            header: "x-user".to_owned(),
        }],
        ..issuer("a", &[&key], &[])
    };
    let rows = [
        (vec![], Ok(vec![issuer("a", &[&key], &[])]), [false, false]),
        (vec![80], Ok(vec![issuer("a", &[&key], &[])]), [true, false]),
        (vec![], Ok(vec![makes_headers.clone()]), [true, true]),
        (vec![80], Ok(vec![makes_headers]), [true, false]),
        (
            vec![],
            Err(Invalid::new("issuers", "is not understood")),
            [true, true],
        ),
    ];
    for (ports, issuers, expected) in rows {
        let ports = ports.into_iter().filter_map(NonZeroU16::new);
        let one = Authentication {
            name: "shop/one".into(),
            ports: ports.collect(),
            issuers,
        };
        let found = [80, 81].map(|port| one.requires_http(port));
        assert_eq!(found, expected, "{one:?}");
    }
}

/// A controller that started anew has not fetched them yet.
#[test]
fn awaited_keys_are_those_known_from_the_same_place() {
    let key = pair(Algorithm::ES256, Some("a"));
    let told = |issuers: Vec<Issuer>| Authentication {
        name: "shop/tokens".into(),
        ports: Vec::new(),
        issuers: Ok(issuers),
    };
    let from = |keys_from: &str, are_keys_awaited, keys: &[&Pair]| Issuer {
        keys_from: keys_from.to_owned(),
        are_keys_awaited,
        keys: match keys.is_empty() {
            true => Keys::default(),
            false => issuer("idp", keys, &[]).keys,
        },
        ..issuer("idp", &[&key], &[])
    };
    let known = from("https://idp/keys", false, &[&key]);
    let rows = [
        (from("https://idp/keys", true, &[]), true),
        (from("https://idp/keys", false, &[]), false),
        (from("https://other/keys", true, &[]), false),
        (
            Issuer {
                issuer: "other".to_owned(),
                ..from("https://idp/keys", true, &[])
            },
            false,
        ),
    ];
    for (awaited, expected) in rows {
        let mut now = [told(vec![awaited])];
        keep_keys(&mut now, &[told(vec![known.clone()])]);
        let issuers = now[0].issuers.as_ref().expect("valid");
        assert_eq!(!issuers[0].keys.is_empty(), expected, "{:?}", issuers[0]);
        // And again, once the keys are kept ones themselves.
        let mut later = [told(vec![from("https://idp/keys", true, &[])])];
        keep_keys(&mut later, &now);
        let issuers = later[0].issuers.as_ref().expect("valid");
        assert_eq!(!issuers[0].keys.is_empty(), expected);
    }
    let newer = pair(Algorithm::ES256, Some("b"));
    let mut now = [told(vec![from("https://idp/keys", true, &[&newer])])];
    keep_keys(&mut now, &[told(vec![known])]);
    let issuers = now[0].issuers.as_ref().expect("valid");
    assert_eq!(issuers[0].keys, from("", false, &[&newer]).keys);
}

#[test]
fn key_sets_are_as_large_as_they_may_be() {
    use super::keys::{JWKS_BYTES_MAX, KEYS_MAX};
    let key = pair(Algorithm::ES256, None);
    let set = |count: usize| json!({"keys": vec![&key.listed; count]}).to_string();
    assert!(Keys::parse(set(KEYS_MAX).as_bytes()).is_ok());
    assert!(Keys::parse(set(KEYS_MAX + 1).as_bytes()).is_err());
    let padded = |bytes: usize| {
        let set = set(1);
        format!("{set}{}", " ".repeat(bytes - set.len()))
    };
    assert!(Keys::parse(padded(JWKS_BYTES_MAX).as_bytes()).is_ok());
    assert!(Keys::parse(padded(JWKS_BYTES_MAX + 1).as_bytes()).is_err());
}

#[test]
fn of_a_key_set_what_can_verify_is_used() {
    let own = |kind: &str, more: Value| {
        let mut key = json!({"kty": kind});
        let object = key.as_object_mut().expect("an object");
        object.extend(more.as_object().expect("an object").clone());
        Keys::parse(json!({ "keys": [key] }).to_string().as_bytes())
    };
    let coordinate = "A".repeat(43);
    let curve = |curve: &str| {
        own(
            "EC",
            json!({"crv": curve, "x": coordinate, "y": coordinate}),
        )
    };
    let point = |curve: &str| own("OKP", json!({"crv": curve, "x": coordinate}));
    let modulus = |chars: usize| own("RSA", json!({"n": "A".repeat(chars), "e": "AQAB"}));
    assert!(curve("P-256").is_ok() && curve("P-384").is_ok() && curve("P-521").is_err());
    assert!(point("Ed25519").is_ok() && point("P-256").is_err());
    assert!(modulus(342).is_ok() && modulus(341).is_err());
    let purpose = |more: Value| {
        let mut all = json!({"crv": "Ed25519", "x": coordinate, "kid": "a"});
        let object = all.as_object_mut().expect("an object");
        object.extend(more.as_object().expect("an object").clone());
        own("OKP", all)
    };
    assert!(purpose(json!({"use": "sig", "key_ops": ["verify"]})).is_ok());
    assert!(purpose(json!({"use": "enc"})).is_err());
    assert!(purpose(json!({"use": "sig", "key_ops": ["sign"]})).is_err());
    let named = |id: &str| purpose(json!({"kid": id})).expect("usable");
    assert_eq!(named("a"), named("a"));
    assert_ne!(named("a"), named("b"));
    assert_eq!(format!("{:?}", named("a")), "[Some(\"a\")]");
}

#[test]
fn a_token_is_as_long_as_it_may_be() {
    let why = |bytes: usize| {
        let verified = verify(std::iter::empty(), &"a".repeat(bytes), NOW);
        verified.expect_err("none").0
    };
    assert_eq!(why(TOKEN_BYTES_MAX), "is no signed JSON web token");
    assert_eq!(why(TOKEN_BYTES_MAX + 1), "is larger than 16384 bytes");
}
