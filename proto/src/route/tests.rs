use super::*;
use crate::{Invalid, pb};
use proptest::prelude::*;

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.to_owned())
}

fn routes(matches: Vec<Match>) -> Routes {
    let rules = (0..=matches.iter().map(|one| one.rule).max().unwrap_or(0))
        .map(|index| Rule {
            name: index.to_string(),
            ..Rule::default()
        })
        .collect();
    Routes {
        matches,
        rules,
        tls: false,
    }
}

fn of(rule: usize, path: PathMatch) -> Match {
    Match {
        rule,
        path,
        ..Match::default()
    }
}

fn value(name: &str, value: ValuePattern) -> ValueMatch {
    ValueMatch {
        name: name.to_owned(),
        value,
    }
}

fn regex(text: &str) -> Pattern {
    Pattern::new("test", text).expect("valid")
}

#[test]
fn which_request_a_match_holds_for() {
    let headers: [(&[u8], &[u8]); 3] = [(b"Version", b"two"), (b"version", b"2"), (b"x", b"\xff")];
    let check = |one: &Match, method: &str, target: &str, expected: bool| {
        let found = routes(vec![one.clone()])
            .pick(Asked { method, target }, headers)
            .is_some();
        assert_eq!(found, expected, "{one:?} {method} {target}");
    };
    check(&of(0, PathMatch::Any), "GET", "*", true);
    for (target, expected) in [
        ("/a", true),
        ("/a/", true),
        ("/a/b?c", true),
        ("/a?b", true),
        ("/ab", false),
        ("/", false),
    ] {
        check(&of(0, prefix("/a")), "GET", target, expected);
    }
    let exact = of(0, PathMatch::Exact("/a".to_owned()));
    for (target, expected) in [("/a", true), ("/a?x", true), ("/a/", false), ("/A", false)] {
        check(&exact, "GET", target, expected);
    }
    let pattern = of(0, PathMatch::Regex(regex("/a|/b[0-9]+")));
    for (target, expected) in [
        ("/a", true),
        ("/b12", true),
        ("/b12/", false),
        ("/x/a", false),
    ] {
        check(&pattern, "GET", target, expected);
    }
    let method = Match {
        method: Some("POST".to_owned()),
        ..of(0, PathMatch::Any)
    };
    check(&method, "POST", "/", true);
    check(&method, "post", "/", false);
    let header = |value_match| Match {
        headers: vec![value_match],
        ..of(0, PathMatch::Any)
    };
    let exactly = |text: &str| ValuePattern::Exact(text.to_owned());
    check(&header(value("VERSION", exactly("2"))), "GET", "/", true);
    check(&header(value("version", exactly("t"))), "GET", "/", false);
    check(
        &header(value("version", ValuePattern::Regex(regex("t.*")))),
        "GET",
        "/",
        true,
    );
    check(
        &header(value("x", ValuePattern::Regex(regex(".*")))),
        "GET",
        "/",
        false,
    );
    let query = |value_match| Match {
        query: vec![value_match],
        ..of(0, PathMatch::Any)
    };
    for (target, expected) in [
        ("/?a=b+c", true),
        ("/?x&a=b%20c", true),
        ("/?%61=b c", true),
        ("/?a=b", false),
        ("/a=b c", false),
        ("/?a=b%2", false),
    ] {
        check(&query(value("a", exactly("b c"))), "GET", target, expected);
    }
}

#[test]
fn the_first_match_decides() {
    let routes = routes(vec![
        of(1, prefix("/a/b")),
        of(0, prefix("/a")),
        of(2, PathMatch::Any),
    ]);
    for (target, rule) in [("/a/b/c", "1"), ("/a", "0"), ("/", "2")] {
        let asked = Asked {
            method: "GET",
            target,
        };
        let (found, _) = routes.pick(asked, []).expect("found");
        assert_eq!(found.name, rule);
    }
}

