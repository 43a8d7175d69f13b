//! One replica writes; when it goes, another does.

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use serde_json::json;

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::{Mesh, Replica};

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "leader::another_writes_when_the_leader_is_killed",
        |plane| plane.runtime.block_on(killed(plane)),
    ),
    ("leader::roots_go_with_the_last_who_needs_them", |plane| {
        plane.runtime.block_on(bundles(plane))
    }),
    ("leader::a_leader_that_stops_gives_way_at_once", |plane| {
        plane.runtime.block_on(stopped(plane))
    }),
];

async fn holder(mesh: &Mesh<'_>) -> Option<String> {
    let leases = Api::<Lease>::namespaced(mesh.plane.client.clone(), &mesh.namespace);
    leases
        .get("ringmail-controller")
        .await
        .ok()?
        .spec?
        .holder_identity
}

/// An annotated namespace is labelled by whoever leads.
async fn is_labelled(mesh: &Mesh<'_>, name: &str) -> anyhow::Result<()> {
    let name = mesh.objects.own(name);
    mesh.objects
        .namespace(&name, &json!({"ringmail.io/inject": "enabled"}))
        .await?;
    let api = Api::<Namespace>::all(mesh.plane.client.clone());
    eventually("the namespace is labelled", || async {
        let labels = api.get(&name).await.ok()?.metadata.labels?;
        (labels.get("ringmail.io/inject")? == "enabled").then_some(())
    })
    .await
}

async fn two(mesh: &Mesh<'_>) -> anyhow::Result<(Replica, Replica)> {
    let leader = mesh.start("controller-1").await?;
    leader.counts("leader", 1.0).await?;
    let other = mesh.start("controller-2").await?;
    is_labelled(mesh, "first")
        .await
        .with_context(|| leader.log())?;
    let holder = holder(mesh).await.unwrap_or_default();
    ensure!(holder == leader.pod, "{holder} leads");
    ensure!(other.metric("leader").await? == Some(0.0), "two lead");
    ensure!(
        other
            .metric("writes_total{object=\"label\",outcome=\"done\"}")
            .await?
            .is_none(),
        "a follower wrote"
    );
    Ok((leader, other))
}

async fn killed(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let (leader, other) = two(&mesh).await?;
    leader.kill();
    is_labelled(&mesh, "second")
        .await
        .with_context(|| other.log())?;
    ensure!(holder(&mesh).await.as_ref() == Some(&other.pod));
    other.terminate()
}

async fn stopped(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let (leader, other) = two(&mesh).await?;
    leader.terminate()?;
    let begun = std::time::Instant::now();
    other.counts("leader", 1.0).await?;
    // A lease that was given back is not waited for.
    ensure!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    is_labelled(&mesh, "second")
        .await
        .with_context(|| other.log())?;
    other.terminate()
}

async fn bundles(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::with(plane, &["webhooks.excludedNamespaces[0]=legacy"]).await?;
    let (shop, enabled) = (
        mesh.objects.own("shop"),
        json!({"ringmail.io/inject": "enabled"}),
    );
    for name in ["legacy", &shop] {
        mesh.objects.namespace(name, &enabled).await?;
    }
    mesh.objects.account(&shop, "cart").await?;
    let replica = mesh.serve("controller-1").await?;
    let there = |namespace: &str| {
        let all = Api::<ConfigMap>::namespaced(plane.client.clone(), namespace);
        async move {
            all.get_opt("ringmail-trust-bundle")
                .await
                .ok()
                .map(|one| one.is_some())
        }
    };
    eventually("the roots are there", || async {
        there(&shop).await?.then_some(())
    })
    .await
    .with_context(|| replica.log())?;
    // What the webhooks are not called for is not prepared for them.
    let namespaces = Api::<Namespace>::all(plane.client.clone());
    let labels = namespaces
        .get("legacy")
        .await?
        .metadata
        .labels
        .unwrap_or_default();
    ensure!(!labels.contains_key("ringmail.io/inject"), "{labels:?}");
    ensure!(there("legacy").await == Some(false));

    mesh.objects
        .pod(&shop, "cart-1", "cart", "10.1.1.1")
        .await?;
    replica.counts("workloads_meshed", 1.0).await?;
    mesh.objects
        .namespace(&shop, &json!({"ringmail.io/inject": "disabled"}))
        .await?;
    eventually("the label is gone", || async {
        let labels = namespaces.get(&shop).await.ok()?.metadata.labels?;
        (!labels.contains_key("ringmail.io/inject")).then_some(())
    })
    .await
    .with_context(|| replica.log())?;
    ensure!(there(&shop).await == Some(true), "a pod still mounts it");
    mesh.objects.delete_pod(&shop, "cart-1").await?;
    eventually("the roots are gone", || async {
        (!there(&shop).await?).then_some(())
    })
    .await
    .with_context(|| replica.log())?;
    ensure!(
        there(&mesh.namespace).await == Some(true),
        "our own are gone"
    );
    ensure!(!replica.log().contains("cannot"), "{}", replica.log());
    replica.terminate()
}
