//! What is done with an HTTP request or a TLS connection to a service: routes of the Gateway API, merged, ordered and
//! checked, and the choice among them. Pure: the proxy and the command line choose alike.
//!
//! Limits: `MATCHES_MAX` matches and `RULES_MAX` rules a service, `PARTS_MAX` of anything in one of them,
//! `TEXT_BYTES_MAX` a string, `PATTERN_BYTES_MAX` a regular expression and `PATTERNS_MAX` of those a service.

use std::time::Duration;

/// The checked types as they travel.
mod wire;

/// Regular expressions, compiled once.
mod pattern;

/// Names of servers, as TLS has them.
mod server_name;

/// Where a rewritten or redirected request goes.
mod target;

pub use pattern::Pattern;
pub use server_name::ServerName;

/// Matches of one service.
pub const MATCHES_MAX: usize = 2048;
/// Rules of one service.
pub const RULES_MAX: usize = 512;
/// Services that the routes of one service refer to.
pub const BACKENDS_MAX: usize = 256;
/// Headers, parameters, backends, mirrors or edits in one match or rule.
pub const PARTS_MAX: usize = 64;
/// Bytes of a path, header or name.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Regular expressions of one service: each may be 16 KiB when compiled, 4 MiB in all.
pub const PATTERNS_MAX: usize = 256;
/// Bytes of a regular expression.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Fields that only proxies of the mesh set start with this.
pub const MESH_PREFIX: &str = "x-ringmail-";
/// The longest timeout: a day.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Tries beyond the first.
pub const RETRIES_MAX: u32 = 10;
/// Mirrors' shares are of so many requests.
pub const MILLION: u32 = 1_000_000;

/// All rules of one service, and which request is whose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// In order of precedence: the first that holds decides.
    pub matches: Vec<Match>,
    /// What matches point to.
    pub rules: Vec<Rule>,
    /// They are for connections of the application's own TLS: by server name, to backends.
    pub tls: bool,
}

/// When a rule applies: all parts hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    /// Index of the rule.
    pub rule: usize,
    /// Of the path without its query.
    pub path: PathMatch,
    /// Any, if absent.
    pub method: Option<String>,
    /// Headers.
    pub headers: Vec<ValueMatch>,
    /// Query parameters.
    pub query: Vec<ValueMatch>,
    /// Of TLS connections, and then nothing else.
    pub server_name: Option<ServerName>,
}

/// Which paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PathMatch {
    /// Every path.
    #[default]
    Any,
    /// This one.
    Exact(String),
    /// This one and what is below it, by whole elements; without a slash at its end.
    Prefix(String),
    /// Whole paths.
    Regex(Pattern),
}

/// A header or a query parameter that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueMatch {
    /// Its name: headers in any case.
    pub name: String,
    /// One of its values, if there are several.
    pub value: ValuePattern,
}

/// Which values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePattern {
    /// This one.
    Exact(String),
    /// Whole values.
    Regex(Pattern),
}

/// What is done with a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// `namespace/name/index` of the route it is of.
    pub name: String,
    /// What changes in the request.
    pub request: RequestEdits,
    /// What changes in the response.
    pub response: HeaderEdits,
    /// An answer instead of a backend.
    pub redirect: Option<Redirect>,
    /// Where requests go, by weight.
    pub backends: Vec<WeightedBackend>,
    /// Who gets copies.
    pub mirrors: Vec<Mirror>,
    /// How long, and how often.
    pub policy: Policy,
}

/// What a route says about time and about trying again. The default is what holds where none says anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// From the request's head to the end of the response, all tries included.
    pub request_timeout: Option<Duration>,
    /// The same for each single try.
    pub backend_timeout: Option<Duration>,
    /// When an answer is not good enough. Without it no status is retried.
    pub retry: Option<Retry>,
}

/// A share of a rule's requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeightedBackend {
    /// In relation to the sum of all.
    pub weight: u32,
    /// Index among the destination's backends; none if the route names one that does not exist.
    pub backend: Option<usize>,
    /// What changes in its requests.
    pub request: HeaderEdits,
    /// What changes in its responses.
    pub response: HeaderEdits,
}

/// Changes of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestEdits {
    /// Its headers.
    pub headers: HeaderEdits,
    /// Its host.
    pub host: Option<String>,
    /// Its path.
    pub path: Option<PathEdit>,
}

