//! Controllers: real processes in a namespace of their own, as a service account with the rights they ship with.

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use nix::sys::signal::Signal;
use ringmail_tests::process::Process;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::control_plane::{ControlPlane, eventually, free_ports};
use super::objects::Objects;

/// What the chart ships, as long as there is no chart: rights and service account.
const RIGHTS: &str = include_str!("rights.yaml");
/// The controller's trust domain.
pub(crate) const TRUST_DOMAIN: &str = "mesh.local";
/// From SIGTERM to the end.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Meshes so far: each has a namespace of its own.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A namespace with controllers.
pub(crate) struct Mesh<'plane> {
    pub(crate) plane: &'plane ControlPlane,
    pub(crate) objects: Objects,
    pub(crate) namespace: String,
    flags: Vec<String>,
}

/// One controller.
pub(crate) struct Replica {
    pub(crate) pod: String,
    pub(crate) address: SocketAddr,
    pub(crate) webhooks: SocketAddr,
    metrics: SocketAddr,
    process: Process,
}

impl<'plane> Mesh<'plane> {
    /// A namespace with the rights of a controller in it.
    pub(crate) async fn new(plane: &'plane ControlPlane) -> anyhow::Result<Self> {
        let namespace = format!("mesh-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let objects = Objects::new(plane.client.clone(), &namespace);
        objects.namespace(&namespace, &Value::Null).await?;
        objects
            .apply_all(&RIGHTS.replace("RELEASE_NAMESPACE", &namespace))
            .await?;
        let audience = "https://kubernetes.default.svc";
        let token = objects.token_of(&namespace, "ringmail-controller", audience, None);
        let token = token.await?;
        let file = plane.path(&format!("{namespace}.token"));
        fs::write(&file, token)?;
        let config = plane.path(&format!("{namespace}.kubeconfig"));
        fs::write(&config, plane.kubeconfig_of_token(&file))?;
        Ok(Self {
            plane,
            objects,
            namespace,
            flags: Vec::new(),
        })
    }

    /// More flags for each replica.
    pub(crate) fn with_flags(mut self, flags: &[&str]) -> Self {
        self.flags
            .extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Starts a replica; it may not be ready yet.
    pub(crate) fn launch(&self, pod: &str) -> anyhow::Result<Replica> {
        let [listen, webhooks, metrics] =
            free_ports::<3>()?.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let namespace = &self.namespace;
        let mut command = Command::new(&self.plane.binaries.controller);
        command
            .args(["run", "--kubernetes", "--trust-domain", TRUST_DOMAIN])
            .args(["--namespace", namespace, "--pod", pod])
            .args(["--drain-timeout", "2s"])
            .args(["--listen", &listen.to_string()])
            .args(["--webhook-listen", &webhooks.to_string()])
            .args(["--metrics-listen", &metrics.to_string()])
            .args(&self.flags)
            .env(
                "KUBECONFIG",
                self.plane.path(&format!("{namespace}.kubeconfig")),
            );
        let log = self.plane.path(&format!("{namespace}-{pod}.log"));
        Ok(Replica {
            pod: pod.into(),
            address: listen,
            webhooks,
            metrics,
            process: Process::start(&command, &log)?,
        })
    }

    /// Starts a replica and waits until it is ready.
    pub(crate) async fn start(&self, pod: &str) -> anyhow::Result<Replica> {
        let replica = self.launch(pod)?;
        replica.ready().await?;
        Ok(replica)
    }

    /// The PEM of the root that is kept.
    pub(crate) async fn root(&self) -> anyhow::Result<String> {
        let secrets = Api::<Secret>::namespaced(self.plane.client.clone(), &self.namespace);
        let secret = secrets.get("ringmail-root").await?;
        let root = secret.data.and_then(|mut data| data.remove("root.crt"));
        Ok(String::from_utf8(root.context("root.crt")?.0)?)
    }
}

impl Replica {
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let ready = eventually("the controller is ready", || async {
            let page = self.page("/ready").await.ok()?;
            page.starts_with("HTTP/1.1 200").then_some(())
        });
        ready.await.with_context(|| self.log())
    }

    /// A page, head included.
    pub(crate) async fn page(&self, path: &str) -> anyhow::Result<String> {
        let mut socket = TcpStream::connect(self.metrics).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// `/status`.
    pub(crate) async fn status(&self) -> anyhow::Result<Value> {
        let page = self.page("/status").await?;
        let body = page.split_once("\r\n\r\n").context("a body")?.1;
        // Sent in chunks when it is large: the braces are where the object is.
        let (from, to) = (
            body.find('{').context("JSON")?,
            body.rfind('}').context("JSON")?,
        );
        Ok(serde_json::from_str(&body[from..=to])?)
    }

    /// A metric without labels, or with all of them in its name.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<Option<f64>> {
        let page = self.page("/metrics").await?;
        let start = format!("ringmail_controller_{name} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&start));
        Ok(value.map(str::parse).transpose()?)
    }

    /// Waits until `/status` is as `is` wants it.
    pub(crate) async fn shows(
        &self,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let shown = eventually(what, || async { self.status().await.ok().filter(&is) }).await;
        shown.with_context(|| self.log())
    }

    /// Waits until a metric is `wanted`.
    pub(crate) async fn counts(&self, name: &str, wanted: f64) -> anyhow::Result<()> {
        let what = format!("{name} is {wanted}");
        let counted = eventually(&what, || async {
            let value = self.metric(name).await.ok().flatten()?;
            (value >= wanted).then_some(())
        });
        counted.await.with_context(|| self.log())
    }

    /// Its memory.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("VmRSS")?.parse()?)
    }

    /// Tells it to end, and waits for that.
    pub(crate) fn terminate(mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(END_LIMIT)?;
        Ok(())
    }

    /// As a crash does.
    pub(crate) fn kill(self) {
        drop(self.process);
    }

    /// The end of its log.
    pub(crate) fn log(&self) -> String {
        self.process.tail()
    }
}
