//! What becomes of pods, by the chart's webhooks, called by the API server.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::{Mesh, Replica};
use super::objects::plain_pod;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("injection::a_pod_of_an_annotated_namespace", |plane| {
        plane.runtime.block_on(injected(plane))
    }),
    ("injection::who_is_left_alone_and_who_asks", |plane| {
        plane.runtime.block_on(chosen(plane))
    }),
    ("injection::what_people_are_told", |plane| {
        plane.runtime.block_on(told(plane))
    }),
    ("injection::templates_of_workloads", |plane| {
        plane.runtime.block_on(templates(plane))
    }),
    ("injection::a_controller_that_is_away", |plane| {
        plane.runtime.block_on(away(plane))
    }),
    ("injection::a_sidecar_fits_its_surroundings", |plane| {
        plane.runtime.block_on(surroundings(plane))
    }),
];

/// Makes a pod, or would: what it is then.
async fn create(plane: &ControlPlane, pod: &Value, dry_run: bool) -> anyhow::Result<Value> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let api = Api::<Pod>::namespaced(plane.client.clone(), namespace);
    let params = PostParams {
        dry_run,
        ..PostParams::default()
    };
    let pod = serde_json::from_value(pod.clone())?;
    Ok(json!(api.create(&params, &pod).await?))
}

fn names(of: &Value) -> Vec<&str> {
    let all = of.as_array().into_iter().flatten();
    all.filter_map(|one| one["name"].as_str()).collect()
}

fn is_injected(pod: &Value) -> bool {
    names(&pod["spec"]["initContainers"]).contains(&"ringmail-proxy")
}

/// A controller that the API server calls, and a namespace with its pods' sidecars.
async fn bed<'plane>(
    plane: &'plane ControlPlane,
) -> anyhow::Result<(Mesh<'plane>, Replica, String)> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let shop = mesh.meshed(&replica, "shop").await?;
    Ok((mesh, replica, shop))
}

async fn injected(plane: &ControlPlane) -> anyhow::Result<()> {
    let (mesh, replica, shop) = bed(plane).await?;
    let mut pod = plain_pod(&shop, "cart");
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "registry.example/db"},
        {"name": "other-mesh", "image": "registry.example/other", "restartPolicy": "Always"}]);
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(45);
    let made = create(plane, &pod, false).await?;
    let spec = &made["spec"];
    // Ours first, in order, so that whatever starts later is captured; the others keep theirs.
    let expected = ["ringmail-init", "ringmail-proxy", "migrate", "other-mesh"];
    ensure!(names(&spec["initContainers"]) == expected, "{spec}");
    for name in ["ringmail-token", "ringmail-bundle", "data"] {
        ensure!(names(&spec["volumes"]).contains(&name), "{name}: {spec}");
    }
    let proxy = &spec["initContainers"][1];
    ensure!(proxy["restartPolicy"] == "Always", "{proxy}");
    ensure!(proxy["image"] == "ghcr.io/ringmail/proxy:0.1.0", "{proxy}");
    let drain = proxy["env"].as_array().into_iter().flatten();
    let drain = drain.filter(|one| one["name"] == "RINGMAIL_DRAIN_SECONDS");
    ensure!(drain.eq([&json!({"name": "RINGMAIL_DRAIN_SECONDS", "value": "45"})]));
    // The pod's own token for the API server is none of the proxy's business.
    let mounts = names(&proxy["volumeMounts"]);
    ensure!(
        mounts == ["ringmail-token", "ringmail-bundle"],
        "{mounts:?}"
    );
    let init = &spec["initContainers"][0];
    ensure!(names(&init["volumeMounts"]).is_empty(), "{init}");
    ensure!(made["metadata"]["labels"]["ringmail.io/injected"] == "true");
    let mark = &made["metadata"]["annotations"]["ringmail.io/injected"];
    ensure!(*mark == env!("CARGO_PKG_VERSION"), "{mark}");

    // What was injected before, as `ringmail inject` leaves it, comes out as it went in.
    let mut again = pod.clone();
    again["metadata"] = json!({"name": "again", "namespace": shop,
        "labels": made["metadata"]["labels"], "annotations": made["metadata"]["annotations"]});
    again["spec"]["initContainers"] = spec["initContainers"].clone();
    again["spec"]["volumes"] = spec["volumes"].clone();
    let made_again = create(plane, &again, false).await?;
    for part in ["initContainers", "containers"] {
        ensure!(names(&made_again["spec"][part]) == names(&spec[part]));
    }
    ensure!(
        replica
            .metric("webhook_requests_total{webhook=\"pods\",outcome=\"patched\"}")
            .await?
            .is_some_and(|count| count > 0.0)
    );
    drop(mesh);
    Ok(())
}

