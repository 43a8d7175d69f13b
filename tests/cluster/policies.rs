//! Authorization policies, and revocations, on a real API server: what its schema refuses, what the webhook refuses, and what becomes of the
//! definition with the chart.

use std::sync::Mutex;

use anyhow::{Context, ensure};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::{CONTROLLER_ADDRESS, Mesh};
use super::objects::plain_pod;
use super::sidecar::Sidecar;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("policies::what_is_wrong_is_refused_by_name", |plane| {
        plane.runtime.block_on(refused(plane))
    }),
    ("policies::the_definition_outlives_the_chart", |plane| {
        plane.runtime.block_on(definition(plane))
    }),
    ("policies::status_says_where_it_is_in_force", |plane| {
        plane.runtime.block_on(applied(plane))
    }),
    ("policies::what_became_broken_says_so", |plane| {
        plane.runtime.block_on(broken(plane))
    }),
];

/// The definition of policies.
const DEFINITION: &str = "authorizationpolicies.ringmail.io";
/// All of ours.
const DEFINITIONS: [&str; 3] = [
    DEFINITION,
    "ratelimitpolicies.ringmail.io",
    "identityrevocations.ringmail.io",
];

/// A policy for the whole of its namespace.
pub(crate) fn policy(namespace: &str, name: &str, action: &str, rules: &Value) -> Value {
    json!({"apiVersion": "ringmail.io/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"targetRefs": [{"kind": "Namespace"}], "action": action, "rules": rules}})
}

/// Rate limits for the whole of their namespace.
fn limit(namespace: &str, name: &str, limits: &Value) -> Value {
    json!({"apiVersion": "ringmail.io/v1alpha1", "kind": "RateLimitPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"targetRefs": [{"kind": "Namespace"}], "limits": limits}})
}

/// The API server takes policies and revocations.
pub(crate) async fn established(plane: &ControlPlane) -> anyhow::Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(plane.client.clone());
    for definition in DEFINITIONS {
        let established = eventually("the definition is established", || async {
            let status = definitions.get(definition).await.ok()?.status?;
            let mut all = status.conditions?.into_iter();
            all.find(|one| one.type_ == "Established" && one.status == "True")
        });
        established.await.context(definition)?;
    }
    Ok(())
}

/// Whose certificates are to be trusted no more.
fn revocation(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "ringmail.io/v1alpha1", "kind": "IdentityRevocation",
        "metadata": {"name": name}, "spec": spec})
    .to_string()
}

/// Who may do nothing for many reasons: the schema's, and ours.
fn wrong(namespace: &str) -> Vec<(&'static str, String)> {
    let targets = |targets: Value| {
        let mut one = policy(namespace, "wrong", "allow", &json!([]));
        one["spec"]["targetRefs"] = targets;
        one.to_string()
    };
    let rules = |rules: Value| policy(namespace, "wrong", "deny", &rules).to_string();
    let to = |to: Value| rules(json!([{"to": [to]}]));
    let from = |from: Value| rules(json!([{"from": [from]}]));
    let limits = |limits: Value| limit(namespace, "wrong", &limits).to_string();
    let many: Vec<Value> = (0..17).map(|_| json!({"kind": "Namespace"})).collect();
    vec![
        ("spec.targetRefs[0]", targets(json!([{"kind": "Service"}]))),
        (
            "spec.targetRefs[0]",
            targets(json!([{"kind": "Workload", "name": "cart"}])),
        ),
        ("must have at most 16 items", targets(json!(many))),
        (
            "spec.rules[0].to[0].paths[0]",
            to(json!({"paths": [{"exact": "/a", "prefix": "/b"}]})),
        ),
        (
            "spec.rules[0].from[0].surprise",
            from(json!({"surprise": true})),
        ),
        (
            "rules[0].to.paths: ",
            to(json!({"paths": [{"exact": "/a/../b"}]})),
        ),
        (
            "rules[0].from.networks: ten",
            from(json!({"networks": ["ten"]})),
        ),
        (
            "spec.limits[0]",
            limits(json!([{"requests": 1, "connections": 1, "per": "second"}])),
        ),
        (
            "spec.limits[0].key[0]",
            limits(json!([{"requests": 1, "per": "second", "key": [{"by": "Header"}]}])),
        ),
        (
            "spec.limits[0].per",
            limits(json!([{"requests": 1, "per": "fortnight"}])),
        ),
        (
            "limits[0].cost.tokens: ",
            limits(json!([{"requests": 5, "per": "second", "cost": {"tokens": 6}}])),
        ),
        (
            "size(self.identities)",
            revocation("wrong", &json!({"until": "2030-01-01T00:00:00Z"})),
        ),
        (
            "spec.until: is no time",
            revocation(
                "wrong",
                &json!({"until": "on the first of May at noon", "serials": ["00aa"]}),
            ),
        ),
    ]
}

async fn refused(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    established(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    let rules = json!([{"from": [{"serviceAccounts": ["cart"]}], "to": [{"paths": [{"template": "/orders/{id}"}]}]}]);
    let good = policy(&shop, "good", "allow", &rules);
    // The leader writes caBundle, and the API server takes a moment to read it.
    eventually("a good policy is taken", || async {
        mesh.objects.apply(&good).await.ok()
    })
    .await
    .with_context(|| replica.log())?;
    for (said, one) in wrong(&shop) {
        let arguments = ["create", "--validate=strict", "-f", "-"];
        let ran = plane.kubectl(&arguments, &one)?;
        ensure!(ran.code != Some(0), "{one} was taken");
        ensure!(ran.err.contains(said), "{said} of {one}: {}", ran.err);
    }
    let end = json!({"until": "2030-01-01T00:00:00Z", "identities": ["spiffe://mesh.local/ns/shop/sa/x"]});
    plane
        .kubectl(&["create", "-f", "-"], &revocation("good", &end))?
        .success()?;
    let about = |verb| {
        plane
            .kubectl(&[verb, "identityrevocation", "good"], "")?
            .success()
    };
    let shown = about("get")?;
    ensure!(shown.contains("2030-01-01T00:00:00Z"), "{shown}");
    about("delete")?;
    let columns = ["get", "authz", "good", "--namespace", &shop];
    let shown = plane.kubectl(&columns, "")?.success()?;
    for one in [
        "ACTION", "MODE", "ACCEPTED", "APPLIED", "AGE", "allow", "enforce",
    ] {
        ensure!(shown.contains(one), "{one}: {shown}");
    }
    let explained = ["explain", "authorizationpolicy"];
    let explained = plane.kubectl(&explained, "")?.success()?;
    ensure!(explained.contains("Who may do what"), "{explained}");
    replica.terminate()
}

/// Installed and upgraded with the chart, and kept when that goes: policies are never deleted by an uninstall.
async fn definition(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    established(plane).await?;
    let definitions = Api::<CustomResourceDefinition>::all(plane.client.clone());
    let columns = || async {
        let one = definitions.get(DEFINITION).await?;
        let columns = one.spec.versions.into_iter().next().context("a version")?;
        anyhow::Ok(columns.additional_printer_columns.unwrap_or_default().len())
    };
    let shipped = columns().await?;
    // An older one, as an older chart would have left it.
    let mut older = definitions.get(DEFINITION).await?;
    older.status = None;
    older.metadata = ObjectMeta {
        name: older.metadata.name,
        labels: older.metadata.labels,
        annotations: older.metadata.annotations,
        ..ObjectMeta::default()
    };
    older.spec.versions[0].additional_printer_columns = None;
    let as_helm = PatchParams::apply("helm").force();
    definitions
        .patch(DEFINITION, &as_helm, &Patch::Apply(&older))
        .await?;
    ensure!(columns().await? == 0, "not older");
    mesh.helm("upgrade", &[])?;
    ensure!(columns().await? == shipped, "the upgrade left it as it was");
    mesh.uninstall()?;
    established(plane).await?;
    ensure!(columns().await? == shipped);
    Ok(())
}

/// Waits until a policy's status, at its present generation, has a condition with this reason.
async fn says(mesh: &Mesh<'_>, policy: &Value, reason: &str) -> anyhow::Result<Value> {
    let last = Mutex::new(Value::Null);
    let found = eventually(&format!("a condition says {reason}"), || async {
        let live = mesh.objects.get(policy).await.ok()?;
        let status = live.data["status"].clone();
        *last.lock().ok()? = status.clone();
        let mut conditions = status["conditions"].as_array()?.iter();
        let is_current =
            |one: &&Value| one["observedGeneration"] == json!(live.metadata.generation);
        let is_said = conditions.any(|one| is_current(&one) && one["reason"] == reason);
        is_said.then_some(status)
    })
    .await;
    found.with_context(|| format!("{last:?}"))
}

/// The proxy watches one replica, and another leads.
async fn applied(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    established(plane).await?;
    let leader = mesh.start("controller-1").await?;
    leader.counts("leader", 1.0).await?;
    let replica = mesh.serve("controller-2").await?;
    // What the cluster's own controllers would write of the Service.
    mesh.objects
        .apply(&json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "ringmail-controller-1", "namespace": mesh.namespace,
                "labels": {"kubernetes.io/service-name": "ringmail-controller"}},
            "addressType": "IPv4", "ports": [{"name": "metrics", "port": 15014}],
            "endpoints": [{"addresses": [CONTROLLER_ADDRESS.to_string()],
                "targetRef": {"kind": "Pod", "name": "controller-2", "namespace": mesh.namespace}}]}))
        .await?;
    let shop = mesh.meshed(&replica, "shop").await?;
    mesh.objects.account(&shop, "cart").await?;
    let mut pod = plain_pod(&shop, "cart-1");
    pod["spec"]["serviceAccountName"] = json!("cart");
    let sidecar = Sidecar::start(&mesh, &pod, [10, 244, 1, 1].into()).await;
    let sidecar = sidecar.with_context(|| replica.log())?;
    // One whose proxy never comes.
    mesh.objects
        .pod(&shop, "cart-2", "cart", "10.244.1.2")
        .await?;

    let mut allow = policy(&shop, "orders", "allow", &json!([]));
    mesh.objects.apply(&allow).await?;
    let half = eventually("one of two has it", || async {
        let status = mesh.objects.get(&allow).await.ok()?.data["status"].clone();
        (status["applied"] == "1/2").then_some(status)
    });
    let half = half.await.with_context(|| leader.log())?;
    ensure!(
        half.to_string()
            .contains(&format!("not yet on {shop}/cart-2")),
        "{half}"
    );
    mesh.objects.delete_pod(&shop, "cart-2").await?;
    let first = says(&mesh, &allow, "Applied").await;
    let first = first.with_context(|| leader.log())?;
    ensure!(first["applied"] == "1/1", "{first}");
    allow["spec"]["rules"] = json!([{"to": [{"methods": ["GET"]}]}]);
    mesh.objects.apply(&allow).await?;
    let second = says(&mesh, &allow, "Applied").await;
    let second = second.with_context(|| leader.log())?;
    let since = |status: &Value| status["conditions"][0]["lastTransitionTime"].clone();
    ensure!(since(&first) == since(&second), "{first} {second}");
    let limits = limit(&shop, "calls", &json!([{"requests": 5, "per": "second"}]));
    mesh.objects.apply(&limits).await?;
    let limited = says(&mesh, &limits, "Applied").await;
    let limited = limited.with_context(|| leader.log())?;
    ensure!(limited["applied"] == "1/1", "{limited}");
    let tokens = json!({"apiVersion": "ringmail.io/v1alpha1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": shop},
        "spec": {"targetRefs": [{"kind": "Namespace"}], "issuers": [{"issuer": "https://idp", "audiences": ["shop"],
            "jwks": {"uri": "https://idp.invalid/keys"}}]}});
    mesh.objects.apply(&tokens).await?;
    let known = says(&mesh, &tokens, "Applied").await;
    let known = known.with_context(|| leader.log())?;
    ensure!(known["applied"] == "1/1", "{known}");
    ensure!(
        known
            .to_string()
            .contains("keys of https://idp are not known"),
        "{known}"
    );
    let end = json!({"serials": ["07"], "until": "2030-01-01T00:00:00Z"});
    let revoked: Value = serde_json::from_str(&revocation("stolen", &end))?;
    mesh.objects.apply(&revoked).await?;
    let revoked = says(&mesh, &revoked, "Applied").await;
    ensure!(revoked.with_context(|| leader.log())?["applied"] == "1/1");
    let columns = ["get", "authz", "orders", "--namespace", &shop];
    let shown = plane.kubectl(&columns, "")?.success()?;
    ensure!(shown.contains("True") && shown.contains("1/1"), "{shown}");

    // The other leads now, and knows it itself.
    leader.terminate()?;
    drop(sidecar);
    let gone = says(&mesh, &allow, "Pending").await;
    ensure!(gone.with_context(|| replica.log())?["applied"] == "0/1");
    mesh.objects.delete_pod(&shop, "cart-1").await?;
    ensure!(says(&mesh, &allow, "NoProxies").await?["applied"] == "0/0");
    replica.terminate()
}

