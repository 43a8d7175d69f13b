//! The chart's life: upgraded, taken away, and installed again, by Helm.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::{CONTROLLER, Mesh};
use super::objects::plain_pod;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("release::an_upgrade_keeps_what_is_written", |plane| {
        plane.runtime.block_on(upgrade(plane))
    }),
    ("release::what_is_uninstalled_blocks_nobody", |plane| {
        plane.runtime.block_on(uninstall(plane))
    }),
];

/// For a fresh replica to lead and to be known to the API server: less than the life of a Lease.
const REINSTALL_LIMIT: Duration = Duration::from_secs(10);

async fn upgrade(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let roots = || async {
        let hooks = Api::<MutatingWebhookConfiguration>::all(plane.client.clone());
        let hooks = hooks.get("ringmail-injector").await.ok()?.webhooks?;
        let all = hooks.into_iter().map(|one| one.client_config.ca_bundle);
        all.collect::<Option<Vec<_>>>()
    };
    let first = eventually("the leader writes caBundle", roots).await;
    let first = first.with_context(|| replica.log())?;
    // Unchanged, with another value, and back: each applies all that the chart says.
    for values in [&[][..], &["webhooks.timeoutSeconds=7"], &[]] {
        mesh.helm("upgrade", values)?;
        let after = roots().await;
        ensure!(
            after.as_ref() == Some(&first),
            "{values:?} took caBundle away"
        );
    }
    mesh.plane
        .helm(&["rollback", "ringmail", "3", "--namespace", &mesh.namespace])?;
    ensure!(
        roots().await.as_ref() == Some(&first),
        "a rollback took caBundle away"
    );
    replica.terminate()
}

async fn uninstall(plane: &ControlPlane) -> anyhow::Result<()> {
    let mut mesh = Mesh::new(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let root = mesh.root().await?;
    let shop = mesh.meshed(&replica, "shop").await?;
    let pods = Api::<Pod>::namespaced(plane.client.clone(), &shop);
    let create = |name: &'static str| {
        let (pods, pod) = (pods.clone(), plain_pod(&shop, name));
        async move {
            anyhow::Ok(
                pods.create(&PostParams::default(), &serde_json::from_value(pod)?)
                    .await?,
            )
        }
    };
    // Without a controller no pod of a meshed namespace starts without its sidecar.
    replica.kill();
    let refused = create("early").await.err().context("made without us")?;
    ensure!(format!("{refused:#}").contains("ringmail"), "{refused:#}");

    mesh.uninstall()?;
    // The API server takes a moment to read that the webhooks are gone.
    let made = eventually("pods are made freely", || async {
        create("free").await.ok()
    });
    let init = made.await?.spec.and_then(|spec| spec.init_containers);
    ensure!(init.is_none_or(|all| all.is_empty()), "a sidecar");
    let roles = Api::<ClusterRole>::all(plane.client.clone());
    ensure!(
        roles.get_opt(CONTROLLER).await?.is_none(),
        "rights are left"
    );

    // What the controller wrote stays, as NOTES say; a later install is the same mesh.
    let bundles = Api::<ConfigMap>::namespaced(plane.client.clone(), &shop);
    bundles.get("ringmail-trust-bundle").await?;
    let namespaces = Api::<Namespace>::all(plane.client.clone());
    let labels = namespaces.get(&shop).await?.metadata.labels;
    ensure!(json!(labels)["ringmail.io/inject"] == "enabled");
    let secrets = Api::<Secret>::namespaced(plane.client.clone(), &mesh.namespace);
    secrets.get("ringmail-root").await?;
    reinstall(&mut mesh, &shop).await?;
    ensure!(mesh.root().await? == root, "another root");
    Ok(())
}

/// The Lease is still there, as nothing collects what has no owner here, and it names a replica that ended a moment ago.
async fn reinstall(mesh: &mut Mesh<'_>, shop: &str) -> anyhow::Result<()> {
    let leases = Api::<Lease>::namespaced(mesh.plane.client.clone(), &mesh.namespace);
    let lease = leases.get(CONTROLLER).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    ensure!(holder.as_deref() == Some("controller-1"), "{holder:?}");
    let owners = lease.metadata.owner_references.unwrap_or_default();
    ensure!(owners.iter().any(|one| one.kind == "ServiceAccount"));

    mesh.helm("install", &[])?;
    mesh.find().await?;
    let begun = Instant::now();
    let replica = mesh.serve("controller-2").await?;
    let took = begun.elapsed();
    ensure!(took < REINSTALL_LIMIT, "ready after {took:?}");
    // Whoever waited for a ready replica may make pods, but for the moment in which the API server reads what we saw.
    let pods = Api::<Pod>::namespaced(mesh.plane.client.clone(), shop);
    let pod: Pod = serde_json::from_value(plain_pod(shop, "again"))?;
    let made = eventually("a pod is made", || async {
        pods.create(&PostParams::default(), &pod).await.ok()
    });
    let init = made.await?.spec.and_then(|spec| spec.init_containers);
    ensure!(init.is_some_and(|all| !all.is_empty()), "no sidecar");
    let took = begun.elapsed();
    ensure!(took < REINSTALL_LIMIT, "a pod after {took:?}");
    replica.terminate()
}
