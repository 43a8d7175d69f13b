//! Keys that entries are filed under and looked for: a port, something of the caller, and something of the request. Texts
//! are hashed as they grow, so that a path's prefixes cost no more than the path.

use std::hash::Hasher;

use super::super::condition::{Asked, Http, bare, without_port};
use super::super::{Condition, Host, Path, Policy, Template};
use crate::policy;

/// What is literal in a part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing.
    Any,
    /// Of the caller.
    Identity,
    ServiceAccount,
    Namespace,
    /// Of the request.
    Host,
    Path,
    Below,
    /// In place of path and host, for opaque connections: entries that deny and cannot be checked there.
    Opaque,
}

/// How many kinds there are.
const KINDS: usize = 8;

/// A part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) kind: Kind,
    hash: u64,
}

pub(super) const ANY: Part = Part {
    kind: Kind::Any,
    hash: 0,
};
pub(super) const OPAQUE: Part = Part {
    kind: Kind::Opaque,
    hash: 1,
};

/// Which kinds of keys there are: what nothing is filed under need not be looked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shapes {
    /// By whether a port is named, and by the caller's kind: a bit for each kind of the request's.
    leaves: [[u8; KINDS]; 2],
}

impl Shapes {
    pub(super) fn add(&mut self, port: Option<u16>, caller: Kind, leaf: Kind) {
        self.leaves[usize::from(port.is_some())][caller as usize] |= 1 << leaf as u8;
    }

    pub(super) fn has(&self, port: Option<u16>, caller: Kind, leaf: Kind) -> bool {
        self.leaves[usize::from(port.is_some())][caller as usize] & (1 << leaf as u8) != 0
    }

    fn has_caller(&self, caller: Kind) -> bool {
        self.leaves.iter().any(|kinds| kinds[caller as usize] != 0)
    }

    fn has_leaf(&self, leaf: Kind) -> bool {
        let mut all = self.leaves.iter().flatten();
        all.any(|leaves| leaves & (1 << leaf as u8) != 0)
    }

    /// What entries may be filed under for a caller.
    pub(super) fn callers<F>(&self, asked: &Asked<'_, F>) -> [Option<Part>; 4] {
        let identity = asked.caller.identity;
        let of = |kind: Kind| identity.filter(|_| self.has_caller(kind));
        let account = of(Kind::ServiceAccount).map(|id| {
            let mut text = Text::new(Kind::ServiceAccount);
            text.add(id.namespace());
            text.add_element(id.service_account());
            text.part()
        });
        [
            Some(ANY),
            of(Kind::Identity).map(|id| whole(Kind::Identity, id.as_str())),
            account,
            of(Kind::Namespace).map(|id| whole(Kind::Namespace, id.namespace())),
        ]
    }

    /// What entries may be filed under for a request's host and path; `depth` is that of the longest prefix.
    pub(super) fn leaves<F>(
        &self,
        http: &Http<'_, F>,
        depth: usize,
        mut look_up: impl FnMut(Part),
    ) {
        if let Some(host) = http.host.filter(|_| self.has_leaf(Kind::Host)) {
            look_up(whole(Kind::Host, without_port(host)));
        }
        let (exact, below) = (self.has_leaf(Kind::Path), self.has_leaf(Kind::Below));
        if exact {
            look_up(whole(Kind::Path, http.path));
        }
        if below {
            prefixes(http.path, depth, |element| element, &mut look_up);
        }
        if http.path.contains(';') {
            if exact {
                let mut path = Text::new(Kind::Path);
                let elements = http.path.split('/').skip(1);
                elements.for_each(|element| path.add_element(bare(element)));
                look_up(path.part());
            }
            if below {
                prefixes(http.path, depth, bare, &mut look_up);
            }
        }
    }
}

/// The path's prefixes, by whole elements, the empty one first.
fn prefixes(path: &str, depth: usize, read: impl Fn(&str) -> &str, look_up: &mut impl FnMut(Part)) {
    let mut prefix = Text::new(Kind::Below);
    look_up(prefix.part());
    for element in path.split('/').skip(1).take(depth) {
        prefix.add_element(read(element));
        look_up(prefix.part());
    }
}

