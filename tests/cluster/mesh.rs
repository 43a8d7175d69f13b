//! The mesh: the chart, installed by Helm in a namespace of its own, and controllers as its Deployment says, but that they
//! are processes of this machine. They have the service account and the rights that ship, so a right that is missing
//! fails a test.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::Api;
use kube::api::PostParams;
use nix::sys::signal::Signal;
use ringmail_tests::process::Process;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::control_plane::{ControlPlane, eventually, free_ports};
use super::objects::{Objects, plain_pod, variables};

/// The controller's trust domain.
pub(crate) const TRUST_DOMAIN: &str = "mesh.local";
/// The release, and what all of its objects are called.
pub(crate) const RELEASE: &str = "ringmail";
pub(crate) const CONTROLLER: &str = "ringmail-controller";
/// Where the controller that serves has its metrics: its pod's address.
pub(crate) const CONTROLLER_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 0, 2));
/// From SIGTERM to the end.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Meshes so far: each has a namespace of its own.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A release in a namespace. Dropping it uninstalls: the names of its objects are the same in each.
pub(crate) struct Mesh<'plane> {
    pub(crate) plane: &'plane ControlPlane,
    pub(crate) objects: Objects,
    pub(crate) namespace: String,
    /// The address of the controller's Service.
    pub(crate) service: IpAddr,
    deployment: Value,
}

/// One controller.
pub(crate) struct Replica {
    pub(crate) pod: String,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    process: Process,
}

/// Where a controller listens.
struct Listeners {
    grpc: SocketAddr,
    webhooks: SocketAddr,
    metrics: SocketAddr,
}

impl<'plane> Mesh<'plane> {
    /// The chart as it is.
    pub(crate) async fn new(plane: &'plane ControlPlane) -> anyhow::Result<Self> {
        Self::with(plane, &[]).await
    }

