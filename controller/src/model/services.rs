//! Services: which ports, which endpoints. Endpoints come from EndpointSlices; where a service has none, from its
//! selector, so that a hand-written directory need not hold slices.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as Declaration, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ringmail_proto::destination::{
    ENDPOINTS_MAX, Endpoint, Service, Timeouts, WEIGHT_DEFAULT, ZONE_HINTS_MAX,
};
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::workload::Protocol;

use super::pods::{PodEntry, Pods, zone_name};
use super::protocol::Declared;
use crate::source::Objects;
use crate::source::annotations::Annotations;

/// The label by which a slice belongs to a service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Ports of one service that are looked at.
const SERVICE_PORTS_MAX: usize = 256;

/// Slices by namespace and service.
type Slices<'a> = HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>;

/// Ports as they are told, without routes: by service, number and whether it is the IPv4 half.
pub(super) type Plain = HashMap<(WorkloadName, u16, bool), Arc<Service>>;

/// A port of a service.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) service: WorkloadName,
    /// The port's own name, if it has one.
    pub(super) name: Option<String>,
    pub(super) number: NonZeroU16,
    /// Where it is dialled; nowhere for a headless service.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) protocol: Protocol,
    timeouts: Timeouts,
    /// Of both families.
    endpoints: Vec<Endpoint>,
}

impl Port {
    /// The pods behind it, and the port of each.
    pub(super) fn served_by(&self) -> impl Iterator<Item = (&WorkloadName, NonZeroU16)> {
        let endpoints = self.endpoints.iter();
        endpoints.filter_map(|one| Some((&one.workload, NonZeroU16::new(one.address.port())?)))
    }

    /// As who dials an address of that family is told, but for routes.
    pub(super) fn served(&self, v4: bool) -> Service {
        let of_family = |one: &&Endpoint| one.address.is_ipv4() == v4;
        Service {
            name: self.service.clone(),
            port: self.number.get(),
            protocol: self.protocol,
            endpoints: self.endpoints.iter().filter(of_family).cloned().collect(),
            routes: None,
            backends: Vec::new(),
            timeouts: self.timeouts,
        }
    }
}

/// One service while it is read.
struct Reading<'a> {
    name: WorkloadName,
    declaration: &'a Declaration,
    annotations: Annotations,
    slices: Option<&'a Vec<&'a EndpointSlice>>,
}

pub(super) fn read(objects: &Objects, pods: &mut Pods, problems: &mut Vec<String>) -> Vec<Port> {
    let slices = slices(objects);
    locate(&slices, pods);
    let mut found = Vec::new();
    for declaration in objects.services() {
        let metadata = &declaration.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        let own = metadata.name.as_deref().unwrap_or_default();
        let Ok(name) = WorkloadName::new(namespace, own) else {
            problems.push(format!("service {namespace}/{own} has no valid name"));
            continue;
        };
        let inherited = objects
            .namespace(namespace)
            .and_then(|one| Annotations::read(one.metadata.annotations.as_ref()).ok())
            .unwrap_or_default();
        let annotations = Annotations::read(metadata.annotations.as_ref()).unwrap_or_default();
        let reading = Reading {
            name,
            declaration,
            annotations: annotations.over(&inherited),
            slices: slices.get(&(namespace, own)),
        };
        found.extend(reading.ports(pods, problems));
    }
    found
}

fn slices(objects: &Objects) -> Slices<'_> {
    let mut slices = Slices::new();
    for slice in objects.endpoint_slices() {
        let metadata = &slice.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        if let Some(service) = metadata
            .labels
            .iter()
            .flatten()
            .find(|one| one.0 == SERVICE_NAME)
        {
            slices
                .entry((namespace, service.1))
                .or_default()
                .push(slice);
        }
    }
    slices
}

/// Pods are told their zones as the slices of their services have them.
fn locate(slices: &Slices<'_>, pods: &mut Pods) {
    for ((namespace, _), slices) in slices {
        let endpoints = slices.iter().flat_map(|one| one.endpoints.iter().flatten());
        for endpoint in endpoints {
            let target = endpoint.target_ref.as_ref();
            let target = target.filter(|one| one.kind.as_deref() == Some("Pod"));
            let name = target.and_then(|one| one.name.as_deref());
            if let (Some(name), Some(zone)) = (name, endpoint.zone.as_deref())
                && let Ok(name) = WorkloadName::new(namespace, name)
            {
                pods.locate(&name, zone);
            }
        }
    }
}

