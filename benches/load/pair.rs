//! Two pods with the same server in one of them, and what carries the load between them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmail_tests::mesh::{Mesh, Sidecar};
use ringmail_tests::netns::{Node, Pod};
use ringmail_tests::process::Process;
use tempfile::TempDir;

use crate::{processor, server, usage};

/// The name of the pair without proxies.
pub(crate) const NOTHING: &str = "nothing";
/// Where the server listens, whatever it is asked.
pub(crate) const APP_PORT: u16 = 8080;
/// The address that is dialled and has to be captured: nobody has it.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// What proxies see. Those that cannot tell have a port for each.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Bytes,
}

/// The proxies, which end when this is dropped.
pub(crate) enum Proxies<'node> {
    None,
    Peers {
        processes: [Process; 2],
        /// What they were configured with.
        _directory: TempDir,
    },
    Sidecars {
        sidecars: [Sidecar; 2],
        _mesh: Box<Mesh<'node>>,
    },
}

/// Two pods, and what is between them.
pub(crate) struct Pair<'node> {
    /// For people, with the version.
    pub(crate) name: String,
    /// Before the pods, so that they end first.
    pub(crate) proxies: Proxies<'node>,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
}

/// Pods for a pair, the server running.
pub(crate) fn pods(node: &Node, name: &str) -> anyhow::Result<[Pod; 2]> {
    let pods = [
        node.pod(&format!("client-{name}"))?,
        node.pod(&format!("server-{name}"))?,
    ];
    server::start(&pods[1].namespace, APP_PORT)?;
    Ok(pods)
}

impl Pair<'_> {
    /// Without proxies.
    pub(crate) fn direct(node: &Node) -> anyhow::Result<Self> {
        let [client, server] = pods(node, NOTHING)?;
        Ok(Self {
            name: NOTHING.to_owned(),
            proxies: Proxies::None,
            client,
            server,
        })
    }

    /// What the client dials.
    pub(crate) fn address(&self, protocol: Protocol) -> SocketAddr {
        let peers_port = match protocol {
            Protocol::Http1 => 8080,
            Protocol::Http2 => 8082,
            Protocol::Bytes => 9000,
        };
        match &self.proxies {
            Proxies::None => SocketAddr::new(IpAddr::V4(self.server.v4), APP_PORT),
            Proxies::Peers { .. } => SocketAddr::new(SERVICE.into(), peers_port),
            Proxies::Sidecars { .. } => SocketAddr::new(SERVICE.into(), APP_PORT),
        }
    }

    /// Processes of the proxies: the client's, then the server's.
    fn processes(&self) -> Vec<u32> {
        match &self.proxies {
            Proxies::None => Vec::new(),
            Proxies::Peers { processes, .. } => processes.iter().map(Process::id).collect(),
            Proxies::Sidecars { sidecars, .. } => {
                sidecars.iter().map(|one| one.process.id()).collect()
            }
        }
    }

    /// Keeps the proxies to the processor that is theirs.
    pub(crate) fn pin(&self) -> anyhow::Result<()> {
        let mut processes = self.processes().into_iter();
        processes.try_for_each(|process| processor::pin_all(process, processor::MEASURED))
    }

    /// Processor time of both proxies so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        self.processes().into_iter().map(processor::cpu).sum()
    }

    /// Resident memory of each proxy in MiB, now and at its highest.
    pub(crate) fn memory(&self) -> anyhow::Result<Vec<usage::Memory>> {
        self.processes().into_iter().map(usage::memory).collect()
    }
}
