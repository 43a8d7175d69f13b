//! The same decisions made a second way: naively, from the documentation, over what was said and not over what was built
//! from it. Every generated case has to come out alike.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::tests::{authorizer, policy};
use super::*;
use crate::pb;

#[derive(Debug, Clone)]
struct SaidPolicy {
    action: &'static str,
    shadow: bool,
    port: Option<u16>,
    rules: Vec<SaidRule>,
}

#[derive(Debug, Clone)]
struct SaidRule {
    from: Vec<Vec<&'static str>>,
    to: Vec<Vec<&'static str>>,
    when: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Request {
    identity: Option<(&'static str, &'static str)>,
    address: &'static str,
    port: u16,
    http: Option<SaidHttp>,
}

#[derive(Debug, Clone)]
struct SaidHttp {
    method: &'static str,
    path: &'static str,
    host: Option<&'static str>,
    roles: Vec<&'static str>,
    groups: Vec<&'static str>,
}

const FROM: &[&str] = &[
    "identity=spiffe://mesh/ns/a/sa/x",
    "identity=spiffe://mesh/ns/a/sa/x,spiffe://mesh/ns/b/sa/y",
    "identity=spiffe://mesh/ns/a/*",
    "namespace=a",
    "namespace=a,b",
    "account=b/y",
    "domain=mesh",
    "domain=other",
    "network=10.0.0.0/8",
    "unauthenticated=true",
    "unauthenticated=false",
];
const TO: &[&str] = &[
    "port=80",
    "port=80,81",
    "method=GET",
    "method=GET,POST",
    "path=/a",
    "path=/a/b,/c",
    "prefix=/a",
    "prefix=/a/b",
    "prefix=/",
    "template=/a/{id}",
    "template=/{id}/b",
    "template=/a/{id}/**",
    "host=h.x",
    "host=*.x",
    "header:x-role=admin",
    "header:x-role=us*",
    "header:x-role",
];
const WHEN: &[&str] = &[
    "claim:groups=g",
    "claim:groups",
    "header:x-role=user",
    "expression=request.path.startsWith('/a/b')",
    "expression=!request.path.startsWith('/a/b')",
    "expression=request.headers['x-role']=='user'",
];

fn said_policy() -> impl Strategy<Value = SaidPolicy> {
    let some = |all: &'static [&'static str]| {
        prop::collection::vec(subsequence(all.to_vec(), 1..=2), 0..3)
    };
    let rule = (some(FROM), some(TO), subsequence(WHEN.to_vec(), 0..=1))
        .prop_map(|(from, to, when)| SaidRule { from, to, when });
    let port = select(vec![None, None, Some(80), Some(81)]);
    let rules = prop::collection::vec(rule, 0..4);
    let action = select(vec!["allow", "allow", "deny", "deny", "external"]);
    (action, prop::bool::weighted(0.3), port, rules).prop_map(|(action, shadow, port, rules)| {
        SaidPolicy {
            action,
            // One that asks is never in shadow.
            shadow: shadow && action != "external",
            port,
            rules,
        }
    })
}

fn request() -> impl Strategy<Value = Request> {
    let identity = select(vec![
        None,
        Some(("a", "x")),
        Some(("a", "z")),
        Some(("b", "y")),
        Some(("c", "x")),
    ]);
    let paths = vec![
        "/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/c", "/q/b", "/a;v=1", "/a;v/b", "*",
    ];
    let http = (
        select(vec!["GET", "POST", "PUT"]),
        select(paths),
        select(vec![
            None,
            Some("h.x"),
            Some("h.x:80"),
            Some("a.h.x"),
            Some("x"),
        ]),
        prop::collection::vec(select(vec!["admin", "user", "usher", "none"]), 0..3),
        subsequence(vec!["g", "h"], 0..=2),
    );
    let http = http.prop_map(|(method, path, host, roles, groups)| SaidHttp {
        method,
        path,
        host,
        roles,
        groups,
    });
    let address = select(vec!["10.1.2.3", "11.1.2.3", "fd00::1"]);
    (
        identity,
        address,
        select(vec![80, 81, 82]),
        prop::option::weighted(0.8, http),
    )
        .prop_map(|(identity, address, port, http)| Request {
            identity,
            address,
            port,
            http,
        })
}

