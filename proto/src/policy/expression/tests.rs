use super::*;
use crate::identity::SpiffeId;
use crate::policy::condition::{Asked, Caller, Http};
use crate::policy::effort::Effort;

const FIELDS: [(&[u8], &[u8]); 4] = [
    (b"X-Team", b"red"),
    (b"x-twice", b"a"),
    (b"X-Twice", b"b"),
    (b"x-bytes", b"\xff"),
];

/// None: it cannot be told.
fn holds(text: &str, has_http: bool) -> Option<bool> {
    let expression = Expression::new(text).expect(text);
    let identity: SpiffeId = "spiffe://mesh/ns/shop/sa/web".parse().expect("an identity");
    let claims = serde_json::json!({"sub": "joe", "groups": ["a", "b"], "n": 7, "realm": {"ok": true}, "none": null});
    let http = Http {
        method: "GET",
        path: "/orders/7",
        host: Some("shop.example.com"),
        fields: FIELDS,
        claims: claims.as_object(),
    };
    let asked = Asked {
        caller: Caller {
            identity: Some(&identity),
            address: "10.1.2.3".parse().expect("an address"),
        },
        port: 8080,
        http: has_http.then_some(http),
    };
    expression
        .holds(&asked, "/orders/7", &Effort::default())
        .ok()
}

#[test]
fn means_what_cel_means() {
    let check =
        |text: &str, expected: Option<bool>| assert_eq!(holds(text, true), expected, "{text}");
    check("true", Some(true));
    check("request.method == 'GET'", Some(true));
    check(
        "request.method == \"POST\" || request.path == '/orders/7'",
        Some(true),
    );
    check("!(request.method == 'GET')", Some(false));
    check("!!true", Some(true));
    check("request.method != 'GET'", Some(false));
    check("request.method != 'POST'", Some(true));
    check("request.method != 7", Some(true));
    check("source.address == source.address", Some(true));
    check(
        "request.path.startsWith('/orders/') && request.path.size() < 20",
        Some(true),
    );
    check(
        "request.path.endsWith('7') && request.path.contains('der')",
        Some(true),
    );
    check("request.path.matches('^/orders/[0-9]+$')", Some(true));
    check("request.path.matches('orders')", Some(true));
    check("request.path.matches('^orders')", Some(false));
    check("request.host == 'shop.example.com'", Some(true));
    check("request.headers['x-team'] == 'red'", Some(true));
    check("'X-TEAM' in request.headers", Some(true));
    check("'x-none' in request.headers", Some(false));
    check("request.headers['x-none'] == 'a'", None);
    check("has(request.headers.x_none)", Some(false));
    check("request.headers['x-twice'] == 'a'", None);
    check("request.headers['x-bytes'] == 'a'", None);
    check("request.method in ['GET', 'HEAD']", Some(true));
    check("request.method in []", Some(false));
    check(
        "source.identity == 'spiffe://mesh/ns/shop/sa/web'",
        Some(true),
    );
    check(
        "source.namespace == 'shop' && source.serviceAccount == 'web' && source.trustDomain == 'mesh'",
        Some(true),
    );
    check("source.address == '10.1.2.3'", Some(true));
    check("source.address == '10.1.2.33'", Some(false));
    check("source.address == '10.1.2.'", Some(false));
    check(
        "destination.port == 8080 && destination.port >= 8080 && destination.port > -1",
        Some(true),
    );
    check("claims.sub == 'joe' && 'a' in claims.groups", Some(true));
    check("'c' in claims.groups", Some(false));
    check("claims['n'] > 6 && claims.n <= 7", Some(true));
    check("claims.realm.ok", Some(true));
    check("claims.none == null", Some(true));
    check("has(claims.sub) && !has(claims.other)", Some(true));
    check("claims.other == 'x'", None);
    check("claims.sub == 7", Some(false));
    check("claims.sub < 7", None);
    check("claims.groups.size() == 2", Some(true));
    check(
        "request.method == 'GET' ? claims.n == 7 : false",
        Some(true),
    );
    check("1 < 2 ? 'a' == 'a' : 1 == 2", Some(true));
    check("'it\\'s' == \"it's\"", Some(true));
    // An error is one where the other side does not decide.
    check("claims.other == 'x' || true", Some(true));
    check("true || claims.other == 'x'", Some(true));
    check("claims.other == 'x' && false", Some(false));
    check("claims.other == 'x' || false", None);
    check("claims.other == 'x' && true", None);
    check("request.method", None);
    check("'a'", None);
    check("claims.sub.startsWith('j')", Some(true));
    check("'a\\n\\tb\\\\' == 'a\n\tb\\\\'", Some(true));
    check("'\\n' == 'n' || '\\t' == 't'", Some(false));
    check("has(claims._x1)", Some(false));
    check("'sub' in claims && !('x' in claims)", Some(true));
    check("'ok' in claims.realm && !('x' in claims.realm)", Some(true));
    check("true == true", Some(true));
    check("true == false || claims.realm.ok == false", Some(false));
    check("claims == claims", None);
    check("[1] == 1", None);
    check("'a' < 'b' && 'b' > 'a' && !('b' < 'a')", Some(true));
    check("claims.realm.size() == 1", Some(true));
    check("claims.size() == 5", Some(true));
}

