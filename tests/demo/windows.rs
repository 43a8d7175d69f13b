//! `--keep`: the mesh goes on under its load until Ctrl-C, with its pages on this machine's loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::process::Command;
use std::time::Duration;

use ringmail_tests::bed::Exemption;
use ringmail_tests::mesh::{CONTROLLER_METRICS, PROXY_ADMIN_PORT};
use ringmail_tests::netns::Namespace;
use ringmail_tests::observe::tempo::Tempo;
use ringmail_tests::process::Process;
use ringmail_tests::prometheus;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::figures::ADMIN;
use crate::stage::{Member, Stage, cart_addresses};
use crate::traffic::Traffic;

/// When accepting fails.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longer than anybody looks.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Shows the pages until somebody interrupts.
pub(crate) fn keep(stage: &Stage<'_>) -> anyhow::Result<()> {
    let teller = stage.teller;
    teller.title("Still running, under load; Ctrl-C ends it");
    let controller = window(&stage.node.namespace, CONTROLLER_METRICS)?;
    for path in ["metrics", "status"] {
        teller.say(format_args!(
            "{:10} http://{controller}/{path}",
            "controller"
        ));
    }
    for member in stage.members() {
        let metrics = SocketAddr::new(member.pod.v4.into(), PROXY_ADMIN_PORT);
        let metrics = window(&member.pod.namespace, metrics)?;
        let state = window(&member.pod.namespace, ADMIN)?;
        teller.say(format_args!(
            "{:10} http://{metrics}/metrics  http://{state}/state",
            member.pod.name
        ));
    }
    let prometheus = Prometheus::start(stage)?;
    match &prometheus {
        Some(running) => {
            teller.say(format_args!("{:10} http://{}", "prometheus", running.shown));
            teller.say("  scrapes all of these, with the alerts and recording rules of charts/ringmail/files/rules");
        }
        None => teller.say("no prometheus on the PATH: with one, it would scrape all of these"),
    }
    teller.say("  dashboards: import charts/ringmail/files/dashboards/*.json into a Grafana whose data source it is");
    let user = match stage.node.exemption {
        Exemption::Uid => "",
        Exemption::Mark => "-U --preserve-credentials ",
    };
    teller.say("be an app in the pod `front`:");
    teller.say(format_args!(
        "  nsenter -t {} {user}-n curl -si http://{}/hello",
        stage.front.sidecar.process.id(),
        cart_addresses()[0].ip(),
    ));
    let traffic = Traffic::start(stage);
    // Its end is an interrupt, which is what was asked for.
    let _ = stage.interrupt.pause(FOR_EVER);
    match traffic.finish(stage) {
        Ok(totals) => teller.say(format_args!("meanwhile: {totals}")),
        Err(error) => teller.say(format_args!("meanwhile: {error:#}")),
    }
    Ok(())
}

/// A Prometheus of the mesh's own, where one is installed. Ends with this.
struct Prometheus {
    _process: Process,
    _directory: TempDir,
    shown: SocketAddr,
}

impl Prometheus {
    fn start(stage: &Stage<'_>) -> anyhow::Result<Option<Self>> {
        if Command::new("prometheus")
            .arg("--version")
            .output()
            .is_err()
        {
            return Ok(None);
        }
        let directory = tempfile::Builder::new()
            .prefix("ringmail-demo-")
            .tempdir()?;
        let proxy = |member: &Member| {
            let address = SocketAddr::new(member.pod.v4.into(), PROXY_ADMIN_PORT);
            (member.pod.name.clone(), address)
        };
        let targets: Vec<_> = stage.members().map(proxy).into();
        let controller = ("controller".to_owned(), CONTROLLER_METRICS);
        let targets = [targets, vec![controller]].concat();
        let program = Command::new("prometheus");
        let command = prometheus::configured(program, directory.path(), &targets, Tempo::Shipped)?;
        let log = directory.path().join("log");
        Ok(Some(Self {
            _process: stage.node.namespace.start(&command, 0, &log)?,
            shown: window(&stage.node.namespace, prometheus::ADDRESS)?,
            _directory: directory,
        }))
    }
}

/// A listener on this machine's loopback whose connections go on to `address` from inside a namespace.
fn window(namespace: &Namespace, address: SocketAddr) -> anyhow::Result<SocketAddr> {
    // Made here, it stays in this machine's network; what its connections are joined to is made inside.
    let outside = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    outside.set_nonblocking(true)?;
    let shown = outside.local_addr()?;
    namespace.spawn(async move {
        let Ok(listener) = TcpListener::from_std(outside) else {
            return;
        };
        loop {
            let Ok((mut browser, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            tokio::spawn(async move {
                let mut page = TcpStream::connect(address).await?;
                copy_bidirectional(&mut browser, &mut page).await
            });
        }
    });
    Ok(shown)
}
