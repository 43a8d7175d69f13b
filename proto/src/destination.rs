//! What is behind an address that an app dials. At most 10 000 endpoints a service, each with at most 8 zones; with all
//! that its routes refer to at most `BYTES_MAX` as it travels.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::identity::{SpiffeId, WorkloadName};
use crate::route::{BACKENDS_MAX, Routes, TIMEOUT_MAX};
use crate::workload::{self, Protocol};
use crate::{Invalid, pb};

/// Bytes of one destination as it travels: enough for any service without routes.
pub const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Endpoints of one service.
pub const ENDPOINTS_MAX: usize = 10_000;

/// What an endpoint weighs, unless somebody says otherwise.
pub const WEIGHT_DEFAULT: u32 = 100;
/// The most it can.
pub const WEIGHT_MAX: u32 = 10_000;

/// Hints of one endpoint: as many as Kubernetes allows.
pub const ZONE_HINTS_MAX: usize = 8;

/// One address an app dials, and what answers there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// As dialled.
    pub address: SocketAddr,
    /// What the mesh knows of it.
    pub kind: DestinationKind,
}

/// What the mesh knows of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationKind {
    /// A service, or one pod.
    Service(Service),
    /// Nothing: it leaves as it is.
    External,
}

/// A port of a Kubernetes Service, or of one pod, and who serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The Service's namespace and name, or the pod's.
    pub name: WorkloadName,
    /// The port as dialled.
    pub port: u16,
    /// What it was declared to speak.
    pub protocol: Protocol,
    /// Who serves it now; may be nobody.
    pub endpoints: Vec<Endpoint>,
    /// What is done with HTTP requests; none: they go to the endpoints.
    pub routes: Option<Arc<Routes>>,
    /// What routes refer to by index; these have no routes and no backends of their own.
    pub backends: Vec<Arc<Self>>,
    /// How long callers wait.
    pub timeouts: Timeouts,
}

/// How long callers of a service wait for it, whatever routes say besides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of a request to the head of its response, for each try.
    pub response_head: Option<Duration>,
    /// In which nothing moves either way on a request, a WebSocket or an opaque connection.
    pub idle: Option<Duration>,
}

/// One pod that serves a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod's address and the port its app listens on.
    pub address: SocketAddr,
    /// The pod.
    pub workload: WorkloadName,
    /// The identity its sidecar must prove; none for a pod outside the mesh, which only plaintext reaches.
    pub identity: Option<SpiffeId>,
    /// Zones whose clients should use it (`EndpointSlice` v1, `hints.forZones`); empty without a hint.
    pub zone_hints: Vec<Box<str>>,
    /// How many requests it gets, in relation to the others; with 0 none as long as others get some.
    pub weight: u32,
}

/// The name under which an address is subscribed to: the one text form of it.
#[must_use]
pub fn destination_name(address: SocketAddr) -> String {
    SocketAddr::new(address.ip().to_canonical(), address.port()).to_string()
}

/// The address behind a subscription's name.
///
/// # Errors
/// When it is not the form that [`destination_name`] prints.
pub fn parse_destination_name(name: &str) -> Result<SocketAddr, Invalid> {
    let refuse = || Invalid::new("name", "is not address:port in canonical form");
    let address: SocketAddr = name.parse().map_err(|_| refuse())?;
    if address.port() == 0 || destination_name(address) != name {
        return Err(refuse());
    }
    Ok(address)
}

impl TryFrom<pb::Destination> for Destination {
    type Error = Invalid;

    fn try_from(wire: pb::Destination) -> Result<Self, Invalid> {
        use pb::destination::Kind;
        let address = parse_destination_name(&wire.name)?;
        let kind = match wire.kind {
            Some(Kind::Service(service)) => DestinationKind::Service(
                service
                    .try_into()
                    .map_err(|e: Invalid| e.inside("service"))?,
            ),
            Some(Kind::External(pb::External {})) => DestinationKind::External,
            None => {
                return Err(Invalid::new(
                    "kind",
                    "is missing, or one this version does not know",
                ));
            }
        };
        Ok(Self { address, kind })
    }
}

impl From<&Destination> for pb::Destination {
    fn from(checked: &Destination) -> Self {
        use pb::destination::Kind;
        let kind = match &checked.kind {
            DestinationKind::Service(service) => Kind::Service(service.into()),
            DestinationKind::External => Kind::External(pb::External {}),
        };
        Self {
            name: destination_name(checked.address),
            kind: Some(kind),
        }
    }
}

impl TryFrom<pb::Service> for Service {
    type Error = Invalid;

    fn try_from(wire: pb::Service) -> Result<Self, Invalid> {
        if wire.endpoints.len() > ENDPOINTS_MAX {
            return Err(Invalid::new("endpoints", "are more than 10000"));
        }
        if wire.backends.len() > BACKENDS_MAX {
            return Err(Invalid::new("backends", "are more than 256"));
        }
        let backends: Vec<Arc<Self>> = wire
            .backends
            .into_iter()
            .map(|one| Self::backend(one).map_err(|e| e.inside("backends")))
            .collect::<Result<_, _>>()?;
        let routes = wire.routes.map(|routes| {
            let routes = Routes::from_wire(routes, backends.len());
            routes.map(Arc::new).map_err(|e| e.inside("routes"))
        });
        Ok(Self {
            routes: routes.transpose()?,
            backends,
            name: WorkloadName::new(&wire.namespace, &wire.name)?,
            port: workload::port("port", wire.port)?.get(),
            protocol: workload::protocol("protocol", wire.protocol)?,
            endpoints: wire
                .endpoints
                .into_iter()
                .map(|one| Endpoint::try_from(one).map_err(|e| e.inside("endpoints")))
                .collect::<Result<_, _>>()?,
            timeouts: Timeouts::try_from(wire.timeouts.unwrap_or_default())
                .map_err(|e| e.inside("timeouts"))?,
        })
    }
}

