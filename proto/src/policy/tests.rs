use super::effort::REMEMBERED_MAX;
use super::*;
use crate::pb;

type Fields = Vec<(&'static [u8], &'static [u8])>;

fn text(text: &str) -> pb::TextMatch {
    use pb::text_match::Kind;
    let kind = match text.strip_suffix('*') {
        Some(prefix) => Kind::Prefix(prefix.to_owned()),
        None => Kind::Exact(text.to_owned()),
    };
    pb::TextMatch { kind: Some(kind) }
}

/// `identity=a,b*`, `header:x-role=admin`, `path=/a`, `prefix=/a`, `template=/a/{x}`, …
fn condition(said: &str) -> pb::Condition {
    use pb::condition::Kind;
    let (name, values) = said.split_once('=').unwrap_or((said, ""));
    let values: Vec<&str> = values.split(',').filter(|one| !one.is_empty()).collect();
    let names = || pb::NameSet {
        any: values.iter().map(|one| (*one).to_owned()).collect(),
    };
    let texts = || values.iter().map(|one| text(one)).collect();
    let paths = |kind: fn(String) -> pb::path_template::Kind| {
        let any = values.iter().map(|one| pb::PathTemplate {
            kind: Some(kind((*one).to_owned())),
        });
        Kind::Paths(pb::PathSet { any: any.collect() })
    };
    let kind = match name.split_once(':') {
        Some(("header", name)) => Kind::Header(pb::HeaderCondition {
            name: name.to_owned(),
            any: texts(),
        }),
        Some(("claim", name)) => Kind::Claim(pb::ClaimCondition {
            name: name.to_owned(),
            any: texts(),
        }),
        _ => match name {
            "identity" => Kind::Identities(pb::TextSet { any: texts() }),
            "namespace" => Kind::Namespaces(names()),
            "account" => Kind::ServiceAccounts(names()),
            "domain" => Kind::TrustDomains(names()),
            "network" => Kind::Networks(names()),
            "unauthenticated" => Kind::Unauthenticated(values == ["true"]),
            "port" => Kind::Ports(pb::PortSet {
                any: values
                    .iter()
                    .map(|one| one.parse().expect("a port"))
                    .collect(),
            }),
            "method" => Kind::Methods(names()),
            "path" => paths(pb::path_template::Kind::Exact),
            "prefix" => paths(pb::path_template::Kind::Prefix),
            "template" => paths(pb::path_template::Kind::Template),
            "host" => Kind::Hosts(names()),
            "expression" => Kind::Expression(values.join(",")),
            _ => return pb::Condition { kind: None },
        },
    };
    pb::Condition { kind: Some(kind) }
}

fn conditions(said: &str) -> Vec<pb::Condition> {
    said.split_whitespace().map(condition).collect()
}

fn authorizer_of_tests() -> pb::ExternalAuthorizer {
    pb::ExternalAuthorizer {
        service: "shop/opa:9191".to_owned(),
        address: "10.96.0.9:9191".to_owned(),
        timeout_ms: 200,
        on_failure: pb::FailureMode::Deny.into(),
        ..pb::ExternalAuthorizer::default()
    }
}

/// `allow`, `deny@80`, `external`, `shadow allow`, and rules as `from > to ? when`.
pub(super) fn policy(said: &str, rules: &[&str]) -> pb::AuthorizationPolicy {
    let (said, port) = said.split_once('@').unwrap_or((said, ""));
    let alternatives = |said: &str| {
        let all = said
            .split('|')
            .map(conditions)
            .filter(|all| !all.is_empty());
        all.map(|all| pb::Conditions { all }).collect()
    };
    let rule = |rule: &&str| {
        let (rest, when) = rule.split_once('?').unwrap_or((rule, ""));
        let (from, to) = rest.split_once('>').unwrap_or((rest, ""));
        pb::AuthorizationRule {
            from: alternatives(from),
            to: alternatives(to),
            when: conditions(when),
        }
    };
    let mode = match said.starts_with("shadow") {
        true => pb::PolicyMode::Shadow,
        false => pb::PolicyMode::Enforce,
    };
    let action = match said.rsplit(' ').next() {
        Some("deny") => pb::PolicyAction::Deny,
        Some("external") => pb::PolicyAction::External,
        _ => pb::PolicyAction::Allow,
    };
    pb::AuthorizationPolicy {
        name: "shop/one".to_owned(),
        action: action.into(),
        mode: mode.into(),
        ports: port.parse().into_iter().collect(),
        rules: rules.iter().map(rule).collect(),
        external: said.contains("external").then(authorizer_of_tests),
    }
}