impl Reading<'_> {
    /// Every port of the service; its pods are told what theirs speak.
    fn ports(&self, pods: &mut Pods, problems: &mut Vec<String>) -> Vec<Port> {
        let spec = self.declaration.spec.clone().unwrap_or_default();
        let declared = spec.ports.unwrap_or_default();
        let cluster_ips = spec
            .cluster_ip
            .iter()
            .chain(spec.cluster_ips.iter().flatten());
        let mut addresses: Vec<IpAddr> = cluster_ips
            .filter_map(|text| Some(text.parse::<IpAddr>().ok()?.to_canonical()))
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut found: Vec<Port> = Vec::new();
        for port in declared.iter().take(SERVICE_PORTS_MAX) {
            let number = u16::try_from(port.port).ok().and_then(NonZeroU16::new);
            let Some(number) = number.filter(|_| is_tcp(port.protocol.as_deref())) else {
                continue;
            };
            if found.iter().any(|other| other.number == number) {
                problems.push(format!(
                    "service {} has port {number} twice; the first has it",
                    self.name
                ));
                continue;
            }
            let endpoints = self.endpoints(port, number, pods, problems);
            let protocol = self.protocol(port, number, &endpoints, pods);
            for endpoint in &endpoints {
                let Some(served) = NonZeroU16::new(endpoint.address.port()) else {
                    continue;
                };
                if !pods.declare(&endpoint.workload, served, protocol) {
                    problems.push(format!(
                        "pod {} port {served}: services disagree about its protocol",
                        endpoint.workload
                    ));
                }
            }
            found.push(Port {
                service: self.name.clone(),
                name: port.name.clone(),
                number,
                addresses: addresses.clone(),
                protocol,
                timeouts: self.timeouts(),
                endpoints,
            });
        }
        found
    }

    /// Zero is none: it stands for what the namespace says.
    fn timeouts(&self) -> Timeouts {
        let Timeouts {
            response_head,
            idle,
        } = self.annotations.timeouts;
        Timeouts {
            response_head: response_head.filter(|one| !one.is_zero()),
            idle: idle.filter(|one| !one.is_zero()),
        }
    }

    fn protocol(
        &self,
        port: &ServicePort,
        number: NonZeroU16,
        endpoints: &[Endpoint],
        pods: &Pods,
    ) -> Protocol {
        let served = |one: &Endpoint| {
            let port = NonZeroU16::new(one.address.port())?;
            Some((pods.named(&one.workload)?, port))
        };
        let opaque_at_pod = endpoints
            .iter()
            .filter_map(served)
            .any(|(pod, port)| pod.annotations.opaque(port));
        let first = endpoints
            .first()
            .and_then(|one| NonZeroU16::new(one.address.port()));
        Declared {
            opaque: self.annotations.opaque(number) || opaque_at_pod,
            app_protocol: port.app_protocol.as_deref(),
            name: port.name.as_deref(),
            ports: [Some(number), first],
        }
        .protocol()
    }

    /// In the order of their addresses, so that the same objects make the same service.
    fn endpoints(
        &self,
        port: &ServicePort,
        number: NonZeroU16,
        pods: &Pods,
        problems: &mut Vec<String>,
    ) -> Vec<Endpoint> {
        let mut found: BTreeMap<SocketAddr, Endpoint> = BTreeMap::new();
        let mut add = |endpoint: Endpoint| {
            found.insert(endpoint.address, endpoint);
        };
        match self.slices {
            Some(slices) => {
                for slice in slices {
                    self.add_slice(slice, port, pods, problems, &mut add);
                }
            }
            None => self.add_selected(port, number, pods, &mut add),
        }
        if found.len() > ENDPOINTS_MAX {
            problems.push(format!(
                "service {} has more than {ENDPOINTS_MAX} endpoints; the rest is left out",
                self.name
            ));
        }
        found.into_values().take(ENDPOINTS_MAX).collect()
    }

    fn add_slice(
        &self,
        slice: &EndpointSlice,
        port: &ServicePort,
        pods: &Pods,
        problems: &mut Vec<String>,
        add: &mut impl FnMut(Endpoint),
    ) {
        let name = port.name.as_deref().unwrap_or_default();
        let served = slice.ports.iter().flatten().find(|one| {
            one.name.as_deref().unwrap_or_default() == name && is_tcp(one.protocol.as_deref())
        });
        let served = served
            .and_then(|one| one.port)
            .and_then(|number| u16::try_from(number).ok())
            .and_then(NonZeroU16::new);
        let Some(served) = served else {
            return;
        };
        for endpoint in slice.endpoints.iter().flatten().filter(|one| is_ready(one)) {
            match self.resolve(endpoint, served, pods) {
                Ok(endpoint) => add(endpoint),
                Err(problem) => {
                    let slice = slice.metadata.name.as_deref().unwrap_or_default();
                    let namespace = &self.name.namespace;
                    problems.push(format!("endpoint slice {namespace}/{slice}: {problem}"));
                }
            }
        }
    }

    /// Consumers are to use the first address only (EndpointSlice v1).
    fn resolve(
        &self,
        endpoint: &SliceEndpoint,
        port: NonZeroU16,
        pods: &Pods,
    ) -> Result<Endpoint, String> {
        let text = endpoint
            .addresses
            .first()
            .ok_or("an endpoint has no address")?;
        let address: IpAddr = text
            .parse()
            .map_err(|_| format!("{text} is no IP address"))?;
        let address = address.to_canonical();
        let target = endpoint.target_ref.as_ref();
        let target = target.filter(|one| one.kind.as_deref() == Some("Pod"));
        let pod = match target.and_then(|one| one.name.as_deref()) {
            Some(name) => {
                let name =
                    WorkloadName::new(&self.name.namespace, name).map_err(|e| e.to_string())?;
                let pod = pods
                    .named(&name)
                    .ok_or_else(|| format!("there is no live pod {name}"))?;
                if !pods.holds(pod, address) {
                    return Err(format!("pod {name} does not have address {address}"));
                }
                Some(pod)
            }
            None => pods.at(address),
        };
        let resolved = match pod {
            Some(pod) => of_pod(pod, address, port),
            // A server outside the mesh, under the only name there is for it.
            None => Endpoint {
                address: SocketAddr::new(address, port.get()),
                workload: self.name.clone(),
                identity: None,
                zone_hints: Vec::new(),
                weight: WEIGHT_DEFAULT,
            },
        };
        let hints = endpoint.hints.iter().flat_map(|hints| &hints.for_zones);
        let zones = hints.flatten().filter_map(|zone| zone_name(&zone.name));
        Ok(Endpoint {
            zone_hints: zones.take(ZONE_HINTS_MAX).collect(),
            ..resolved
        })
    }

    fn add_selected(
        &self,
        port: &ServicePort,
        number: NonZeroU16,
        pods: &Pods,
        add: &mut impl FnMut(Endpoint),
    ) {
        let spec = self.declaration.spec.as_ref();
        let Some(selector) = spec.and_then(|spec| spec.selector.as_ref()) else {
            return;
        };
        if selector.is_empty() {
            return;
        }
        let unready_too = spec
            .and_then(|spec| spec.publish_not_ready_addresses)
            .unwrap_or_default();
        let ready = |pod: &&PodEntry| pod.ready || unready_too;
        let selected = pods.labelled(&self.name.namespace, selector);
        for pod in selected.filter(ready) {
            let served = match &port.target_port {
                None => Some(number),
                Some(IntOrString::Int(number)) => {
                    u16::try_from(*number).ok().and_then(NonZeroU16::new)
                }
                Some(IntOrString::String(name)) => pod.named_port(name),
            };
            let held = pod
                .addresses
                .iter()
                .filter(|address| pods.holds(pod, **address));
            for (address, served) in held.zip(std::iter::repeat(served)) {
                if let Some(served) = served {
                    add(of_pod(pod, *address, served));
                }
            }
        }
    }
}

fn of_pod(pod: &PodEntry, address: IpAddr, port: NonZeroU16) -> Endpoint {
    Endpoint {
        address: SocketAddr::new(address, port.get()),
        workload: pod.name.clone(),
        identity: pod.identity.clone(),
        zone_hints: Vec::new(),
        weight: pod.annotations.weight.unwrap_or(WEIGHT_DEFAULT),
    }
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// Absent means ready (EndpointSlice v1).
fn is_ready(endpoint: &SliceEndpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}
