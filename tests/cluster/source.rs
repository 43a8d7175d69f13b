//! Watches, and what becomes of what they tell.

use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::Mesh;
use super::status::{ROUTES, route};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("source::objects_become_the_model", |plane| {
        plane.runtime.block_on(objects(plane))
    }),
    ("source::routes_are_read_once_there_are_any", |plane| {
        plane.runtime.block_on(routes(plane))
    }),
    ("source::what_is_known_outlives_the_api_server", |plane| {
        plane.runtime.block_on(outage(plane))
    }),
];

fn number(status: &Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or_default()
}

async fn objects(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    let before = replica.status().await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    mesh.objects.account(&shop, "cart").await?;
    mesh.objects
        .pod(&shop, "cart-1", "cart", "10.1.0.1")
        .await?;
    mesh.objects
        .apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": shop},
            "spec": {"selector": {"app": "cart"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
        .await?;
    let (pods, addresses) = (
        number(&before, "workloads_meshed"),
        number(&before, "service_addresses"),
    );
    replica
        .shows("pod and service are known", |status| {
            number(status, "workloads_meshed") == pods + 1
                && number(status, "service_addresses") == addresses + 1
        })
        .await?;

    // A value that is none is refused, by name, and the namespace stays as it was.
    let annotated = |value: &str| {
        json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": shop, "annotations": {"ringmail.io/inbound": value}}})
    };
    mesh.objects.apply(&annotated("open")).await?;
    let is_noted = |status: &Value| {
        status["noted"].as_array().is_some_and(|all| {
            all.iter().any(|one| {
                one["object"] == format!("Namespace {shop}")
                    && one["refused"]["field"] == "ringmail.io/inbound"
            })
        })
    };
    replica.shows("the namespace is refused", is_noted).await?;
    mesh.objects.apply(&annotated("permissive")).await?;
    replica
        .shows("it is taken again", |status| !is_noted(status))
        .await?;

    mesh.objects.delete_pod(&shop, "cart-1").await?;
    replica
        .shows("the pod is gone", |status| {
            number(status, "workloads_meshed") == pods
        })
        .await?;
    replica.terminate()
}

async fn routes(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    mesh.objects.apply_all(ROUTES).await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    let route = route(&shop, "late", "cart", &json!([]));
    eventually("the API server serves routes", || async {
        mesh.objects.apply(&route).await.ok()
    })
    .await?;
    replica
        .shows("a route of a kind that came later is known", |status| {
            status["routes"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["namespace"] == shop))
        })
        .await?;
    replica.terminate()
}

async fn outage(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    let before = replica.status().await?;
    plane.freeze(true)?;
    // A connection to a stopped server is silent; what tells is the lease that is not renewed.
    let seen = eventually("the lease is lost", || async {
        let leads = replica.metric("leader").await.ok().flatten()?;
        (leads == 0.0).then_some(())
    })
    .await;
    let during = replica.status().await;
    let ready = replica.page("/ready").await;
    plane.freeze(false)?;
    seen?;
    anyhow::ensure!(
        ready?.starts_with("HTTP/1.1 200"),
        "an outage of the API server is none of ours"
    );
    let during = during?;
    anyhow::ensure!(
        number(&during, "objects") >= number(&before, "objects"),
        "{during}"
    );
    mesh.objects.account(&shop, "cart").await?;
    mesh.objects
        .pod(&shop, "cart-1", "cart", "10.1.0.2")
        .await?;
    let pods = number(&before, "workloads");
    replica
        .shows("what came after the outage is known", |status| {
            number(status, "workloads") == pods + 1
        })
        .await?;
    mesh.objects.delete_pod(&shop, "cart-1").await?;
    replica.terminate()
}
