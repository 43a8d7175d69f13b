/// Where the object is wrong, with this as its only issuer.
fn refused(issuer: &str) -> Option<String> {
    let text = format!(
        "{{apiVersion: ringmail.io/v1alpha1, kind: RequestAuthentication, metadata: {{name: one, namespace: shop}}, spec: {{targetRefs: [{{kind: Namespace}}], issuers: [{issuer}]}}}}"
    );
    let objects = super::super::parse_text(&text);
    let [(_, super::super::objects::Object::Authentication(one))] = &objects[..] else {
        return Some("no object".to_owned());
    };
    one.issuers.as_ref().err().map(|e| e.field.clone())
}

#[test]
fn what_is_wrong_is_named_and_kept() {
    let good = "issuer: a, audiences: [b], jwks: {uri: https://idp.example/jwks}";
    let rows = [
        ("", None),
        ("jwksMaxAge: 10s", None),
        (
            "from: [{cookie: t}, {header: {name: X-T}}], claimsToHeaders: [{claim: a.b, header: X-A}]",
            None,
        ),
        ("jwksMaxAge: 0s", Some("spec.issuers[0].jwksMaxAge")),
        ("jwksMaxAge: 169h", Some("spec.issuers[0].jwksMaxAge")),
        ("jwksMaxAge: soon", Some("spec.issuers[0].jwksMaxAge")),
        ("algorithms: [HS256]", Some("spec.issuers[0].algorithms")),
        ("algorithms: [none]", Some("spec.issuers[0].algorithms")),
        ("from: [{}]", Some("spec.issuers[0].places")),
        (
            "from: [{cookie: a, queryParameter: b}]",
            Some("spec.issuers[0].places"),
        ),
        (
            "claimsToHeaders: [{claim: a, header: Host}]",
            Some("spec.issuers[0].claims_to_headers"),
        ),
        ("forwards: true", Some("spec.issuers[0].forwards")),
    ];
    for (more, expected) in rows {
        let found = refused(&format!("{{{good}, {more}}}"));
        assert_eq!(found.as_deref(), expected, "{more}");
    }
    for (jwks, field) in [
        ("{}", "jwks"),
        ("{uri: https://a/, inline: x}", "jwks"),
        ("{inline: x}", "jwks"),
        ("{uri: ftp://a/}", "jwks.uri"),
        ("{uri: /keys}", "jwks.uri"),
        ("{uri: \"https://user:password@a/\"}", "jwks.uri"),
    ] {
        let found = refused(&format!("{{issuer: a, audiences: [b], jwks: {jwks}}}"));
        assert_eq!(found, Some(format!("spec.issuers[0].{field}")), "{jwks}");
    }
}
