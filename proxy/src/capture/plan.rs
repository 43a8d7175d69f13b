//! What is to be captured, checked: made from simple values once, trusted by everything after.
//!
//! Refuses plans that would send the proxy's own connections back into the proxy, or that exempt every application.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use ringmail_proto::Invalid;

/// The most ports, and the most networks, that one direction may skip: each is a rule that every new connection passes.
pub const SKIPS_MAX: usize = 64;

/// Ports that are never captured on the way in: peers' mutual TLS, and metrics and probes of the proxy.
pub const OWN_INBOUND_PORTS: [u16; 2] = [15008, 15020];

/// What somebody asked for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The proxy runs as this user; nothing else in the pod may.
    pub exempt_uid: Option<u32>,
    /// The proxy marks its sockets with this number (`SO_MARK`), where it cannot have a user of its own.
    pub exempt_mark: Option<u32>,
    /// Where connections of the app go.
    pub outbound_port: u16,
    /// Where connections to the app go.
    pub inbound_port: u16,
    /// Destination ports the app reaches without the proxy.
    pub outbound_skip_ports: Vec<u16>,
    /// Destination networks the app reaches without the proxy.
    pub outbound_skip_networks: Vec<Network>,
    /// Ports of the app that others reach without the proxy, besides [`OWN_INBOUND_PORTS`].
    pub inbound_skip_ports: Vec<u16>,
    /// Source networks that reach the app without the proxy.
    pub inbound_skip_networks: Vec<Network>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            exempt_uid: None,
            exempt_mark: None,
            outbound_port: 15001,
            inbound_port: 15006,
            outbound_skip_ports: Vec::new(),
            outbound_skip_networks: Vec::new(),
            inbound_skip_ports: Vec::new(),
            inbound_skip_networks: Vec::new(),
        }
    }
}

/// What is captured, where it goes, and what is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(super) exempt_uid: Option<u32>,
    pub(super) exempt_mark: Option<u32>,
    pub(super) outbound: Direction,
    pub(super) inbound: Direction,
}

/// One direction of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) port: u16,
    pub(super) skip_ports: BTreeSet<u16>,
    pub(super) skip_networks: BTreeSet<Network>,
}

impl Plan {
    /// Checks settings; the error names the setting.
    pub fn new(settings: Settings) -> Result<Self, Invalid> {
        let Settings {
            exempt_uid,
            exempt_mark,
            outbound_port,
            inbound_port,
            ..
        } = settings;
        if exempt_uid.is_none() && exempt_mark.is_none() {
            return Err(Invalid::new(
                "exempt_uid",
                "is needed when there is no exempt_mark: the proxy would capture itself",
            ));
        }
        if exempt_uid == Some(0) {
            return Err(Invalid::new(
                "exempt_uid",
                "may not be 0: every app that runs as root would go uncaptured",
            ));
        }
        if exempt_mark == Some(0) {
            return Err(Invalid::new(
                "exempt_mark",
                "may not be 0: that is the mark of every socket",
            ));
        }
        if outbound_port == inbound_port {
            return Err(Invalid::new(
                "inbound_port",
                "must differ from outbound_port",
            ));
        }
        let inbound_ports = settings
            .inbound_skip_ports
            .into_iter()
            .chain(OWN_INBOUND_PORTS)
            .collect();
        Ok(Self {
            exempt_uid,
            exempt_mark,
            outbound: Direction::new(
                "outbound",
                outbound_port,
                settings.outbound_skip_ports,
                settings.outbound_skip_networks,
            )?,
            inbound: Direction::new(
                "inbound",
                inbound_port,
                inbound_ports,
                settings.inbound_skip_networks,
            )?,
        })
    }
}

