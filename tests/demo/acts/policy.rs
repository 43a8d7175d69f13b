//! Who may ask whom for what: a meshed pod without a right, a policy tried in shadow before it is enforced, and an
//! identity that is revoked.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use ringmail_tests::load::{Reply, fetch};

use crate::figures::sum;
use crate::stage::{Member, Stage, cart_addresses};

/// For a change to be in force everywhere.
const LIMIT: Duration = Duration::from_secs(10);
/// `front` may look at carts; nobody else may, and not even `front` at what is private.
const FRONT_ALONE: &str = "apiVersion: ringmail.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: cart}]
  action: allow
  rules: [{from: [{serviceAccounts: [front]}]}]
";

/// In which mode.
fn no_private(mode: &str) -> String {
    format!(
        "apiVersion: ringmail.io/v1alpha1
kind: AuthorizationPolicy
metadata: {{name: no-private, namespace: shop}}
spec:
  targetRefs: [{{kind: Service, name: cart}}]
  action: deny
  mode: {mode}
  rules: [{{to: [{{paths: [{{prefix: /private}}]}}]}}]
"
    )
}

/// One GET of `cart`, by its Service.
fn get(member: &Member, path: &str) -> anyhow::Result<Reply> {
    let request = Request::get(path)
        .header("host", "cart")
        .body(Full::<Bytes>::default())?;
    let [address, _] = cart_addresses();
    Ok(member.pod.namespace.block_on(fetch(address, request))??)
}

/// A header of the mesh's own.
fn said<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let value = reply
        .headers
        .get(name)
        .and_then(|value| value.to_str().ok());
    value.unwrap_or("none")
}

fn until_answered(
    stage: &Stage<'_>,
    member: &Member,
    path: &str,
    expected: (StatusCode, &str),
) -> anyhow::Result<Reply> {
    let mut last = None;
    let answered = stage.interrupt.until(LIMIT, || {
        last = get(member, path).ok();
        let reply = last.as_ref();
        reply.is_some_and(|reply| (reply.status, said(reply, "x-ringmail-reason")) == expected)
    });
    answered.with_context(|| format!("{} is answered {last:?}", member.pod.name))?;
    last.context("no answer")
}

pub(super) fn without_a_right(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    until_answered(stage, &stage.mail, "/", (StatusCode::OK, "none"))?;
    stage.mesh.put("policy-cart", FRONT_ALONE)?;
    let denied = (StatusCode::FORBIDDEN, "policy_denied");
    let reply = until_answered(stage, &stage.mail, "/", denied)?;
    let decision = said(&reply, "x-ringmail-decision").to_owned();
    stage.teller.say(format_args!(
        "mail asks cart -> {}, x-ringmail-reason: policy_denied, x-ringmail-decision: {decision}",
        reply.status
    ));
    let log = stage.mesh.proxy_log_path(&stage.cart.workload);
    // The proxy writes its audit a few times a second.
    stage.interrupt.until(LIMIT, || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.contains(&decision))
    })?;
    let explained = stage
        .mesh
        .ringmail(&["why", &decision, "--log", &log.to_string_lossy()])?;
    for line in explained.lines() {
        stage.teller.say(format_args!("ringmail why: {line}"));
    }
    ensure!(
        explained.contains("no_rule") && explained.contains("sa/mail"),
        "{explained}"
    );
    let asked = [
        "why",
        "--from",
        "shop/mail",
        "--to",
        "shop/cart:80",
        "--method",
        "GET",
    ];
    let controller = ["--controller", "http://127.0.0.1:15014"];
    let foretold = stage
        .mesh
        .ringmail(&[&asked[..], &controller[..]].concat())?;
    for line in foretold.lines() {
        stage.teller.say(format_args!("ringmail why: {line}"));
    }
    ensure!(foretold.contains("denied: no rule"), "{foretold}");
    let front = get(&stage.front, "/")?;
    ensure!(
        front.status == StatusCode::OK,
        "front is refused: {front:?}"
    );
    Ok(
        "meshed, and refused all the same: 403, with a decision id that ringmail why explains"
            .to_owned(),
    )
}

pub(super) fn shadow_is_promoted(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let would = |stage: &Stage<'_>| {
        let metrics = stage.cart.sidecar.metrics(stage.node).unwrap_or_default();
        let labels = [
            ("policy", "shop/no-private"),
            ("verdict", "deny"),
            ("shadow", "true"),
        ];
        sum(&metrics, "ringmail_authorizations_total", &labels)
    };
    stage.mesh.put("policy-private", &no_private("shadow"))?;
    let counted = stage.interrupt.until(LIMIT, || {
        get(&stage.front, "/private").is_ok_and(|reply| reply.status == StatusCode::OK)
            && would(stage) > 0
    });
    counted.context("the policy in shadow mode counts nothing, or denies")?;
    stage.teller.say(format_args!(
        "in shadow mode: front asks for /private -> 200, and ringmail_authorizations_total{{policy=\"shop/no-private\",verdict=\"deny\",shadow=\"true\"}} counts {}",
        would(stage)
    ));
    stage.mesh.put("policy-private", &no_private("enforce"))?;
    let denied = (StatusCode::FORBIDDEN, "policy_denied");
    until_answered(stage, &stage.front, "/private", denied)?;
    stage.mesh.remove("policy-private")?;
    until_answered(stage, &stage.front, "/private", (StatusCode::OK, "none"))?;
    Ok("counted without a refusal, then enforced: 403".to_owned())
}

pub(super) fn identity_is_revoked(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let name = stage.front.spiffe_id();
    stage.mesh.put(
        "stolen",
        &format!("apiVersion: ringmail.io/v1alpha1\nkind: IdentityRevocation\nmetadata: {{name: stolen}}\nspec: {{identities: ['{name}'], until: '2999-01-01T00:00:00Z'}}\n"),
    )?;
    let begun = std::time::Instant::now();
    let revoked = (StatusCode::FORBIDDEN, "identity_revoked");
    until_answered(stage, &stage.front, "/", revoked)?;
    let took = begun.elapsed();
    stage.mesh.remove("stolen")?;
    until_answered(stage, &stage.front, "/", (StatusCode::OK, "none"))?;
    stage.mesh.remove("policy-cart")?;
    until_answered(stage, &stage.mail, "/", (StatusCode::OK, "none"))?;
    Ok(format!(
        "{name} refused {} ms after the object was written, and taken back",
        took.as_millis()
    ))
}
