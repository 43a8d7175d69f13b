//! Routes of the Gateway API as they are meant: matches with their rank, rules, and what they refer to. `HTTPRoute`,
//! `GRPCRoute` and `TLSRoute` are one thing from here on. Checked by the same code that a proxy checks them with.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ringmail_proto::route::{MILLION, Match, Routes, Rule};
use ringmail_proto::{Invalid, pb};

use super::duration;
use super::gateway::{self, Filter, FilterKind, GrpcRoute, HttpRoute, PathModifier, TlsRoute};
pub use super::gateway::{BackendRef, ParentRef};

/// Matches of gRPC methods.
mod matches;

pub use matches::Rank;

/// Tries beyond the first, where a route says to try again and not how often.
const RETRY_ATTEMPTS: u32 = 1;
/// Before trying again, where a route does not say.
const RETRY_BACKOFF: Duration = Duration::from_millis(25);

/// Which kind of route: they do not share a parent. The greater has it before the lesser (GEP-1294, "Route types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// `TLSRoute`.
    Tls,
    /// `HTTPRoute`.
    Http,
    /// `GRPCRoute`.
    Grpc,
}

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its kind.
    pub kind: RouteKind,
    /// What it is attached to.
    pub parents: Vec<ParentRef>,
    /// Its rules in order.
    pub rules: Vec<RouteRule>,
}

/// One rule, not yet resolved: its backends count among `refs`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRule {
    /// Each with its precedence.
    pub matches: Vec<(Rank, Match)>,
    /// What to do.
    pub rule: Rule,
    /// What `rule`'s backends and mirrors refer to.
    pub refs: Vec<BackendRef>,
}

/// What an `HTTPRoute` means.
pub(super) fn of_http(written: HttpRoute) -> Result<Route, Invalid> {
    let rules = written.spec.rules.iter().enumerate();
    let name = full_name(&written.metadata);
    let rules = rules.map(|(index, rule)| {
        let matches = matches::of_http(&rule.matches);
        let mut reading = Reading::new(format!("{name}/{index}"), matches);
        reading.filters(&rule.filters)?;
        reading.backends(&rule.backend_refs)?;
        let timeouts = rule.timeouts.clone().unwrap_or_default();
        let said = |text: &Option<String>| text.as_deref().map_or(Ok(0), duration::milliseconds);
        reading.rule.request_timeout_ms = said(&timeouts.request)?;
        reading.rule.backend_timeout_ms = said(&timeouts.backend_request)?;
        if timeouts.request.is_some()
            && reading.rule.request_timeout_ms < reading.rule.backend_timeout_ms
            && reading.rule.request_timeout_ms > 0
        {
            return Err(Invalid::new(
                "timeouts.backendRequest",
                "is longer than timeouts.request",
            ));
        }
        reading.rule.retry = rule.retry.as_ref().map(retry).transpose()?;
        reading.finish()
    });
    Ok(Route {
        kind: RouteKind::Http,
        parents: written.spec.parent_refs,
        rules: each_rule(rules)?,
        metadata: written.metadata,
    })
}

/// What a `GRPCRoute` means.
pub(super) fn of_grpc(written: GrpcRoute) -> Result<Route, Invalid> {
    let rules = written.spec.rules.iter().enumerate();
    let name = full_name(&written.metadata);
    let rules = rules.map(|(index, rule)| {
        let mut reading = Reading::new(format!("{name}/{index}"), matches::of_grpc(&rule.matches)?);
        let only_http = |kind| matches!(kind, FilterKind::RequestRedirect | FilterKind::UrlRewrite);
        if rule.filters.iter().any(|filter| only_http(filter.kind)) {
            return Err(Invalid::new("filters.type", "is none of a GRPCRoute's"));
        }
        reading.filters(&rule.filters)?;
        reading.backends(&rule.backend_refs)?;
        reading.finish()
    });
    Ok(Route {
        kind: RouteKind::Grpc,
        parents: written.spec.parent_refs,
        rules: each_rule(rules)?,
        metadata: written.metadata,
    })
}

