//! What people ask: the program `ringmail` itself, with the administrator's rights.

use std::process::Command;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, Ran, eventually};
use super::mesh::{CONTROLLER, CONTROLLER_ADDRESS, Mesh};
use super::objects::plain_pod;
use super::sidecar::Sidecar;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("cli::before_there_is_a_mesh", before),
    ("cli::what_a_mesh_is_like", |plane| {
        plane.runtime.block_on(mesh(plane))
    }),
    ("cli::files_are_injected_as_pods_are", |plane| {
        plane.runtime.block_on(inject(plane))
    }),
];

fn ringmail(
    plane: &ControlPlane,
    system: &str,
    arguments: &[&str],
    input: &str,
) -> anyhow::Result<Ran> {
    let mut command = Command::new(&plane.binaries.ringmail);
    command.args(["--system-namespace", system]).args(arguments);
    plane.run(&mut command, input)
}

fn before(plane: &ControlPlane) -> anyhow::Result<()> {
    let ran = ringmail(plane, "nowhere", &["check", "--pre"], "")?;
    ensure!(ran.code == Some(0), "{ran:?}");
    for part in ["kubernetes version", "clocks", "you may create namespaces"] {
        ensure!(ran.out.contains(part), "{part}: {ran:?}");
    }
    let ran = ringmail(plane, "nowhere", &["check"], "")?;
    ensure!(ran.code == Some(1), "{ran:?}");
    for part in ["there is none in namespace nowhere", "helm install"] {
        ensure!(ran.out.contains(part), "{part}: {ran:?}");
    }
    // A question that cannot be answered is neither yes nor no.
    let mut command = Command::new(&plane.binaries.ringmail);
    let ran = plane.run(command.args(["identity", "nobody"]), "")?;
    ensure!(ran.code == Some(2), "{ran:?}");
    ensure!(ran.err.contains("pods \"nobody\" not found"), "{ran:?}");
    Ok(())
}

async fn mesh(plane: &ControlPlane) -> anyhow::Result<()> {
    // What other tests left is not looked at.
    plane.delete_pods()?;
    let mesh = Mesh::new(plane).await?;
    let ask = |arguments: &[&str]| ringmail(plane, &mesh.namespace, arguments, "");
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    let pods = Api::<Pod>::namespaced(plane.client.clone(), &shop);
    let early = serde_json::from_value(plain_pod(&shop, "early"))?;
    pods.create(&PostParams::default(), &early).await?;

    // The chart alone, without a controller that runs.
    let ran = ask(&["check"])?;
    ensure!(ran.code == Some(1), "{ran:?}");
    for part in ["0 of 2 replicas", "no caBundle", "see its log"] {
        ensure!(ran.out.contains(part), "{part}: {ran:?}");
    }
    let replica = mesh.serve("controller-1").await?;
    is_deployed(&mesh).await?;
    mesh.meshed(&replica, "shop").await?;
    let ran = ask(&["coverage", "--namespace", &shop])?;
    ensure!(ran.code == Some(1), "{ran:?}");
    ensure!(
        ran.out.contains("early") && ran.out.contains("restart it"),
        "{ran:?}"
    );
    mesh.objects.delete_pod(&shop, "early").await?;

    let address = [10, 244, 2, 1].into();
    let sidecar = Sidecar::start(&mesh, &plain_pod(&shop, "late"), address).await;
    let sidecar = sidecar.with_context(|| replica.log())?;
    let who = format!("spiffe://mesh.local/ns/{shop}/sa/default");
    let rows: [(&[&str], &str); 4] = [
        (&["check"], "1 pods are in the mesh, none is missing"),
        (&["coverage"], "late"),
        (&["proxies"], "in sync"),
        (&["identity", "late", "--namespace", &shop], &who),
    ];
    for (question, part) in rows {
        let mut last = None;
        let answered = eventually("all is well", || {
            let ran = ask(question).ok();
            let is_well = ran
                .as_ref()
                .is_some_and(|ran| ran.code == Some(0) && ran.out.contains(part));
            last = ran;
            async move { is_well.then_some(()) }
        });
        let answered = answered.await;
        answered.with_context(|| format!("{question:?}: {last:?}\n{}", replica.log()))?;
        let json = ask(&[question, &["--output", "json"]].concat())?.success()?;
        let rows: Vec<Value> = serde_json::from_str(&json)?;
        ensure!(!rows.is_empty(), "{question:?}");
    }

    // Nothing has passed yet, and that much it says.
    let quiet: [(&[&str], &str); 3] = [
        (
            &["top", "--once", "--interval", "1"],
            "nobody talks to anybody",
        ),
        (&["graph"], "digraph mesh {"),
        (&["apis"], "no requests were seen"),
    ];
    for (question, expected) in quiet {
        let ran = ask(question)?;
        let is_told = ran.code == Some(0) && ran.out.contains(expected) && ran.err.is_empty();
        ensure!(is_told, "{question:?}: {ran:?}");
    }

    // A sidecar that is gone is said to be, in a sentence.
    drop(sidecar);
    let ran = ask(&["apis"])?;
    let missing = format!("no answer from {shop}/late: ");
    ensure!(ran.code == Some(1) && ran.err.contains(&missing), "{ran:?}");
    let ran = ask(&["proxies"])?;
    ensure!(
        ran.code == Some(1) && ran.out.contains("refused"),
        "{ran:?}"
    );
    let ran = ask(&["identity", "late", "--namespace", &shop])?;
    ensure!(ran.code == Some(2), "{ran:?}");
    let start = format!("ringmail: pod {shop}/late tells nothing: ");
    ensure!(ran.err.starts_with(&start), "{ran:?}");
    mesh.objects.delete_pod(&shop, "late").await?;
    replica.terminate()
}

