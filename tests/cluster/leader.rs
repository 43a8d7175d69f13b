//! One replica writes; when it goes, another does.

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
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