async fn chosen(plane: &ControlPlane) -> anyhow::Result<()> {
    let (mesh, _replica, shop) = bed(plane).await?;
    let plain = mesh.objects.own("plain");
    mesh.objects.namespace(&plain, &Value::Null).await?;
    for name in ["kube-system", "kube-public"] {
        mesh.objects.account(name, "default").await?;
    }
    let own = mesh.namespace.as_str();
    // Namespace, the pod's own annotation; whether it has a sidecar then.
    let rows = [
        (shop.as_str(), None, true),
        (&shop, Some("enabled"), true),
        (&shop, Some("disabled"), false),
        (&plain, None, false),
        (&plain, Some("enabled"), true),
        (&plain, Some("disabled"), false),
        ("kube-system", Some("enabled"), false),
        ("kube-public", Some("enabled"), false),
        (own, Some("enabled"), false),
        (own, None, false),
    ];
    for (namespace, annotation, wanted) in rows {
        let mut pod = plain_pod(namespace, "chosen");
        if let Some(value) = annotation {
            pod["metadata"]["annotations"] = json!({"ringmail.io/inject": value});
        }
        let made = create(plane, &pod, true).await?;
        ensure!(is_injected(&made) == wanted, "{namespace} {annotation:?}");
    }
    // Nobody annotates our own namespace into a knot, nor the cluster's.
    for name in [own, "kube-system"] {
        let enabled = json!({"ringmail.io/inject": "enabled"});
        let namespace = mesh.objects.namespace(name, &enabled).await?;
        let label = json!(namespace.metadata.labels)["ringmail.io/inject"].clone();
        ensure!(label.is_null(), "{name} is labelled");
        let made = create(plane, &plain_pod(name, "chosen"), true).await?;
        ensure!(!is_injected(&made), "{name}");
        mesh.objects.namespace(name, &Value::Null).await?;
    }
    Ok(())
}

async fn told(plane: &ControlPlane) -> anyhow::Result<()> {
    let (mesh, replica, shop) = bed(plane).await?;
    let apply = |pod: &Value| plane.kubectl(&["create", "--filename", "-"], &pod.to_string());

    let mut pod = plain_pod(&shop, "host");
    pod["spec"]["hostNetwork"] = json!(true);
    pod["spec"]["containers"][0]["ports"] = Value::Null;
    let said = apply(&pod)?;
    ensure!(
        said.code == Some(0) && said.err.contains("node's network"),
        "{said:?}"
    );

    let mut pod = plain_pod(&shop, "root");
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsUser": 1337});
    let said = apply(&pod)?;
    let field = "spec.containers[app].securityContext.runAsUser";
    ensure!(said.code == Some(1) && said.err.contains(field), "{said:?}");

    let mut pod = plain_pod(&shop, "typo");
    pod["metadata"]["annotations"] = json!({"config.ringmail.io/cpu-limits": "1"});
    let said = apply(&pod)?;
    let warned = said
        .err
        .contains("config.ringmail.io/cpu-limits is unknown");
    ensure!(said.code == Some(0) && warned, "{said:?}");

    // What the namespace says counts at once; what it cannot mean is refused by its key.
    let namespace = |value: &str| {
        json!({"ringmail.io/inject": "enabled",
        "config.ringmail.io/proxy-cpu-limit": value})
    };
    mesh.objects.namespace(&shop, &namespace("1500m")).await?;
    let inherited = eventually("the namespace's settings count", || async {
        let made = create(plane, &plain_pod(&shop, "inherits"), true).await;
        let made = made.ok()?;
        let proxy = &made["spec"]["initContainers"][1];
        (proxy["resources"]["limits"]["cpu"] == "1500m").then(|| proxy.clone())
    });
    let proxy = inherited.await.with_context(|| replica.log())?;
    let workers = json!({"name": "RINGMAIL_WORKERS", "value": "2"});
    let mut environment = proxy["env"].as_array().into_iter().flatten();
    ensure!(environment.any(|one| *one == workers), "{proxy}");
    let mut pod = plain_pod(&shop, "says-itself");
    pod["metadata"]["annotations"] = json!({"config.ringmail.io/proxy-cpu-limit": "3"});
    let made = create(plane, &pod, true).await?;
    let limit = &made["spec"]["initContainers"][1]["resources"]["limits"]["cpu"];
    ensure!(limit == "3", "{limit}");
    replica.terminate()
}

