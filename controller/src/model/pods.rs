//! Pods: who is alive, whose address it is, who is meshed.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerPort, Pod};
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use ringmail_proto::workload::{
    EgressMode, InboundMode, PORTS_MAX, Probe, Protocol, Workload, ZONE_BYTES_MAX,
};

use super::probes;
use super::protocol::Declared;
use crate::source::Objects;
use crate::source::annotations::{Annotations, Inject};

/// Addresses of one pod: one of each family, as Kubernetes allows.
const ADDRESSES_MAX: usize = 2;

/// Copied from the node to its pods by Kubernetes.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// One live pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodEntry {
    pub(super) name: WorkloadName,
    /// The cluster's own name for it, used once.
    pub(super) uid: Option<Box<str>>,
    pub(super) service_account: String,
    /// Set when it has a sidecar.
    pub(super) identity: Option<SpiffeId>,
    pub(super) annotations: Annotations,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) ready: bool,
    /// Shares its node's address, which says nothing about the pod.
    host_network: bool,
    /// For two that claim one address: the newer wins.
    created: i64,
    container_ports: Vec<(NonZeroU16, Option<String>)>,
    /// Declared by the services that cover them.
    ports: BTreeMap<NonZeroU16, Protocol>,
    probes: Vec<Probe>,
    /// Of its label; failing that, of a slice that has it.
    zone: Option<Box<str>>,
}

impl PodEntry {
    /// What `port` was declared to speak.
    pub(super) fn protocol(&self, port: NonZeroU16) -> Protocol {
        if let Some(protocol) = self.ports.get(&port)
            && !self.annotations.opaque(port)
        {
            return *protocol;
        }
        Declared {
            opaque: self.annotations.opaque(port),
            name: self.port_name(port),
            ports: [Some(port), None],
            ..Declared::default()
        }
        .protocol()
    }

    /// The number of a container's port of that name.
    pub(super) fn named_port(&self, name: &str) -> Option<NonZeroU16> {
        self.container_ports
            .iter()
            .find(|(_, own)| own.as_deref() == Some(name))
            .map(|(port, _)| *port)
    }

    fn port_name(&self, port: NonZeroU16) -> Option<&str> {
        self.container_ports
            .iter()
            .find(|(own, _)| *own == port)
            .and_then(|(_, name)| name.as_deref())
    }

    /// As its proxy is told.
    pub(super) fn workload(&self, problems: &mut Vec<String>) -> Workload {
        let known = self
            .container_ports
            .iter()
            .map(|(port, _)| *port)
            .chain(self.ports.keys().copied())
            .chain(self.annotations.opaque_ports.iter().flatten().copied());
        let mut ports: BTreeMap<NonZeroU16, Protocol> = known
            .map(|port| (port, self.protocol(port)))
            .filter(|(_, protocol)| *protocol != Protocol::Detect)
            .collect();
        if ports.len() > PORTS_MAX {
            problems.push(format!(
                "pod {} declares more than {PORTS_MAX} ports",
                self.name
            ));
            while ports.len() > PORTS_MAX {
                ports.pop_last();
            }
        }
        Workload {
            name: self.name.clone(),
            service_account: self.service_account.clone(),
            inbound_mode: self.annotations.inbound.unwrap_or(InboundMode::Strict),
            ports,
            probes: self.probes.clone(),
            egress_mode: self.annotations.egress.unwrap_or(EgressMode::Allow),
            zone: self.zone.clone(),
        }
    }
}

/// All live pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    entries: Vec<PodEntry>,
    by_name: HashMap<WorkloadName, usize>,
    by_address: HashMap<IpAddr, usize>,
    /// Made when a service without slices is there.
    by_label: OnceCell<ByLabel>,
}

/// Pods by namespace, key and value of a label.
type ByLabel = HashMap<(Arc<str>, String, String), Vec<usize>>;

fn index(entries: &[PodEntry]) -> ByLabel {
    let mut index = ByLabel::new();
    for (place, pod) in entries.iter().enumerate() {
        for (key, value) in &pod.labels {
            let label = (pod.name.namespace.clone(), key.clone(), value.clone());
            index.entry(label).or_default().push(place);
        }
    }
    index
}

impl Pods {
    /// All of them, the oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &PodEntry> {
        self.entries.iter()
    }

    pub(super) fn named(&self, name: &WorkloadName) -> Option<&PodEntry> {
        self.entries.get(*self.by_name.get(name)?)
    }

    /// The pod that has this address alone.
    pub(super) fn at(&self, address: IpAddr) -> Option<&PodEntry> {
        self.entries.get(*self.by_address.get(&address)?)
    }

    /// Whether the address is this pod's, and no newer pod took it.
    pub(super) fn holds(&self, pod: &PodEntry, address: IpAddr) -> bool {
        if pod.host_network {
            return pod.addresses.contains(&address);
        }
        self.at(address)
            .is_some_and(|holder| holder.name == pod.name)
    }

    /// Pods of a namespace that have all those labels. They are looked for among those that have the rarest one:
    /// a namespace may have thousands of pods and hundreds of services.
    pub(super) fn labelled(
        &self,
        namespace: &Arc<str>,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = &PodEntry> {
        let index = self.by_label.get_or_init(|| index(&self.entries));
        let candidates = labels.iter().map(|(key, value)| {
            let label = (namespace.clone(), key.clone(), value.clone());
            index.get(&label).map_or(&[][..], Vec::as_slice)
        });
        let fewest = candidates.min_by_key(|some| some.len()).unwrap_or_default();
        fewest
            .iter()
            .filter_map(|place| self.entries.get(*place))
            .filter(|pod| {
                let mut all = labels.iter();
                all.all(|(key, value)| pod.labels.get(key) == Some(value))
            })
    }

    /// A service says what a pod's port speaks; the first that says something holds.
    pub(super) fn declare(
        &mut self,
        name: &WorkloadName,
        port: NonZeroU16,
        protocol: Protocol,
    ) -> bool {
        let Some(index) = self.by_name.get(name) else {
            return true;
        };
        let ports = &mut self.entries[*index].ports;
        match ports.get(&port) {
            None | Some(Protocol::Detect) => {
                ports.insert(port, protocol);
                true
            }
            Some(other) => *other == protocol || protocol == Protocol::Detect,
        }
    }

    /// A slice says where a pod runs; the pod itself knows better.
    pub(super) fn locate(&mut self, name: &WorkloadName, zone: &str) {
        if let Some(index) = self.by_name.get(name) {
            let known = &mut self.entries[*index].zone;
            if known.is_none() {
                *known = zone_name(zone);
            }
        }
    }

    pub(super) fn by_address(&self) -> HashMap<IpAddr, usize> {
        self.by_address.clone()
    }

    pub(super) fn into_entries(self) -> Vec<Arc<PodEntry>> {
        self.entries.into_iter().map(Arc::new).collect()
    }
}