pub(super) fn authorizer(
    posture: pb::Posture,
    policies: Vec<pb::AuthorizationPolicy>,
) -> Authorizer {
    let wire = pb::Authorization {
        posture: posture.into(),
        cluster_networks: vec!["10.0.0.0/8".to_owned()],
        policies,
        authentications: Vec::new(),
        limits: Vec::new(),
    };
    let checked = Authorization::try_from(wire).expect("valid");
    let again = Authorization::try_from(pb::Authorization::from(&checked)).expect("valid");
    if checked.policies.iter().all(|policy| policy.rules.is_ok()) {
        assert_eq!(checked, again, "what is sent is what was checked");
    }
    Authorizer::new(checked)
}

/// A request as `identity address port method path host`, then header fields; `-` for what is not there. Without a method
/// the connection is opaque.
fn decide(authorizer: &Authorizer, said: &str, fields: &Fields) -> Decision {
    decided(said, fields, |asked| authorizer.decide(asked))
}

/// What `decide` makes of it.
fn decided<T>(
    said: &str,
    fields: &Fields,
    decide: impl for<'a> FnOnce(&Asked<'a, AllFields<'a>>) -> T,
) -> T {
    let mut parts = said.split(' ');
    let mut next = || parts.next().filter(|part| *part != "-");
    let identity: Option<SpiffeId> = next().map(|id| {
        let (namespace, account) = id.split_once('/').expect("namespace/account");
        SpiffeId::new(&"mesh".parse().expect("a domain"), namespace, account).expect("a name")
    });
    let address = next().unwrap_or("10.1.1.1").parse().expect("an address");
    let port = next().unwrap_or("80").parse().expect("a port");
    let claims = serde_json::json!({"iss": "me", "groups": ["a", "b"], "n": 7, "realm": {"role": "x"}, "on": true});
    let http = next().map(|method| Http {
        method,
        path: next().unwrap_or("/"),
        host: next(),
        fields: fields.iter().copied(),
        claims: claims.as_object(),
    });
    decide(&Asked {
        caller: Caller {
            identity: identity.as_ref(),
            address,
        },
        port,
        http,
    })
}

type AllFields<'a> = std::iter::Copied<std::slice::Iter<'a, (&'static [u8], &'static [u8])>>;

fn may(authorizer: &Authorizer, said: &str) -> bool {
    decide(authorizer, said, &Vec::new()).enforced.verdict == Verdict::Allow
}

#[test]
fn postures() {
    let check = |posture, meshed, near, far| {
        let authorizer = authorizer(posture, Vec::new());
        for (said, expected) in [
            ("a/b - 80", meshed),
            ("- 10.1.1.1 80", near),
            ("- 1.1.1.1 80", far),
        ] {
            assert_eq!(may(&authorizer, said), expected, "{posture:?} {said}");
        }
    };
    check(pb::Posture::Deny, false, false, false);
    check(pb::Posture::Mesh, true, false, false);
    check(pb::Posture::Cluster, true, true, false);
    check(pb::Posture::Open, true, true, true);
}