/// What the cluster has for a pod: amounts of a LimitRange, and no DNS of its own.
async fn surroundings(plane: &ControlPlane) -> anyhow::Result<()> {
    let (mesh, replica, shop) = bed(plane).await?;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange",
        "metadata": {"name": "small", "namespace": shop},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "5m", "memory": "16Mi"},
            "defaultRequest": {"cpu": "1m", "memory": "1Mi"}, "max": {"cpu": "1", "memory": "1Gi"}}]}});
    mesh.objects.apply(&range).await?;
    let bounded = eventually("the LimitRange counts", || async {
        let made = create(plane, &plain_pod(&shop, "bounded"), true).await;
        let made = made.ok()?;
        let app = &made["spec"]["containers"][0]["resources"];
        (app["limits"]["cpu"] == "5m").then(|| made["spec"]["initContainers"].clone())
    });
    let containers = bounded.await.with_context(|| replica.log())?;
    for container in containers.as_array().into_iter().flatten() {
        let wanted = json!({"limits": {"cpu": "5m", "memory": "16Mi"},
            "requests": {"cpu": "5m", "memory": "16Mi"}});
        ensure!(container["resources"] == wanted, "{container}");
    }

    let mut pod = plain_pod(&shop, "no-dns");
    pod["spec"]["dnsPolicy"] = json!("Default");
    let made = create(plane, &pod, true).await?;
    let variables = made["spec"]["initContainers"][1]["env"].clone();
    let mut all = variables.as_array().into_iter().flatten();
    let address = all.find(|one| one["name"] == "RINGMAIL_CONTROLLER_ADDRESS");
    let both = format!(
        "{}:15012,ringmail-controller.{}.svc:15012",
        mesh.service, mesh.namespace
    );
    ensure!(
        address.context("a variable")?["value"] == both,
        "{variables}"
    );
    replica.terminate()
}

/// Controllers of workloads make pods of templates; there is none here, so the pod is made as they do.
async fn templates(plane: &ControlPlane) -> anyhow::Result<()> {
    let (mesh, replica, shop) = bed(plane).await?;
    let template = json!({"metadata": {"labels": {"app": "shop"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "app", "image": "registry.example/app"}]}});
    let mut always = template.clone();
    always["spec"]["restartPolicy"] = json!("Always");
    let selector = json!({"matchLabels": {"app": "shop"}});
    let rows = [
        ("batch/v1", "Job", json!({"template": template})),
        (
            "apps/v1",
            "StatefulSet",
            json!({"template": always, "selector": selector, "serviceName": "shop"}),
        ),
        (
            "apps/v1",
            "DaemonSet",
            json!({"template": always, "selector": selector}),
        ),
    ];
    for (version, kind, spec) in rows {
        let name = format!("shop-{}", kind.to_lowercase());
        let workload = json!({"apiVersion": version, "kind": kind,
            "metadata": {"name": name, "namespace": shop}, "spec": spec});
        mesh.objects.apply(&workload).await?;
        let owner = mesh.objects.get(&workload).await?;
        let mut pod = owner.data["spec"]["template"].clone();
        pod["metadata"]["generateName"] = json!(format!("{name}-"));
        pod["metadata"]["namespace"] = json!(shop);
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": version, "kind": kind,
            "name": name, "uid": owner.metadata.uid, "controller": true}]);
        let made = create(plane, &pod, false).await?;
        ensure!(is_injected(&made), "{kind}: {made}");
        // A Job ends although its sidecar would run for ever: it is one by its own restart policy.
        let restart = &made["spec"]["restartPolicy"];
        ensure!(*restart == pod["spec"]["restartPolicy"], "{restart}");
        ensure!(made["spec"]["initContainers"][1]["restartPolicy"] == "Always");
        let template = &mesh.objects.get(&workload).await?.data["spec"]["template"];
        ensure!(!is_injected(template), "the workload itself was changed");
    }
    replica.terminate()
}

async fn away(plane: &ControlPlane) -> anyhow::Result<()> {
    let (mesh, replica, shop) = bed(plane).await?;
    let plain = mesh.objects.own("plain");
    mesh.objects.namespace(&plain, &Value::Null).await?;
    replica.kill();
    let opted = |namespace: &str, value: &str| {
        let mut pod = plain_pod(namespace, "away");
        pod["metadata"]["annotations"] = json!({"ringmail.io/inject": value});
        pod
    };
    let rows = [
        (plain_pod(&shop, "away"), false),
        (opted(&shop, "disabled"), true),
        (plain_pod(&plain, "away"), true),
        (opted(&plain, "enabled"), false),
        (plain_pod("kube-system", "away"), true),
        (plain_pod(&mesh.namespace, "away"), true),
    ];
    mesh.objects.account("kube-system", "default").await?;
    for (pod, wanted) in rows {
        let made = create(plane, &pod, true).await;
        ensure!(made.is_ok() == wanted, "{pod}: {made:?}");
    }
    // It comes back, as another, and goes on at once.
    let replica = mesh.serve("controller-2").await?;
    eventually("pods get sidecars again", || async {
        let made = create(plane, &plain_pod(&shop, "back"), true).await.ok()?;
        is_injected(&made).then_some(())
    })
    .await
    .with_context(|| replica.log())?;
    replica.terminate()
}
