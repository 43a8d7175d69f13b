//! Watches, and what becomes of what they tell.

use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::Mesh;
use super::objects::Objects;
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
    ("source::a_large_cluster_fits", |plane| {
        plane.runtime.block_on(large(plane))
    }),
];

/// Pods of the large cluster; a tenth as many services. 10 000 take minutes.
const PODS_VARIABLE: &str = "RINGMAIL_CLUSTER_PODS";
const PODS: usize = 200;
/// Requests at a time.
const AT_ONCE: usize = 16;

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
    ensure!(
        ready?.starts_with("HTTP/1.1 200"),
        "an outage of the API server is none of ours"
    );
    let during = during?;
    ensure!(
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

/// Prints what a large cluster costs a controller; the debug build's memory is bounded.
async fn large(plane: &ControlPlane) -> anyhow::Result<()> {
    let pods = std::env::var(PODS_VARIABLE).ok();
    let pods = pods.map_or(Ok(PODS), |text| text.parse())?;
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    let (before, small) = (replica.status().await?, replica.resident_kib()?);
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    let mut making = JoinSet::new();
    for number in 0..pods {
        while making.len() >= AT_ONCE
            && let Some(made) = making.join_next().await
        {
            made??;
        }
        let (client, shop) = (plane.client.clone(), shop.clone());
        making.spawn(async move {
            let objects = Objects::new(client, "");
            let app = format!("app-{}", number / 10);
            if number % 10 == 0 {
                objects
                    .apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": app, "namespace": shop},
                        "spec": {"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8080}]}}))
                    .await?;
                objects.account(&shop, &app).await?;
            }
            let account = if number % 10 == 0 { app.as_str() } else { "default" };
            let address = format!("10.{}.{}.{}", 16 + number / 65_536, number / 256 % 256, number % 256);
            objects.pod(&shop, &format!("pod-{number}"), account, &address).await.map(drop)
        });
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    let wanted = number(&before, "workloads") + pods as u64;
    let all = |status: &Value| number(status, "workloads") == wanted;
    replica.shows("every pod is known", all).await?;
    let kept = replica.resident_kib()?;
    let begun = Instant::now();
    mesh.objects.delete_pod(&shop, "pod-0").await?;
    let gone = |status: &Value| number(status, "workloads") == wanted - 1;
    replica.shows("one is gone", gone).await?;
    let told = begun.elapsed();
    replica.kill();
    let begun = Instant::now();
    let replica = mesh.start("controller-2").await?;
    let ready = begun.elapsed();
    let fresh = replica.resident_kib()?;
    eprintln!(
        "{pods} pods, {} services: {kept} KiB beside {small} KiB without; after a restart ready in {ready:?} with \
         {fresh} KiB; a pod is gone after {told:?}",
        pods / 10
    );
    // 16 KiB for each pod, its share of the model and of a state that is being made.
    ensure!(fresh < small + 16 * pods + 64 * 1024, "{fresh} KiB");
    replica.terminate()
}
