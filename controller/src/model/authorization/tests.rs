use super::*;
use crate::model::Mesh;
use ringmail_proto::policy::Condition;

const PODS: &str = "
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {ringmail.io/inject: enabled}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: old, annotations: {ringmail.io/inject: enabled, ringmail.io/inbound: permissive}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shut, annotations: {ringmail.io/inject: enabled, ringmail.io/default-policy: deny}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart, namespace: shop, labels: {app: cart}}, spec: {serviceAccountName: cart, containers: [{name: app, ports: [{containerPort: 8080, name: web}]}]}, status: {podIP: 10.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {serviceAccountName: web, containers: [{name: app}]}, status: {podIP: 10.1.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: old}, spec: {containers: [{name: app}]}, status: {podIP: 10.1.0.3}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shut}, spec: {containers: [{name: app}]}, status: {podIP: 10.1.0.4}}
---
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {clusterIP: 10.96.0.5, selector: {app: cart}, ports: [{name: http, port: 80, targetPort: web}, {name: db, port: 5432}]}}
";

fn mesh(policies: &str) -> Mesh {
    let yaml = format!("{PODS}{policies}");
    let objects: Objects = crate::source::parse_text(&yaml).into_iter().collect();
    Mesh::build(&objects, &Defaults::of_tests())
}

/// Policies of a workload as `name@ports`.
fn told(mesh: &Mesh, name: &str) -> Vec<String> {
    let told = mesh.authorization(&name.parse().expect("a name"));
    let told = told.expect("a workload");
    let ports = |policy: &Policy| {
        let ports = policy.ports.iter().map(ToString::to_string);
        ports.collect::<Vec<_>>().join(",")
    };
    let policies = told.policies.iter();
    policies
        .map(|policy| format!("{}@{}", policy.name, ports(policy)))
        .collect()
}

fn policy(name: &str, targets: &str, rest: &str) -> String {
    format!(
        "---\n{{apiVersion: ringmail.io/v1alpha1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {{targetRefs: [{targets}], action: allow{rest}}}}}\n"
    )
}

#[test]
fn postures_are_of_the_pod_its_namespace_or_the_mesh() {
    let mesh = mesh("");
    let check = |name: &str, posture| {
        let told = mesh.authorization(&name.parse().expect("a name"));
        assert_eq!(told.expect("a workload").posture, posture, "{name}");
    };
    check("shop/cart", Posture::Mesh);
    check("old/a", Posture::Open);
    check("shut/a", Posture::Deny);
}

#[test]
fn targets_are_pods_of_the_policys_namespace() {
    let check = |targets: &str, cart: &[&str], web: &[&str]| {
        let mesh = mesh(&policy("p", targets, ""));
        assert_eq!(told(&mesh, "shop/cart"), cart, "{targets}");
        assert_eq!(told(&mesh, "shop/web"), web, "{targets}");
        assert!(told(&mesh, "old/a").is_empty(), "{targets}");
    };
    check("{kind: Namespace}", &["shop/p@"], &["shop/p@"]);
    check(
        "{kind: Namespace, port: 99}",
        &["shop/p@99"],
        &["shop/p@99"],
    );
    check("{kind: Service, name: cart}", &["shop/p@5432,8080"], &[]);
    check(
        "{kind: Service, name: cart, port: 80}",
        &["shop/p@8080"],
        &[],
    );
    check("{kind: Service, name: cart, port: 8080}", &[], &[]);
    check("{kind: Service, name: other}", &[], &[]);
    check(
        "{kind: Workload, matchLabels: {app: web}}",
        &[],
        &["shop/p@"],
    );
    check(
        "{kind: Workload, matchLabels: {app: web}, port: 1}, {kind: Workload, matchLabels: {app: web}, port: 2}",
        &[],
        &["shop/p@1,2"],
    );
    check(
        "{kind: Namespace}, {kind: Service, name: cart}",
        &["shop/p@"],
        &["shop/p@"],
    );
}

