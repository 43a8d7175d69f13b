//! What annotations may say (DESIGN section 7). A value that is none of these is refused with the key's name; an
//! unknown key of ours is a warning. The pod's value wins over the namespace's.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ringmail_proto::Invalid;
use ringmail_proto::destination::{Timeouts, WEIGHT_MAX};
use ringmail_proto::policy::Posture;
use ringmail_proto::route::TIMEOUT_MAX;
use ringmail_proto::workload::{EgressMode, InboundMode};

use super::duration;

/// Whether a pod has a sidecar.
pub const INJECT: &str = "ringmail.io/inject";
/// Whether a pod takes plaintext.
pub const INBOUND: &str = "ringmail.io/inbound";
/// What becomes of connections to addresses outside the mesh.
pub const EGRESS: &str = "ringmail.io/egress";
/// What becomes of callers that no policy speaks of.
pub const DEFAULT_POLICY: &str = "ringmail.io/default-policy";
/// Ports that carry opaque bytes, beside the default ones.
pub const OPAQUE_PORTS: &str = "config.ringmail.io/opaque-ports";
/// Of a Service: how long callers wait for the head of a response.
pub const RESPONSE_HEAD_TIMEOUT: &str = "config.ringmail.io/response-head-timeout";
/// Of a Service: in which something has to move on a request or a connection.
pub const IDLE_TIMEOUT: &str = "config.ringmail.io/idle-timeout";
/// Of a pod: how many requests it gets, in relation to others of its services.
pub const WEIGHT: &str = "config.ringmail.io/weight";

/// Bytes of one annotation of ours.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Ports in one list.
pub const PORT_LIST_MAX: usize = 256;

/// Ports on which connections in are left alone.
pub const SKIP_INBOUND_PORTS: &str = "config.ringmail.io/skip-inbound-ports";
/// Ports to which connections are left alone.
pub const SKIP_OUTBOUND_PORTS: &str = "config.ringmail.io/skip-outbound-ports";
/// Networks from which connections are left alone.
pub const SKIP_INBOUND_NETWORKS: &str = "config.ringmail.io/skip-inbound-networks";
/// Networks to which connections are left alone.
pub const SKIP_OUTBOUND_NETWORKS: &str = "config.ringmail.io/skip-outbound-networks";
/// Of the sidecar.
pub const CPU_REQUEST: &str = "config.ringmail.io/proxy-cpu-request";
/// Of the sidecar.
pub const CPU_LIMIT: &str = "config.ringmail.io/proxy-cpu-limit";
/// Of the sidecar.
pub const MEMORY_REQUEST: &str = "config.ringmail.io/proxy-memory-request";
/// Of the sidecar.
pub const MEMORY_LIMIT: &str = "config.ringmail.io/proxy-memory-limit";
/// Of the sidecar.
pub const LOG_LEVEL: &str = "config.ringmail.io/log-level";

/// Of the sidecar.
pub const ACCESS_LOG: &str = "config.ringmail.io/access-log";
/// Of the sidecar.
pub const ACCESS_LOG_SAMPLE: &str = "config.ringmail.io/access-log-sample";
/// Of the sidecar.
pub const ACCESS_LOG_HEADERS: &str = "config.ringmail.io/access-log-headers";
/// Of the sidecar.
pub const AUDIT: &str = "config.ringmail.io/audit";
/// Of the sidecar.
pub const TRACE_SAMPLE: &str = "config.ringmail.io/trace-sample";

/// On a pod with a sidecar: the version it was injected by. On its labels too, to be selected by.
pub const INJECTED: &str = "ringmail.io/injected";

/// On a namespace: its label `ringmail.io/inject` is ours, and goes with the annotation of that name.
pub const LABELLED: &str = "ringmail.io/labelled";

/// Keys whose values are not read here.
const OTHERS: [&str; 16] = [
    INJECTED,
    LABELLED,
    SKIP_INBOUND_PORTS,
    SKIP_OUTBOUND_PORTS,
    SKIP_INBOUND_NETWORKS,
    SKIP_OUTBOUND_NETWORKS,
    CPU_REQUEST,
    CPU_LIMIT,
    MEMORY_REQUEST,
    MEMORY_LIMIT,
    LOG_LEVEL,
    ACCESS_LOG,
    ACCESS_LOG_SAMPLE,
    ACCESS_LOG_HEADERS,
    AUDIT,
    TRACE_SAMPLE,
];

/// What one object's annotations say; none where they are silent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// `ringmail.io/inject`.
    pub inject: Option<Inject>,
    /// `ringmail.io/inbound`.
    pub inbound: Option<InboundMode>,
    /// `ringmail.io/egress`.
    pub egress: Option<EgressMode>,
    /// `ringmail.io/default-policy`.
    pub posture: Option<Posture>,
    /// `config.ringmail.io/opaque-ports`.
    pub opaque_ports: Option<BTreeSet<NonZeroU16>>,
    /// `config.ringmail.io/response-head-timeout` and `config.ringmail.io/idle-timeout`; zero is none, and said.
    pub timeouts: Timeouts,
    /// `config.ringmail.io/weight`.
    pub weight: Option<u32>,
}

