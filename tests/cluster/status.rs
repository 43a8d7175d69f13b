//! What the authors of routes are told, read back from the API server.

use std::net::SocketAddr;
use std::sync::Mutex;

use anyhow::{Context, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::{Mesh, Replica, page};
use super::objects::plain_pod;
use super::sidecar::Sidecar;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("status::routes_say_what_became_of_them", |plane| {
        plane.runtime.block_on(routes(plane))
    }),
    ("status::routes_say_where_they_are_in_force", |plane| {
        plane.runtime.block_on(programmed(plane))
    }),
];

/// The kind of the Gateway API's routes, with a status as strict as its own.
pub(crate) const ROUTES: &str = include_str!("routes.yaml");

pub(crate) fn route(namespace: &str, name: &str, service: &str, rules: &Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": service}], "rules": rules}})
}

fn service(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": namespace},
        "spec": {"selector": {"app": "cart"}, "ports": [{"port": 80}]}})
}

fn to(backend: &str) -> Value {
    json!([{"backendRefs": [{"name": backend, "port": 80}]}])
}

/// Waits until our entry of a route, at its present generation, has such a condition.
async fn condition(
    mesh: &Mesh<'_>,
    route: &Value,
    kind: &str,
    is_it: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let last = Mutex::new(Value::Null);
    let what = format!("{kind} is as it is to be");
    let found = eventually(&what, || async {
        let live = mesh.objects.get(route).await.ok()?;
        let parents = live.data.pointer("/status/parents")?.as_array()?.clone();
        *last.lock().ok()? = json!(parents);
        let ours = parents
            .into_iter()
            .find(|one| one["controllerName"] == "ringmail.io/controller")?;
        let all = ours["conditions"].as_array()?.clone();
        let one = all.into_iter().find(|one| one["type"] == kind)?;
        let is_current = one["observedGeneration"] == json!(live.metadata.generation);
        (is_current && is_it(&one)).then_some(one)
    });
    found.await.with_context(|| format!("{last:?}"))
}

async fn routes(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let objects = &mesh.objects;
    objects.apply_all(ROUTES).await?;
    let shop = objects.own("shop");
    objects.namespace(&shop, &Value::Null).await?;
    objects.apply(&service(&shop)).await?;
    let good = route(&shop, "good", "cart", &to("cart"));
    let lost = route(&shop, "lost", "nowhere", &to("cart"));
    let odd = route(&shop, "odd", "cart", &json!([{"surprise": 1}]));
    for one in [&good, &lost, &odd] {
        eventually("routes are served", || async {
            objects.apply(one).await.ok()
        })
        .await?;
    }
    let replica = mesh.start("controller-1").await?;
    let condition = async |one: &Value, kind: &str, wanted: &str| {
        let found = condition(&mesh, one, kind, |one| one["status"] == wanted).await;
        found.with_context(|| replica.log())
    };
    let accepted = condition(&good, "Accepted", "True").await?;
    condition(&good, "ResolvedRefs", "True").await?;
    let refused = condition(&lost, "Accepted", "False").await?;
    ensure!(refused["reason"] == "NoMatchingParent", "{refused}");
    let refused = condition(&odd, "Accepted", "False").await?;
    ensure!(refused["reason"] == "UnsupportedValue", "{refused}");
    ensure!(
        refused["message"]
            .as_str()
            .is_some_and(|text| text.contains("surprise")),
        "{refused}"
    );
    eventually("there is an event", || async {
        let events = Api::<Event>::namespaced(plane.client.clone(), &shop);
        let all = events.list(&ListParams::default()).await.ok()?;
        let about = |one: &Event| {
            one.regarding
                .as_ref()
                .is_some_and(|one| one.name.as_deref() == Some("odd"))
        };
        all.items.iter().any(about).then_some(())
    })
    .await
    .with_context(|| replica.log())?;

    another_controller(&mesh, &good).await?;
    objects
        .apply(&route(&shop, "good", "cart", &to("gone")))
        .await?;
    let unresolved = condition(&good, "ResolvedRefs", "False").await?;
    ensure!(unresolved["reason"] == "BackendNotFound", "{unresolved}");
    let still = condition(&good, "Accepted", "True").await?;
    ensure!(
        still["lastTransitionTime"] == accepted["lastTransitionTime"],
        "{still} {accepted}"
    );
    let live = objects.get(&good).await?;
    let parents = live.data["status"]["parents"].as_array().cloned();
    let others = parents.unwrap_or_default();
    ensure!(
        others
            .iter()
            .any(|one| one["controllerName"] == "example.com/other"),
        "another controller's entry is gone"
    );

    moves_to_a_gateway(&mesh, &replica, good).await?;
    replica.terminate()
}

