//! Authorization policies on a real API server: what its schema refuses, what the webhook refuses, and what becomes of the
//! definition with the chart.

use anyhow::{Context, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::Mesh;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("policies::what_is_wrong_is_refused_by_name", |plane| {
        plane.runtime.block_on(refused(plane))
    }),
    ("policies::the_definition_outlives_the_chart", |plane| {
        plane.runtime.block_on(definition(plane))
    }),
];

/// Our definition.
const DEFINITION: &str = "authorizationpolicies.ringmail.io";

/// A policy for the whole of its namespace.
pub(crate) fn policy(namespace: &str, name: &str, action: &str, rules: &Value) -> Value {
    json!({"apiVersion": "ringmail.io/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"targetRefs": [{"kind": "Namespace"}], "action": action, "rules": rules}})
}

/// The API server takes policies.
pub(crate) async fn established(plane: &ControlPlane) -> anyhow::Result<()> {
    let definitions = Api::<CustomResourceDefinition>::all(plane.client.clone());
    eventually("the definition is established", || async {
        let status = definitions.get(DEFINITION).await.ok()?.status?;
        let mut all = status.conditions?.into_iter();
        all.find(|one| one.type_ == "Established" && one.status == "True")
    })
    .await
    .map(drop)
}

/// Who may do nothing for many reasons: the schema's, and ours.
fn wrong(namespace: &str) -> Vec<(&'static str, Value)> {
    let targets = |targets: Value| {
        let mut one = policy(namespace, "wrong", "allow", &json!([]));
        one["spec"]["targetRefs"] = targets;
        one
    };
    let to = |to: Value| policy(namespace, "wrong", "allow", &json!([{"to": [to]}]));
    let from = |from: Value| policy(namespace, "wrong", "deny", &json!([{"from": [from]}]));
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
        let ran = plane.kubectl(&arguments, &one.to_string())?;
        ensure!(ran.code != Some(0), "{one} was taken");
        ensure!(ran.err.contains(said), "{said} of {one}: {}", ran.err);
    }
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
