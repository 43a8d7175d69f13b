//! Does a condition hold of what is asked? Without an allocation.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::effort::Effort;
use super::{Action, Condition, Host, Path, Template, Text};
use crate::identity::SpiffeId;

/// The claims of a JSON web token that was verified.
pub type Claims = Map<String, Value>;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// As its certificate proved; none outside the mesh.
    pub identity: Option<&'a SpiffeId>,
    /// Where its connection comes from.
    pub address: IpAddr,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a, F> {
    /// By whom.
    pub caller: Caller<'a>,
    /// The workload's port.
    pub port: u16,
    /// The request; none on an opaque connection.
    pub http: Option<Http<'a, F>>,
}

/// An HTTP request, in normal form.
#[derive(Debug, Clone, Copy)]
pub struct Http<'a, F> {
    /// Its method.
    pub method: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// Its `Host`, which may have a port.
    pub host: Option<&'a str>,
    /// Its header fields, by name and value.
    pub fields: F,
    /// Of its token, if it has a good one.
    pub claims: Option<&'a Claims>,
}

/// What is meant where it cannot be told, or can be told both ways: a rule must not let through what it was not written
/// for, nor let pass what it was written against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Benefit {
    /// In a rule that allows.
    OfDoubt,
    /// In a rule that denies, or asks.
    OfCaution,
}

impl<F> Http<'_, F> {
    /// Not so `OPTIONS *` and CONNECT: a server may take them for any.
    pub(super) fn has_path(&self) -> bool {
        self.path.starts_with('/')
    }
}

impl Benefit {
    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::Allow => Self::OfDoubt,
            Action::Deny | Action::External(_) => Self::OfCaution,
        }
    }
}

impl Condition {
    /// Whether it holds.
    pub(crate) fn holds<'a, F>(
        &self,
        asked: &Asked<'a, F>,
        benefit: Benefit,
        effort: &Effort,
    ) -> bool
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let identity = asked.caller.identity;
        let is_cautious = benefit == Benefit::OfCaution;
        match self {
            Self::Identities(any) => identity.is_some_and(|id| has(any, id.as_str())),
            Self::Namespaces(any) => {
                identity.is_some_and(|id| any.iter().any(|one| one == id.namespace()))
            }
            Self::ServiceAccounts(any) => identity.is_some_and(|id| {
                let own = (id.namespace(), id.service_account());
                any.iter().any(|one| one.split_once('/') == Some(own))
            }),
            Self::TrustDomains(any) => {
                identity.is_some_and(|id| any.iter().any(|one| one == id.trust_domain_name()))
            }
            Self::Networks(any) => any
                .iter()
                .any(|network| network.contains(&asked.caller.address)),
            Self::Unauthenticated(wanted) => identity.is_none() == *wanted,
            Self::Ports(any) => any.iter().any(|port| port.get() == asked.port),
            Self::Methods(_)
            | Self::Paths(_)
            | Self::Hosts(_)
            | Self::Header(..)
            | Self::Claim(..) => match &asked.http {
                Some(http) => self.holds_of(http, benefit),
                None => is_cautious,
            },
            Self::Expression(expression) => {
                let holds = |path| expression.holds(asked, path, effort).unwrap_or(is_cautious);
                let path = asked.http.as_ref().map_or("", |http| http.path);
                let as_it_is = holds(path);
                // As some servers read it: both ways for what allows, either way for what denies.
                match path.contains(';') && as_it_is != is_cautious {
                    true => holds(&without_parameters(path)),
                    false => as_it_is,
                }
            }
        }
    }

    /// Whether it holds of a request.
    fn holds_of<'a, F>(&self, http: &Http<'a, F>, benefit: Benefit) -> bool
    where
        F: IntoIterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let is_cautious = benefit == Benefit::OfCaution;
        match self {
            Self::Methods(any) => any.iter().any(|one| one == http.method),
            Self::Paths(_) if !http.has_path() => is_cautious,
            Self::Paths(any) => any
                .iter()
                .any(|path| path.holds(http.path) || is_cautious && path.holds_bare(http.path)),
            Self::Hosts(any) => match http.host.map(without_port) {
                Some(host) => any.iter().any(|one| one.holds(host)),
                None => is_cautious,
            },
            Self::Header(name, any) => {
                let fields = http.fields.clone().into_iter();
                let mut values = fields
                    .filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()))
                    .map(|(_, value)| any.is_empty() || has_bytes(any, value));
                match benefit {
                    Benefit::OfCaution => values.any(|holds| holds),
                    Benefit::OfDoubt => values.next() == Some(true) && values.all(|holds| holds),
                }
            }
            Self::Claim(name, any) => http
                .claims
                .and_then(|claims| claim_of(claims, name))
                .is_some_and(|value| claim_holds(value, any)),
            Self::Identities(_)
            | Self::Namespaces(_)
            | Self::ServiceAccounts(_)
            | Self::TrustDomains(_)
            | Self::Networks(_)
            | Self::Unauthenticated(_)
            | Self::Ports(_)
            | Self::Expression(_) => false,
        }
    }
}

