//! Rolling restarts of everything under load, and nobody notices: pods with their apps and proxies, one after the other,
//! and the controller. `RINGMAIL_ROLLOUTS=20 cargo test --release --test scenarios rollouts` is the full length, at the
//! full rate.

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ringmail_tests::apps::WebApp;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, Load, Pace, Running};
use ringmail_tests::mesh::{Sidecar, Workload};
use ringmail_tests::netns::Pod;
use ringmail_tests::wait;

use crate::Scenario;
use crate::shop::{LIMIT, MARKER, Plan, Shop, get, play, service};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[("rollouts::nobody_notices", nobody_notices)];

/// How often everything is restarted, where nobody says otherwise.
const ROLLOUTS: u32 = 2;
/// Requests a second of all loads together; what a debug build can do, else what a mesh should bear.
const PER_SECOND: u32 = if cfg!(debug_assertions) { 300 } else { 2000 };
/// Where the apps of this scenario listen: they can be stopped.
const PORT: u16 = 8081;
/// The service's web port, on which they are.
const WEB: std::net::SocketAddr = crate::shop::WEB;

/// A pod that comes and goes. Its proxy is told to end once its app is gone, as a native sidecar is.
struct Replica<'a> {
    workload: &'a Workload,
    pod: &'a Pod,
    running: Option<(WebApp, Sidecar)>,
}

impl Replica<'_> {
    fn start(&mut self, shop: &Shop<'_>) -> anyhow::Result<()> {
        let app = WebApp::start(&self.pod.namespace, &self.workload.name, PORT)?;
        let sidecar = shop.mesh.sidecar(self.pod, self.workload)?;
        self.running = Some((app, sidecar));
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let (app, mut sidecar) = self.running.take().context("it runs")?;
        app.stop(&self.pod.namespace)?;
        sidecar.process.signal(Signal::SIGTERM)?;
        let status = sidecar.process.wait(LIMIT)?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

fn nobody_notices(bed: Bed) -> anyhow::Result<()> {
    let rollouts = match std::env::var("RINGMAIL_ROLLOUTS") {
        Ok(text) => text.parse().context("RINGMAIL_ROLLOUTS is no number")?,
        Err(_) => ROLLOUTS,
    };
    play(bed, &Plan::default(), |shop| {
        let pods = [shop.node.pod("first")?, shop.node.pod("second")?];
        let workloads = [
            Workload::new("shop", "first"),
            Workload::new("shop", "second"),
        ];
        let mut replicas = [0, 1].map(|n| Replica {
            workload: &workloads[n],
            pod: &pods[n],
            running: None,
        });
        for replica in &mut replicas {
            shop.mesh.put_workload(replica.pod, replica.workload)?;
            replica.start(shop)?;
        }
        announce(shop, &[&replicas[0], &replicas[1]])?;
        wait::until(LIMIT, || is_served_by(shop, "first")).context("the service is not there")?;
        let loads = loads(shop)?;
        for _ in 0..rollouts {
            let [first, second] = &mut replicas;
            roll(shop, first, second)?;
            roll(shop, second, first)?;
            let controller = shop.mesh.controller().context("it runs")?;
            controller.signal(Signal::SIGTERM)?;
            controller.wait(LIMIT)?;
            shop.mesh.start_controller()?;
        }
        for load in loads {
            shop.assert_unhurt(load)?;
        }
        shop.assert_wire_unread()
    })
}

fn loads(shop: &Shop<'_>) -> anyhow::Result<Vec<Running>> {
    let load = |client, connections, share| {
        let load = Load {
            client,
            connections,
            pace: Pace::Open {
                per_second: PER_SECOND * share / 10,
            },
        };
        Running::start(&shop.client.namespace, load)
    };
    let loads = vec![
        load(Client::Http1(WEB, format!("/{MARKER}")), 16, 6),
        load(Client::Http1(WEB, "/delay/50".to_owned()), 16, 1),
        load(Client::Http2(WEB, format!("/{MARKER}")), 8, 2),
        load(Client::Grpc(WEB, MARKER.to_owned()), 4, 1),
    ];
    wait::until(LIMIT, || loads.iter().all(|load| load.exchanges() > 0)).context("no load")?;
    Ok(loads)
}

/// Replaces a pod while another serves. The endpoints change while it ends, not before.
fn roll(shop: &Shop<'_>, replica: &mut Replica<'_>, other: &Replica<'_>) -> anyhow::Result<()> {
    announce(shop, &[other])?;
    replica.stop()?;
    replica.start(shop)?;
    announce(shop, &[replica, other])?;
    wait::until(LIMIT, || is_served_by(shop, &replica.workload.name))
        .context("it is not asked again")
}

fn announce(shop: &Shop<'_>, replicas: &[&Replica<'_>]) -> anyhow::Result<()> {
    let backends: Vec<_> = replicas.iter().map(|one| (one.workload, one.pod)).collect();
    let mut service = service();
    service.ports[0].target = PORT;
    shop.mesh.put_service(&service, &backends)
}

fn is_served_by(shop: &Shop<'_>, name: &str) -> bool {
    let reply = get(&shop.client, WEB, "/");
    reply.is_ok_and(|reply| reply.headers.get("x-app").is_some_and(|app| app == name))
}
