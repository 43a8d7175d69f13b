//! Pods that should have a sidecar and have none: counted by the leader, and evicted when the chart says so.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::Mesh;
use super::objects::plain_pod;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("coverage::pods_from_before_are_counted", |plane| {
        plane.runtime.block_on(counted(plane))
    }),
    ("coverage::pods_from_before_are_evicted_if_asked", |plane| {
        plane.runtime.block_on(evicted(plane))
    }),
];

/// Pods of an owner, by name, that run at addresses of their own.
async fn owned(mesh: &Mesh<'_>, namespace: &str, names: &[&str]) -> anyhow::Result<()> {
    let template = json!({"metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app"}]}});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": "shop", "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}, "template": template}});
    mesh.objects.apply(&set).await?;
    let uid = mesh.objects.get(&set).await?.metadata.uid;
    for (number, name) in names.iter().enumerate() {
        let mut pod = plain_pod(namespace, name);
        pod["metadata"]["labels"] = json!({"app": name});
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "name": "shop", "uid": uid, "controller": true}]);
        make(mesh, &pod, &format!("10.244.3.{}", number + 1)).await?;
    }
    Ok(())
}

async fn make(mesh: &Mesh<'_>, pod: &Value, address: &str) -> anyhow::Result<()> {
    let made: Pod = serde_json::from_value(pod.clone())?;
    let namespace = made.metadata.namespace.clone().unwrap_or_default();
    let name = made.metadata.name.clone().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(mesh.plane.client.clone(), &namespace);
    pods.create(&PostParams::default(), &made).await?;
    mesh.objects
        .runs(&namespace, &name, address)
        .await
        .map(drop)
}

async fn counted(plane: &ControlPlane) -> anyhow::Result<()> {
    plane.delete_pods()?;
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    owned(&mesh, &shop, &["early-1", "early-2"]).await?;
    replica.counts("leader", 1.0).await?;
    ensure!(replica.metric("pods_uncovered").await? == Some(0.0));
    mesh.meshed(&replica, "shop").await?;
    replica.counts("pods_uncovered", 2.0).await?;
    // Off by default: whoever asks finds them, nobody takes them away.
    mesh.objects.delete_pod(&shop, "early-1").await?;
    let one = eventually("one is left", || async {
        let count = replica.metric("pods_uncovered").await.ok().flatten()?;
        (count == 1.0).then_some(())
    });
    one.await.with_context(|| replica.log())?;
    plane.delete_pods()?;
    replica.terminate()
}

async fn evicted(plane: &ControlPlane) -> anyhow::Result<()> {
    plane.delete_pods()?;
    let mesh = Mesh::with(plane, &["controller.evict=true"]).await?;
    let replica = mesh.serve("controller-1").await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    owned(&mesh, &shop, &["early", "guarded"]).await?;
    make(&mesh, &plain_pod(&shop, "lone"), "10.244.3.9").await?;
    // Nobody counts what is disrupted here, so the API server lets no disruption happen.
    mesh.objects
        .apply(
            &json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "guarded", "namespace": shop},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}}),
        )
        .await?;
    mesh.meshed(&replica, "shop").await?;
    let pods = Api::<Pod>::namespaced(plane.client.clone(), &shop);
    eventually("the pod with an owner is evicted", || async {
        pods.get_opt("early").await.ok()?.is_none().then_some(())
    })
    .await
    .with_context(|| replica.log())?;
    let failed = "writes_total{object=\"eviction\",outcome=\"failed\"}";
    replica.counts(failed, 1.0).await?;
    for name in ["guarded", "lone"] {
        ensure!(pods.get_opt(name).await?.is_some(), "{name} is gone");
    }
    plane.delete_pods()?;
    replica.terminate()
}
