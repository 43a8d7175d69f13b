//! The mesh that most scenarios need: a client and a server, each with a sidecar, and somebody who listens on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, Load, Outcome, Pace, Reply, Running, fetch};
use ringmail_tests::mesh::{Binaries, Mesh, Service, ServicePort, Settings, Sidecar, Workload};
use ringmail_tests::netns::{Node, Pod};
use ringmail_tests::wait;
use ringmail_tests::wire::Wire;
use serde_json::Value;

/// For anything that should take a moment.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// Part of every payload: it must never be seen on the wire.
pub(crate) const MARKER: &str = "plaintext-marker-7f3a";
/// The service's addresses: port 80 is the server's web app, 7000 its app that speaks first.
pub(crate) const SERVICE_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
pub(crate) const SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0x10);

/// A client and a server in one mesh. Fields are dropped in order: what uses the node before the node's own.
pub(crate) struct Shop<'node> {
    pub(crate) node: &'node Node,
    pub(crate) client_sidecar: Sidecar,
    pub(crate) server_sidecar: Sidecar,
    pub(crate) mesh: Mesh<'node>,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    pub(crate) wire: Wire,
}

/// What a scenario's shop is like.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) client: Workload,
    pub(crate) server: Workload,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            client: Workload::new("shop", "client"),
            server: Workload::new("shop", "server"),
        }
    }
}

/// Opens a shop, plays the scenario in it, and explains a failure with everybody's log.
pub(crate) fn play(
    bed: Bed,
    plan: &Plan,
    scenario: impl FnOnce(&mut Shop<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let node = Node::new(bed)?;
    let mesh = Mesh::start(&node, binaries()?, plan.settings.clone())?;
    let opened = open(&node, &mesh, plan);
    let (client, server, [client_sidecar, server_sidecar], wire) = mesh.explain(opened)?;
    let mut shop = Shop {
        node: &node,
        client_sidecar,
        server_sidecar,
        mesh,
        client,
        server,
        wire,
    };
    let played = scenario(&mut shop);
    shop.mesh.explain(played)
}

type Opened = (Pod, Pod, [Sidecar; 2], Wire);

fn open(node: &Node, mesh: &Mesh<'_>, plan: &Plan) -> anyhow::Result<Opened> {
    let wire = Wire::watch(node, &[MARKER])?;
    let (client, server) = (node.pod("client")?, node.pod("server")?);
    apps::serve_web(&server.namespace, "shop", 8080)?;
    apps::serve_lines(&server.namespace, 7000)?;
    mesh.put_namespace("shop", true)?;
    mesh.put_workload(&client, &plan.client)?;
    mesh.put_workload(&server, &plan.server)?;
    mesh.put_service(&service(), &[(&plan.server, &server)])?;
    let sidecars = [
        mesh.sidecar(&client, &plan.client)?,
        mesh.sidecar(&server, &plan.server)?,
    ];
    Ok((client, server, sidecars, wire))
}

/// The server's service; nobody declares what its ports speak.
pub(crate) fn service() -> Service {
    let port = |name: &str, port, target| ServicePort {
        name: name.to_owned(),
        port,
        target,
        app_protocol: None,
    };
    Service {
        namespace: "shop".to_owned(),
        name: "server".to_owned(),
        cluster_ips: vec![SERVICE_V4.into(), SERVICE_V6.into()],
        ports: vec![port("web", 80, 8080), port("talk", 7000, 7000)],
    }
}

impl Shop<'_> {
    /// A port of the server's own address.
    pub(crate) fn server_at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server.v4.into(), port)
    }

    /// One GET of a new connection, by the client.
    pub(crate) fn get(&self, to: SocketAddr, path: &str) -> anyhow::Result<Reply> {
        get(&self.client, to, path)
    }

    /// Announces another service, and waits until the controller has read it: before, its address is outside the mesh.
    pub(crate) fn announce(
        &self,
        service: &Service,
        backends: &[(&Workload, &Pod)],
    ) -> anyhow::Result<()> {
        let known = || -> anyhow::Result<u64> {
            let page = self.mesh.controller_page("/status")?;
            let status: Value = serde_json::from_slice(&page.body)?;
            status["service_addresses"]
                .as_u64()
                .context("no count of services")
        };
        let before = known()?;
        self.mesh.put_service(service, backends)?;
        wait::until(LIMIT, || known().is_ok_and(|now| now > before))
            .with_context(|| format!("service {} is not read", service.name))
    }

    /// A load of the client's on the service, of which some was answered.
    pub(crate) fn load(&self, client: Client, connections: u32) -> anyhow::Result<Running> {
        let load = Load {
            client,
            connections,
            pace: Pace::Open { per_second: 200 },
        };
        let running = Running::start(&self.client.namespace, load);
        wait::until(LIMIT, || running.exchanges() >= 20).context("no load")?;
        Ok(running)
    }

    /// The load's end; none of it may have failed.
    pub(crate) fn assert_unhurt(&self, load: Running) -> anyhow::Result<Outcome> {
        let outcome = load.finish(&self.client.namespace)?;
        ensure!(outcome.failures() == 0, "{outcome}");
        Ok(outcome)
    }

    /// A figure of the client's proxy.
    pub(crate) fn client_metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.client_sidecar, self.node, name, labels)
    }

    /// A figure of the server's proxy.
    pub(crate) fn server_metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.server_sidecar, self.node, name, labels)
    }

    /// Waits until the client's proxy has refused something for `reason`.
    pub(crate) fn wait_client_refusal(&self, reason: &str) -> anyhow::Result<()> {
        let labels = [("direction", "outbound"), ("reason", reason)];
        wait::until(LIMIT, || self.client_metric(REFUSALS, &labels) > 0.0)
            .with_context(|| format!("no refusal of the client's proxy for {reason}"))
    }

    /// Waits until the server's proxy has refused something for `reason`.
    pub(crate) fn wait_server_refusal(&self, reason: &str) -> anyhow::Result<()> {
        let labels = [("direction", "inbound"), ("reason", reason)];
        wait::until(LIMIT, || self.server_metric(REFUSALS, &labels) > 0.0)
            .with_context(|| format!("no refusal of the server's proxy for {reason}"))
    }

    /// The line of these proxies' audits that has `word` in it, once it is there.
    pub(crate) fn audited(&self, workloads: &[&Workload], word: &str) -> anyhow::Result<Value> {
        let find = || {
            let logs = workloads.iter().map(|one| self.mesh.proxy_log(one));
            let logs: String = logs.map(Result::unwrap_or_default).collect();
            let mut lines = logs.lines().filter(|line| line.contains(word));
            lines.find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                (line["target"] == "ringmail_audit").then_some(line)
            })
        };
        wait::until(LIMIT, || find().is_some())
            .with_context(|| format!("{word} is not in the audit"))?;
        find().context("gone")
    }

    /// Between the pods there was something, all of it was TLS 1.3, and nothing of it readable.
    pub(crate) fn assert_wire_unread(&self) -> anyhow::Result<()> {
        let report = self.wire.report();
        let readable: Vec<_> = report.with_marker().map(ToString::to_string).collect();
        ensure!(
            readable.is_empty(),
            "the marker was on the wire: {readable:?}"
        );
        let (client, server) = (self.client.addresses(), self.server.addresses());
        ensure!(
            report.between(&client, &server).next().is_some(),
            "nothing was on the wire"
        );
        let not_tls = report
            .between(&client, &server)
            .filter(|flow| flow.not_tls.is_some());
        let not_tls: Vec<_> = not_tls.map(ToString::to_string).collect();
        ensure!(not_tls.is_empty(), "not TLS 1.3: {not_tls:?}");
        Ok(())
    }
}