/// A text as it grows: FNV-1a.
#[derive(Debug, Clone, Copy)]
struct Text {
    kind: Kind,
    hash: u64,
}

impl Text {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            hash: 0xcbf2_9ce4_8422_2325 ^ kind as u64,
        }
    }

    fn add(&mut self, text: &str) {
        for byte in text.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_element(&mut self, element: &str) {
        self.add("/");
        self.add(element);
    }

    fn part(self) -> Part {
        Part {
            kind: self.kind,
            hash: self.hash,
        }
    }
}

fn whole(kind: Kind, text: &str) -> Part {
    let mut whole = Text::new(kind);
    whole.add(text);
    whole.part()
}

/// Parts in order; the mixing is that of Fibonacci hashing.
pub(super) fn key(port: Option<u16>, caller: Part, leaf: Part) -> u64 {
    let mix =
        |key: u64, part: u64| (key.rotate_left(23) ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mix(
        mix(mix(0, port.map_or(0, u64::from)), caller.hash),
        leaf.hash,
    )
}

/// Keys are hashes already.
#[derive(Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key ^ (key >> 32);
    }
}

/// Ports that an entry is filed under.
pub(super) fn ports(policy: &Policy, conditions: &[&Condition]) -> Vec<Option<u16>> {
    let condition = conditions.iter().find_map(|one| match one {
        Condition::Ports(any) => Some(any),
        _ => None,
    });
    let named = condition.unwrap_or(&policy.ports);
    if named.is_empty() && condition.is_none() {
        vec![None]
    } else {
        named.iter().map(|port| Some(port.get())).collect()
    }
}

/// Callers that an entry is filed under.
pub(super) fn callers(conditions: &[&Condition]) -> Vec<Part> {
    let all = |kind: Kind, any: &[String]| any.iter().map(|one| whole(kind, one)).collect();
    let keys = |one: &&Condition| match one {
        Condition::Identities(any) => {
            let exact = any.iter().map(|one| match one {
                policy::Text::Exact(id) => Some(whole(Kind::Identity, id)),
                policy::Text::Prefix(_) => None,
            });
            exact.collect::<Option<Vec<_>>>()
        }
        Condition::ServiceAccounts(any) => Some(all(Kind::ServiceAccount, any)),
        Condition::Namespaces(any) => Some(all(Kind::Namespace, any)),
        _ => None,
    };
    let found = conditions.iter().find_map(keys);
    found.unwrap_or_else(|| vec![ANY])
}

/// Hosts or paths that an entry is filed under.
pub(super) fn leaves(conditions: &[&Condition]) -> Vec<Part> {
    let paths = conditions.iter().find_map(|one| match one {
        Condition::Paths(any) => Some(any.iter().map(of_path).collect()),
        _ => None,
    });
    let hosts = || {
        conditions.iter().find_map(|one| match one {
            Condition::Hosts(any) => any.iter().map(of_host).collect(),
            _ => None,
        })
    };
    paths.or_else(hosts).unwrap_or_else(|| vec![ANY])
}

fn of_path(path: &Path) -> Part {
    match path {
        Path::Exact(exact) => whole(Kind::Path, exact),
        Path::Prefix(prefix) => whole(Kind::Below, prefix),
        Path::Template(template) => {
            let mut text = Text::new(Kind::Below);
            let literal = template.literal();
            literal.for_each(|element| text.add_element(element));
            text.part()
        }
    }
}

fn of_host(host: &Host) -> Option<Part> {
    match host {
        Host::Exact(host) => Some(whole(Kind::Host, host)),
        Host::Below(_) => None,
    }
}

/// Elements of the longest prefix among them.
pub(super) fn depth(conditions: &[&Condition]) -> usize {
    let paths = conditions.iter().filter_map(|one| match one {
        Condition::Paths(any) => Some(any),
        _ => None,
    });
    let elements = paths.flatten().map(|path| match path {
        Path::Exact(_) => 0,
        Path::Prefix(prefix) => prefix.matches('/').count(),
        Path::Template(template) => template.literal().count(),
    });
    elements.max().unwrap_or(0)
}

impl Template {
    /// The elements that are literal, up to the first that is not.
    fn literal(&self) -> impl Iterator<Item = &str> {
        self.elements.iter().map_while(Option::as_deref)
    }
}
