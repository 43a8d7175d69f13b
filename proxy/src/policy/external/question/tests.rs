use super::*;
use crate::http::neutral::put_field;
use crate::policy::{Client, Wanted};
use ringmail_proto::policy::authentication::Verified;
use ringmail_proto::policy::external::OnFailure;

fn external() -> External {
    External {
        service: "shop/opa:9191".to_owned(),
        address: None,
        timeout: Duration::from_millis(200),
        on_failure: OnFailure::Deny,
        body_bytes_max: 0,
        headers: Vec::new(),
        context_extensions: [("tenant".to_owned(), "a".to_owned())].into(),
    }
}

fn told(external: &External, body: Option<&[u8]>, token: Option<&Verified>) -> AttributeContext {
    let mut fields = Vec::new();
    for (name, value) in [
        ("Host", "cart.shop"),
        ("X-A", "1"),
        ("x-a", "2"),
        ("Cookie", "a=b"),
        ("cookie", "c=d"),
        ("Content-Length", "7"),
        ("x-request-id", "id"),
        ("x-ringmail-peer", "me"),
    ] {
        put_field(&mut fields, name.as_bytes(), value.as_bytes());
    }
    let request = Request {
        version: Version::Http11,
        upgrade: false,
        method: "POST",
        target: "/a?b=c",
    };
    let client = Client {
        svid: None,
        address: "10.0.0.1".parse().expect("an address"),
    };
    let wanted = Wanted {
        client: &client,
        port: 8080,
        request: Some((request, Fields::check(&fields).expect("fields"))),
        came: None,
        token,
        asking: &[],
    };
    let about = About {
        wanted: &wanted,
        app: "10.0.0.2:8080".parse().expect("an address"),
        own: Some("spiffe://mesh/ns/shop/sa/cart"),
        body,
    };
    let question = question(external, about, Duration::new(5, 6));
    question.attributes.expect("attributes")
}

#[test]
fn a_request_as_envoy_tells_of_it() {
    let told = told(&external(), None, None);
    let peer = |peer: Option<Peer>| {
        let peer = peer.expect("a peer");
        let at = peer
            .address
            .and_then(|one| one.socket_address)
            .expect("an address");
        (at.address, at.port_value, peer.principal)
    };
    assert_eq!(peer(told.source), ("10.0.0.1".to_owned(), 0, String::new()));
    let own = "spiffe://mesh/ns/shop/sa/cart".to_owned();
    assert_eq!(peer(told.destination), ("10.0.0.2".to_owned(), 8080, own));
    assert_eq!(told.context_extensions["tenant"], "a");
    assert_eq!(told.metadata_context, None);
    let request = told.request.expect("a request");
    assert_eq!(
        request.time,
        Some(Timestamp {
            seconds: 5,
            nanos: 6
        })
    );
    let http = request.http.expect("HTTP");
    let line = [
        &http.id,
        &http.method,
        &http.path,
        &http.host,
        &http.scheme,
        &http.protocol,
    ];
    assert_eq!(
        line,
        ["id", "POST", "/a?b=c", "cart.shop", "http", "HTTP/1.1"]
    );
    assert_eq!(
        (http.size, http.body, http.raw_body),
        (7, String::new(), Vec::new())
    );
    let mut headers: Vec<_> = http.headers.into_iter().collect();
    headers.sort();
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    assert_eq!(
        headers.collect::<Vec<_>>(),
        [
            (":authority", "cart.shop"),
            (":method", "POST"),
            (":path", "/a?b=c"),
            (":scheme", "http"),
            ("content-length", "7"),
            ("cookie", "a=b; c=d"),
            ("x-a", "1,2"),
            ("x-request-id", "id"),
        ]
    );
}

#[test]
fn only_what_the_policy_says() {
    let http = |external: &External, body| {
        let told = told(external, body, None);
        told.request.and_then(|request| request.http).expect("HTTP")
    };
    let few = External {
        headers: vec!["x-a".to_owned(), ":path".to_owned()],
        ..external()
    };
    assert_eq!(http(&few, None).headers.len(), 2);
    let text = http(&few, Some("gr\u{fc}n".as_bytes()));
    assert_eq!((text.body.as_str(), text.raw_body.len()), ("gr\u{fc}n", 0));
    let bytes = http(&few, Some(b"\xff"));
    assert_eq!(
        (bytes.body.as_str(), &bytes.raw_body[..]),
        ("", &b"\xff"[..])
    );
}

#[test]
fn claims_are_told() {
    let json = serde_json::json!({"sub": "me", "n": [1, true, null], "realm": {"a": "b"}});
    let token = Verified {
        claims: json.as_object().expect("claims").clone(),
        expires: 10,
    };
    let metadata = told(&external(), None, Some(&token)).metadata_context;
    let (filter, name) = CLAIMS;
    let claims = &metadata.expect("metadata").filter_metadata[filter].fields[name];
    let expected = Value {
        kind: Some(Kind::StructValue(structure(&token.claims))),
    };
    assert_eq!(claims, &expected);
    let Some(Kind::StructValue(claims)) = &claims.kind else {
        unreachable!("claims are a structure");
    };
    let sub = claims.fields["sub"].kind.clone();
    assert_eq!(sub, Some(Kind::StringValue("me".to_owned())));
}
