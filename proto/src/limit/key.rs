//! Which limits a request is for, which of their buckets, and how many tokens it costs. Without an allocation but for the
//! key's, which its caller keeps.

use std::io::Write;
use std::net::IpAddr;

use super::{Counts, Direction, KEY_BYTES_MAX, KeyPart, Limit, Terms};
use crate::policy::condition::{Benefit, without_port};
use crate::policy::{Asked, Condition, Effort, Http, Path, claim_of};

/// Between the values of a key. No value holds it.
const BETWEEN: u8 = 0;

/// The key of all that are too long.
const TOO_LONG: &[u8] = b"\0\0";

/// The key of all that are more than a worker keeps apart.
pub const OVERFLOW: &[u8] = b"\0overflow";

/// What a key says, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said<'a> {
    /// A value for each part.
    Values(Vec<&'a [u8]>),
    /// It is that of all that are too long.
    TooLong,
    /// It is that of all that are too many.
    TooMany,
    /// It is no key of these parts.
    Unknown,
}

impl Limit {
    /// Whether it is for what goes that way, to such a port.
    #[must_use]
    pub fn is_for(&self, direction: Direction, port: u16) -> bool {
        let is_for_port = self.ports.is_empty() || self.ports.iter().any(|one| one.get() == port);
        self.direction == direction && is_for_port
    }
}

impl KeyPart {
    /// Whether its values may be what nobody but its sender should know.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        match self {
            Self::Header(_) | Self::Claim(_) => true,
            Self::Identity
            | Self::Namespace
            | Self::ServiceAccount
            | Self::Network { .. }
            | Self::Method
            | Self::Host
            | Self::Paths(_)
            | Self::Route => false,
        }
    }

    /// Whether it can only be told of an HTTP request.
    pub(super) fn needs_http(&self) -> bool {
        match self {
            Self::Identity | Self::Namespace | Self::ServiceAccount | Self::Network { .. } => false,
            Self::Method
            | Self::Host
            | Self::Paths(_)
            | Self::Header(_)
            | Self::Claim(_)
            | Self::Route => true,
        }
    }
}

impl Terms {
    /// Whether all requests of one proxy's app are of one bucket, and cost a token each.
    #[must_use]
    pub fn is_of_caller(&self) -> bool {
        let is_of_request = |part: &KeyPart| part.needs_http();
        self.counts == Counts::Requests
            && !self.pace.is_at_once()
            && self.matches.is_empty()
            && self.cost_header.is_none()
            && !self.key.iter().any(is_of_request)
    }

    /// Whether its buckets are those of another version of it.
    #[must_use]
    pub fn is_same_bucket(&self, other: &Self) -> bool {
        let own = (self.pace, &self.key, self.scope, self.unavailable);
        own == (other.pace, &other.key, other.scope, other.unavailable)
    }

    /// Whether what is asked counts here. Where that cannot be told, it does.
    pub fn holds<'a, F>(&self, asked: &Asked<'a, F>, effort: &Effort) -> bool
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let counted = match asked.http {
            Some(_) => Counts::Requests,
            None => Counts::Connections,
        };
        let mut any = self.matches.iter();
        let all = |all: &Vec<Condition>| {
            all.iter()
                .all(|one| one.holds(asked, Benefit::OfCaution, effort))
        };
        self.counts == counted && (self.matches.is_empty() || any.any(all))
    }

    /// Writes the name of the bucket among this limit's; it is text but for what comes between values. `route` is the one
    /// that a request takes which leaves.
    pub fn write_key<'a, F>(&self, asked: &Asked<'a, F>, route: &str, key: &mut Vec<u8>)
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        key.clear();
        for (n, part) in self.key.iter().enumerate() {
            if n > 0 {
                key.push(BETWEEN);
            }
            match part {
                KeyPart::Route => key.extend_from_slice(route.as_bytes()),
                part => part.write(asked, key),
            }
            if key.len() > KEY_BYTES_MAX {
                key.clear();
                key.extend_from_slice(TOO_LONG);
                return;
            }
        }
    }

    /// What was written.
    #[must_use]
    pub fn read_key<'a>(&self, key: &'a [u8]) -> Said<'a> {
        let values: Vec<_> = match self.key.is_empty() {
            true if key.is_empty() => Vec::new(),
            _ => key.split(|byte| *byte == BETWEEN).collect(),
        };
        match key {
            OVERFLOW => Said::TooMany,
            TOO_LONG => Said::TooLong,
            _ if values.len() == self.key.len() => Said::Values(values),
            _ => Said::Unknown,
        }
    }

    /// Tokens that it costs, as many as there can be at most.
    pub fn cost<'a, F>(&self, asked: &Asked<'a, F>) -> u32
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let said = match (&self.cost_header, &asked.http) {
            (Some(name), Some(http)) => header(http, name),
            _ => None,
        };
        let said = said.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        said.filter(|said| *said > 0)
            .unwrap_or(self.cost)
            .min(self.pace.burst)
    }
}

