//! Who gets a certificate, and who does not.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use ringmail_proto::pb::certify_request::Credential;
use rustls::pki_types::UnixTime;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};

use crate::config::{Home, JwksLocation};

use super::bed::{Bed, Signer, ready, root, whose};

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_once_then_the_certificate() {
    let bed = Bed::new().await;
    let token = Some(Credential::JoinToken(bed.token("cart")));
    let wrong = bed
        .certify(None, "shop/pay-1", token.clone())
        .await
        .expect_err("another's");
    assert_eq!(wrong.code(), Code::PermissionDenied);
    let unknown = bed
        .certify(None, "shop/gone", token.clone())
        .await
        .expect_err("no pod");
    assert_eq!(unknown.code(), Code::NotFound);
    let cart = bed
        .certify(None, "shop/cart-1", token.clone())
        .await
        .expect("the first use");
    assert_eq!(whose(&cart), "spiffe://mesh.local/ns/shop/sa/cart");
    let again = bed
        .certify(None, "shop/cart-1", token.clone())
        .await
        .expect_err("the second");
    assert_eq!(again.code(), Code::Unauthenticated);

    let renewed = bed
        .certify(Some(&cart), "shop/cart-1", None)
        .await
        .expect("renewed");
    assert_ne!(cart.cert[0], renewed.cert[0]);
    let other = bed
        .certify(Some(&renewed), "shop/pay-1", None)
        .await
        .expect_err("another's");
    assert_eq!(other.code(), Code::PermissionDenied);
    let nobody = bed
        .certify(None, "shop/cart-1", None)
        .await
        .expect_err("no credential");
    assert_eq!(nobody.code(), Code::Unauthenticated);
    bed.says(
        "/metrics",
        "certify_requests_total{outcome=\"issued\",credential=\"join_token\"} 1",
    )
    .await;

    // What was used stays used, and who was trusted stays trusted.
    let Bed {
        dir,
        home,
        config,
        running,
        signer,
    } = bed;
    let before = root(&home.state_dir);
    running.stop().await;
    let running = ready(&config).await;
    let bed = Bed {
        dir,
        home,
        config,
        running,
        signer,
    };
    assert_eq!(root(&bed.home.state_dir), before);
    let again = bed
        .certify(None, "shop/cart-1", token)
        .await
        .expect_err("after a restart");
    assert_eq!(again.code(), Code::Unauthenticated);
    assert!(
        bed.certify(Some(&renewed), "shop/cart-1", None)
            .await
            .is_ok()
    );
    bed.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuance_is_paced() {
    let bed = Bed::new().await;
    let cart = bed.by_token("shop/cart-1", "cart").await;
    let mut refused = None;
    for _ in 0..20 {
        refused = bed.certify(Some(&cart), "shop/cart-1", None).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(
        refused.expect("within twenty").code(),
        Code::ResourceExhausted
    );
    bed.says(
        "/metrics",
        "outcome=\"rate_limited\",credential=\"certificate\"} 1",
    )
    .await;
}

fn base64url(bytes: &[u8]) -> String {
    // The library's own encoding of an HMAC key is the shortest way to it.
    let jwk =
        Jwk::from_encoding_key(&EncodingKey::from_secret(bytes), Algorithm::HS256).expect("jwk");
    match jwk.algorithm {
        jsonwebtoken::jwk::AlgorithmParameters::OctetKey(key) => key.value,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_from_a_url() {
    let signer = Signer::new("far");
    let keys = JwkSet {
        keys: vec![signer.jwk.clone()],
    };
    let keys = serde_json::to_string(&keys).expect("JSON");
    let serve = |answer: String| async move {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = socket.read(&mut request).await;
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        address
    };
    let length = keys.len();
    let good = serve(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{keys}"
    ))
    .await;
    let elsewhere = serve(format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{good}/\r\ncontent-length: 0\r\n\r\n"
    ))
    .await;
    let endless = serve(format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(300 * 1024))).await;
    for (address, code) in [
        (good, Code::Ok),
        (elsewhere, Code::Unavailable),
        (endless, Code::Unavailable),
    ] {
        let mut bed = Bed::new().await;
        bed.running.stop().await;
        let trust = bed.home.jwt.as_mut().expect("configured");
        trust.jwks = JwksLocation::Url {
            url: format!("http://{address}/keys").parse().expect("a URL"),
            root_cert: "unused".into(),
        };
        bed.config.home = Home::Directory(bed.home.clone());
        bed.running = ready(&bed.config).await;
        let token = signer.sign(&json!({"iss": "https://issuer", "aud": "ringmail",
            "exp": UnixTime::now().as_secs() + 60, "sub": "system:serviceaccount:shop:cart"}));
        let outcome = bed
            .certify(None, "shop/cart-1", Some(Credential::Jwt(token)))
            .await;
        let found = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
        assert_eq!(found, code, "{:?}", outcome.err());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::too_many_lines, reason = "a table")]
async fn only_good_jwts_prove_anything() {
    let bed = Bed::new().await;
    let hour = UnixTime::now().as_secs() + 3600;
    let good = json!({"iss": "https://issuer", "aud": "ringmail", "exp": hour,
        "sub": "system:serviceaccount:shop:cart"});
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        claims[key] = value;
        claims
    };
    let without = |key: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("an object").remove(key);
        claims
    };
    let sign = |claims: Value| bed.signer.sign(&claims);
    let bound = |pod: &str| json!({"namespace": "shop", "pod": {"name": pod}});
    let none = format!(
        "{}.{}.",
        base64url(b"{\"alg\":\"none\",\"kid\":\"one\"}"),
        base64url(good.to_string().as_bytes())
    );
    let mut hmac = Header::new(Algorithm::HS256);
    hmac.kid = Some("one".into());
    let public = serde_json::to_vec(&bed.signer.jwk).expect("JSON");
    let hmac = encode(&hmac, &good, &EncodingKey::from_secret(&public)).expect("signed");
    let rows = [
        ("service account", sign(good.clone()), Code::Ok),
        (
            "SPIFFE ID",
            sign(with("sub", "spiffe://mesh.local/ns/shop/sa/cart".into())),
            Code::Ok,
        ),
        (
            "several audiences",
            sign(with("aud", json!(["x", "ringmail"]))),
            Code::Ok,
        ),
        (
            "bound to it",
            sign(with("kubernetes.io", bound("cart-1"))),
            Code::Ok,
        ),
        (
            "bound to another",
            sign(with("kubernetes.io", bound("cart-2"))),
            Code::PermissionDenied,
        ),
        (
            "another account",
            sign(with("sub", "system:serviceaccount:shop:pay".into())),
            Code::PermissionDenied,
        ),
        (
            "another domain",
            sign(with("sub", "spiffe://other/ns/shop/sa/cart".into())),
            Code::Unauthenticated,
        ),
        (
            "a person",
            sign(with("sub", "alice".into())),
            Code::Unauthenticated,
        ),
        (
            "another audience",
            sign(with("aud", "other".into())),
            Code::Unauthenticated,
        ),
        ("no audience", sign(without("aud")), Code::Unauthenticated),
        (
            "another issuer",
            sign(with("iss", "https://other".into())),
            Code::Unauthenticated,
        ),
        ("no issuer", sign(without("iss")), Code::Unauthenticated),
        (
            "expired",
            sign(with("exp", json!(hour - 7200))),
            Code::Unauthenticated,
        ),
        ("no expiry", sign(without("exp")), Code::Unauthenticated),
        (
            "not yet",
            sign(with("nbf", json!(hour))),
            Code::Unauthenticated,
        ),
        ("no subject", sign(without("sub")), Code::Unauthenticated),
        (
            "another key by the same name",
            Signer::new("one").sign(&good),
            Code::Unauthenticated,
        ),
        (
            "an unknown key",
            Signer::new("two").sign(&good),
            Code::Unauthenticated,
        ),
        ("alg none", none, Code::Unauthenticated),
        ("HMAC with the public key", hmac, Code::Unauthenticated),
        ("not a token", "a.b.c".into(), Code::Unauthenticated),
        ("empty", String::new(), Code::Unauthenticated),
        ("huge", "a".repeat(20_000), Code::Unauthenticated),
    ];
    for (what, token, expected) in rows {
        let outcome = bed
            .certify(None, "shop/cart-1", Some(Credential::Jwt(token)))
            .await;
        let code = outcome.as_ref().map_or_else(Status::code, |_| Code::Ok);
        assert_eq!(code, expected, "{what}: {:?}", outcome.err());
    }
    // A new key is taken up without a restart.
    let fresh = Signer::new("two");
    let keys = JwkSet {
        keys: vec![bed.signer.jwk.clone(), fresh.jwk.clone()],
    };
    std::fs::write(
        bed.dir.path().join("jwks.json"),
        serde_json::to_vec(&keys).expect("JSON"),
    )
    .expect("written");
    let token = Some(Credential::Jwt(fresh.sign(&good)));
    assert!(bed.certify(None, "shop/cart-1", token).await.is_ok());
}