/// Whether a pod has a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    /// It has.
    Enabled,
    /// It has none.
    Disabled,
}

impl Annotations {
    /// Reads the annotations of one object.
    ///
    /// # Errors
    /// The first key of ours whose value is none it may have.
    pub fn read(all: Option<&BTreeMap<String, String>>) -> Result<Self, Invalid> {
        let mut read = Self::default();
        for (key, value) in all.into_iter().flatten().filter(|(key, _)| is_ours(key)) {
            if value.len() > VALUE_BYTES_MAX {
                return Err(Invalid::new(key, "is longer than 4096 bytes"));
            }
            match (key.as_str(), value.as_str()) {
                (INJECT, "enabled") => read.inject = Some(Inject::Enabled),
                (INJECT, "disabled") => read.inject = Some(Inject::Disabled),
                (INJECT, _) => return Err(Invalid::new(key, "is neither enabled nor disabled")),
                (INBOUND, "strict") => read.inbound = Some(InboundMode::Strict),
                (INBOUND, "permissive") => read.inbound = Some(InboundMode::Permissive),
                (INBOUND, _) => return Err(Invalid::new(key, "is neither strict nor permissive")),
                (EGRESS, "allow") => read.egress = Some(EgressMode::Allow),
                (EGRESS, "audit") => read.egress = Some(EgressMode::Audit),
                (EGRESS, "deny") => read.egress = Some(EgressMode::Deny),
                (EGRESS, _) => return Err(Invalid::new(key, "is none of allow, audit and deny")),
                (DEFAULT_POLICY, text) => read.posture = Some(posture(key, text)?),
                (OPAQUE_PORTS, list) => read.opaque_ports = Some(port_list(key, list)?),
                (RESPONSE_HEAD_TIMEOUT, text) => {
                    read.timeouts.response_head = timeout(key, text, Duration::from_millis(1))?;
                }
                (IDLE_TIMEOUT, text) => {
                    read.timeouts.idle = timeout(key, text, Duration::from_secs(1))?;
                }
                (WEIGHT, text) => read.weight = Some(weight(key, text)?),
                // The injector's, or unknown: a warning, see `unknown`.
                (_, _) => {}
            }
        }
        Ok(read)
    }

    /// These, and where they are silent those of the namespace.
    #[must_use]
    pub fn over(self, namespace: &Self) -> Self {
        Self {
            inject: self.inject.or(namespace.inject),
            inbound: self.inbound.or(namespace.inbound),
            egress: self.egress.or(namespace.egress),
            posture: self.posture.or(namespace.posture),
            opaque_ports: self.opaque_ports.or_else(|| namespace.opaque_ports.clone()),
            timeouts: Timeouts {
                response_head: self
                    .timeouts
                    .response_head
                    .or(namespace.timeouts.response_head),
                idle: self.timeouts.idle.or(namespace.timeouts.idle),
            },
            weight: self.weight.or(namespace.weight),
        }
    }

    /// Whether `port` is annotated as opaque.
    #[must_use]
    pub fn opaque(&self, port: NonZeroU16) -> bool {
        self.opaque_ports
            .as_ref()
            .is_some_and(|ports| ports.contains(&port))
    }
}

/// Keys of ours that this version does not know.
pub(crate) fn unknown(all: Option<&BTreeMap<String, String>>) -> impl Iterator<Item = &str> {
    let read = [
        INJECT,
        INBOUND,
        EGRESS,
        DEFAULT_POLICY,
        OPAQUE_PORTS,
        RESPONSE_HEAD_TIMEOUT,
        IDLE_TIMEOUT,
        WEIGHT,
    ];
    let known = move |key: &str| read.contains(&key) || OTHERS.contains(&key);
    all.into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .filter(move |key| is_ours(key) && !known(key))
}

pub(crate) fn is_ours(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(prefix, _)| prefix == "ringmail.io" || prefix.ends_with(".ringmail.io"))
}

/// A namespace with those annotations that can be read; and where one that cannot says who may do what, the strictest.
pub(crate) fn cautious(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        annotations: metadata.annotations.map(cautiously),
        ..metadata
    }
}

fn cautiously(written: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let one = |(key, value): (String, String)| {
        let alone = BTreeMap::from([(key.clone(), value.clone())]);
        let strictest = match key.as_str() {
            DEFAULT_POLICY | EGRESS => Some("deny"),
            INBOUND => Some("strict"),
            _ => None,
        };
        match Annotations::read(Some(&alone)) {
            Ok(_) => Some((key, value)),
            Err(_) => strictest.map(|strictest| (key, strictest.to_owned())),
        }
    };
    written.into_iter().filter_map(one).collect()
}