#[test]
fn paths_are_edited_as_the_gateway_api_says() {
    let check = |target: &str, matched: &str, replacement: &str, expected: &str| {
        let edit = PathEdit::Prefix(replacement.to_owned());
        assert_eq!(edit.apply(target, &prefix(matched)), expected, "{target}");
    };
    check("/foo/bar", "/foo", "/xyz", "/xyz/bar");
    check("/foo/bar", "/foo", "/xyz/", "/xyz/bar");
    check("/foo/", "/foo", "/xyz", "/xyz/");
    check("/foo", "/foo", "/xyz/", "/xyz");
    check("/foo/bar", "/foo", "/", "/bar");
    check("/foo", "/foo", "", "/");
    check("/foo?a=/foo", "/foo", "/", "/?a=/foo");
    let full = PathEdit::Full("/x".to_owned());
    assert_eq!(full.apply("/a/b?c", &PathMatch::Any), "/x?c");
    let root = PathEdit::Prefix("/api".to_owned());
    assert_eq!(root.apply("/a", &PathMatch::Any), "/api/a");
}

#[test]
fn redirects_name_a_port_only_where_it_is_needed() {
    let check = |scheme: Option<&str>, host: Option<&str>, port, expected: &str| {
        let redirect = Redirect {
            scheme: scheme.map(str::to_owned),
            host: host.map(str::to_owned),
            port,
            path: None,
            status: 302,
        };
        let location = redirect.location("shop:8080", 8080, "/a?b", &PathMatch::Any);
        assert_eq!(location, expected);
    };
    check(None, None, None, "http://shop:8080/a?b");
    check(None, Some("other"), Some(80), "http://other/a?b");
    check(Some("https"), None, None, "https://shop/a?b");
    check(Some("https"), None, Some(8443), "https://shop:8443/a?b");
    check(Some("http"), None, Some(443), "http://shop:443/a?b");
}

#[test]
fn shares_are_as_the_weights_say() {
    let rule = Rule {
        backends: [3, 0, 1]
            .into_iter()
            .enumerate()
            .map(|(index, weight)| WeightedBackend {
                weight,
                backend: Some(index),
                ..WeightedBackend::default()
            })
            .collect(),
        ..Rule::default()
    };
    let mut counts = [0_u32; 3];
    for step in 0..4096_u32 {
        let chosen = rule.backend(step << 20).and_then(|one| one.backend);
        counts[chosen.expect("one of them")] += 1;
    }
    assert_eq!(counts, [3072, 0, 1024]);
    assert!(rule.backend(u32::MAX).is_some());
    assert_eq!(Rule::default().backend(7), None);
}

/// A rule and a match with everything in them.
fn wire() -> pb::Routes {
    let edits = || pb::HeaderEdits {
        set: vec![pb::Header {
            name: "a".into(),
            value: "b".into(),
        }],
        add: vec![pb::Header {
            name: "c".into(),
            value: "d e".into(),
        }],
        remove: vec!["f".into()],
    };
    let path = |kind| Some(pb::PathEdit { kind: Some(kind) });
    let exact = |name: &str| pb::ValueMatch {
        name: name.into(),
        kind: Some(pb::value_match::Kind::Exact("x".into())),
    };
    pb::Routes {
        matches: vec![pb::RouteMatch {
            rule: 0,
            path: Some(pb::PathMatch {
                kind: Some(pb::path_match::Kind::Prefix("/a".into())),
            }),
            method: "GET".into(),
            headers: vec![exact("h")],
            query: vec![exact("q")],
            server_name: String::new(),
        }],
        rules: vec![pb::RouteRule {
            name: "shop/cart/0".into(),
            request: Some(pb::RequestEdits {
                headers: Some(edits()),
                host: "other.example".into(),
                path: path(pb::path_edit::Kind::Prefix("/b".into())),
            }),
            response: Some(edits()),
            redirect: Some(pb::Redirect {
                scheme: "https".into(),
                host: "h".into(),
                port: 8443,
                path: path(pb::path_edit::Kind::Full("/c".into())),
                status: 308,
            }),
            backends: vec![pb::WeightedBackend {
                weight: 7,
                backend: Some(0),
                request: Some(edits()),
                response: Some(edits()),
            }],
            mirrors: vec![pb::Mirror {
                backend: 0,
                parts_per_million: 500_000,
            }],
            request_timeout_ms: 1500,
            backend_timeout_ms: 500,
            retry: Some(pb::Retry {
                attempts: 3,
                statuses: vec![503],
                backoff_ms: 25,
            }),
        }],
        tls: false,
    }
}

