//! The checked types as they travel. What would change a message's framing, its connection or who the mesh says it is
//! from is refused here, wherever it was written.

/// What changes in a message, and what is answered instead.
mod edits;

use std::time::Duration;

use super::{
    HeaderEdits, MATCHES_MAX, MILLION, Match, Mirror, PARTS_MAX, PATTERNS_MAX, PathEdit, PathMatch,
    Pattern, Policy, RETRIES_MAX, RULES_MAX, Redirect, RequestEdits, Retry, Routes, Rule,
    ServerName, TEXT_BYTES_MAX, TIMEOUT_MAX, ValueMatch, ValuePattern, WeightedBackend,
};
use crate::{Invalid, pb, target};

impl Routes {
    /// The routes of a destination that has so many backends.
    ///
    /// # Errors
    /// Names the field that no proxy could act on.
    pub fn from_wire(wire: pb::Routes, backends: usize) -> Result<Self, Invalid> {
        at_most("matches", wire.matches.len(), MATCHES_MAX)?;
        at_most("rules", wire.rules.len(), RULES_MAX)?;
        let rules = wire.rules.into_iter();
        let rules: Vec<Rule> = rules
            .map(|rule| Rule::from_wire(rule, backends).map_err(|e| e.inside("rules")))
            .collect::<Result<_, _>>()?;
        let matches = wire.matches.into_iter();
        let matches = matches
            .map(|one| Match::from_wire(one, rules.len()).map_err(|e| e.inside("matches")))
            .collect::<Result<_, _>>()?;
        let routes = Self {
            matches,
            rules,
            tls: wire.tls,
        };
        routes.are_of_one_kind()?;
        let patterns = routes.matches.iter().map(Match::patterns).sum();
        at_most("matches.regex", patterns, PATTERNS_MAX)?;
        for one in &routes.matches {
            let rule = &routes.rules[one.rule];
            let redirect = rule.redirect.as_ref().and_then(|to| to.path.as_ref());
            for edit in [rule.request.path.as_ref(), redirect].into_iter().flatten() {
                if matches!(edit, PathEdit::Prefix(_))
                    && matches!(one.path, PathMatch::Exact(_) | PathMatch::Regex(_))
                {
                    let problem = "replaces a prefix, but its match is of none";
                    return Err(Invalid::new("rules.path", problem));
                }
            }
        }
        Ok(routes)
    }

    /// What a kind of traffic does not have would not be looked at.
    fn are_of_one_kind(&self) -> Result<(), Invalid> {
        for one in &self.matches {
            let bare = Match {
                rule: one.rule,
                server_name: one.server_name.clone(),
                ..Match::default()
            };
            if one.server_name.is_some() != self.tls || self.tls && *one != bare {
                let problem = "TLS is matched by server name alone, and nothing else is";
                return Err(Invalid::new("matches", problem));
            }
        }
        for rule in &self.rules {
            let bare = |one: &WeightedBackend| one.request.is_empty() && one.response.is_empty();
            let has_only_backends = Rule {
                name: rule.name.clone(),
                backends: rule.backends.clone(),
                ..Rule::default()
            } == *rule
                && rule.backends.iter().all(bare);
            if self.tls && !has_only_backends {
                return Err(Invalid::new("rules", "of TLS have backends alone"));
            }
        }
        Ok(())
    }
}

impl From<&Routes> for pb::Routes {
    fn from(checked: &Routes) -> Self {
        Self {
            matches: checked.matches.iter().map(Into::into).collect(),
            rules: checked.rules.iter().map(Into::into).collect(),
            tls: checked.tls,
        }
    }
}

impl Match {
    fn from_wire(wire: pb::RouteMatch, rules: usize) -> Result<Self, Invalid> {
        use pb::path_match::Kind;
        at_most("headers", wire.headers.len(), PARTS_MAX)?;
        at_most("query", wire.query.len(), PARTS_MAX)?;
        let path = match wire.path {
            None => PathMatch::Any,
            Some(path) => match path.kind {
                Some(Kind::Exact(exact)) => PathMatch::Exact(checked_path("path", exact)?),
                Some(Kind::Prefix(prefix)) if prefix.ends_with('/') => {
                    return Err(Invalid::new("path", "is a prefix with a slash at its end"));
                }
                Some(Kind::Prefix(prefix)) => PathMatch::Prefix(checked_path("path", prefix)?),
                Some(Kind::Regex(regex)) => PathMatch::Regex(Pattern::new("path", &regex)?),
                None => return Err(unknown("path")),
            },
        };
        let all = |what: &'static str, wire: Vec<pb::ValueMatch>| {
            let all = wire.into_iter();
            all.map(|one| ValueMatch::from_wire(one).map_err(|e| e.inside(what)))
                .collect::<Result<Vec<_>, _>>()
        };
        let method = match wire.method.as_str() {
            "" => None,
            method => Some(token("method", method)?),
        };
        Ok(Self {
            rule: index("rule", wire.rule, rules)?,
            path,
            method,
            headers: all("headers", wire.headers)?,
            query: all("query", wire.query)?,
            server_name: match wire.server_name.as_str() {
                "" => None,
                name => Some(ServerName::new("server_name", name)?),
            },
        })
    }
}