#[test]
fn one_rule() {
    let check = |rule: &str, said: &str, expected: bool| {
        let authorizer = authorizer(pb::Posture::Open, vec![policy("allow", &[rule])]);
        assert_eq!(may(&authorizer, said), expected, "{rule}: {said}");
    };
    check("", "- - 80", true);
    check("identity=spiffe://mesh/ns/a/sa/b", "a/b - 80", true);
    check("identity=spiffe://mesh/ns/a/sa/b", "a/bb - 80", false);
    check("identity=spiffe://mesh/ns/a/sa/b", "- - 80", false);
    check("identity=spiffe://mesh/ns/a/*", "a/bb - 80", true);
    check("identity=spiffe://mesh/ns/a/*", "aa/b - 80", false);
    check("identity=*", "- - 80", false);
    // Names are no patterns.
    check("identity=spiffe://mesh/ns/a/sa/b.c", "a/bxc - 80", false);
    check("account=a/b", "a/b - 80", true);
    check("account=a/b", "a/c - 80", false);
    check("namespace=a", "a/c - 80", true);
    check("namespace=a", "aa/c - 80", false);
    check("domain=mesh", "a/c - 80", true);
    check("domain=mes", "a/c - 80", false);
    check("unauthenticated=true", "- - 80", true);
    check("unauthenticated=true", "a/b - 80", false);
    check("unauthenticated=false", "a/b - 80", true);
    check("network=10.0.0.0/8,fd00::/8", "a/b fd00::1 80", true);
    check("network=10.0.0.0/8", "a/b 11.0.0.1 80", false);
    check("namespace=a network=10.0.0.0/8", "a/b 11.0.0.1 80", false);
    check("namespace=x | namespace=a", "a/b - 80", true);
    check("> port=80,81", "a/b - 81", true);
    check("> port=80,81", "a/b - 82", false);
    check("> method=GET path=/a", "a/b - 80 GET /a", true);
    check("> method=GET path=/a", "a/b - 80 POST /a", false);
    check("> method=GET path=/a", "a/b - 80 GET /a/", false);
    check("> method=GET path=/a", "a/b - 80", false);
    check("> prefix=/a", "a/b - 80 GET /a", true);
    check("> prefix=/a", "a/b - 80 GET /a/b/c", true);
    check("> prefix=/a", "a/b - 80 GET /ab", false);
    check("> prefix=/", "a/b - 80 GET /ab", true);
    check("> prefix=/", "a/b - 80 OPTIONS *", false);
    check("> template=/a/{x}/c", "a/b - 80 GET /a/b/c", true);
    check("> template=/a/{x}/c", "a/b - 80 GET /a/b/d", false);
    check("> template=/a/{x}/c", "a/b - 80 GET /a/b/c/d", false);
    check("> template=/a/{x}/**", "a/b - 80 GET /a/b/c/d", true);
    check("> template=/{x}", "a/b - 80 GET /", false);
    check("> template=/**", "a/b - 80 GET /a", true);
    check("> host=a.b,*.c.d", "a/b - 80 GET / a.b:8080", true);
    check("> host=a.b,*.c.d", "a/b - 80 GET / x.y.c.d", true);
    check("> host=a.b,*.c.d", "a/b - 80 GET / c.d", false);
    check("> host=a.b", "a/b - 80 GET /", false);
    check("> host=[::1]", "a/b - 80 GET / [::1]:80", true);
    check("? claim:groups=b", "a/b - 80 GET /", true);
    check("? claim:groups=c", "a/b - 80 GET /", false);
    check("? claim:realm.role=x", "a/b - 80 GET /", true);
    check("? claim:n=7", "a/b - 80 GET /", true);
    check("? claim:absent", "a/b - 80 GET /", false);
    check("? claim:iss", "a/b - 80 GET /", true);
    check(
        "namespace=a > path=/a ? claim:iss=you",
        "a/b - 80 GET /a",
        false,
    );
}

#[test]
fn deny_beats_allow_and_allow_denies_the_rest() {
    let all = authorizer(
        pb::Posture::Open,
        vec![
            policy("allow", &["namespace=a"]),
            policy("deny", &["> prefix=/admin"]),
        ],
    );
    assert!(may(&all, "a/b - 80 GET /x"));
    assert!(!may(&all, "b/b - 80 GET /x"));
    assert!(!may(&all, "a/b - 80 GET /admin/x"));
    // Some servers take parameters off.
    assert!(!may(&all, "a/b - 80 GET /admin;x=y/x"));
    // An opaque connection may carry anything.
    assert!(!may(&all, "a/b - 80"));
    let found = decide(&all, "b/b - 80 GET /x", &Vec::new()).enforced;
    assert_eq!(found.by, By::NoRule);
    let found = decide(&all, "b/b - 80 GET /admin", &Vec::new()).enforced;
    assert_eq!(found.by, By::Rule { policy: 1, rule: 0 });
}

#[test]
fn policies_without_rules_deny() {
    let allow = authorizer(pb::Posture::Open, vec![policy("allow", &[])]);
    assert!(!may(&allow, "a/b - 80"));
    let both = authorizer(
        pb::Posture::Open,
        vec![policy("allow", &[]), policy("allow", &["namespace=a"])],
    );
    assert!(may(&both, "a/b - 80"));
    let deny = authorizer(
        pb::Posture::Open,
        vec![policy("deny", &[]), policy("allow", &[""])],
    );
    assert!(!may(&deny, "a/b - 80"));
}