/// Changes of a path; the query stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEdit {
    /// The whole of it.
    Full(String),
    /// The prefix that matched.
    Prefix(String),
}

/// Changes of headers: what `set` and `remove` name goes, then `set` and `add` come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Name and value.
    pub set: Vec<(String, String)>,
    /// Name and value.
    pub add: Vec<(String, String)>,
    /// Names.
    pub remove: Vec<String>,
}

/// An answer that sends the client elsewhere. What is absent is as in the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// Without a port.
    pub host: Option<String>,
    /// With a scheme and no port, the scheme's own.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathEdit>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A copy of some requests, whose answer nobody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Index among the destination's backends.
    pub backend: usize,
    /// So many of a million.
    pub parts_per_million: u32,
}

/// When a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Beyond the first try; none at all when it is 0.
    pub attempts: u32,
    /// Statuses that are retried, whatever the method.
    pub statuses: Vec<u16>,
    /// Before the first retry; doubles with each.
    pub backoff: Duration,
}

/// What is asked of a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// The path and its query: origin form.
    pub target: &'a str,
}

impl Routes {
    /// The rule for a request with such header fields, and the match that found it. None: nothing is meant for it.
    pub fn pick<'a>(
        &self,
        asked: Asked<'_>,
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) -> Option<(&Rule, &Match)> {
        let (path, query) = asked.target.split_once('?').unwrap_or((asked.target, ""));
        let holds = |one: &&Match| {
            one.path.holds(path)
                && one
                    .method
                    .as_ref()
                    .is_none_or(|method| method == asked.method)
                && one
                    .headers
                    .iter()
                    .all(|header| header.is_in_fields(fields.clone()))
                && one
                    .query
                    .iter()
                    .all(|parameter| parameter.is_in_query(query))
        };
        let found = self.matches.iter().find(holds)?;
        Some((self.rules.get(found.rule)?, found))
    }

    /// The rule for a TLS connection to the server of that name, in lower case. None: nothing is meant for it.
    #[must_use]
    pub fn pick_server(&self, name: &str) -> Option<&Rule> {
        let holds = |one: &&Match| one.server_name.as_ref().is_some_and(|own| own.holds(name));
        self.rules.get(self.matches.iter().find(holds)?.rule)
    }
}

impl Match {
    /// How many regular expressions it has.
    #[must_use]
    pub fn patterns(&self) -> usize {
        let values = self.headers.iter().chain(&self.query);
        let values = values.filter(|one| matches!(one.value, ValuePattern::Regex(_)));
        usize::from(matches!(self.path, PathMatch::Regex(_))) + values.count()
    }
}

impl PathMatch {
    fn holds(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(pattern) => pattern.holds(path),
        }
    }
}

impl ValueMatch {
    fn is_in_fields<'a>(&self, fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> bool {
        fields.into_iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(self.name.as_bytes())
                && std::str::from_utf8(value).is_ok_and(|value| self.value.holds(value))
        })
    }

    fn is_in_query(&self, query: &str) -> bool {
        let pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        // Names and values are compared as they mean, not as they are escaped.
        pairs
            .map(|(name, value)| (target::decoded(name), target::decoded(value)))
            .any(|(name, value)| name == self.name && self.value.holds(&value))
    }
}

impl ValuePattern {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Regex(pattern) => pattern.holds(value),
        }
    }
}

impl Rule {
    /// The backend for one request; `random` is evenly spread. None: the rule has no backend that gets anything.
    #[must_use]
    pub fn backend(&self, random: u32) -> Option<&WeightedBackend> {
        let total: u64 = self.backends.iter().map(|one| u64::from(one.weight)).sum();
        let mut place = (u64::from(random) * total) >> 32;
        self.backends.iter().find(|one| {
            let weight = u64::from(one.weight);
            let here = place < weight;
            place = place.saturating_sub(weight);
            here
        })
    }
}

impl HeaderEdits {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Whether a field that was there stays.
    #[must_use]
    pub fn keeps(&self, name: &[u8]) -> bool {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        !self.remove.iter().any(|one| is(one)) && !self.set.iter().any(|(one, _)| is(one))
    }

    /// Fields that come, by name and value.
    pub fn coming(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.set.iter().chain(&self.add);
        all.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl RequestEdits {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.host.is_none() && self.path.is_none()
    }
}

#[cfg(test)]
mod tests;