/// An expression of `WHEN`; the same.
fn expression_holds(said: &str, http: &SaidHttp, deny: bool) -> Option<bool> {
    if said.contains("headers") {
        // None is an error, and so are several.
        return (http.roles.len() == 1).then(|| http.roles[0] == "user");
    }
    let bare = http.path.split('/').map(|one| one.split(';').next());
    let bare: Vec<&str> = bare.flatten().collect();
    let told = |path: &str| path.starts_with("/a/b") != said.contains('!');
    let both = [told(http.path), told(&bare.join("/"))];
    Some(match deny {
        true => both[0] || both[1],
        false => both[0] && both[1],
    })
}

/// Some(true), Some(false), or cannot be told.
fn holds(said: &str, request: &Request, deny: bool) -> Option<bool> {
    let (name, values) = said.split_once('=').unwrap_or((said, ""));
    let values: Vec<&str> = values.split(',').collect();
    let among = |text: &str| values.contains(&text);
    let id = request.identity;
    match name {
        "identity" => {
            let uri = id.map(|(ns, sa)| format!("spiffe://mesh/ns/{ns}/sa/{sa}"));
            return Some(uri.is_some_and(|uri| {
                values.iter().any(|one| match one.strip_suffix('*') {
                    Some(begin) => uri.starts_with(begin),
                    None => uri == *one,
                })
            }));
        }
        "namespace" => return Some(id.is_some_and(|(ns, _)| among(ns))),
        "account" => return Some(id.is_some_and(|(ns, sa)| among(&format!("{ns}/{sa}")))),
        "domain" => return Some(id.is_some() && among("mesh")),
        "network" => return Some(request.address.starts_with("10.")),
        "unauthenticated" => return Some(id.is_none() == among("true")),
        "port" => return Some(among(&request.port.to_string())),
        _ => {}
    }
    let http = request.http.as_ref()?;
    if name == "expression" {
        return expression_holds(said, http, deny);
    }
    let path_is = |path: &str| match name {
        "path" => among(path),
        "prefix" => values.iter().any(|one| {
            let one = one.trim_end_matches('/');
            path == one || path.starts_with(&format!("{one}/"))
        }),
        _ => {
            let found: Vec<&str> = path.split('/').collect();
            let wanted: Vec<&str> = values[0].split('/').collect();
            let open = wanted.last() == Some(&"**");
            let wanted = &wanted[..wanted.len() - usize::from(open)];
            let long_enough = if open {
                found.len() >= wanted.len()
            } else {
                found.len() == wanted.len()
            };
            long_enough
                && wanted.iter().zip(&found).all(|(wanted, found)| {
                    if wanted.starts_with('{') {
                        !found.is_empty()
                    } else {
                        wanted == found
                    }
                })
        }
    };
    Some(match name {
        "method" => among(http.method),
        "path" | "prefix" | "template" if !http.path.starts_with('/') => deny,
        "path" | "prefix" | "template" => {
            let bare: Vec<&str> = http
                .path
                .split('/')
                .map(|one| one.split(';').next().unwrap_or(""))
                .collect();
            path_is(http.path) || deny && path_is(&bare.join("/"))
        }
        "host" if http.host.is_none() => deny,
        "host" => http.host.is_some_and(|host| {
            let host = host.trim_end_matches(":80");
            values.iter().any(|one| match one.strip_prefix('*') {
                Some(below) => host.ends_with(below) && host != below,
                None => host == *one,
            })
        }),
        "header:x-role" => {
            let one = |value: &&str| {
                values == [""]
                    || values.iter().any(|wanted| match wanted.strip_suffix('*') {
                        Some(begin) => value.starts_with(begin),
                        None => value == wanted,
                    })
            };
            match deny {
                true => http.roles.iter().any(&one),
                false => !http.roles.is_empty() && http.roles.iter().all(one),
            }
        }
        "claim:groups" => http
            .groups
            .iter()
            .any(|group| values == [""] || among(group)),
        other => unreachable!("{other}"),
    })
}