#[test]
fn what_cannot_be_read_denies() {
    let check = |targets: &str, rest: &str, web: bool| {
        let mesh = mesh(&policy("p", targets, rest));
        let report = &mesh.policies()[0];
        assert!(report.broken.is_some(), "{targets} {rest}");
        let told = |name: &str| {
            let told = mesh
                .authorization(&name.parse().expect("a name"))
                .expect("a workload");
            told.policies.iter().any(|policy| policy.rules.is_err())
        };
        assert!(told("shop/cart"), "{targets} {rest}");
        assert_eq!(told("shop/web"), web, "{targets} {rest}");
    };
    let cart = "{kind: Service, name: cart}";
    check(
        cart,
        ", rules: [{to: [{paths: [{exact: /a/../b}]}]}]",
        false,
    );
    check(cart, ", rules: [{to: [{paths: [{}]}]}]", false);
    check(
        cart,
        ", rules: [{to: [{paths: [{exact: /a, prefix: /b}]}]}]",
        false,
    );
    check(cart, ", rules: [{from: [{networks: [ten]}]}]", false);
    // Not even the targets can be trusted then.
    check(cart, ", rules: [{frm: [{namespaces: [a]}]}]", true);
    check(cart, ", something: new", true);
    check("{kind: Service}", "", true);
    check("{kind: Gateway, name: x}", "", true);
    check("", "", true);
}

#[test]
fn rules_mean_what_they_say() {
    let mesh = mesh(&policy(
        "p",
        "{kind: Namespace}",
        ", rules: [{from: [{serviceAccounts: [web, old/a], identities: ['spiffe://mesh.local/ns/shop/*']}], to: [{grpc: [{service: a.B, method: C}, {service: a.D}], headers: [{name: X-A}]}], when: {claims: [{name: groups, values: [x]}]}}]",
    ));
    let told = mesh
        .authorization(&"shop/web".parse().expect("a name"))
        .expect("a workload");
    let rules = told.policies[0].rules.as_ref().expect("good");
    use ringmail_proto::policy::{Path, Text};
    assert_eq!(
        rules[0].from[0],
        [
            Condition::Identities(vec![Text::Prefix("spiffe://mesh.local/ns/shop/".into())]),
            Condition::ServiceAccounts(vec!["shop/web".into(), "old/a".into()]),
        ]
    );
    assert_eq!(
        rules[0].to[0],
        [
            Condition::Header("x-a".into(), vec![]),
            Condition::Paths(vec![
                Path::Exact("/a.B/C".into()),
                Path::Prefix("/a.D".into())
            ]),
        ]
    );
    let claim = Condition::Claim(vec!["groups".into()], vec![Text::Exact("x".into())]);
    assert_eq!(rules[0].when, [claim]);
}

#[test]
fn pods_that_are_told_the_same_share_it() {
    let mut mesh = mesh(&policy("p", "{kind: Namespace}", ""));
    let of = |mesh: &Mesh, name: &str| {
        mesh.authorization(&name.parse().expect("a name"))
            .expect("told")
    };
    assert!(Arc::ptr_eq(&of(&mesh, "shop/cart"), &of(&mesh, "shop/web")));
    let before = Mesh::clone(&mesh);
    let again = self::mesh(&policy("p", "{kind: Namespace}", ""));
    mesh = again;
    mesh.share(&before);
    assert!(Arc::ptr_eq(
        &of(&mesh, "shop/cart"),
        &of(&before, "shop/web")
    ));
}

/// Objects about tokens of a workload as `name@ports`.
fn told_of_tokens(mesh: &Mesh, name: &str) -> Vec<String> {
    let told = mesh.authorization(&name.parse().expect("a name"));
    let all = told.expect("a workload");
    let of = |one: &Authentication| format!("{}@{:?}", one.name, one.ports);
    all.authentications.iter().map(of).collect()
}

#[test]
fn what_is_said_of_tokens_reaches_whom_it_is_for_with_fetched_keys() {
    let object = |name: &str, target: &str, rest: &str| {
        format!(
            "---\n{{apiVersion: ringmail.io/v1alpha1, kind: RequestAuthentication, metadata: {{name: {name}, namespace: shop}}, spec: {{targetRefs: [{target}], issuers: [{{issuer: idp, audiences: [shop], jwks: {{uri: 'https://idp.test/keys'}}{rest}}}]}}}}\n"
        )
    };
    let all = [
        object("a", "{kind: Service, name: cart, port: 80}", ""),
        object("b", "{kind: Workload, matchLabels: {app: web}}", ""),
        object("c", "{kind: Workload, matchLabels: {app: web}}", ", x: y"),
        object("d", "{kind: Service, name: none}", ""),
    ];
    let mesh = mesh(&all.concat());
    assert_eq!(
        told_of_tokens(&mesh, "shop/cart"),
        ["shop/a@[8080]", "shop/c@[]"]
    );
    assert_eq!(
        told_of_tokens(&mesh, "shop/web"),
        ["shop/b@[]", "shop/c@[]"]
    );
    assert!(told_of_tokens(&mesh, "old/a").is_empty());
    let problems = mesh.problems().join("\n");
    for part in [
        "shop/c refuses every request",
        "there is no Service shop/none",
    ] {
        assert!(problems.contains(part), "{problems}");
    }
    let web = mesh.authorization(&"shop/web".parse().expect("a name"));
    let web = web.expect("told");
    let good = web.authentications[0].issuers.as_ref().expect("good");
    assert!(good[0].keys.is_empty(), "nothing was fetched");
    assert!(web.authentications[1].issuers.is_err());
}