    /// The chart with some values (`key=value`).
    pub(crate) async fn with(plane: &'plane ControlPlane, values: &[&str]) -> anyhow::Result<Self> {
        let namespace = format!("mesh-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let objects = Objects::new(plane.client.clone(), &namespace);
        let mut mesh = Self {
            plane,
            objects,
            namespace,
            service: CONTROLLER_ADDRESS,
            deployment: Value::Null,
        };
        mesh.objects
            .namespace(&mesh.namespace, &Value::Null)
            .await?;
        // The definitions of the mesh before are kept, and were of a release in another namespace.
        mesh.release(&["install", "--take-ownership"], values)?;
        let deployments = Api::<Deployment>::namespaced(plane.client.clone(), &mesh.namespace);
        mesh.deployment = json!(deployments.get(CONTROLLER).await?);
        mesh.find().await?;
        Ok(mesh)
    }

    /// What is new with each install: the address of the Service, and the account that controllers have their tokens of.
    pub(crate) async fn find(&mut self) -> anyhow::Result<()> {
        let services = Api::<Service>::namespaced(self.plane.client.clone(), &self.namespace);
        let spec = services.get(CONTROLLER).await?.spec.unwrap_or_default();
        self.service = spec
            .cluster_ip
            .context("a Service has an address")?
            .parse()?;
        self.kubeconfig().await
    }

    /// `helm install` or `helm upgrade`.
    pub(crate) fn helm(&self, verb: &str, values: &[&str]) -> anyhow::Result<()> {
        self.release(&[verb], values)
    }

    fn release(&self, verb: &[&str], values: &[&str]) -> anyhow::Result<()> {
        let domain = format!("trustDomain={TRUST_DOMAIN}");
        let mut arguments = verb.to_vec();
        arguments.extend([RELEASE, "CHART", "--namespace", &self.namespace]);
        for value in [domain.as_str(), "controller.drainTimeout=2s"]
            .iter()
            .chain(values)
        {
            arguments.extend(["--set", value]);
        }
        self.plane.helm(&arguments).map(drop)
    }

    /// `helm uninstall`; nothing happens when it is done.
    pub(crate) fn uninstall(&self) -> anyhow::Result<()> {
        let arguments = [
            "uninstall",
            RELEASE,
            "--ignore-not-found",
            "--namespace",
            &self.namespace,
        ];
        self.plane.helm(&arguments).map(drop)
    }

    /// A controller's way to the API server: a token of the chart's service account, and nothing else.
    async fn kubeconfig(&self) -> anyhow::Result<()> {
        let (plane, namespace) = (self.plane, &self.namespace);
        let audience = "https://kubernetes.default.svc";
        let token = self.objects.token_of(namespace, CONTROLLER, audience, None);
        let file = plane.path(&format!("{namespace}.token"));
        fs::write(&file, token.await?)?;
        let config = plane.path(&format!("{namespace}.kubeconfig"));
        fs::write(&config, plane.kubeconfig_of_token(&file))?;
        Ok(())
    }

    /// Starts a replica at ports of its own; it may not be ready yet.
    pub(crate) fn launch(&self, pod: &str) -> anyhow::Result<Replica> {
        let [grpc, webhooks, metrics] =
            free_ports::<3>()?.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let listeners = Listeners {
            grpc,
            webhooks,
            metrics,
        };
        self.launch_at(pod, &listeners)
    }

    /// Starts the replica that the Service leads to, since it listens at the Service's own address, and waits until it
    /// is ready. The API server dials that address for webhooks, as it does everywhere.
    pub(crate) async fn serve(&self, pod: &str) -> anyhow::Result<Replica> {
        let listeners = Listeners {
            grpc: SocketAddr::new(self.service, 15012),
            webhooks: SocketAddr::new(self.service, 443),
            metrics: SocketAddr::new(CONTROLLER_ADDRESS, 15014),
        };
        let replica = self.launch_at(pod, &listeners)?;
        replica.ready().await?;
        Ok(replica)
    }

    fn launch_at(&self, pod: &str, listeners: &Listeners) -> anyhow::Result<Replica> {
        let namespace = &self.namespace;
        let container = &self.deployment["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().context("args")?;
        let mut command = Command::new(&self.plane.binaries.controller);
        command
            .args(arguments.iter().filter_map(Value::as_str))
            .envs(variables(container, namespace, pod))
            .env("RINGMAIL_LISTEN", listeners.grpc.to_string())
            .env("RINGMAIL_WEBHOOK_LISTEN", listeners.webhooks.to_string())
            .env("RINGMAIL_METRICS_LISTEN", listeners.metrics.to_string())
            .env(
                "KUBECONFIG",
                self.plane.path(&format!("{namespace}.kubeconfig")),
            );
        let log = self.plane.path(&format!("{namespace}-{pod}.log"));
        Ok(Replica {
            pod: pod.into(),
            address: listeners.grpc,
            metrics: listeners.metrics,
            process: Process::start(&command, &log)?,
        })
    }

    /// Starts a replica and waits until it is ready.
    pub(crate) async fn start(&self, pod: &str) -> anyhow::Result<Replica> {
        let replica = self.launch(pod)?;
        replica.ready().await?;
        Ok(replica)
    }

    /// A namespace of this test, annotated as users do it, in which pods get a sidecar from now on.
    pub(crate) async fn meshed(&self, replica: &Replica, name: &str) -> anyhow::Result<String> {
        let (name, enabled) = (
            self.objects.own(name),
            json!({"ringmail.io/inject": "enabled"}),
        );
        self.objects.namespace(&name, &enabled).await?;
        let pods = Api::<Pod>::namespaced(self.plane.client.clone(), &name);
        let probe: Pod = serde_json::from_value(plain_pod(&name, "probe"))?;
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        // The label has to be there, caBundle too, and the API server takes a moment to read both.
        let last = Mutex::new(None);
        let injected = eventually("pods get a sidecar", || async {
            let made = pods.create(&dry, &probe).await;
            let sidecars = made.as_ref().ok().and_then(|pod| pod.spec.as_ref());
            let sidecars = sidecars.and_then(|spec| spec.init_containers.as_ref());
            let is_there = sidecars.is_some_and(|all| !all.is_empty());
            *last.lock().ok()? = Some(made);
            is_there.then_some(())
        });
        let injected = injected.await;
        injected.with_context(|| format!("{last:?}\n{}", replica.log()))?;
        Ok(name)
    }

    /// The PEM of the root that is kept.
    pub(crate) async fn root(&self) -> anyhow::Result<String> {
        let secrets = Api::<Secret>::namespaced(self.plane.client.clone(), &self.namespace);
        let secret = secrets.get("ringmail-root").await?;
        let root = secret.data.and_then(|mut data| data.remove("root.crt"));
        Ok(String::from_utf8(root.context("root.crt")?.0)?)
    }
}

impl Drop for Mesh<'_> {
    fn drop(&mut self) {
        // A test that failed tells more than this would.
        let _ = self.uninstall();
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
        page(self.metrics, path).await
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

/// A page that somebody serves, head included.
pub(crate) async fn page(from: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect(from).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