impl From<&Match> for pb::RouteMatch {
    fn from(checked: &Match) -> Self {
        use pb::path_match::Kind;
        let kind = match &checked.path {
            PathMatch::Any => None,
            PathMatch::Exact(exact) => Some(Kind::Exact(exact.clone())),
            PathMatch::Prefix(prefix) => Some(Kind::Prefix(prefix.clone())),
            PathMatch::Regex(pattern) => Some(Kind::Regex(pattern.as_str().to_owned())),
        };
        Self {
            rule: small(checked.rule),
            path: kind.map(|kind| pb::PathMatch { kind: Some(kind) }),
            method: checked.method.clone().unwrap_or_default(),
            headers: checked.headers.iter().map(Into::into).collect(),
            query: checked.query.iter().map(Into::into).collect(),
            server_name: checked
                .server_name
                .as_ref()
                .map(ServerName::to_string)
                .unwrap_or_default(),
        }
    }
}

impl ValueMatch {
    fn from_wire(wire: pb::ValueMatch) -> Result<Self, Invalid> {
        use pb::value_match::Kind;
        let value = match wire.kind {
            Some(Kind::Exact(exact)) => ValuePattern::Exact(short("exact", exact)?),
            Some(Kind::Regex(regex)) => ValuePattern::Regex(Pattern::new("regex", &regex)?),
            None => return Err(unknown("kind")),
        };
        if wire.name.is_empty() {
            return Err(Invalid::new("name", "is empty"));
        }
        Ok(Self {
            name: short("name", wire.name)?,
            value,
        })
    }
}

impl From<&ValueMatch> for pb::ValueMatch {
    fn from(checked: &ValueMatch) -> Self {
        use pb::value_match::Kind;
        let kind = match &checked.value {
            ValuePattern::Exact(exact) => Kind::Exact(exact.clone()),
            ValuePattern::Regex(pattern) => Kind::Regex(pattern.as_str().to_owned()),
        };
        Self {
            name: checked.name.clone(),
            kind: Some(kind),
        }
    }
}

impl Rule {
    fn from_wire(wire: pb::RouteRule, backends: usize) -> Result<Self, Invalid> {
        at_most("backends", wire.backends.len(), PARTS_MAX)?;
        at_most("mirrors", wire.mirrors.len(), PARTS_MAX)?;
        let weighted = wire.backends.into_iter();
        let mirrors = wire.mirrors.into_iter();
        Ok(Self {
            name: short("name", wire.name)?,
            request: RequestEdits::from_wire(wire.request.unwrap_or_default())?,
            response: HeaderEdits::from_wire(wire.response.unwrap_or_default())?,
            redirect: wire.redirect.map(Redirect::from_wire).transpose()?,
            backends: weighted
                .map(|one| WeightedBackend::from_wire(one, backends))
                .collect::<Result<_, _>>()?,
            mirrors: mirrors
                .map(|one| Mirror::from_wire(one, backends))
                .collect::<Result<_, _>>()?,
            policy: Policy {
                request_timeout: timeout("request_timeout_ms", wire.request_timeout_ms)?,
                backend_timeout: timeout("backend_timeout_ms", wire.backend_timeout_ms)?,
                retry: wire.retry.map(Retry::from_wire).transpose()?,
            },
        })
    }
}

impl From<&Rule> for pb::RouteRule {
    fn from(checked: &Rule) -> Self {
        Self {
            name: checked.name.clone(),
            request: Some((&checked.request).into()),
            response: Some((&checked.response).into()),
            redirect: checked.redirect.as_ref().map(Into::into),
            backends: checked.backends.iter().map(Into::into).collect(),
            mirrors: checked.mirrors.iter().map(Into::into).collect(),
            request_timeout_ms: checked.policy.request_timeout.map_or(0, milliseconds),
            backend_timeout_ms: checked.policy.backend_timeout.map_or(0, milliseconds),
            retry: checked.policy.retry.as_ref().map(Into::into),
        }
    }
}

