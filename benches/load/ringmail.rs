//! Ringmail's pair: a mesh of two pods and a Service, as its users have it, with policy and metrics on.

use std::time::Duration;

use ringmail_tests::mesh::{Binaries, Mesh, Service, ServicePort, Settings, Workload};
use ringmail_tests::netns::Node;

use crate::pair::{APP_PORT, Pair, Proxies, SERVICE, pods};

pub(crate) const NAME: &str = "Ringmail";

/// Certificates are not what is measured.
const LEAF_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The programs of our own profile, or those in `RINGMAIL_BIN_DIR`.
pub(crate) fn build() -> anyhow::Result<Binaries> {
    Binaries::build()
}

/// A pair that is ready.
pub(crate) fn start<'node>(node: &'node Node, binaries: &Binaries) -> anyhow::Result<Pair<'node>> {
    let settings = Settings {
        leaf_lifetime: LEAF_LIFETIME,
        controller_flags: Vec::new(),
    };
    let mesh = Mesh::start(node, binaries, settings)?;
    let [client, server] = pods(node, "ringmail")?;
    mesh.put_namespace("shop", true)?;
    let workload = |name| Workload {
        environment: vec![("RINGMAIL_WORKERS".to_owned(), "1".to_owned())],
        ..Workload::new("shop", name)
    };
    let workloads = [workload("client"), workload("server")];
    mesh.put_workload(&client, &workloads[0])?;
    mesh.put_workload(&server, &workloads[1])?;
    let port = ServicePort {
        name: "web".to_owned(),
        port: APP_PORT,
        target: APP_PORT,
        app_protocol: None,
    };
    let service = Service {
        namespace: "shop".to_owned(),
        name: "server".to_owned(),
        cluster_ips: vec![SERVICE.into()],
        ports: vec![port],
    };
    mesh.put_service(&service, &[(&workloads[1], &server)])?;
    let started = mesh.sidecar(&client, &workloads[0]);
    let first = mesh.explain(started)?;
    let started = mesh.sidecar(&server, &workloads[1]);
    let second = mesh.explain(started)?;
    let pair = Pair {
        name: NAME.to_owned(),
        proxies: Proxies::Sidecars {
            sidecars: [first, second],
            _mesh: Box::new(mesh),
        },
        client,
        server,
    };
    pair.pin()?;
    Ok(pair)
}