/// What a `TLSRoute` means: its server names are matches of each rule.
pub(super) fn of_tls(written: TlsRoute) -> Result<Route, Invalid> {
    let name = full_name(&written.metadata);
    if written.spec.hostnames.is_empty() {
        return Err(Invalid::new("spec.hostnames", "is empty"));
    }
    let rules = written.spec.rules.iter().enumerate();
    let rules = rules.map(|(index, rule)| {
        let matches = matches::of_tls(&written.spec.hostnames);
        let mut reading = Reading::new(format!("{name}/{index}"), matches);
        if rule.backend_refs.iter().any(|one| !one.filters.is_empty()) {
            return Err(Invalid::new(
                "backendRefs.filters",
                "are none of a TLSRoute's",
            ));
        }
        reading.backends(&rule.backend_refs)?;
        reading.tls = true;
        reading.finish()
    });
    Ok(Route {
        kind: RouteKind::Tls,
        parents: written.spec.parent_refs,
        rules: each_rule(rules)?,
        metadata: written.metadata,
    })
}

fn full_name(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let name = metadata.name.as_deref().unwrap_or_default();
    format!("{namespace}/{name}")
}

/// Names the rule in each refusal.
fn each_rule(
    rules: impl Iterator<Item = Result<RouteRule, Invalid>>,
) -> Result<Vec<RouteRule>, Invalid> {
    let named = |(index, rule): (usize, Result<RouteRule, Invalid>)| {
        rule.map_err(|e| e.inside(&format!("spec.rules[{index}]")))
    };
    rules.enumerate().map(named).collect()
}

/// A rule while it is read: in the form that travels, which has one check for all.
struct Reading {
    matches: Vec<(Rank, pb::RouteMatch)>,
    rule: pb::RouteRule,
    refs: Vec<BackendRef>,
    tls: bool,
}

impl Reading {
    fn new(name: String, matches: Vec<(Rank, pb::RouteMatch)>) -> Self {
        Self {
            matches,
            rule: pb::RouteRule {
                name,
                ..pb::RouteRule::default()
            },
            refs: Vec::new(),
            tls: false,
        }
    }

    fn refer(&mut self, to: &BackendRef) -> u32 {
        self.refs.push(to.clone());
        u32::try_from(self.refs.len() - 1).unwrap_or(u32::MAX)
    }

    fn filters(&mut self, filters: &[Filter]) -> Result<(), Invalid> {
        let mut seen = Vec::new();
        for filter in filters {
            if filter.kind != FilterKind::RequestMirror && seen.contains(&filter.kind) {
                return Err(Invalid::new("filters.type", "is there twice"));
            }
            seen.push(filter.kind);
            self.filter(filter)?;
        }
        if self.rule.redirect.is_some() && seen.contains(&FilterKind::UrlRewrite) {
            return Err(Invalid::new(
                "filters",
                "redirect and rewrite exclude each other",
            ));
        }
        Ok(())
    }

    fn filter(&mut self, filter: &Filter) -> Result<(), Invalid> {
        match filter.kind {
            FilterKind::RequestHeaderModifier => {
                let edits = header_edits(filter.request_header_modifier.as_ref())?;
                self.request().headers = Some(edits);
            }
            FilterKind::ResponseHeaderModifier => {
                let edits = header_edits(filter.response_header_modifier.as_ref())?;
                self.rule.response = Some(edits);
            }
            FilterKind::UrlRewrite => {
                let rewrite = filter
                    .url_rewrite
                    .as_ref()
                    .ok_or_else(missing("urlRewrite"))?;
                let request = self.request();
                request.host = rewrite.hostname.clone().unwrap_or_default();
                request.path = rewrite.path.as_ref().map(path_edit);
            }
            FilterKind::RequestRedirect => {
                let redirect = filter.request_redirect.as_ref();
                let redirect = redirect.ok_or_else(missing("requestRedirect"))?;
                self.rule.redirect = Some(pb::Redirect {
                    scheme: redirect.scheme.clone().unwrap_or_default(),
                    host: redirect.hostname.clone().unwrap_or_default(),
                    port: redirect.port.map_or(0, u32::from),
                    path: redirect.path.as_ref().map(path_edit),
                    status: redirect.status_code.unwrap_or(302).into(),
                });
            }
            FilterKind::RequestMirror => {
                let mirror = filter
                    .request_mirror
                    .as_ref()
                    .ok_or_else(missing("requestMirror"))?;
                let share = share(mirror)?;
                let backend = self.refer(&mirror.backend_ref);
                self.rule.mirrors.push(pb::Mirror {
                    backend,
                    parts_per_million: share,
                });
            }
        }
        Ok(())
    }

    fn request(&mut self) -> &mut pb::RequestEdits {
        self.rule.request.get_or_insert_default()
    }