#[test]
fn who_is_asked_is_found_and_never_asked_about_itself() {
    const OPA: &str = "
---
{apiVersion: v1, kind: Pod, metadata: {name: opa, namespace: shop, labels: {app: opa}}, spec: {serviceAccountName: opa, containers: [{name: app}]}, status: {podIP: 10.1.0.9}}
---
{apiVersion: v1, kind: Service, metadata: {name: opa, namespace: shop}, spec: {clusterIP: 10.96.0.9, selector: {app: opa}, ports: [{name: grpc, port: 80, targetPort: 9191}]}}
";
    let asking = |targets: &str, service: &str| {
        let rest = format!(", external: {{service: {service}}}");
        let policy = policy("p", targets, &rest).replace("action: allow", "action: external");
        mesh(&format!("{OPA}{policy}"))
    };
    let labelled = |app: &str| format!("{{kind: Workload, matchLabels: {{app: {app}}}}}");
    let opa = "{name: opa, port: 80}";

    let mesh = asking(&labelled("cart"), opa);
    let told = mesh.authorization(&"shop/cart".parse().expect("a name"));
    let told = told.expect("a workload");
    let Action::External(external) = &told.policies[0].action else {
        unreachable!("{:?}", told.policies[0]);
    };
    let found = (
        external.service.as_str(),
        external.address.map(|at| at.to_string()),
    );
    assert_eq!(found, ("shop/opa:80", Some("10.96.0.9:80".to_owned())));
    let report = &mesh.policies()[0];
    assert!(
        report.missing.is_empty() && report.asks_itself.is_empty(),
        "{report:?}"
    );

    let mesh = asking(&labelled("cart"), "{name: opa, port: 9191}");
    assert_eq!(
        mesh.policies()[0].missing,
        ["Service shop/opa:9191 with a cluster IP"]
    );
    let mesh = asking(&labelled("cart"), "{namespace: old, name: opa, port: 80}");
    assert_eq!(
        mesh.policies()[0].missing,
        ["Service old/opa:80 with a cluster IP"]
    );

    let mesh = asking(&labelled("opa"), opa);
    assert_eq!(
        mesh.policies()[0].asks_itself,
        ["shop/opa".parse().expect("a name")]
    );
    for targets in ["{kind: Namespace}", "{kind: Service, name: opa}"] {
        let mesh = asking(targets, opa);
        assert!(mesh.policies()[0].broken.is_some(), "{targets}");
    }
    let elsewhere = asking("{kind: Namespace}", "{namespace: old, name: opa, port: 80}");
    assert!(elsewhere.policies()[0].broken.is_none());
}

#[test]
fn what_is_only_to_be_counted_denies_nothing() {
    let check = |targets: &str, rest: &str| {
        let rest = format!(", mode: shadow{rest}");
        let mesh = mesh(&policy("p", targets, &rest));
        let report = &mesh.policies()[0];
        let broken = report.broken.as_deref().unwrap_or_default();
        assert!(
            broken.ends_with("it would deny what it is for"),
            "{report:?}"
        );
        let told = mesh.authorization(&"shop/cart".parse().expect("a name"));
        let told = told.expect("a workload");
        assert_eq!(told.policies[0].mode, Mode::Shadow, "{targets} {rest}");
        assert!(told.policies[0].rules.is_err());
    };
    let cart = "{kind: Service, name: cart}";
    check(cart, ", rules: [{to: [{paths: [{exact: /a/../b}]}]}]");
    check(cart, ", something: new");
    check("", "");
}
