//! What a proxy knows of its own pod. At most 256 declared ports and 64 probes.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use crate::identity::WorkloadName;
use crate::{Invalid, pb};

/// Ports with a declared protocol.
pub const PORTS_MAX: usize = 256;
/// Probes of one pod.
pub const PROBES_MAX: usize = 64;
/// Bytes of a probe's path.
pub const PROBE_PATH_BYTES_MAX: usize = 2048;
/// Bytes of a zone's name: it is the value of a label.
pub const ZONE_BYTES_MAX: usize = 63;

/// What a port speaks, as far as somebody said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Nobody said: the first bytes tell.
    Detect,
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Bytes.
    Tcp,
}

/// Whether plaintext may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundMode {
    /// Only mutual TLS.
    Strict,
    /// Plaintext too, without an identity.
    Permissive,
}

/// What becomes of connections to addresses outside the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EgressMode {
    /// They leave as they are.
    Allow,
    /// They leave as they are, logged and counted.
    Audit,
    /// They are refused.
    Deny,
}

/// A probe the kubelet makes in plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The app's port.
    pub port: NonZeroU16,
    /// The path of an HTTP GET; none for a probe that only connects.
    pub path: Option<String>,
}

/// A proxy's own pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: WorkloadName,
    /// Its Kubernetes service account.
    pub service_account: String,
    /// Whether plaintext may come in.
    pub inbound_mode: InboundMode,
    /// Declared protocols by port.
    pub ports: BTreeMap<NonZeroU16, Protocol>,
    /// Plaintext probes to let through.
    pub probes: Vec<Probe>,
    /// What becomes of connections to addresses outside the mesh.
    pub egress_mode: EgressMode,
    /// Where it runs (`topology.kubernetes.io/zone`), if anybody said so.
    pub zone: Option<Box<str>>,
}

impl Workload {
    /// What `port` was declared to speak.
    #[must_use]
    pub fn protocol(&self, port: u16) -> Protocol {
        NonZeroU16::new(port)
            .and_then(|port| self.ports.get(&port).copied())
            .unwrap_or(Protocol::Detect)
    }
}

impl TryFrom<pb::Workload> for Workload {
    type Error = Invalid;

    fn try_from(wire: pb::Workload) -> Result<Self, Invalid> {
        let inbound_mode = match wire.inbound_mode() {
            pb::InboundMode::Strict => InboundMode::Strict,
            pb::InboundMode::Permissive => InboundMode::Permissive,
            pb::InboundMode::Unspecified => {
                return Err(Invalid::new(
                    "inbound_mode",
                    "is unspecified, or one this version does not know",
                ));
            }
        };
        let egress_mode = match wire.egress_mode() {
            pb::EgressMode::Allow => EgressMode::Allow,
            pb::EgressMode::Audit => EgressMode::Audit,
            pb::EgressMode::Deny => EgressMode::Deny,
            pb::EgressMode::Unspecified => {
                return Err(Invalid::new(
                    "egress_mode",
                    "is unspecified, or one this version does not know",
                ));
            }
        };
        if wire.ports.len() > PORTS_MAX {
            return Err(Invalid::new("ports", "are more than 256"));
        }
        if wire.probes.len() > PROBES_MAX {
            return Err(Invalid::new("probes", "are more than 64"));
        }
        let name = wire
            .workload
            .ok_or_else(|| Invalid::new("workload", "is missing"))?;
        let declared = |one: pb::PortProtocol| {
            Ok((
                port("ports.port", one.port)?,
                protocol("ports.protocol", one.protocol)?,
            ))
        };
        Ok(Self {
            name: name.try_into().map_err(|e: Invalid| e.inside("workload"))?,
            service_account: wire.service_account,
            inbound_mode,
            egress_mode,
            ports: wire
                .ports
                .into_iter()
                .map(declared)
                .collect::<Result<_, Invalid>>()?,
            probes: wire
                .probes
                .into_iter()
                .map(Probe::try_from)
                .collect::<Result<_, _>>()?,
            zone: zone("zone", wire.zone)?,
        })
    }
}

impl From<&Workload> for pb::Workload {
    fn from(checked: &Workload) -> Self {
        let inbound_mode = match checked.inbound_mode {
            InboundMode::Strict => pb::InboundMode::Strict,
            InboundMode::Permissive => pb::InboundMode::Permissive,
        };
        let egress_mode = match checked.egress_mode {
            EgressMode::Allow => pb::EgressMode::Allow,
            EgressMode::Audit => pb::EgressMode::Audit,
            EgressMode::Deny => pb::EgressMode::Deny,
        };
        let declared = |(port, protocol): (&NonZeroU16, &Protocol)| pb::PortProtocol {
            port: port.get().into(),
            protocol: pb::Protocol::from(*protocol).into(),
        };
        let probe = |probe: &Probe| pb::Probe {
            port: probe.port.get().into(),
            path: probe.path.clone().unwrap_or_default(),
        };
        Self {
            workload: Some((&checked.name).into()),
            service_account: checked.service_account.clone(),
            inbound_mode: inbound_mode.into(),
            egress_mode: egress_mode.into(),
            ports: checked.ports.iter().map(declared).collect(),
            probes: checked.probes.iter().map(probe).collect(),
            zone: checked.zone.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

impl TryFrom<pb::Probe> for Probe {
    type Error = Invalid;

    fn try_from(wire: pb::Probe) -> Result<Self, Invalid> {
        if wire.path.len() > PROBE_PATH_BYTES_MAX {
            return Err(Invalid::new("probes.path", "is longer than 2048 bytes"));
        }
        if !wire.path.is_empty() && !wire.path.starts_with('/') {
            return Err(Invalid::new("probes.path", "does not begin with a slash"));
        }
        let path = (!wire.path.is_empty()).then_some(wire.path);
        Ok(Self {
            port: port("probes.port", wire.port)?,
            path,
        })
    }
}

impl From<Protocol> for pb::Protocol {
    fn from(checked: Protocol) -> Self {
        match checked {
            Protocol::Detect => Self::Unspecified,
            Protocol::Http1 => Self::Http1,
            Protocol::Http2 => Self::Http2,
            Protocol::Tcp => Self::Tcp,
        }
    }
}

/// A protocol this version does not know is refused, not detected: it may mean a rule we cannot follow.
pub(crate) fn protocol(field: &str, wire: i32) -> Result<Protocol, Invalid> {
    match pb::Protocol::try_from(wire) {
        Ok(pb::Protocol::Unspecified) => Ok(Protocol::Detect),
        Ok(pb::Protocol::Http1) => Ok(Protocol::Http1),
        Ok(pb::Protocol::Http2) => Ok(Protocol::Http2),
        Ok(pb::Protocol::Tcp) => Ok(Protocol::Tcp),
        Err(_) => Err(Invalid::new(
            field,
            format!("{wire} is none this version knows"),
        )),
    }
}

/// None when it is empty.
pub(crate) fn zone(field: &str, wire: String) -> Result<Option<Box<str>>, Invalid> {
    if wire.len() > ZONE_BYTES_MAX {
        return Err(Invalid::new(field, "is longer than 63 bytes"));
    }
    Ok((!wire.is_empty()).then(|| wire.into()))
}

pub(crate) fn port(field: &str, wire: u32) -> Result<NonZeroU16, Invalid> {
    u16::try_from(wire)
        .ok()
        .and_then(NonZeroU16::new)
        .ok_or_else(|| Invalid::new(field, format!("{wire} is not between 1 and 65535")))
}
