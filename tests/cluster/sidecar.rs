//! Sidecars that run: real proxies, started as the pod's spec in the API server says, with what a kubelet would put into
//! their volumes. What differs from a node: there is no DNS, so the controller is called by its Service's address; mounted
//! files are in a folder of ours; nothing is captured, since all pods share one network here.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::PostParams;
use ringmail_proto::svid::Svid;
use ringmail_tests::process::Process;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::Test;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::{Mesh, page};
use super::objects::{plain_pod, variables};

pub(crate) const TESTS: &[(&str, Test)] =
    &[("sidecar::an_injected_pod_gets_its_identity", |plane| {
        plane.runtime.block_on(identity(plane))
    })];

/// A port of the pod's.
const OUTBOUND: u16 = 9000;

/// A proxy of a pod.
pub(crate) struct Sidecar {
    status: SocketAddr,
    /// Where the app calls what the proxy was started for, if for anything.
    pub(crate) outbound: SocketAddr,
    process: Process,
}

impl Sidecar {
    /// Makes a pod, which must get a sidecar, and starts that; it is ready then. The pod's address is this proxy's only.
    pub(crate) async fn start(
        mesh: &Mesh<'_>,
        pod: &Value,
        address: IpAddr,
    ) -> anyhow::Result<Self> {
        Self::calling(mesh, pod, address, None).await
    }

    /// The same, and its app calls `callee`.
    pub(crate) async fn calling(
        mesh: &Mesh<'_>,
        pod: &Value,
        address: IpAddr,
        callee: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let read = |path: &str| pod.pointer(path).and_then(Value::as_str);
        let namespace = read("/metadata/namespace").context("a namespace")?;
        let name = read("/metadata/name").context("a name")?;
        let api = Api::<Pod>::namespaced(mesh.plane.client.clone(), namespace);
        api.create(
            &PostParams::default(),
            &serde_json::from_value(pod.clone())?,
        )
        .await?;
        let at = address.to_string();
        let made = mesh.objects.runs(namespace, name, &at).await?;
        let spec = json!(made.spec);
        let all = spec["initContainers"].as_array().context("no sidecar")?;
        let container = all.iter().find(|one| one["name"] == "ringmail-proxy");
        let container = container.context("no sidecar")?;
        ensure!(container["command"] == json!(["/ringmail-proxy"]));

        let folder = mesh.plane.path(&format!("{namespace}-{name}"));
        let mut command = Command::new(&mesh.plane.binaries.proxy);
        let arguments = container["args"].as_array().context("args")?;
        command.args(arguments.iter().filter_map(Value::as_str));
        let mut environment = variables(container, namespace, name);
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let path = mount["mountPath"].as_str().context("a path")?;
            let ours = folder.join(mount["name"].as_str().context("a name")?);
            fs::create_dir_all(&ours)?;
            for (file, content) in mounted(mesh, &made, &spec, &mount["name"]).await? {
                fs::write(ours.join(file), content)?;
            }
            for (_, value) in &mut environment {
                *value = value.replace(path, &ours.display().to_string());
            }
        }
        let service = SocketAddr::new(mesh.service, 15012);
        command
            .envs(environment)
            .env("RINGMAIL_CONTROLLER_ADDRESS", service.to_string())
            .env("RINGMAIL_BIND_ADDRESS", address.to_string())
            .env("RINGMAIL_CAPTURE", "off");
        let outbound = SocketAddr::new(address, OUTBOUND);
        if let Some(callee) = callee {
            command.env(
                "RINGMAIL_OUTBOUND_LISTENERS",
                format!("{outbound}={callee}"),
            );
        }
        let sidecar = Self {
            status: SocketAddr::new(address, 15020),
            outbound,
            process: Process::start(&command, &folder.join("log"))?,
        };
        let ready = eventually("the proxy is ready", || async {
            let page = page(sidecar.status, "/ready").await.ok()?;
            page.starts_with("HTTP/1.1 200").then_some(())
        });
        ready.await.with_context(|| sidecar.process.tail())?;
        Ok(sidecar)
    }

    /// Whom its certificate names.
    async fn identity(&self) -> anyhow::Result<String> {
        let page = page(self.status, "/identity").await?;
        let body = page.split_once("\r\n\r\n").context("a body")?.1;
        let told: Value = serde_json::from_str(body)?;
        let leaf = told["chain"][0].as_str().context("a leaf")?;
        let leaf = CertificateDer::from_pem_slice(leaf.as_bytes())?;
        Ok(Svid::read(&leaf)?.id.to_string())
    }
}

/// What a kubelet puts into a volume of ours.
async fn mounted(
    mesh: &Mesh<'_>,
    pod: &Pod,
    spec: &Value,
    name: &Value,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut volumes = spec["volumes"].as_array().into_iter().flatten();
    let volume = volumes
        .find(|one| one["name"] == *name)
        .context("a volume")?;
    if let Some(token) = volume.pointer("/projected/sources/0/serviceAccountToken") {
        let (audience, path) = (token["audience"].as_str(), token["path"].as_str());
        let content = mesh.objects.token(pod, audience.context("an audience")?);
        return Ok(vec![(path.context("a path")?.into(), content.await?)]);
    }
    let map = volume.pointer("/configMap/name").and_then(Value::as_str);
    let map = map.with_context(|| format!("an unknown volume: {volume}"))?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let maps = Api::<ConfigMap>::namespaced(mesh.plane.client.clone(), namespace);
    // A kubelet waits for it as well.
    let data = eventually("the leader writes the ConfigMap", || async {
        maps.get_opt(map).await.ok()??.data
    });
    Ok(data.await?.into_iter().collect())
}

async fn identity(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.serve("controller-1").await?;
    let shop = mesh.meshed(&replica, "shop").await?;
    mesh.objects.account(&shop, "cart").await?;
    let mut pod = plain_pod(&shop, "cart-1");
    pod["spec"]["serviceAccountName"] = json!("cart");
    let sidecar = Sidecar::start(&mesh, &pod, [10, 244, 1, 1].into()).await;
    let sidecar = sidecar.with_context(|| replica.log())?;
    let identity = sidecar.identity().await?;
    ensure!(
        identity == format!("spiffe://mesh.local/ns/{shop}/sa/cart"),
        "{identity}"
    );
    replica.counts("watch_streams", 1.0).await?;
    drop(sidecar);
    mesh.objects.delete_pod(&shop, "cart-1").await?;
    replica.terminate()
}
