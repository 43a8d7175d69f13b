//! Dashboards and alerts of what only a cluster has: webhooks, and pods that should have a sidecar.

use std::process::Command;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use ringmail_tests::observe::board::Needs;
use ringmail_tests::observe::boards;
use ringmail_tests::process::Process;
use ringmail_tests::prometheus::{self, Prometheus};
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::Mesh;
use super::objects::plain_pod;

/// Those of `scenarios::observe` that take an API server.
pub(crate) const TESTS: &[(&str, Test)] = &[("observe::prometheus", |plane| {
    plane.runtime.block_on(proof(plane))
})];

/// Longer than anything here takes, for rates over all of it.
const RANGE: &str = "5m";

/// Why there is no Prometheus, and what would change that.
pub(crate) fn missing() -> Option<&'static str> {
    let version = Command::new("prometheus").arg("--version").output();
    version
        .is_err()
        .then_some("no prometheus; install by .ci/tools")
}

async fn proof(plane: &ControlPlane) -> anyhow::Result<()> {
    plane.delete_pods()?;
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let mut prometheus = Prometheus::start(
        Command::new("prometheus"),
        &[(replica.pod.clone(), replica.metrics)],
        |command| Process::start(command, &plane.path("prometheus.log")),
        Box::new(prometheus::page),
    )?;
    prometheus.calm()?;

    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    create(plane, &plain_pod(&shop, "early")).await?;
    mesh.objects.runs(&shop, "early", "10.244.3.1").await?;
    mesh.meshed(&replica, "shop").await?;
    let mut pod = plain_pod(&shop, "root");
    // The proxy's own user: its connections would go past the proxy.
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1337});
    ensure!(create(plane, &pod).await.is_err(), "taken");
    let fired = prometheus.until_firing(&["RingmailInjectionFailing", "RingmailPodsUncovered"]);
    fired.with_context(|| replica.log())?;
    let shown = eventually("all panels show something", || async {
        // A rate takes more than the first of its kind.
        let _ = create(plane, &pod).await;
        panels(&prometheus).ok()
    });
    let shown = shown.await;
    shown.or_else(|_| panels(&prometheus))?;
    mesh.objects.delete_pod(&shop, "early").await?;
    prometheus.until_silent()?;
    plane.delete_pods()?;
    replica.terminate()
}

async fn create(plane: &ControlPlane, pod: &Value) -> anyhow::Result<Pod> {
    let made: Pod = serde_json::from_value(pod.clone())?;
    let namespace = made.metadata.namespace.clone().unwrap_or_default();
    let pods = Api::<Pod>::namespaced(plane.client.clone(), &namespace);
    Ok(pods.create(&PostParams::default(), &made).await?)
}

/// Every panel that shows nothing without a cluster shows something.
fn panels(prometheus: &Prometheus<'_>) -> anyhow::Result<()> {
    let all = boards::all();
    let all = all.iter().flat_map(|board| board.panels());
    for panel in all.filter(|panel| panel.needs == Needs::Cluster) {
        for query in &panel.queries {
            let found = prometheus.panel(&query.expression, &[], RANGE)?;
            let has_value = found.iter().any(|sample| sample.value.is_finite());
            ensure!(has_value, "{}: {found:?}", panel.title);
        }
    }
    Ok(())
}