/// The Deployment is rolled out and its pod runs, as the rest of a cluster would tell.
async fn is_deployed(mesh: &Mesh<'_>) -> anyhow::Result<()> {
    let status = json!({"status": {"replicas": 2, "readyReplicas": 2, "availableReplicas": 2}});
    let patch = "patch deployment ringmail-controller --subresource status --namespace";
    let status = status.to_string();
    let mut arguments: Vec<&str> = patch.split(' ').collect();
    arguments.extend([mesh.namespace.as_str(), "--patch", &status]);
    mesh.plane.kubectl(&arguments, "")?.success()?;
    let mut pod = plain_pod(&mesh.namespace, "controller-1");
    pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "ringmail",
        "app.kubernetes.io/component": "controller"});
    pod["spec"]["serviceAccountName"] = json!(CONTROLLER);
    let pods = Api::<Pod>::namespaced(mesh.plane.client.clone(), &mesh.namespace);
    let pod = serde_json::from_value(pod)?;
    pods.create(&PostParams::default(), &pod).await?;
    let address = CONTROLLER_ADDRESS.to_string();
    let runs = mesh.objects.runs(&mesh.namespace, "controller-1", &address);
    runs.await.map(drop)
}

async fn inject(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let shop = mesh.meshed(&replica, "shop").await?;
    let plain = mesh.objects.own("plain");
    mesh.objects.namespace(&plain, &Value::Null).await?;
    let template = json!({
        "metadata": {"labels": {"app": "shop"}, "annotations": {
            "config.ringmail.io/proxy-cpu-limit": "1500m",
            "config.ringmail.io/skip-outbound-ports": "5432, 6379"}},
        "spec": {"terminationGracePeriodSeconds": 7, "automountServiceAccountToken": false,
            "initContainers": [{"name": "migrate", "image": "registry.example/db"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "containers": [{"name": "app", "image": "registry.example/app", "ports": [{"containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": shop},
        "spec": {"selector": {"matchLabels": {"app": "shop"}}, "template": template}});
    let arguments = ["inject", "--filename", "-", "--trust-domain", "mesh.local"];
    let ran = ringmail(plane, &mesh.namespace, &arguments, &deployment.to_string())?;
    let written = ran.success()?;
    let file: Value = serde_saphyr::from_str(written.trim_start_matches("---\n"))?;

    // Both as the API server completes them; of the file, where no webhook touches it.
    let complete = |template: &Value, namespace: String| {
        let mut pod = template.clone();
        pod["metadata"]["name"] = json!("shop-1");
        pod["metadata"]["namespace"] = json!(namespace);
        // As of the workload in the file.
        pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet",
            "name": "shop", "uid": "7f1c2a34-0000-4000-8000-000000000001", "controller": true}]);
        async move {
            let pods = Api::<Pod>::namespaced(plane.client.clone(), &namespace);
            let dry = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            let made = pods.create(&dry, &serde_json::from_value(pod)?).await?;
            let metadata =
                json!({"labels": made.metadata.labels, "annotations": made.metadata.annotations});
            anyhow::Ok((metadata, json!(made.spec)))
        }
    };
    let of_file = complete(&file["spec"]["template"], plain).await?;
    let of_webhook = complete(&template, shop).await?;
    ensure!(of_file == of_webhook, "{of_file:?}\n{of_webhook:?}");
    let named = json!({"name": "RINGMAIL_OWNER", "value": "shop"});
    let sidecar = &of_file.1["initContainers"][1]["env"];
    let is_named = sidecar.as_array().is_some_and(|env| env.contains(&named));
    ensure!(is_named, "{sidecar}");
    replica.terminate()
}