/// A route that goes over to a gateway is not ours any more, and says nothing of us.
async fn moves_to_a_gateway(
    mesh: &Mesh<'_>,
    replica: &Replica,
    mut route: Value,
) -> anyhow::Result<()> {
    let namespace = route["metadata"]["namespace"].clone();
    route["spec"]["parentRefs"] = json!([{"name": "gateway"}]);
    mesh.objects.apply(&route).await?;
    let is_it = |one: &Value| one["namespace"] == namespace && one["name"] == "good";
    let forgotten = |status: &Value| {
        let routes = status["routes"].as_array();
        routes.is_some_and(|all| !all.iter().any(is_it))
    };
    replica.shows("the route is forgotten", forgotten).await?;
    eventually("our entry is gone", || async {
        let live = mesh.objects.get(&route).await.ok()?;
        let parents = live.data.pointer("/status/parents")?.as_array()?.clone();
        let all = parents.iter().map(|one| one["controllerName"].clone());
        (all.collect::<Vec<_>>() == ["example.com/other"]).then_some(())
    })
    .await
    .with_context(|| replica.log())
}

/// Another controller has its say about a route.
async fn another_controller(mesh: &Mesh<'_>, route: &Value) -> anyhow::Result<()> {
    let live = mesh.objects.get(route).await?;
    let parents = live.data["status"]["parents"].as_array().cloned();
    let mut parents = parents.unwrap_or_default();
    parents.push(json!({"parentRef": {"name": "gateway"}, "controllerName": "example.com/other", "conditions": []}));
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let namespace = live.metadata.namespace.clone().context("a namespace")?;
    let api = Api::<DynamicObject>::namespaced_with(
        mesh.plane.client.clone(),
        &namespace,
        &ApiResource::from_gvk(&kind),
    );
    let name = live.metadata.name.clone().context("a name")?;
    let patch = json!({"status": {"parents": parents}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// On how many of the proxies that follow the Service.
async fn programmed(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let objects = &mesh.objects;
    objects.apply_all(ROUTES).await?;
    let replica = mesh.serve("controller-1").await?;
    let shop = mesh.meshed(&replica, "shop").await?;
    objects.apply(&service(&shop)).await?;
    let mut one = route(&shop, "one", "cart", &to("cart"));
    eventually("routes are served", || async {
        objects.apply(&one).await.ok()
    })
    .await?;
    let programmed = async |route: &Value, reason: &str| {
        let is_it = |one: &Value| one["reason"] == reason;
        let found = condition(&mesh, route, "ringmail.io/Programmed", is_it).await;
        found.with_context(|| replica.log())
    };
    programmed(&one, "NoProxies").await?;

    let live = objects.get(&service(&shop)).await?;
    let address = live.data["spec"]["clusterIP"]
        .as_str()
        .context("a Service")?;
    let callee = SocketAddr::new(address.parse()?, 80);
    let pod = plain_pod(&shop, "caller");
    let sidecar = Sidecar::calling(&mesh, &pod, [10, 244, 1, 3].into(), Some(callee)).await;
    let sidecar = sidecar.with_context(|| replica.log())?;
    let answer = page(sidecar.outbound, "/").await?;
    ensure!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    for backend in ["cart", "elsewhere"] {
        one["spec"]["rules"] = to(backend);
        objects.apply(&one).await?;
        let said = programmed(&one, "Programmed").await?;
        ensure!(said["status"] == "True", "{said}");
        ensure!(said["message"] == "in force on 1 of 1 proxies", "{said}");
    }
    drop(sidecar);
    programmed(&one, "NoProxies").await?;
    objects.delete_pod(&shop, "caller").await?;
    replica.terminate()
}
