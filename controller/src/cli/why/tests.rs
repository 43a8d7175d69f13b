use super::*;
use crate::model::{Defaults, Mesh};
use ringmail_proto::identity::WorkloadName;

const OBJECTS: &str = "
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, annotations: {ringmail.io/inject: enabled}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: cart-1, namespace: shop, labels: {app: cart}}, spec: {serviceAccountName: cart, containers: [{name: app}]}, status: {podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {clusterIP: 10.96.0.5, selector: {app: cart}, ports: [{port: 80, targetPort: 8080}]}}
---
{apiVersion: ringmail.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: web, namespace: shop}, spec: {targetRefs: [{kind: Service, name: cart}], action: allow, rules: [{from: [{serviceAccounts: [web]}], to: [{methods: [GET]}]}]}}
---
{apiVersion: ringmail.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: ask, namespace: shop}, spec: {targetRefs: [{kind: Service, name: cart}], action: external, external: {service: {namespace: authz, name: opa, port: 9191}}, rules: [{to: [{paths: [{prefix: /asked}]}]}]}}
---
{apiVersion: ringmail.io/v1alpha1, kind: AuthorizationPolicy, metadata: {name: trial, namespace: shop}, spec: {targetRefs: [{kind: Namespace}], action: deny, mode: shadow, rules: [{to: [{paths: [{prefix: /admin}]}]}]}}
";

/// The answer to these flags, for the service's port 80.
fn asked(flags: &str) -> Answer {
    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        question: Question,
    }
    let flags = format!("why --to shop/cart:80 {flags}");
    let flags: Flags = clap::Parser::try_parse_from(flags.split_whitespace()).expect("flags");
    let objects = crate::source::parse_text(OBJECTS).into_iter().collect();
    let mesh = Mesh::build(&objects, &Defaults::of_tests());
    let service: WorkloadName = "shop/cart".parse().expect("a name");
    let (pod, port) = mesh.behind(&service, 80).expect("a pod");
    assert_eq!((pod.to_string().as_str(), port), ("shop/cart-1", 8080));
    let told = mesh.authorization(&pod).expect("told");
    let identity = flags.question.from.parse().ok();
    answer(
        &flags.question,
        identity.as_ref(),
        port,
        Authorization::clone(&told),
    )
    .expect("an answer")
}

#[test]
fn says_what_would_happen_and_by_which_rule() {
    let check = |flags: &str, because: &str, shadow: &str| {
        let answer = asked(flags);
        assert_eq!(answer.because, because, "{flags}");
        assert_eq!(answer.shadow.as_deref(), Some(shadow), "{flags}");
        assert_eq!(answer.allowed, because.starts_with("allowed"), "{flags}");
    };
    let web = "--from spiffe://mesh.local/ns/shop/sa/web";
    let rule = "allowed by rule 0 of shop/web";
    let none = "denied: no rule of the policies that allow holds";
    check(&format!("{web} --method GET"), rule, rule);
    check(&format!("{web} --method POST"), none, none);
    check(
        &format!("{web} --method GET --path /admin/x?y"),
        rule,
        "denied by rule 0 of shop/trial",
    );
    check("--from none --method GET", none, none);
    let answer = asked("--method GET");
    let mut rows = answer.rules.iter();
    let row = rows.find(|row| row.policy == "shop/web").expect("a row");
    assert!(!row.holds);
    assert_eq!(
        row.because.as_deref(),
        Some("from: serviceAccounts shop/web")
    );
}

#[test]
fn says_who_else_is_asked() {
    let check = |flags: &str, expected: &[&str]| {
        let answer = asked(&format!(
            "--from spiffe://mesh.local/ns/shop/sa/web {flags}"
        ));
        assert_eq!(answer.asks, expected, "{flags}");
    };
    check(
        "--method GET --path /asked/x",
        &["shop/ask asks authz/opa:9191"],
    );
    check("--method GET --path /other", &[]);
    // What is denied is not asked about.
    check("--method POST --path /asked/x", &[]);
    check("", &[]);
}
