//! Who plays: `front` calls `cart` (HTTP and gRPC) and `mail` (a server that speaks first), all three meshed. The
//! `intruder` is not, and nor are two pods with the same apps, to compare with.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use ringmail_tests::apps;
use ringmail_tests::mesh::{
    Binaries, Mesh, Service, ServicePort, Settings, Sidecar, TRUST_DOMAIN, Workload,
};
use ringmail_tests::netns::{Node, Pod};
use ringmail_tests::wire::Wire;
use serde::Deserialize;

use crate::interrupt::Interrupt;
use crate::tell::Teller;

/// Part of every payload of every app: it must never be seen between meshed pods.
pub(crate) const MARKER: &str = "plain-text-marker-5d1c";

/// Proxies renew at about half of it.
pub(crate) const LEAF_LIFETIME: Duration = Duration::from_secs(12);

/// For the controller to read what it was given.
const LIMIT: Duration = Duration::from_secs(5);
/// The namespace of the meshed pods.
const NAMESPACE: &str = "shop";
/// What the web app and the mail app listen on.
pub(crate) const WEB_PORT: u16 = 8080;
pub(crate) const MAIL_PORT: u16 = 2525;

/// A pod with a sidecar.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) sidecar: Sidecar,
    pub(crate) pod: Pod,
    pub(crate) workload: Workload,
}

impl Member {
    /// Who it must be.
    pub(crate) fn spiffe_id(&self) -> String {
        let Workload {
            namespace,
            service_account,
            ..
        } = &self.workload;
        format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{service_account}")
    }
}

/// Everything that runs. Fields are dropped in order: what uses the node before the node's own.
#[derive(Debug)]
pub(crate) struct Stage<'node> {
    pub(crate) front: Member,
    pub(crate) cart: Member,
    pub(crate) mail: Member,
    pub(crate) mesh: Mesh<'node>,
    pub(crate) intruder: Pod,
    /// The same apps without a mesh: a client's pod and a server's.
    pub(crate) bare: [Pod; 2],
    pub(crate) wire: Wire,
    pub(crate) node: &'node Node,
    pub(crate) interrupt: Interrupt,
    pub(crate) teller: &'node Teller,
}

impl<'node> Stage<'node> {
    /// Starts the controller, the pods, their apps and their proxies, which are ready when this returns.
    pub(crate) fn open(
        node: &'node Node,
        binaries: &Binaries,
        interrupt: Interrupt,
        teller: &'node Teller,
    ) -> anyhow::Result<Self> {
        let wire = Wire::watch(node, &[MARKER])?;
        let settings = Settings {
            leaf_lifetime: LEAF_LIFETIME,
            ..Settings::default()
        };
        let mut mesh =
            Mesh::start(node, binaries, settings).context("the controller did not start")?;
        let process = mesh.controller().map_or(0, |controller| controller.id());
        teller.say(format_args!(
            "controller (process {process}); certificates live {} s",
            LEAF_LIFETIME.as_secs()
        ));
        let played = members(node, &mesh, &interrupt, teller);
        let [front, cart, mail] = mesh.explain(played)?;
        let bare = [node.pod("bare-front")?, node.pod("bare-cart")?];
        apps::serve_web(&bare[1].namespace, "cart", WEB_PORT)?;
        apps::serve_lines(&bare[1].namespace, MAIL_PORT)?;
        let intruder = node.pod("intruder")?;
        teller.say(format_args!("{:9} {} not meshed", "intruder", intruder.v4));
        Ok(Self {
            front,
            cart,
            mail,
            mesh,
            intruder,
            bare,
            wire,
            node,
            interrupt,
            teller,
        })
    }

    /// The meshed pods.
    pub(crate) fn members(&self) -> [&Member; 3] {
        [&self.front, &self.cart, &self.mail]
    }

    /// Every address of a meshed pod.
    pub(crate) fn meshed_addresses(&self) -> Vec<IpAddr> {
        let pods = self.members().map(|member| member.pod.addresses());
        pods.into_iter().flatten().collect()
    }

    /// The ends of everybody's logs.
    pub(crate) fn logs(&self) -> anyhow::Error {
        let failed: anyhow::Result<()> =
            Err(anyhow::anyhow!("not every check held; the logs end:"));
        match self.mesh.explain(failed) {
            Ok(()) => anyhow::anyhow!("no logs"),
            Err(error) => error,
        }
    }
}

/// The addresses of `cart`'s Service, where it is found on port 80.
pub(crate) fn cart_addresses() -> [SocketAddr; 2] {
    service_addresses(CART).map(|ip| SocketAddr::new(ip, 80))
}

/// The addresses of `mail`'s Service, where it is found on port 25.
pub(crate) fn mail_addresses() -> [SocketAddr; 2] {
    service_addresses(MAIL).map(|ip| SocketAddr::new(ip, 25))
}

/// The last part of each Service's addresses.
const CART: u8 = 10;
const MAIL: u8 = 20;

fn service_addresses(last: u8) -> [IpAddr; 2] {
    [
        Ipv4Addr::new(10, 96, 0, last).into(),
        Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, last.into()).into(),
    ]
}

/// The meshed pods: announced, captured, with their proxies ready. Nobody declares what the ports speak.
fn members(
    node: &Node,
    mesh: &Mesh<'_>,
    interrupt: &Interrupt,
    teller: &Teller,
) -> anyhow::Result<[Member; 3]> {
    mesh.put_namespace(NAMESPACE, true)?;
    let member = |name: &str| {
        interrupt.check()?;
        let (pod, workload) = (node.pod(name)?, Workload::new(NAMESPACE, name));
        mesh.put_workload(&pod, &workload)?;
        let sidecar = mesh.sidecar(&pod, &workload)?;
        let process = sidecar.process.id();
        teller.say(format_args!(
            "{name:9} {} captured, proxy ready (process {process})",
            pod.v4
        ));
        anyhow::Ok(Member {
            sidecar,
            pod,
            workload,
        })
    };
    let (front, cart, mail) = (member("front")?, member("cart")?, member("mail")?);
    apps::serve_web(&cart.pod.namespace, "cart", WEB_PORT)?;
    apps::serve_lines(&mail.pod.namespace, MAIL_PORT)?;
    for (server, last, port, target) in [(&cart, CART, 80, WEB_PORT), (&mail, MAIL, 25, MAIL_PORT)]
    {
        let service = Service {
            namespace: NAMESPACE.to_owned(),
            name: server.workload.name.clone(),
            cluster_ips: service_addresses(last).to_vec(),
            ports: vec![ServicePort {
                name: "main".to_owned(),
                port,
                target,
                app_protocol: None,
            }],
        };
        mesh.put_service(&service, &[(&server.workload, &server.pod)])?;
    }
    // Until it has read them, their addresses are nobody's.
    interrupt
        .until(LIMIT, || services_known(mesh).unwrap_or(false))
        .context("the controller does not know the services")?;
    Ok([front, cart, mail])
}

fn services_known(mesh: &Mesh<'_>) -> anyhow::Result<bool> {
    #[derive(Deserialize)]
    struct Status {
        service_addresses: usize,
    }
    let page = mesh.controller_page("/status")?;
    let status: Status = serde_json::from_slice(&page.body)?;
    Ok(status.service_addresses >= cart_addresses().len() + mail_addresses().len())
}
