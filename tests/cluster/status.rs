//! What the authors of routes are told, read back from the API server.

use anyhow::{Context, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::{Mesh, Replica};

pub(crate) const TESTS: &[(&str, Test)] = &[("status::routes_say_what_became_of_them", |plane| {
    plane.runtime.block_on(routes(plane))
})];

/// The kind of the Gateway API's routes, with a status as strict as its own.
pub(crate) const ROUTES: &str = include_str!("routes.yaml");

pub(crate) fn route(namespace: &str, name: &str, service: &str, rules: &Value) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": service}], "rules": rules}})
}

async fn routes(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let objects = &mesh.objects;
    objects.apply_all(ROUTES).await?;
    let shop = objects.own("shop");
    objects.namespace(&shop, &Value::Null).await?;
    objects
        .apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": shop},
            "spec": {"selector": {"app": "cart"}, "ports": [{"port": 80}]}}))
        .await?;
    let to = |backend: &str| json!([{"backendRefs": [{"name": backend, "port": 80}]}]);
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
    let condition = |one: &Value, kind: &'static str, wanted: &'static str| {
        let (one, what) = (one.clone(), format!("{kind} is {wanted}"));
        let log = replica.log();
        async move {
            let found = eventually(&what, || async {
                let live = objects.get(&one).await.ok()?;
                let parents = live.data.pointer("/status/parents")?.as_array()?.clone();
                let ours = parents
                    .into_iter()
                    .find(|one| one["controllerName"] == "ringmail.io/controller")?;
                let all = ours["conditions"].as_array()?.clone();
                let one = all.into_iter().find(|one| one["type"] == kind)?;
                let is_current = one["observedGeneration"] == json!(live.metadata.generation);
                (one["status"] == wanted && is_current).then_some(one)
            });
            found.await.context(log)
        }
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