fn has(any: &[Text], text: &str) -> bool {
    has_bytes(any, text.as_bytes())
}

fn has_bytes(any: &[Text], bytes: &[u8]) -> bool {
    any.iter().any(|one| match one {
        Text::Exact(exact) => exact.as_bytes() == bytes,
        Text::Prefix(prefix) => bytes.starts_with(prefix.as_bytes()),
    })
}

/// The host is in normal form: a colon behind the last bracket begins the port.
pub(crate) fn without_port(host: &str) -> &str {
    let name_end = host.find(']').map_or(0, |bracket| bracket + 1);
    match host[name_end..].find(':') {
        Some(colon) => &host[..name_end + colon],
        None => host,
    }
}

/// What the claims say under such a name, dots apart.
#[must_use]
pub fn claim_of<'a>(claims: &'a Claims, name: &[String]) -> Option<&'a Value> {
    let (first, rest) = name.split_first()?;
    let mut value = claims.get(first)?;
    for part in rest {
        value = value.as_object()?.get(part)?;
    }
    Some(value)
}

/// Texts and numbers compare as they are written; null is nothing.
fn claim_holds(value: &Value, any: &[Text]) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => values.iter().any(|one| claim_holds(one, any)),
        Value::String(text) => any.is_empty() || has(any, text),
        Value::Bool(bool) => any.is_empty() || has(any, if *bool { "true" } else { "false" }),
        Value::Number(number) => {
            any.is_empty()
                || number.as_i64().is_some_and(|number| {
                    any.iter()
                        .any(|one| matches!(one, Text::Exact(exact) if exact.parse() == Ok(number)))
                })
        }
        Value::Object(_) => any.is_empty(),
    }
}

impl Path {
    pub(crate) fn holds(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => is_below(path, prefix),
            Self::Template(template) => template.holds(path, |element| element),
        }
    }

    /// Whether it holds of the path without its elements' parameters: some servers take `/admin;x` for `/admin`
    /// (RFC 3986 section 3.3 leaves it to them).
    fn holds_bare(&self, path: &str) -> bool {
        let same = |wanted: &str, more: bool| {
            let mut found = path.split('/').map(bare);
            let matches = wanted
                .split('/')
                .all(|element| found.next() == Some(element));
            matches && (more || found.next().is_none())
        };
        path.contains(';')
            && match self {
                Self::Exact(exact) => same(exact, false),
                Self::Prefix(prefix) => same(prefix, true),
                Self::Template(template) => template.holds(path, bare),
            }
    }
}

/// Whether `path` is `prefix` or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path as servers read it that leave parameters away.
fn without_parameters(path: &str) -> String {
    let elements: Vec<&str> = path.split('/').map(bare).collect();
    elements.join("/")
}

/// An element without its parameters.
pub(super) fn bare(element: &str) -> &str {
    element.split_once(';').map_or(element, |(bare, _)| bare)
}

impl Template {
    fn holds<'a>(&self, path: &'a str, read: impl Fn(&'a str) -> &'a str) -> bool {
        let Some(path) = path.strip_prefix('/') else {
            return false;
        };
        let mut found = path.split('/').map(read);
        let matches = self
            .elements
            .iter()
            .all(|wanted| match (wanted, found.next()) {
                (Some(literal), Some(element)) => literal == element,
                (None, Some(element)) => !element.is_empty(),
                (_, None) => false,
            });
        matches && (self.open || found.next().is_none())
    }
}

impl Host {
    fn holds(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => host == exact,
            Self::Below(below) => host.len() > below.len() && host.ends_with(below.as_str()),
        }
    }
}
