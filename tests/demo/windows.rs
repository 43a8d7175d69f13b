//! `--keep`: the mesh goes on under its load until Ctrl-C, with its pages on this machine's loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::time::Duration;

use ringmail_tests::bed::Exemption;
use ringmail_tests::mesh::{CONTROLLER_METRICS, PROXY_ADMIN_PORT};
use ringmail_tests::netns::Namespace;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::figures::ADMIN;
use crate::stage::{Stage, cart_addresses};
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