fn rule_holds(rule: &SaidRule, request: &Request, deny: bool) -> bool {
    let one = |said: &&str| holds(said, request, deny).unwrap_or(deny);
    let any =
        |all: &[Vec<&'static str>]| all.is_empty() || all.iter().any(|all| all.iter().all(&one));
    any(&rule.from) && any(&rule.to) && rule.when.iter().all(one)
}

/// Whether it is about such a request, and one of its rules holds; where it has none, it does.
fn applies(policy: &SaidPolicy, request: &Request) -> bool {
    let cautious = policy.action != "allow";
    let mut rules = policy.rules.iter();
    policy.port.is_none_or(|port| port == request.port)
        && (policy.rules.is_empty() && cautious
            || rules.any(|rule| rule_holds(rule, request, cautious)))
}

/// May they, if these policies are in force?
fn may(posture: pb::Posture, policies: &[&SaidPolicy], request: &Request) -> bool {
    let here = policies
        .iter()
        .filter(|policy| policy.port.is_none_or(|port| port == request.port));
    let here: Vec<_> = here.collect();
    let denies = |policy: &SaidPolicy| match policy.action {
        "deny" => true,
        "external" => request.http.is_none(),
        _ => false,
    };
    let mut denying = here.iter().filter(|policy| denies(policy));
    let mut allowing = here
        .iter()
        .filter(|policy| policy.action == "allow")
        .peekable();
    if denying.any(|policy| applies(policy, request)) {
        return false;
    }
    if allowing.peek().is_some() {
        return allowing.any(|policy| applies(policy, request));
    }
    match posture {
        pb::Posture::Open => true,
        pb::Posture::Mesh => request.identity.is_some(),
        pb::Posture::Cluster => request.identity.is_some() || request.address.starts_with("10."),
        _ => false,
    }
}

fn built(said: &SaidPolicy) -> pb::AuthorizationPolicy {
    let port = said.port.map_or(String::new(), |port| format!("@{port}"));
    let shadow = if said.shadow { "shadow " } else { "" };
    let action = said.action;
    let alternatives = |all: &[Vec<&str>]| {
        all.iter()
            .map(|all| all.join(" "))
            .collect::<Vec<_>>()
            .join(" | ")
    };
    let rules = said.rules.iter().map(|rule| {
        format!(
            "{} > {} ? {}",
            alternatives(&rule.from),
            alternatives(&rule.to),
            rule.when.join(" ")
        )
    });
    let rules: Vec<String> = rules.collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    policy(&format!("{shadow}{action}{port}"), &rules)
}

/// The decision, and which policies ask somebody else.
fn decided(authorizer: &Authorizer, request: &Request) -> (Decision, Vec<usize>) {
    let identity = request.identity.map(|(namespace, account)| {
        SpiffeId::new(&"mesh".parse().expect("a domain"), namespace, account).expect("names")
    });
    let claims = request
        .http
        .as_ref()
        .map(|http| serde_json::json!({"groups": http.groups}));
    let fields: Vec<(&[u8], &[u8])> = request
        .http
        .iter()
        .flat_map(|http| &http.roles)
        .map(|role| (&b"X-Role"[..], role.as_bytes()))
        .collect();
    let asked = Asked {
        caller: Caller {
            identity: identity.as_ref(),
            address: request.address.parse().expect("an address"),
        },
        port: request.port,
        http: request.http.as_ref().map(|http| Http {
            method: http.method,
            path: http.path,
            host: http.host,
            fields: fields.iter().copied(),
            claims: claims.as_ref().and_then(|claims| claims.as_object()),
        }),
    };
    let decision = authorizer.decide(&asked);
    let asks = match decision.may_ask {
        true => authorizer.asks(&asked),
        false => Vec::new(),
    };
    (decision, asks)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each case is one set of policies and eight requests: 32 768 decisions.
    #[test]
    fn decides_as_the_oracle_does(
        posture in select(vec![pb::Posture::Deny, pb::Posture::Mesh, pb::Posture::Cluster, pb::Posture::Open]),
        policies in prop::collection::vec(said_policy(), 0..5),
        requests in prop::collection::vec(request(), 8),
    ) {
        let authorizer = authorizer(posture, policies.iter().map(built).collect());
        let enforced: Vec<&SaidPolicy> = policies.iter().filter(|policy| !policy.shadow).collect();
        let all: Vec<&SaidPolicy> = policies.iter().collect();
        for request in &requests {
            let (decision, asks) = decided(&authorizer, request);
            let verdict = |may: bool| if may { Verdict::Allow } else { Verdict::Deny };
            prop_assert_eq!(decision.enforced.verdict, verdict(may(posture, &enforced, request)), "{:?}", request);
            let in_shadow = policies.iter().any(|policy| {
                policy.shadow && policy.port.is_none_or(|port| port == request.port)
            });
            let shadow = in_shadow.then(|| verdict(may(posture, &all, request)));
            prop_assert_eq!(decision.shadow.map(|one| one.verdict), shadow, "{:?}", request);
            let asking = policies.iter().enumerate().filter(|(_, policy)| {
                policy.action == "external" && request.http.is_some() && applies(policy, request)
            });
            prop_assert_eq!(asks, asking.map(|(at, _)| at).collect::<Vec<_>>(), "{:?}", request);
        }
    }
}