pub(super) fn read(
    objects: &Objects,
    trust_domain: &TrustDomain,
    problems: &mut Vec<String>,
) -> Pods {
    let mut namespaces: HashMap<&str, Annotations> = HashMap::new();
    let mut pods = Pods::default();
    for pod in objects.pods() {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let inherited = namespaces.entry(namespace).or_insert_with(|| {
            objects
                .namespace(namespace)
                .and_then(|one| Annotations::read(one.metadata.annotations.as_ref()).ok())
                .unwrap_or_default()
        });
        match entry(pod, namespace, inherited, trust_domain) {
            Ok(Some(entry)) => pods.entries.push(entry),
            Ok(None) => {}
            Err(e) => problems.push(format!(
                "pod {namespace}/{}: {e}",
                pod.metadata.name.as_deref().unwrap_or_default()
            )),
        }
    }
    // The later of two claims to an address replaces the earlier.
    pods.entries
        .sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
    for (index, pod) in pods.entries.iter().enumerate() {
        pods.by_name.insert(pod.name.clone(), index);
        if pod.host_network {
            continue;
        }
        for address in &pod.addresses {
            if let Some(older) = pods.by_address.insert(*address, index) {
                let older = &pods.entries[older].name;
                problems.push(format!(
                    "pods {older} and {} both have address {address}; the newer, {}, has it",
                    pod.name, pod.name
                ));
            }
        }
    }
    pods
}

/// None for a pod that has ended.
fn entry(
    pod: &Pod,
    namespace: &str,
    inherited: &Annotations,
    trust_domain: &TrustDomain,
) -> Result<Option<PodEntry>, ringmail_proto::Invalid> {
    let status = pod.status.clone().unwrap_or_default();
    if let Some("Succeeded" | "Failed") = status.phase.as_deref() {
        return Ok(None);
    }
    let spec = pod.spec.clone().unwrap_or_default();
    let name = WorkloadName::new(namespace, pod.metadata.name.as_deref().unwrap_or_default())?;
    let service_account = match spec.service_account_name.as_deref() {
        None | Some("") => "default",
        Some(account) => account,
    };
    let id = SpiffeId::new(trust_domain, namespace, service_account)?;
    let annotations = Annotations::read(pod.metadata.annotations.as_ref())?.over(inherited);
    let host_network = spec.host_network.unwrap_or_default();
    let meshed = annotations.inject == Some(Inject::Enabled) && !host_network;
    let texts = status
        .pod_ip
        .iter()
        .chain(status.pod_ips.iter().flatten().map(|one| &one.ip));
    let mut addresses = Vec::new();
    for text in texts {
        let address: IpAddr = text
            .parse()
            .map_err(|_| ringmail_proto::Invalid::new("status.podIP", "is no IP address"))?;
        let address = address.to_canonical();
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let container_ports = containers
        .flat_map(|one| one.ports.iter().flatten())
        .filter_map(container_port)
        .collect();
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|one| one.type_ == "Ready");
    Ok(Some(PodEntry {
        name,
        uid: pod.metadata.uid.as_deref().map(Into::into),
        service_account: service_account.into(),
        identity: meshed.then_some(id),
        annotations,
        addresses,
        labels: pod.metadata.labels.clone().unwrap_or_default(),
        // Objects written by hand have no conditions.
        ready: condition.is_none_or(|one| one.status == "True")
            && pod.metadata.deletion_timestamp.is_none(),
        host_network,
        created: pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(0, |time| time.0.as_second()),
        container_ports,
        ports: BTreeMap::new(),
        probes: probes::of(&spec),
        zone: pod
            .metadata
            .labels
            .iter()
            .flatten()
            .find(|(key, _)| *key == ZONE_LABEL)
            .and_then(|(_, zone)| zone_name(zone)),
    }))
}

/// None for what cannot be the value of a label.
pub(super) fn zone_name(text: &str) -> Option<Box<str>> {
    (1..=ZONE_BYTES_MAX)
        .contains(&text.len())
        .then(|| text.into())
}

fn container_port(port: &ContainerPort) -> Option<(NonZeroU16, Option<String>)> {
    let tcp = port
        .protocol
        .as_deref()
        .is_none_or(|protocol| protocol == "TCP");
    let number = u16::try_from(port.container_port)
        .ok()
        .and_then(NonZeroU16::new)?;
    tcp.then(|| (number, port.name.clone()))
}