#[test]
fn a_policy_for_one_port_leaves_the_others_alone() {
    let one = authorizer(
        pb::Posture::Mesh,
        vec![policy("allow@80", &["namespace=a > path=/x"])],
    );
    assert!(!may(&one, "b/b - 80 GET /x"));
    assert!(may(&one, "b/b - 81 GET /x"));
    assert!(!may(&one, "a/b - 80"));
    assert!(one.requires_http(80) && !one.requires_http(81));
}

#[test]
fn what_is_not_understood_denies() {
    for action in ["allow", "deny"] {
        let unknown = policy(action, &["namespace=a", "something=new"]);
        let all = authorizer(pb::Posture::Open, vec![policy("allow", &[""]), unknown]);
        assert!(!may(&all, "a/b - 80 GET /"), "{action}");
        assert!(all.policies()[1].rules.is_err());
        let found = decide(&all, "a/b - 80", &Vec::new()).enforced;
        assert_eq!(found.by, By::Policy { policy: 1 });
    }
    let mut unknown = policy("allow", &[""]);
    unknown.mode = 77;
    assert!(!may(
        &authorizer(pb::Posture::Open, vec![unknown]),
        "a/b - 80"
    ));
    let mut unknown = policy("allow", &[""]);
    unknown.action = 77;
    assert!(!may(
        &authorizer(pb::Posture::Open, vec![unknown]),
        "a/b - 80"
    ));
}

#[test]
fn every_value_of_a_repeated_header_counts() {
    let allow = authorizer(
        pb::Posture::Open,
        vec![policy("allow", &["> header:x-role=user"])],
    );
    let deny = authorizer(
        pb::Posture::Open,
        vec![policy("deny", &["> header:x-role=admin"])],
    );
    let check = |values: &[&'static str], allowed: bool, denied: bool| {
        let fields = values
            .iter()
            .map(|value| (&b"X-Role"[..], value.as_bytes()))
            .collect();
        let verdict = |all: &Authorizer| decide(all, "a/b - 80 GET /", &fields).enforced.verdict;
        assert_eq!(verdict(&allow) == Verdict::Allow, allowed, "{values:?}");
        assert_eq!(verdict(&deny) == Verdict::Deny, denied, "{values:?}");
    };
    check(&[], false, false);
    check(&["user"], true, false);
    check(&["admin"], false, true);
    check(&["user", "admin"], false, true);
    check(&["admin", "user"], false, true);
}

#[test]
fn shadow_policies_are_told_and_decide_nothing() {
    let said = "b/b - 80 GET /";
    let all = authorizer(
        pb::Posture::Open,
        vec![policy("shadow allow", &["namespace=a"])],
    );
    let decision = decide(&all, said, &Vec::new());
    assert_eq!(decision.enforced.verdict, Verdict::Allow);
    assert_eq!(decision.shadow.map(|one| one.verdict), Some(Verdict::Deny));
    let all = authorizer(
        pb::Posture::Deny,
        vec![policy("shadow allow", &["namespace=b"])],
    );
    let decision = decide(&all, said, &Vec::new());
    assert_eq!(decision.enforced.verdict, Verdict::Deny);
    assert_eq!(decision.shadow.map(|one| one.verdict), Some(Verdict::Allow));
    let all = authorizer(pb::Posture::Open, vec![policy("shadow deny@81", &[])]);
    assert_eq!(decide(&all, said, &Vec::new()).shadow, None);
    // With it, the first of all decides.
    for (policies, by) in [(["deny", "shadow deny"], 0), (["shadow deny", "deny"], 0)] {
        let policies = policies.map(|one| policy(one, &["namespace=b"]));
        let all = authorizer(pb::Posture::Open, policies.into());
        let shadow = decide(&all, said, &Vec::new()).shadow.expect("one");
        let first = By::Rule {
            policy: by,
            rule: 0,
        };
        assert_eq!((shadow.verdict, shadow.by), (Verdict::Deny, first));
    }
}