#[test]
fn as_large_as_it_may_be() {
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    // The outermost is one as well.
    assert!(Expression::new(&nested(DEPTH_MAX - 1)).is_ok());
    assert!(Expression::new(&nested(DEPTH_MAX)).is_err());
    // Side by side is not inside each other.
    assert!(Expression::new(&[&*nested(20); 3].join("&&")).is_ok());
    // So many literals, and one part less between them.
    let joined = |count: usize| vec!["true"; count].join("||");
    assert!(Expression::new(&joined(NODES_MAX / 2)).is_ok());
    assert!(Expression::new(&joined(NODES_MAX / 2 + 1)).is_err());
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let problem = |text| Expression::new(text).expect_err(text).to_string();
    assert!(problem("true && '\\x'").contains("escape that is not known"));
    assert_ne!(problem("true && '\\x'"), problem("'\\x'"));
}

#[test]
fn without_a_request_only_who_asks_is_known() {
    assert_eq!(holds("source.namespace == 'shop'", false), Some(true));
    assert_eq!(holds("request.method == 'GET'", false), None);
    assert_eq!(holds("has(claims.sub)", false), Some(false));
    let needs = |text| Expression::new(text).expect(text).needs_http();
    assert!(!needs(
        "source.namespace == 'shop' && destination.port == 1"
    ));
    assert!(needs("request.method == 'GET'") && needs("has(claims.a)"));
}

#[test]
fn what_is_no_expression_is_refused() {
    let deep = format!("{}true{}", "(".repeat(40), ")".repeat(40));
    let long = format!("true{}", " ".repeat(1024));
    let many = vec!["true"; 200].join("||");
    for text in [
        "",
        "tru",
        "request",
        "request.",
        "request.body == ''",
        "claims.",
        "1 +",
        "1 2",
        "'a",
        "'\\x'",
        "[1",
        "(true",
        "has(request)",
        "has(1)",
        "request.path.matches(request.host)",
        "request.path.matches('(')",
        "size(1)",
        "a.b",
        "request.path.lower()",
        "99999999999999999999 == 1",
        "claims.all(c, true)",
        "true &&",
        "? :",
        &deep,
        &long,
        &many,
    ] {
        assert!(Expression::new(text).is_err(), "{text}");
    }
}

#[test]
fn an_evaluation_costs_no_more_than_it_may() {
    let expression =
        Expression::new(&vec!["request.path.matches('[a-z]{9}x')"; 25].join(" || ")).expect("fits");
    let path = "a".repeat(60_000);
    let asked = Asked {
        caller: Caller {
            identity: None,
            address: "::1".parse().expect("an address"),
        },
        port: 1,
        http: Some(Http {
            method: "GET",
            path: &path,
            host: None,
            fields: FIELDS,
            claims: None,
        }),
    };
    assert!(expression.holds(&asked, &path, &Effort::default()).is_err());
}

#[test]
fn expressions_are_the_same_when_they_say_the_same() {
    let one = |text| Expression::new(text).expect(text);
    assert_eq!(one("true"), one("true"));
    assert_ne!(one("true"), one("false"));
}