impl Service {
    /// One that a route refers to.
    fn backend(wire: pb::Service) -> Result<Arc<Self>, Invalid> {
        if wire.routes.is_some() || !wire.backends.is_empty() {
            return Err(Invalid::new("routes", "are only for what an app dials"));
        }
        wire.try_into().map(Arc::new)
    }
}

impl From<&Service> for pb::Service {
    fn from(checked: &Service) -> Self {
        Self {
            namespace: checked.name.namespace.to_string(),
            name: checked.name.name.to_string(),
            port: checked.port.into(),
            protocol: pb::Protocol::from(checked.protocol).into(),
            endpoints: checked.endpoints.iter().map(pb::Endpoint::from).collect(),
            routes: checked.routes.as_deref().map(Into::into),
            backends: checked.backends.iter().map(|one| (&**one).into()).collect(),
            timeouts: (checked.timeouts != Timeouts::default()).then(|| checked.timeouts.into()),
        }
    }
}

impl TryFrom<pb::Timeouts> for Timeouts {
    type Error = Invalid;

    fn try_from(wire: pb::Timeouts) -> Result<Self, Invalid> {
        let timeout = |field, milliseconds| {
            let duration = Duration::from_millis(milliseconds);
            if duration > TIMEOUT_MAX {
                return Err(Invalid::new(field, "is longer than a day"));
            }
            Ok(Some(duration).filter(|duration| !duration.is_zero()))
        };
        Ok(Self {
            response_head: timeout("response_head_ms", wire.response_head_ms)?,
            idle: timeout("idle_ms", wire.idle_ms)?,
        })
    }
}

impl From<Timeouts> for pb::Timeouts {
    fn from(checked: Timeouts) -> Self {
        let milliseconds = |timeout: Option<Duration>| {
            let milliseconds = timeout.unwrap_or_default().as_millis();
            u64::try_from(milliseconds).unwrap_or(u64::MAX)
        };
        Self {
            response_head_ms: milliseconds(checked.response_head),
            idle_ms: milliseconds(checked.idle),
        }
    }
}

impl TryFrom<pb::Endpoint> for Endpoint {
    type Error = Invalid;

    fn try_from(wire: pb::Endpoint) -> Result<Self, Invalid> {
        let ip: IpAddr = wire
            .address
            .parse()
            .map_err(|_| Invalid::new("address", "is no IP address"))?;
        let port = workload::port("port", wire.port)?.get();
        let workload = wire
            .workload
            .ok_or_else(|| Invalid::new("workload", "is missing"))?;
        let identity = match wire.spiffe_id.as_str() {
            "" => None,
            text => Some(text.parse()?),
        };
        if wire.zone_hints.len() > ZONE_HINTS_MAX {
            return Err(Invalid::new("zone_hints", "are more than 8"));
        }
        let hints = wire.zone_hints.into_iter();
        let zone_hints = hints
            .map(|hint| {
                workload::zone("zone_hints", hint)?
                    .ok_or_else(|| Invalid::new("zone_hints", "is empty"))
            })
            .collect::<Result<_, _>>()?;
        let weight = wire.weight.unwrap_or(WEIGHT_DEFAULT);
        if weight > WEIGHT_MAX {
            return Err(Invalid::new("weight", "is more than 10000"));
        }
        Ok(Self {
            weight,
            zone_hints,
            address: SocketAddr::new(ip.to_canonical(), port),
            workload: workload
                .try_into()
                .map_err(|e: Invalid| e.inside("workload"))?,
            identity,
        })
    }
}

impl From<&Endpoint> for pb::Endpoint {
    fn from(checked: &Endpoint) -> Self {
        Self {
            address: checked.address.ip().to_string(),
            port: checked.address.port().into(),
            workload: Some((&checked.workload).into()),
            spiffe_id: checked
                .identity
                .as_ref()
                .map(SpiffeId::to_string)
                .unwrap_or_default(),
            zone_hints: checked.zone_hints.iter().map(ToString::to_string).collect(),
            weight: (checked.weight != WEIGHT_DEFAULT).then_some(checked.weight),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX};
    use crate::workload::ZONE_BYTES_MAX;
    use prost::Message;

    #[test]
    fn any_service_without_routes_fits() {
        let name = |bytes| "x".repeat(bytes);
        let workload = pb::WorkloadRef {
            namespace: name(NAMESPACE_BYTES_MAX),
            name: name(NAME_BYTES_MAX),
        };
        let identity = "spiffe:///ns//sa/".len()
            + TRUST_DOMAIN_BYTES_MAX
            + NAMESPACE_BYTES_MAX
            + NAME_BYTES_MAX;
        let largest = pb::Endpoint {
            address: name(39),
            port: u16::MAX.into(),
            workload: Some(workload),
            spiffe_id: name(identity),
            zone_hints: vec![name(ZONE_BYTES_MAX); ZONE_HINTS_MAX],
            weight: Some(WEIGHT_MAX),
        };
        let framed = largest.encoded_len() + 4;
        assert!(framed * ENDPOINTS_MAX + 1024 < BYTES_MAX, "{framed}");
    }
}