/// `1m30s` (GEP-2257); `0s` for none.
fn timeout(key: &str, text: &str, least: Duration) -> Result<Option<Duration>, Invalid> {
    let milliseconds = duration::milliseconds(text).map_err(|e| Invalid {
        field: key.to_owned(),
        ..e
    })?;
    let timeout = Duration::from_millis(milliseconds);
    if !timeout.is_zero() && !(least..=TIMEOUT_MAX).contains(&timeout) {
        return Err(Invalid::new(
            key,
            format!("is not between {least:?} and 24h"),
        ));
    }
    Ok(Some(timeout))
}

/// One of the four words.
pub(crate) fn posture(key: &str, text: &str) -> Result<Posture, Invalid> {
    match text {
        "deny" => Ok(Posture::Deny),
        "mesh" => Ok(Posture::Mesh),
        "cluster" => Ok(Posture::Cluster),
        "open" => Ok(Posture::Open),
        _ => Err(Invalid::new(key, "is none of deny, mesh, cluster and open")),
    }
}

fn weight(key: &str, text: &str) -> Result<u32, Invalid> {
    let weight = text.parse().ok().filter(|weight| *weight <= WEIGHT_MAX);
    weight.ok_or_else(|| Invalid::new(key, "is no whole number from 0 to 10000"))
}

/// `25,3306, 4222`; empty for none.
pub(crate) fn port_list(key: &str, list: &str) -> Result<BTreeSet<NonZeroU16>, Invalid> {
    if list.trim().is_empty() {
        return Ok(BTreeSet::new());
    }
    let ports: BTreeSet<NonZeroU16> = list
        .split(',')
        .map(|port| {
            port.trim()
                .parse()
                .map_err(|_| Invalid::new(key, "is not a comma-separated list of ports"))
        })
        .collect::<Result<_, _>>()?;
    if ports.len() > PORT_LIST_MAX {
        return Err(Invalid::new(key, "lists more than 256 ports"));
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_refusals_name_the_key() {
        let rows = [
            (INJECT, "enabled", true),
            (INJECT, "disabled", true),
            (INJECT, "Enabled", false),
            (INJECT, "", false),
            (INBOUND, "permissive", true),
            (INBOUND, "open", false),
            (EGRESS, "deny", true),
            (EGRESS, "none", false),
            (DEFAULT_POLICY, "deny", true),
            (DEFAULT_POLICY, "mesh", true),
            (DEFAULT_POLICY, "cluster", true),
            (DEFAULT_POLICY, "open", true),
            (DEFAULT_POLICY, "allow", false),
            (OPAQUE_PORTS, "", true),
            (OPAQUE_PORTS, "25, 3306", true),
            (OPAQUE_PORTS, "25,", false),
            (OPAQUE_PORTS, "0", false),
            (OPAQUE_PORTS, "65536", false),
            (RESPONSE_HEAD_TIMEOUT, "500ms", true),
            (RESPONSE_HEAD_TIMEOUT, "0s", true),
            (RESPONSE_HEAD_TIMEOUT, "5", false),
            (RESPONSE_HEAD_TIMEOUT, "25h", false),
            (IDLE_TIMEOUT, "1h30m", true),
            (IDLE_TIMEOUT, "500ms", false),
            (WEIGHT, "0", true),
            (WEIGHT, "10000", true),
            (WEIGHT, "10001", false),
            (WEIGHT, "-1", false),
            ("ringmail.io/injekt", "enabled", true),
            ("example.com/inject", "anything", true),
        ];
        for (key, value, good) in rows {
            let all = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            match Annotations::read(Some(&all)) {
                Ok(_) => assert!(good, "{key}: {value}"),
                Err(refused) => {
                    assert!(!good, "{key}: {value}");
                    assert_eq!(refused.field, key);
                }
            }
        }
    }

    #[test]
    fn only_unknown_keys_of_ours_are_warned_of() {
        let all: BTreeMap<String, String> = [
            INJECT,
            "ringmail.io/injekt",
            "config.ringmail.io/log-level",
            "config.ringmail.io/opaque-port",
            "notringmail.io/inject",
            "plain",
        ]
        .map(|key| (key.to_owned(), String::new()))
        .into();
        let found: Vec<&str> = unknown(Some(&all)).collect();
        assert_eq!(
            found,
            ["config.ringmail.io/opaque-port", "ringmail.io/injekt"]
        );
    }

    #[test]
    fn the_pod_wins() {
        let pod = Annotations {
            inject: Some(Inject::Disabled),
            ..Annotations::default()
        };
        let namespace = Annotations {
            inject: Some(Inject::Enabled),
            inbound: Some(InboundMode::Permissive),
            ..Annotations::default()
        };
        let both = pod.over(&namespace);
        assert_eq!(both.inject, Some(Inject::Disabled));
        assert_eq!(both.inbound, Some(InboundMode::Permissive));
    }
}