#[test]
fn what_travels_comes_back() {
    let checked = Routes::from_wire(wire(), 1).expect("valid");
    assert_eq!(pb::Routes::from(&checked), wire());
}

/// With such a change the field of that name is refused.
fn check(field: &str, change: &dyn Fn(&mut pb::RouteMatch, &mut pb::RouteRule)) {
    let mut routes = wire();
    change(&mut routes.matches[0], &mut routes.rules[0]);
    let refused = Routes::from_wire(routes, 1).expect_err(field);
    assert_eq!(refused.field, field, "{refused}");
}

#[test]
fn what_is_not_in_normal_form_is_refused() {
    for text in [
        "/a//b",
        "/%7euser",
        "/caf%c3%a9",
        "/a/./b",
        "/a/..",
        "/a|b",
        "/a%2Fb",
        "/a\\b",
        "/a?b",
        "/a#b",
        "/%",
        "/a/..;x/b",
    ] {
        check("matches.path", &|one, _| {
            one.path = Some(pb::PathMatch {
                kind: Some(pb::path_match::Kind::Exact(text.into())),
            })
        });
        check("rules.path.full", &|_, rule| {
            rule.request.as_mut().expect("there").path = Some(pb::PathEdit {
                kind: Some(pb::path_edit::Kind::Full(text.into())),
            })
        });
    }
    for text in ["foo.1", "0x1f", "a..b", "a.", ".", "a:80", "A", "a/b"] {
        check("rules.host", &|_, rule| {
            rule.request.as_mut().expect("there").host = text.into()
        });
        check("rules.redirect.host", &|_, rule| {
            rule.redirect.as_mut().expect("there").host = text.into()
        });
    }
}

#[test]
fn what_no_proxy_could_do_is_refused_by_name() {
    use pb::path_match::Kind;
    let path = |kind| Some(pb::PathMatch { kind });
    check("matches.rule", &|one, _| one.rule = 1);
    check("matches.path", &|one, _| one.path = path(None));
    check("matches.path", &|one, _| {
        one.path = path(Some(Kind::Prefix("/a/".into())))
    });
    check("matches.path", &|one, _| {
        one.path = path(Some(Kind::Exact("a".into())))
    });
    check("matches.path", &|one, _| {
        one.path = path(Some(Kind::Regex("a)|(b".into())))
    });
    check("matches.path", &|one, _| {
        one.path = path(Some(Kind::Regex("a".repeat(2000))))
    });
    check("matches.method", &|one, _| one.method = "G T".into());
    check("matches.headers.name", &|one, _| {
        one.headers[0].name.clear()
    });
    check("matches.headers.kind", &|one, _| one.headers[0].kind = None);
    check("rules.path", &|one, _| {
        one.path = path(Some(Kind::Exact("/a".into())))
    });
    check("rules.backends.backend", &|_, rule| {
        rule.backends[0].backend = Some(1)
    });
    check("rules.mirrors.backend", &|_, rule| {
        rule.mirrors[0].backend = 1
    });
    check("rules.mirrors.parts_per_million", &|_, rule| {
        rule.mirrors[0].parts_per_million = MILLION + 1
    });
    check("rules.redirect.status", &|_, rule| {
        rule.redirect.as_mut().expect("there").status = 200
    });
    check("rules.redirect.scheme", &|_, rule| {
        rule.redirect.as_mut().expect("there").scheme = "ftp".into()
    });
    check("rules.request_timeout_ms", &|_, rule| {
        rule.request_timeout_ms = u64::MAX
    });
    check("rules.retry.attempts", &|_, rule| {
        rule.retry.as_mut().expect("there").attempts = 11
    });
    check("rules.retry.statuses", &|_, rule| {
        rule.retry.as_mut().expect("there").statuses = vec![200]
    });
    for name in [
        "Content-Length",
        "host",
        "X-Ringmail-Peer",
        "transfer-encoding",
        "HTTP2-Settings",
        "",
        "a b",
    ] {
        check("rules.remove", &|_, rule| {
            rule.response.as_mut().expect("there").remove = vec![name.into()]
        });
    }
    check("rules.set", &|_, rule| {
        rule.response.as_mut().expect("there").set[0].value = "a\r\nb: c".into()
    });
}

