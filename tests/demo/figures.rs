//! What proxies say of themselves: their metrics, and on their own loopback their state.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context;
use ringmail_tests::mesh;
use ringmail_tests::netns::Pod;
use serde::Deserialize;

/// A proxy's admin listener, in its pod.
pub(crate) const ADMIN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// The certificate in force.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) spiffe_id: String,
    pub(crate) serial: String,
}

#[derive(Deserialize)]
struct State {
    identity: Option<Certificate>,
}

/// Asks the proxy in `pod`.
pub(crate) fn certificate(pod: &Pod) -> anyhow::Result<Certificate> {
    let page = mesh::page(&pod.namespace, ADMIN, "/state")?;
    let state: State = serde_json::from_slice(&page.body)?;
    state
        .identity
        .with_context(|| format!("{} has no certificate", pod.name))
}

/// The sum of a metric's samples that have all of `labels`.
pub(crate) fn sum(metrics: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    let samples = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, have) = series.split_once('{').unwrap_or((series, ""));
        let wanted = found == name && labels.iter().all(|label| have.contains(label.as_str()));
        wanted.then(|| value.parse::<u64>().ok())?
    });
    samples.sum()
}