impl KeyPart {
    fn write<'a, F>(&self, asked: &Asked<'a, F>, key: &mut Vec<u8>)
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let identity = asked.caller.identity;
        let mut text = |text: Option<&str>| key.extend_from_slice(text.unwrap_or("").as_bytes());
        match (self, &asked.http) {
            (Self::Identity, _) => text(identity.map(|id| id.as_str())),
            (Self::Namespace, _) => text(identity.map(|id| id.namespace())),
            (Self::ServiceAccount, _) => {
                text(identity.map(|id| id.namespace()));
                text(identity.map(|_| "/"));
                text(identity.map(|id| id.service_account()));
            }
            (Self::Network { ipv4, ipv6 }, _) => {
                write_network(asked.caller.address, *ipv4, *ipv6, key);
            }
            (Self::Method, Some(http)) => text(Some(http.method)),
            (Self::Host, Some(http)) => text(http.host.map(without_port)),
            (Self::Paths(any), Some(http)) => {
                if let Some(first) = any.iter().find(|path| path.holds(http.path)) {
                    write_path(first, key);
                }
            }
            (Self::Header(name), Some(http)) => {
                key.extend_from_slice(header(http, name).unwrap_or_default());
            }
            (Self::Claim(name), Some(http)) => {
                let claim = http.claims.and_then(|claims| claim_of(claims, name));
                write_claim(claim, key);
            }
            (Self::Route, _) | (_, None) => {}
        }
    }
}

/// As it was written, for people.
fn write_path(path: &Path, key: &mut Vec<u8>) {
    match path {
        Path::Exact(text) => key.extend_from_slice(text.as_bytes()),
        Path::Prefix(text) => key.extend_from_slice(text.as_bytes()),
        // A vector takes everything.
        Path::Template(template) => drop(write!(key, "{template}")),
    }
}

/// The address without the bits behind the prefix: as far as it is text, a network.
fn write_network(address: IpAddr, ipv4: u8, ipv6: u8, key: &mut Vec<u8>) {
    let prefix = match address {
        IpAddr::V4(_) => ipv4,
        IpAddr::V6(_) => ipv6,
    };
    if let Ok(network) = ipnet::IpNet::new(address, prefix) {
        // A vector takes everything.
        let _ = write!(key, "{}", network.trunc());
    }
}

/// A text as it is; what is none, as JSON.
fn write_claim(claim: Option<&serde_json::Value>, key: &mut Vec<u8>) {
    match claim {
        None => {}
        Some(serde_json::Value::String(text)) => {
            key.extend(
                text.bytes()
                    .map(|byte| if byte == BETWEEN { b' ' } else { byte }),
            );
        }
        // JSON escapes what comes between.
        Some(other) => {
            let _ = serde_json::to_writer(key, other);
        }
    }
}

fn header<'a, F>(http: &Http<'a, F>, name: &str) -> Option<&'a [u8]>
where
    F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    let mut fields = http.fields.clone().into_iter();
    let found = fields.find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, value)| value)
}