impl Direction {
    fn new(
        name: &str,
        port: u16,
        skip_ports: Vec<u16>,
        skip_networks: Vec<Network>,
    ) -> Result<Self, Invalid> {
        let skip_ports = BTreeSet::from_iter(skip_ports);
        let skip_networks = BTreeSet::from_iter(skip_networks);
        if port == 0 {
            return Err(Invalid::new(format!("{name}_port"), "may not be 0"));
        }
        if skip_ports.contains(&0) {
            return Err(Invalid::new(
                format!("{name}_skip_ports"),
                "may not contain 0",
            ));
        }
        for (list, length) in [
            ("ports", skip_ports.len()),
            ("networks", skip_networks.len()),
        ] {
            if length > SKIPS_MAX {
                let problem = format!("has {length} entries, more than {SKIPS_MAX}");
                return Err(Invalid::new(format!("{name}_skip_{list}"), problem));
            }
        }
        Ok(Self {
            port,
            skip_ports,
            skip_networks,
        })
    }
}

/// An IPv4 or IPv6 network, such as `10.0.0.0/8`; a lone address is a network of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network's first address.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Is `address` in the network? Never for the other IP version.
    pub(super) fn contains(self, address: IpAddr) -> bool {
        let (ours, theirs) = (octets(self.address), octets(address));
        ours.len() == theirs.len()
            && ours
                .iter()
                .zip(theirs)
                .zip(self.mask())
                .all(|((ours, theirs), mask)| *ours == theirs & mask)
    }

    /// The mask, as many bytes as the address has.
    pub(super) fn mask(self) -> Vec<u8> {
        let length = if self.address.is_ipv4() { 4 } else { 16 };
        let ones = u128::MAX
            .checked_shl(128 - u32::from(self.prefix))
            .unwrap_or(0);
        ones.to_be_bytes()[..length].to_vec()
    }
}

impl FromStr for Network {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |problem| Invalid::new("network", format!("{text:?} {problem}"));
        let (address, prefix) = text
            .split_once('/')
            .map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address
            .parse()
            .map_err(|_| refuse("is not an address and a prefix length"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix.map(u8::from_str) {
            None => longest,
            Some(Ok(prefix)) if prefix <= longest => prefix,
            Some(_) => return Err(refuse("has no valid prefix length")),
        };
        let network = Self { address, prefix };
        let bytes = octets(address);
        if bytes
            .iter()
            .zip(network.mask())
            .any(|(byte, mask)| byte & !mask != 0)
        {
            return Err(refuse("has bits set behind its prefix"));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// An address as it travels.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let rows = [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("fd00::/8", Some("fd00::/8")),
            ("::1", Some("::1/128")),
            ("10.0.0.1/8", None),
            ("10.0.0.0/33", None),
            ("fd00::/129", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/-1", None),
            ("host/8", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let shown = text
                .parse::<Network>()
                .ok()
                .map(|network| network.to_string());
            assert_eq!(shown.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn refused_settings() {
        let good = || Settings {
            exempt_uid: Some(1337),
            ..Settings::default()
        };
        let rows = [
            ("", good()),
            (
                "exempt_uid",
                Settings {
                    exempt_uid: None,
                    ..good()
                },
            ),
            (
                "exempt_uid",
                Settings {
                    exempt_uid: Some(0),
                    ..good()
                },
            ),
            (
                "exempt_mark",
                Settings {
                    exempt_mark: Some(0),
                    ..good()
                },
            ),
            (
                "inbound_port",
                Settings {
                    inbound_port: 15001,
                    ..good()
                },
            ),
            (
                "outbound_port",
                Settings {
                    outbound_port: 0,
                    ..good()
                },
            ),
            (
                "inbound_skip_ports",
                Settings {
                    inbound_skip_ports: vec![0],
                    ..good()
                },
            ),
            (
                "outbound_skip_ports",
                Settings {
                    outbound_skip_ports: (1..=65).collect(),
                    ..good()
                },
            ),
        ];
        for (field, settings) in rows {
            let refused = Plan::new(settings)
                .err()
                .map(|invalid| invalid.field)
                .unwrap_or_default();
            assert_eq!(refused, field);
        }
    }
}