#[test]
fn the_first_rule_is_named_wherever_it_is_filed() {
    let said = "b/b - 80 GET /a";
    let rules = [
        "template=/{x}",
        "namespace=b",
        "identity=spiffe://mesh/*",
        "",
    ];
    for first in 0..rules.len() {
        let mut rules = rules.map(|rule| match rule.starts_with("template") {
            true => format!(" > {rule}"),
            false => rule.to_owned(),
        });
        rules.rotate_left(first);
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let all = authorizer(pb::Posture::Open, vec![policy("deny", &rules)]);
        assert_eq!(all.posture(), Posture::Open);
        let found = decide(&all, said, &Vec::new()).enforced;
        let by = By::Rule { policy: 0, rule: 0 };
        assert_eq!((found.verdict, found.by), (Verdict::Deny, by), "{rules:?}");
    }
}

#[test]
fn a_claim_that_is_true_is_no_other() {
    for (said, expected) in [
        ("claim:on=true", true),
        ("claim:on", true),
        ("claim:on=false", false),
    ] {
        let rule = format!("? {said}");
        let all = authorizer(pb::Posture::Deny, vec![policy("allow", &[&rule])]);
        assert_eq!(may(&all, "b/b - 80 GET /"), expected, "{said}");
    }
}

/// A few large rules do not fill the memory of every proxy, and mean what they say.
#[test]
fn the_index_is_as_large_as_it_may_be() {
    let some = |count: u16, name: &str, prefix: &str| -> String {
        let all: Vec<String> = (0..count).map(|n| format!("{prefix}{n}")).collect();
        format!("{name}={}", all.join(","))
    };
    let rule = |n: usize| {
        let (port, path) = (some(64, "port", "1"), some(63, "path", &format!("/r{n}/")));
        format!(
            "{} > {port} {path}",
            some(64, "identity", "spiffe://mesh/ns/a/sa/b")
        )
    };
    let rules: Vec<String> = (0..8).map(rule).collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let all = authorizer(pb::Posture::Open, vec![policy("deny", &rules)]);
    // The first is as large as all may be, with what has no path, and those behind it have a place each.
    let most = index::FILINGS_MAX..=index::FILINGS_MAX + rules.len();
    assert!(most.contains(&all.filings), "{}", all.filings);
    for n in 0..8 {
        let denied = !may(&all, &format!("a/b7 - 17 GET /r{n}/7 shop"));
        assert!(
            denied && may(&all, &format!("a/b7 - 17 GET /r{n}/77 shop")),
            "{n}"
        );
    }
}

/// However many rules there are, few are looked at.
#[test]
fn a_decision_looks_at_few_rules() {
    const RULES: usize = 300;
    type Make = fn(usize) -> String;
    let kinds: [(&str, Make, &str); 8] = [
        (
            "identity",
            |n| format!("identity=spiffe://mesh/ns/n{n}/sa/b"),
            "n7/b - 80 GET /",
        ),
        ("account", |n| format!("account=n{n}/b"), "n7/b - 80 GET /"),
        (
            "namespace",
            |n| format!("namespace=n{n}"),
            "n7/b - 80 GET /",
        ),
        (
            "port",
            |n| format!(" > port={}", 1000 + n),
            "a/b - 1007 GET /",
        ),
        (
            "path",
            |n| format!(" > path=/p{n}"),
            "a/b - 80 GET /p7 shop",
        ),
        (
            "prefix",
            |n| format!(" > prefix=/p{n}"),
            "a/b - 80 GET /p7/x shop",
        ),
        (
            "template",
            |n| format!(" > template=/p{n}/{{x}}"),
            "a/b - 80 GET /p7/x shop",
        ),
        (
            "host",
            |n| format!(" > host=h{n}.shop"),
            "a/b - 80 GET / h7.shop",
        ),
    ];
    for (kind, make, said) in kinds {
        let rules: Vec<String> = (0..RULES).map(make).collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let all = authorizer(pb::Posture::Open, vec![policy("deny", &rules)]);
        let mut looked_at = 0;
        let found = decided(said, &Vec::new(), |asked| {
            all.candidates(asked, |_, _| looked_at += 1);
            all.decide(asked)
        });
        let by = By::Rule { policy: 0, rule: 7 };
        assert_eq!(
            (found.enforced.verdict, found.enforced.by),
            (Verdict::Deny, by),
            "{kind}"
        );
        assert!(
            (1..=4).contains(&looked_at),
            "{kind}: {looked_at} of {RULES}"
        );
    }
}

