//! Fifty pods with an app and a proxy each, a client's pod, and a controller with their limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use ringmail_tests::mesh::{Binaries, Mesh, Service, ServicePort, Settings, Sidecar, Workload};
use ringmail_tests::netns::{Node, Pod};
use ringmail_tests::wait;

use crate::client::Client;
use crate::server;
use crate::trace::{PODS, RATES};

/// Where every app listens.
const APP_PORT: u16 = 8080;
/// The paths of the limit that is never reached, and of none.
pub(crate) const HOT: &str = "/hot";
pub(crate) const FREE: &str = "/free";
/// The header whose every value has buckets of its own: a run's.
pub(crate) const RUN: &str = "x-run";
/// Certificates are not what is measured.
const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// For all proxies to know what is in force.
const PATIENCE: Duration = Duration::from_secs(30);

/// All of them, ready; proxies end before their pods, and the controller after both.
pub(crate) struct Fleet<'node> {
    pub(crate) client: Client,
    sidecars: Vec<Sidecar>,
    pods: Vec<Pod>,
    mesh: Mesh<'node>,
}

impl<'node> Fleet<'node> {
    pub(crate) fn start(node: &'node Node, binaries: &Binaries) -> anyhow::Result<Self> {
        let settings = Settings {
            leaf_lifetime: LEAF_LIFETIME,
            controller_flags: Vec::new(),
        };
        let mesh = Mesh::start(node, binaries, settings)?;
        mesh.put_namespace("shop", true)?;
        mesh.put("limits", &limits())?;
        let names = (0..PODS).map(|n| format!("server-{n}"));
        let workloads: Vec<_> = names
            .chain(["client".to_owned()])
            .map(|name| Workload::new("shop", &name).set("RINGMAIL_WORKERS", "1"))
            .collect();
        let mut pods = Vec::new();
        for (n, workload) in workloads.iter().enumerate() {
            let pod = node.pod(&workload.name)?;
            mesh.put_workload(&pod, workload)?;
            if n < PODS {
                server::start(&pod.namespace, APP_PORT)?;
                mesh.put_service(&service(n, &workload.name), &[(workload, &pod)])?;
            }
            pods.push(pod);
        }
        let started = pods.iter().zip(&workloads);
        let started = started.map(|(pod, workload)| mesh.start_sidecar(pod, workload));
        let mut sidecars = mesh.explain(started.collect::<anyhow::Result<Vec<_>>>())?;
        let ready = sidecars.iter_mut().try_for_each(|one| one.wait_ready(node));
        mesh.explain(ready)?;
        let client = pods.last().context("there is a client")?;
        let addresses = (0..PODS).map(|n| SocketAddr::new(address(n).into(), APP_PORT));
        let connect = Client::connect(addresses.collect());
        let client = mesh.explain(client.namespace.block_on(connect)?)?;
        let fleet = Self {
            client,
            sidecars,
            pods,
            mesh,
        };
        fleet.mesh.explain(fleet.until_leasing(node))?;
        Ok(fleet)
    }

    /// Waits until every proxy knows the limits and leases: a first request opens its stream.
    fn until_leasing(&self, node: &Node) -> anyhow::Result<()> {
        let is_leasing = |sidecar: &Sidecar| {
            let metrics = sidecar.metrics(node).unwrap_or_default();
            let mut lines = metrics.lines();
            lines.any(|line| line == "ringmail_rate_limit_ledger_up 1")
        };
        let mut why = String::new();
        let all_lease = || {
            let warm = self.client.clone().warm(RATES[0].path);
            if let Ok(Err(error)) | Err(error) = self.block_on(warm) {
                why = format!("{error:#}");
                return false;
            }
            let late = self.sidecars[..PODS]
                .iter()
                .position(|one| !is_leasing(one));
            why = format!("pod {late:?} does not");
            late.is_none()
        };
        let waited = wait::until(PATIENCE, all_lease);
        waited.with_context(|| format!("not every proxy leases: {why}"))
    }

    /// Runs what a client does, in its pod.
    pub(crate) fn block_on<R: Send + 'static>(
        &self,
        work: impl Future<Output = R> + Send + 'static,
    ) -> anyhow::Result<R> {
        let client = self.pods.last().context("there is a client")?;
        client.namespace.block_on(work)
    }
}

/// The address that is dialled and has to be captured: nobody has it.
fn address(n: usize) -> Ipv4Addr {
    let [.., low] = n.to_be_bytes();
    Ipv4Addr::new(10, 96, 1, low + 1)
}

fn service(n: usize, name: &str) -> Service {
    Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        cluster_ips: vec![address(n).into()],
        ports: vec![ServicePort {
            name: "web".to_owned(),
            port: APP_PORT,
            target: APP_PORT,
            app_protocol: None,
        }],
    }
}

/// One limit for each rate and one that is never reached, told apart by path; all by one header.
fn limits() -> String {
    let limit = |path: &str, requests: u32, per: &str, burst: u32| {
        format!(
            "  - {{requests: {requests}, per: {per}, burst: {burst}, key: [{{by: Header, name: {RUN}}}], match: [{{to: {{paths: [{{exact: {path}}}]}}}}]}}\n"
        )
    };
    let rates = RATES
        .iter()
        .map(|one| limit(one.path, one.pace.tokens, one.per, one.pace.burst));
    let all: String = rates
        .chain([limit(HOT, 1_000_000, "second", 1_000_000)])
        .collect();
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: bench, namespace: shop}}\nspec:\n  targetRefs: [{{kind: Namespace}}]\n  limits:\n{all}"
    )
}