/// Without the webhook what is wrong is kept, and denies. Its author is told, and so is whoever names what is not there.
async fn broken(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    established(plane).await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    plane
        .kubectl(
            &[
                "delete",
                "validatingwebhookconfiguration",
                "ringmail-validator",
            ],
            "",
        )?
        .success()?;
    let rules = json!([{"from": [{"networks": ["ten"]}]}]);
    let wrong = policy(&shop, "wrong", "deny", &rules);
    let mut lost = policy(&shop, "lost", "deny", &json!([]));
    lost["spec"]["targetRefs"] = json!([{"kind": "Service", "name": "gone"}]);
    for one in [&wrong, &lost] {
        // The API server takes a moment to see that the webhook is gone.
        eventually("it is kept", || async {
            mesh.objects.apply(one).await.ok()
        })
        .await?;
    }
    // It leads, though it is not ready: that takes its webhooks.
    let replica = mesh.launch("controller-1")?;
    let events = Api::<Event>::namespaced(plane.client.clone(), &shop);
    for (one, reason, text) in [
        (&wrong, "Invalid", "ten is no network"),
        (&lost, "TargetNotFound", "gone"),
    ] {
        let status = says(&mesh, one, reason).await;
        let status = status.with_context(|| replica.log())?;
        ensure!(status["conditions"][0]["status"] == "False", "{status}");
        let message = status["conditions"][0]["message"].as_str();
        ensure!(message.is_some_and(|said| said.contains(text)), "{status}");
        eventually("an event says so", || async {
            let all = events.list(&ListParams::default()).await.ok()?;
            let mut all = all.items.into_iter();
            all.find(|event| {
                let note = event.note.as_deref().unwrap_or_default();
                event.reason.as_deref() == Some(reason) && note.contains(text)
            })
        })
        .await
        .with_context(|| replica.log())?;
    }
    replica.terminate()
}