#[test]
fn only_rules_about_http_require_it() {
    let requires = |rule: &str| {
        let all = authorizer(pb::Posture::Open, vec![policy("deny@80", &[rule])]);
        (all.requires_http(80), all.requires_http(81))
    };
    for said in [
        "namespace=a",
        "identity=a*",
        "account=a/b",
        "network=10.0.0.0/8",
    ] {
        assert_eq!(requires(said), (false, false), "{said}");
    }
    for said in ["method=GET", "path=/a", "host=a", "header:x-a=b"] {
        assert_eq!(requires(&format!(" > {said}")), (true, false), "{said}");
    }
}

#[test]
fn names_are_as_long_as_they_may_be() {
    use super::wire::{claim_name, short};
    let of = |length: usize| "a".repeat(length);
    assert!(claim_name(&of(TEXT_BYTES_MAX)).is_ok());
    assert!(claim_name(&of(TEXT_BYTES_MAX + 1)).is_err());
    assert!(short("name", of(TEXT_BYTES_MAX)).is_ok());
    assert!(short("name", of(TEXT_BYTES_MAX + 1)).is_err());
}

#[test]
fn hosts_with_and_without_ports() {
    use super::condition::without_port;
    for (host, expected) in [
        ("shop", "shop"),
        ("shop:80", "shop"),
        ("[::1]", "[::1]"),
        ("[::1]:80", "[::1]"),
        ("[::]", "[::]"),
        ("[::]:80", "[::]"),
    ] {
        assert_eq!(without_port(host), expected);
    }
    let all = authorizer(
        pb::Posture::Open,
        vec![policy("deny", &[" > host=*.shop.example"])],
    );
    let denied = |host: &str| !may(&all, &format!("b/b - 80 GET / {host}"));
    assert!(denied("a.shop.example") && denied("a.b.shop.example:80"));
    assert!(!denied("shop.example") && !denied(".shop.example") && !denied("a.shop.exampleX"));
}

#[test]
fn what_was_found_out_is_not_looked_for_again() {
    let effort = Effort::default();
    let looks = std::cell::Cell::new(0);
    let look = |number, says| {
        effort.once(number, || {
            looks.set(looks.get() + 1);
            says
        })
    };
    for number in 0..REMEMBERED_MAX {
        assert_eq!(look(Some(number), number % 3 == 0), number % 3 == 0);
    }
    for number in 0..REMEMBERED_MAX {
        assert_eq!(look(Some(number), number % 3 != 0), number % 3 == 0);
    }
    assert_eq!(looks.get(), u32::from(REMEMBERED_MAX));
    // Those without a number are looked for each time.
    for number in [None, Some(REMEMBERED_MAX)] {
        assert!(look(number, true) && !look(number, false));
    }
    assert_eq!(looks.get(), u32::from(REMEMBERED_MAX) + 4);
    assert!(effort.spend(effort::COST_MAX).is_ok());
    assert!(effort.spend(1).is_err());
}

#[test]
fn explanations_name_what_does_not_hold() {
    let all = authorizer(
        pb::Posture::Open,
        vec![
            policy(
                "allow",
                &[
                    "namespace=a,b > path=/x,/y",
                    "namespace=c | namespace=d",
                    "? claim:groups=z",
                ],
            ),
            policy("deny", &[]),
            policy("allow@81", &[""]),
            policy("allow", &[]),
            policy("external", &[]),
            policy("deny", &[" > method=A,B,C,D", " > method=A,B,C,D,E,F"]),
        ],
    );
    let identity = "spiffe://mesh/ns/a/sa/b".parse().expect("an identity");
    let asked = Asked {
        caller: Caller {
            identity: Some(&identity),
            address: "::1".parse().expect("an address"),
        },
        port: 80,
        http: Some(Http {
            method: "GET",
            path: "/z",
            host: None,
            fields: [],
            claims: None,
        }),
    };
    let shown: Vec<_> = all
        .explain(&asked)
        .into_iter()
        .map(|one| {
            (
                one.policy,
                one.rule,
                one.holds,
                one.because.unwrap_or_default(),
            )
        })
        .collect();
    let expected = [
        (0, Some(0), false, "to: paths /x, /y"),
        (0, Some(1), false, "from: none of 2"),
        (0, Some(2), false, "when: claim groups z"),
        (1, None, true, "has no rules, and denies everything"),
        (3, None, false, "has no rules, and allows nothing"),
        (4, None, true, "has no rules, and asks about everything"),
        (5, Some(0), false, "to: methods A, B, C, D"),
        (5, Some(1), false, "to: methods A, B, C, D and 2 more"),
    ];
    let expected =
        expected.map(|(policy, rule, holds, because)| (policy, rule, holds, because.to_owned()));
    assert_eq!(shown, expected);
}

