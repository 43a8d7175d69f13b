//! The pods: one pair in the mesh, one outside, the same server in both.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::{Binaries, Mesh, Service, ServicePort, Settings, Sidecar, Workload};
use ringmail_tests::netns::{Node, Pod};

use crate::{server, usage};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PORT: u16 = 8080;
/// Certificates are not what is measured.
const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// All pods.
pub(crate) struct Pods<'node> {
    meshed: [Pod; 2],
    direct: [Pod; 2],
    sidecars: [Sidecar; 2],
    _mesh: Mesh<'node>,
}

/// A client and where its server is.
pub(crate) struct Pair<'a> {
    pub(crate) client: &'a Pod,
    pub(crate) address: SocketAddr,
}

impl Pods<'_> {
    /// Makes them, lets `bench` use them, and ends them.
    pub(crate) fn with(
        bed: Bed,
        bench: impl FnOnce(&Pods<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let binaries = Binaries::build()?;
        // Before any pod's thread starts: threads inherit it.
        pin(0, APPS_PROCESSOR)?;
        let node = Node::new(bed)?;
        let settings = Settings {
            leaf_lifetime: LEAF_LIFETIME,
            controller_flags: Vec::new(),
        };
        let mesh = Mesh::start(&node, &binaries, settings)?;
        let meshed = [node.pod("client")?, node.pod("server")?];
        let direct = [node.pod("client-direct")?, node.pod("server-direct")?];
        for pod in [&meshed[1], &direct[1]] {
            server::start(&pod.namespace, PORT)?;
        }
        mesh.put_namespace("shop", true)?;
        let workload = |name| Workload {
            environment: vec![("RINGMAIL_WORKERS".to_owned(), "1".to_owned())],
            ..Workload::new("shop", name)
        };
        let workloads = [workload("client"), workload("server")];
        for (pod, workload) in meshed.iter().zip(&workloads) {
            mesh.put_workload(pod, workload)?;
        }
        let port = ServicePort {
            name: "web".to_owned(),
            port: PORT,
            target: PORT,
            app_protocol: None,
        };
        let service = Service {
            namespace: "shop".to_owned(),
            name: "server".to_owned(),
            cluster_ips: vec![SERVICE.into()],
            ports: vec![port],
        };
        mesh.put_service(&service, &[(&workloads[1], &meshed[1])])?;
        let started = mesh.sidecar(&meshed[0], &workloads[0]);
        let first = mesh.explain(started)?;
        let started = mesh.sidecar(&meshed[1], &workloads[1]);
        let second = mesh.explain(started)?;
        for sidecar in [&first, &second] {
            pin_all(sidecar.process.id(), PROXIES_PROCESSOR)?;
        }
        bench(&Pods {
            meshed,
            direct,
            sidecars: [first, second],
            _mesh: mesh,
        })
    }

    /// The pair with sidecars.
    pub(crate) fn meshed(&self) -> Pair<'_> {
        Pair {
            client: &self.meshed[0],
            address: SocketAddr::new(SERVICE.into(), PORT),
        }
    }

    /// The pair without.
    pub(crate) fn direct(&self) -> Pair<'_> {
        Pair {
            client: &self.direct[0],
            address: SocketAddr::new(IpAddr::V4(self.direct[1].v4), PORT),
        }
    }

    /// Processor time of both proxies so far.
    pub(crate) fn proxies_cpu(&self) -> anyhow::Result<Duration> {
        self.sidecars
            .iter()
            .map(|sidecar| usage::cpu(sidecar.process.id()))
            .sum()
    }

    /// Resident memory of both proxies, in MiB.
    pub(crate) fn proxies_rss(&self) -> anyhow::Result<[f64; 2]> {
        let [client, server] = &self.sidecars;
        Ok([
            usage::rss_mib(client.process.id())?,
            usage::rss_mib(server.process.id())?,
        ])
    }
}

/// Both proxies share one, so that what they cost shows as what they can serve.
const PROXIES_PROCESSOR: usize = 0;
/// Client and server.
const APPS_PROCESSOR: usize = 1;

/// Puts every thread of a process on one processor.
fn pin_all(process: u32, processor: usize) -> anyhow::Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let name = thread?.file_name();
        pin(name.to_string_lossy().parse()?, processor)?;
    }
    Ok(())
}

/// Puts one thread, 0 being this one, on one processor.
fn pin(thread: i32, processor: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    Ok(sched_setaffinity(Pid::from_raw(thread), &set)?)
}
