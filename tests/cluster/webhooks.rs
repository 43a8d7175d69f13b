//! What the API server calls the controller for, by way of a Service as in a real cluster.

use anyhow::{Context, ensure};
use hyper::Request;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::Mesh;
use super::status::{ROUTES, route};

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "webhooks::the_annotation_becomes_the_label_at_once",
        |plane| plane.runtime.block_on(label(plane)),
    ),
    (
        "webhooks::a_configuration_that_is_gone_is_told_of",
        |plane| plane.runtime.block_on(missing(plane)),
    ),
    ("webhooks::our_reading_warns_at_admission", |plane| {
        plane.runtime.block_on(warn(plane))
    }),
];

async fn label(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let injector = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "ringmail-injector"}});
    let bundle = || async {
        let one = mesh.objects.get(&injector).await.ok()?;
        one.data
            .pointer("/webhooks/0/clientConfig/caBundle")
            .cloned()
    };
    let first = eventually("the leader writes caBundle", bundle).await;
    let first = first.with_context(|| replica.log())?;
    // An upgrade takes nothing away; whoever empties it, for a moment.
    mesh.helm("upgrade", &["webhooks.timeoutSeconds=7"])?;
    ensure!(
        bundle().await.as_ref() == Some(&first),
        "the upgrade took caBundle away"
    );
    let hook = mesh.objects.get(&injector).await?;
    ensure!(hook.data["webhooks"][0]["timeoutSeconds"] == 7, "{hook:?}");
    let emptied = json!({"webhooks": [{"name": "namespaces.ringmail.io", "clientConfig": {"caBundle": null}}]});
    let hooks = Api::<MutatingWebhookConfiguration>::all(plane.client.clone());
    hooks
        .patch(
            "ringmail-injector",
            &PatchParams::default(),
            &Patch::Strategic(&emptied),
        )
        .await?;
    eventually("caBundle is put back", bundle)
        .await
        .with_context(|| replica.log())?;

    // The API server takes a moment to read its configurations.
    let calls = "webhook_requests_total{webhook=\"namespaces\",outcome=\"patched\"}";
    let api = Api::<Namespace>::all(plane.client.clone());
    eventually("the webhook answers", || async {
        let probe = mesh.objects.own("probe");
        mesh.objects
            .namespace(&probe, &json!({"ringmail.io/inject": "enabled"}))
            .await
            .ok()?;
        let _ = api.delete(&probe, &DeleteParams::default()).await;
        replica.metric(calls).await.ok().flatten()
    })
    .await
    .with_context(|| replica.log())?;

    let shop = mesh.objects.own("shop");
    let enabled = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": shop, "annotations": {"ringmail.io/inject": "enabled"}}});
    let mut plain = enabled.clone();
    plain["metadata"]["annotations"] = json!({});
    // The answer to the request has it already, not only a later look.
    let label_of = |object: Value| {
        let api = &api;
        async move {
            let name = object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let params = PatchParams::apply("test").force();
            let answer = api.patch(&name, &params, &Patch::Apply(&object)).await?;
            anyhow::Ok(
                answer
                    .metadata
                    .labels
                    .unwrap_or_default()
                    .remove("ringmail.io/inject"),
            )
        }
    };
    ensure!(
        label_of(enabled.clone()).await?.as_deref() == Some("enabled"),
        "{}",
        replica.log()
    );
    ensure!(
        label_of(plain.clone()).await?.is_none(),
        "the label outlives the annotation"
    );
    ensure!(label_of(enabled).await?.as_deref() == Some("enabled"));

    replica.kill();
    // Ignore: nobody is held up by a controller that is away.
    let mut other = plain.clone();
    other["metadata"]["name"] = json!(mesh.objects.own("other"));
    ensure!(label_of(other).await?.is_none());
    // What is said meanwhile is found later.
    ensure!(label_of(plain).await?.as_deref() == Some("enabled"));
    let replica = mesh.serve("controller-2").await?;
    eventually("the label goes after its annotation", || async {
        let metadata = api.get(&shop).await.ok()?.metadata;
        let annotations = metadata.annotations.unwrap_or_default();
        let is_gone = !metadata.labels?.contains_key("ringmail.io/inject");
        (is_gone && !annotations.contains_key("ringmail.io/labelled")).then_some(())
    })
    .await
    .with_context(|| replica.log())?;
    replica.terminate()
}

/// Somebody deletes a configuration: pods get no sidecars, and nobody would notice.
async fn missing(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    let hooks = Api::<MutatingWebhookConfiguration>::all(plane.client.clone());
    hooks
        .delete("ringmail-injector", &DeleteParams::default())
        .await?;
    let events = Api::<Event>::namespaced(plane.client.clone(), "default");
    let about = ListParams::default().fields("regarding.name=ringmail-injector");
    let said = eventually("an event says so", || async {
        let all = events.list(&about).await.ok()?;
        let mut all = all.items.into_iter();
        all.find(|one| one.reason.as_deref() == Some("Missing"))
    });
    let said = said.await.with_context(|| replica.log())?;
    ensure!(said.type_.as_deref() == Some("Warning"), "{said:?}");
    replica.terminate()
}

async fn warn(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    mesh.objects.apply_all(ROUTES).await?;
    let replica = mesh.serve("controller-1").await?;
    let warned = |path: String, object: Value| async move {
        let uri = format!("{path}?fieldManager=test&force=true");
        let request = Request::patch(uri)
            .header("content-type", "application/apply-patch+yaml")
            .body(kube::client::Body::from(object.to_string().into_bytes()));
        let answer = plane.client.send(request.ok()?).await.ok()?;
        let warnings = answer.headers().get_all("warning").iter();
        let texts: Vec<_> = warnings.filter_map(|one| one.to_str().ok()).collect();
        Some(texts.join(" ")).filter(|_| answer.status().is_success())
    };
    let shop = mesh.objects.own("shop");
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": shop, "annotations": {"ringmail.io/injekt": "enabled"}}});
    // The leader writes caBundle, and the API server takes a moment to read it.
    eventually("an unknown annotation is warned of", || async {
        let said = warned(format!("/api/v1/namespaces/{shop}"), namespace.clone()).await?;
        said.contains("ringmail.io/injekt is unknown").then_some(())
    })
    .await
    .with_context(|| replica.log())?;
    let odd = route(&shop, "odd", "cart", &json!([{"surprise": 1}]));
    let path = format!("/apis/gateway.networking.k8s.io/v1/namespaces/{shop}/httproutes/odd");
    let said = warned(path, odd).await.context("the route is kept")?;
    ensure!(said.contains("spec.rules[0].surprise"), "{said}");
    replica.terminate()
}