/// Counted by both proxies.
pub(crate) const REFUSALS: &str = "ringmail_refusals_total";

/// The sum of a metric's series that have all these labels; nothing when it cannot be scraped now.
pub(crate) fn metric(sidecar: &Sidecar, node: &Node, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = sidecar.metrics(node).unwrap_or_default();
    let labels: Vec<_> = labels
        .iter()
        .map(|(label, value)| format!("{label}=\"{value}\""))
        .collect();
    let series = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label.as_str()))
    });
    series
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// One GET of a new connection, by whoever.
pub(crate) fn get(pod: &Pod, to: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    let request = Request::get(path)
        .header("host", to.to_string())
        .body(Full::<Bytes>::default())?;
    Ok(pod.namespace.block_on(fetch(to, request))??)
}

/// Why the mesh refused, as it says itself.
pub(crate) fn refusal(reply: &Reply) -> Option<&str> {
    reply.headers.get("x-ringmail-reason")?.to_str().ok()
}

/// The service's web port.
pub(crate) const WEB: SocketAddr = SocketAddr::new(IpAddr::V4(SERVICE_V4), 80);
/// The port of the service's app that speaks first.
pub(crate) const TALK: SocketAddr = SocketAddr::new(IpAddr::V4(SERVICE_V4), 7000);

/// The programs under test, built once.
pub(crate) fn binaries() -> anyhow::Result<&'static Binaries> {
    static BINARIES: OnceLock<Result<Binaries, String>> = OnceLock::new();
    let built = BINARIES.get_or_init(|| Binaries::build().map_err(|error| format!("{error:#}")));
    built.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
}
