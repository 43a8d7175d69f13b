//! What annotations may say (DESIGN section 7). A value that is none of these is refused with the key's name; an
//! unknown key of ours is a warning. The pod's value wins over the namespace's.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use ringmail_proto::Invalid;
use ringmail_proto::workload::{EgressMode, InboundMode};

/// Whether a pod has a sidecar.
pub const INJECT: &str = "ringmail.io/inject";
/// Whether a pod takes plaintext.
pub const INBOUND: &str = "ringmail.io/inbound";
/// What becomes of connections to addresses outside the mesh.
pub const EGRESS: &str = "ringmail.io/egress";
/// Ports that carry opaque bytes, beside the default ones.
pub const OPAQUE_PORTS: &str = "config.ringmail.io/opaque-ports";

/// Bytes of one annotation of ours.
pub const VALUE_BYTES_MAX: usize = 4096;
/// Ports in one list.
pub const PORT_LIST_MAX: usize = 256;

/// Keys for the injector and the proxy, whose values are not read here.
const OTHERS: [&str; 7] = [
    "ringmail.io/injected",
    "config.ringmail.io/skip-inbound-ports",
    "config.ringmail.io/skip-outbound-ports",
    "config.ringmail.io/proxy-cpu-request",
    "config.ringmail.io/proxy-memory-request",
    "config.ringmail.io/log-level",
    "config.ringmail.io/access-log",
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
    /// `config.ringmail.io/opaque-ports`.
    pub opaque_ports: Option<BTreeSet<NonZeroU16>>,
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
                (OPAQUE_PORTS, list) => read.opaque_ports = Some(port_list(key, list)?),
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
            opaque_ports: self.opaque_ports.or_else(|| namespace.opaque_ports.clone()),
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
    let known =
        |key: &str| [INJECT, INBOUND, EGRESS, OPAQUE_PORTS].contains(&key) || OTHERS.contains(&key);
    all.into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .filter(move |key| is_ours(key) && !known(key))
}

pub(crate) fn is_ours(key: &str) -> bool {
    key.split_once('/')
        .is_some_and(|(prefix, _)| prefix == "ringmail.io" || prefix.ends_with(".ringmail.io"))
}

/// `25,3306, 4222`; empty for none.
fn port_list(key: &str, list: &str) -> Result<BTreeSet<NonZeroU16>, Invalid> {
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
            (OPAQUE_PORTS, "", true),
            (OPAQUE_PORTS, "25, 3306", true),
            (OPAQUE_PORTS, "25,", false),
            (OPAQUE_PORTS, "0", false),
            (OPAQUE_PORTS, "65536", false),
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