    fn backends(&mut self, backends: &[BackendRef]) -> Result<(), Invalid> {
        if self.rule.redirect.is_some() && !backends.is_empty() {
            return Err(Invalid::new("backendRefs", "a redirect has none"));
        }
        for backend in backends {
            let mut weighted = pb::WeightedBackend {
                weight: backend.weight,
                backend: Some(self.refer(backend)),
                ..pb::WeightedBackend::default()
            };
            for filter in &backend.filters {
                match filter.kind {
                    FilterKind::RequestHeaderModifier => {
                        let edits = header_edits(filter.request_header_modifier.as_ref())?;
                        weighted.request = Some(edits);
                    }
                    FilterKind::ResponseHeaderModifier => {
                        let edits = header_edits(filter.response_header_modifier.as_ref())?;
                        weighted.response = Some(edits);
                    }
                    FilterKind::RequestMirror
                    | FilterKind::RequestRedirect
                    | FilterKind::UrlRewrite => {
                        let problem = "is not supported for a single backend";
                        return Err(Invalid::new("backendRefs.filters.type", problem));
                    }
                }
            }
            self.rule.backends.push(weighted);
        }
        Ok(())
    }

    fn finish(self) -> Result<RouteRule, Invalid> {
        let (ranks, matches): (Vec<_>, Vec<_>) = self.matches.into_iter().unzip();
        let wire = pb::Routes {
            matches,
            rules: vec![self.rule],
            tls: self.tls,
        };
        let checked = Routes::from_wire(wire, self.refs.len()).map_err(|e| Invalid {
            field: e.field.trim_start_matches("rules.").to_owned(),
            ..e
        })?;
        let mut rules = checked.rules;
        Ok(RouteRule {
            matches: ranks.into_iter().zip(checked.matches).collect(),
            rule: rules.pop().unwrap_or_default(),
            refs: self.refs,
        })
    }
}

fn missing(field: &'static str) -> impl Fn() -> Invalid {
    move || Invalid::new(format!("filters.{field}"), "is missing")
}

fn header_edits(written: Option<&gateway::HeaderModifier>) -> Result<pb::HeaderEdits, Invalid> {
    let written = written.ok_or_else(missing("headerModifier"))?;
    let headers = |all: &[gateway::Header]| {
        let header = |one: &gateway::Header| pb::Header {
            name: one.name.clone(),
            value: one.value.clone(),
        };
        all.iter().map(header).collect()
    };
    Ok(pb::HeaderEdits {
        set: headers(&written.set),
        add: headers(&written.add),
        remove: written.remove.clone(),
    })
}

fn path_edit(written: &PathModifier) -> pb::PathEdit {
    use pb::path_edit::Kind;
    let kind = match written {
        PathModifier::ReplaceFullPath { replace_full_path } if replace_full_path.is_empty() => {
            Kind::Full("/".to_owned())
        }
        PathModifier::ReplaceFullPath { replace_full_path } => {
            Kind::Full(matches::normal_path(replace_full_path))
        }
        PathModifier::ReplacePrefixMatch {
            replace_prefix_match,
        } => Kind::Prefix(matches::normal_path(replace_prefix_match)),
    };
    pb::PathEdit { kind: Some(kind) }
}

fn share(mirror: &gateway::RequestMirror) -> Result<u32, Invalid> {
    let (part, whole) = match (&mirror.fraction, mirror.percent) {
        (Some(_), Some(_)) => {
            let problem = "has a fraction and a percentage";
            return Err(Invalid::new("filters.requestMirror", problem));
        }
        (Some(fraction), None) => (fraction.numerator, fraction.denominator),
        (None, percent) => (percent.unwrap_or(100), 100),
    };
    if whole == 0 || part > whole {
        let problem = "is no part of a whole";
        return Err(Invalid::new("filters.requestMirror.fraction", problem));
    }
    let share = u64::from(part) * u64::from(MILLION) / u64::from(whole);
    Ok(u32::try_from(share).unwrap_or(MILLION))
}

fn retry(written: &gateway::Retry) -> Result<pb::Retry, Invalid> {
    let backoff = written
        .backoff
        .as_deref()
        .map(duration::milliseconds)
        .transpose()?;
    let default = u64::try_from(RETRY_BACKOFF.as_millis()).unwrap_or(u64::MAX);
    Ok(pb::Retry {
        attempts: written.attempts.unwrap_or(RETRY_ATTEMPTS),
        statuses: written.codes.iter().copied().map(u32::from).collect(),
        backoff_ms: backoff.unwrap_or(default),
    })
}