#[test]
fn expressions_have_a_size_one_by_one_and_a_number_together() {
    let uuid = "/users/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/(orders|items)(/[^/]+)?";
    assert!(Pattern::new("path", uuid).is_ok());
    assert!(Pattern::new("path", "/[a-z]{1000}").is_err());
    let with = |count: usize| {
        let mut routes = wire();
        let regex = pb::RouteMatch {
            path: None,
            query: vec![pb::ValueMatch {
                name: "q".into(),
                kind: Some(pb::value_match::Kind::Regex("a+".into())),
            }],
            ..routes.matches[0].clone()
        };
        routes.matches = vec![regex; count];
        Routes::from_wire(routes, 1).map_err(|e| e.field)
    };
    assert!(with(PATTERNS_MAX).is_ok());
    assert_eq!(with(PATTERNS_MAX + 1), Err("matches.regex".to_owned()));
}

proptest! {
    #[test]
    fn any_request_gets_an_answer(method in "[A-Z]{1,8}", target in "/[ -~]{0,40}", value in proptest::collection::vec(any::<u8>(), 0..20)) {
        let routes = Routes::from_wire(wire(), 1).expect("valid");
        let fields: [(&[u8], &[u8]); 1] = [(b"h", &value)];
        if let Some((rule, matched)) = routes.pick(Asked { method: &method, target: &target }, fields) {
            prop_assert!(rule.request.path.as_ref().expect("there").apply(&target, &matched.path).starts_with('/'));
        }
    }
}

/// Routes of TLS as they travel: one match and one rule, with what `change` makes of them.
fn tls(change: impl FnOnce(&mut pb::Routes)) -> Result<Routes, Invalid> {
    let mut wire = pb::Routes {
        matches: vec![pb::RouteMatch {
            server_name: "*.a.example".into(),
            ..pb::RouteMatch::default()
        }],
        rules: vec![pb::RouteRule {
            backends: vec![pb::WeightedBackend {
                weight: 1,
                backend: Some(0),
                ..pb::WeightedBackend::default()
            }],
            ..pb::RouteRule::default()
        }],
        tls: true,
    };
    change(&mut wire);
    Routes::from_wire(wire, 1)
}

#[test]
fn tls_is_routed_by_server_name_to_backends_and_by_nothing_else() {
    let routes = tls(|_| {}).expect("valid");
    assert_eq!(
        Routes::from_wire((&routes).into(), 1).as_ref(),
        Ok(&routes),
        "comes back"
    );
    assert!(routes.pick_server("b.a.example").is_some());
    assert!(routes.pick_server("a.example").is_none());
    let refused: [fn(&mut pb::Routes); 6] = [
        |wire| wire.tls = false,
        |wire| wire.matches[0].server_name.clear(),
        |wire| wire.matches[0].server_name = "A.example".into(),
        |wire| wire.matches[0].method = "GET".into(),
        |wire| wire.rules[0].request_timeout_ms = 1,
        |wire| {
            wire.rules[0].backends[0].request = Some(pb::HeaderEdits {
                remove: vec!["a".into()],
                ..pb::HeaderEdits::default()
            });
        },
    ];
    for (index, change) in refused.into_iter().enumerate() {
        assert!(tls(change).is_err(), "{index}");
    }
}