impl WeightedBackend {
    fn from_wire(wire: pb::WeightedBackend, backends: usize) -> Result<Self, Invalid> {
        let backend = wire.backend;
        Ok(Self {
            weight: wire.weight,
            backend: backend
                .map(|one| index("backends.backend", one, backends))
                .transpose()?,
            request: HeaderEdits::from_wire(wire.request.unwrap_or_default())?,
            response: HeaderEdits::from_wire(wire.response.unwrap_or_default())?,
        })
    }
}

impl From<&WeightedBackend> for pb::WeightedBackend {
    fn from(checked: &WeightedBackend) -> Self {
        Self {
            weight: checked.weight,
            backend: checked.backend.map(small),
            request: Some((&checked.request).into()),
            response: Some((&checked.response).into()),
        }
    }
}

impl Mirror {
    fn from_wire(wire: pb::Mirror, backends: usize) -> Result<Self, Invalid> {
        if wire.parts_per_million > MILLION {
            return Err(Invalid::new(
                "mirrors.parts_per_million",
                "is more than all",
            ));
        }
        Ok(Self {
            backend: index("mirrors.backend", wire.backend, backends)?,
            parts_per_million: wire.parts_per_million,
        })
    }
}

impl From<&Mirror> for pb::Mirror {
    fn from(checked: &Mirror) -> Self {
        Self {
            backend: small(checked.backend),
            parts_per_million: checked.parts_per_million,
        }
    }
}

impl Retry {
    fn from_wire(wire: pb::Retry) -> Result<Self, Invalid> {
        if wire.attempts > RETRIES_MAX {
            return Err(Invalid::new("retry.attempts", "are more than 10"));
        }
        at_most("retry.statuses", wire.statuses.len(), PARTS_MAX)?;
        let status = |one: u32| match u16::try_from(one) {
            Ok(status @ 400..600) => Ok(status),
            _ => Err(Invalid::new(
                "retry.statuses",
                "one is not between 400 and 599",
            )),
        };
        let statuses = wire.statuses.into_iter();
        Ok(Self {
            attempts: wire.attempts,
            statuses: statuses.map(status).collect::<Result<_, _>>()?,
            backoff: timeout("retry.backoff_ms", wire.backoff_ms)?.unwrap_or_default(),
        })
    }
}

impl From<&Retry> for pb::Retry {
    fn from(checked: &Retry) -> Self {
        Self {
            attempts: checked.attempts,
            statuses: checked.statuses.iter().copied().map(u32::from).collect(),
            backoff_ms: milliseconds(checked.backoff),
        }
    }
}

fn at_most(field: &str, count: usize, max: usize) -> Result<(), Invalid> {
    if count > max {
        return Err(Invalid::new(field, format!("are more than {max}")));
    }
    Ok(())
}

fn unknown(field: &str) -> Invalid {
    Invalid::new(field, "is missing, or one this version does not know")
}

fn index(field: &str, wire: u32, count: usize) -> Result<usize, Invalid> {
    let index = usize::try_from(wire).ok().filter(|index| *index < count);
    index.ok_or_else(|| Invalid::new(field, format!("there is no {wire}")))
}

/// Counts were checked against limits far below.
fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn timeout(field: &str, milliseconds: u64) -> Result<Option<Duration>, Invalid> {
    let duration = Duration::from_millis(milliseconds);
    if duration > TIMEOUT_MAX {
        return Err(Invalid::new(field, "is longer than a day"));
    }
    Ok((milliseconds > 0).then_some(duration))
}

fn short(field: &str, text: String) -> Result<String, Invalid> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Invalid::new(field, "is longer than 4096 bytes"));
    }
    Ok(text)
}

/// RFC 9110 section 5.6.2.
fn token(field: &str, text: &str) -> Result<String, Invalid> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if text.is_empty() || text.len() > 256 || !text.bytes().all(is_token) {
        return Err(Invalid::new(field, "is no token of at most 256 bytes"));
    }
    Ok(text.to_owned())
}

/// Without a query, and in the form that requests' paths have when they are compared and forwarded: no other would ever
/// match, or be taken by the far proxy.
fn checked_path(field: &str, path: String) -> Result<String, Invalid> {
    if path.contains('?') {
        return Err(Invalid::new(field, "is no path: it holds a question mark"));
    }
    let normal = target::origin(&path).map_err(|rule| Invalid::new(field, rule))?;
    if normal != path {
        return Err(Invalid::new(field, format!("is in normal form {normal}")));
    }
    short(field, path)
}