#[test]
fn what_is_too_much_denies() {
    let alternatives: Vec<String> = (0..64).map(|n| format!("namespace=n{n}")).collect();
    let rule =
        alternatives.join(" | ") + " > " + &alternatives.join(" | ").replace("namespace", "host");
    let rules: Vec<&str> = std::iter::repeat_n(rule.as_str(), 17).collect();
    let all = authorizer(
        pb::Posture::Open,
        vec![policy("allow", &rules[..15]), policy("allow", &rules)],
    );
    let found = decide(&all, "n1/b - 80 GET / n1", &Vec::new()).enforced;
    assert_eq!(
        (found.verdict, found.by),
        (Verdict::Deny, By::Policy { policy: 1 })
    );
}

#[test]
fn values_that_could_never_match_are_refused() {
    let check = |said: &str| {
        let authorization = pb::Authorization {
            posture: pb::Posture::Open.into(),
            cluster_networks: Vec::new(),
            policies: vec![policy("allow", &[said])],
            authentications: Vec::new(),
            limits: Vec::new(),
        };
        let checked = Authorization::try_from(authorization).expect("valid but for the rule");
        assert!(checked.policies[0].rules.is_err(), "{said}");
    };
    check("namespace=");
    check("network=10.0.0.0/33");
    check("network=ten");
    check("> path=/a/../b");
    check("> path=a");
    check("> path=/a?x");
    check("> prefix=/a/");
    check("> template=/a/{x");
    check("> template=/a/{}");
    check("> template=/a/{x-y}");
    check("> template=/a/x*");
    check("> template=/a/**/b");
    check("> template=a");
    check("> host=A.b");
    check("> host=a.b:80");
    check("> port=0");
    check("> port=70000");
    check("> header:X-A=b");
    check("> header:=b");
    check("? claim:a..b=c");
}

/// A rule whose expression takes a tenth of what a decision may cost, and does not hold.
const DEAR: &str = "expression=request.path.matches('[a-z]{9}x')";

/// So many combinations of `from` and `to`, each of which holds.
fn wide(from: usize, to: usize, when: &str) -> String {
    let from = vec!["network=10.0.0.0/8"; from].join(" | ");
    let to = vec!["header:x-a"; to].join(" | ");
    format!("{from} > {to} ? {when}")
}

fn dear_request(authorizer: &Authorizer) -> Verdict {
    let path = format!("/{}", "a".repeat(3_000));
    let said = format!("- 10.1.1.1 80 GET {path} h");
    let fields = vec![(&b"x-a"[..], &b"1"[..])];
    decide(authorizer, &said, &fields).enforced.verdict
}

#[test]
fn a_rule_is_looked_at_once_however_wide_it_is() {
    let rule = wide(ALTERNATIVES_MAX, ALTERNATIVES_MAX, DEAR);
    let authorizer = authorizer(pb::Posture::Open, vec![policy("deny", &[&rule])]);
    assert_eq!(dear_request(&authorizer), Verdict::Allow);
}

#[test]
fn a_decision_costs_no_more_than_it_may() {
    let dear = wide(1, 1, DEAR);
    // What cannot be told then is told as anything that cannot be: for the careful.
    let check = |action, count, expected| {
        let rules: Vec<&str> = vec![dear.as_str(); count];
        let authorizer = authorizer(pb::Posture::Open, vec![policy(action, &rules)]);
        assert_eq!(dear_request(&authorizer), expected, "{action} {count}");
    };
    check("deny", 8, Verdict::Allow);
    check("deny", RULES_MAX, Verdict::Deny);
    check("allow", RULES_MAX, Verdict::Deny);
    // Beyond those that are remembered it is the same.
    let many = wide(2, 1, "header:x-none");
    let mut rules = vec![many.as_str(); 70];
    rules.extend(["> path=/never ? header:x-none", dear.as_str()]);
    let authorizer = authorizer(pb::Posture::Open, vec![policy("deny", &rules)]);
    assert_eq!(dear_request(&authorizer), Verdict::Allow);
}
