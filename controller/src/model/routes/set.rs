//! The routes of one port and scope, as one: rules in a row, their matches in order of precedence. Within what a proxy
//! takes, or they are not added.

use std::cmp::Reverse;
use std::sync::Arc;

use ringmail_proto::route::{
    BACKENDS_MAX, MATCHES_MAX, Match, PATTERNS_MAX, RULES_MAX, Routes, Rule,
};

use crate::source::route::{BackendRef, Rank, Route, RouteKind};

/// Routes of one kind, in order.
#[derive(Debug, Default)]
pub(super) struct Set<'a> {
    routes: Vec<&'a Route>,
    /// Ports that rules refer to, each once.
    backends: Vec<usize>,
    rules: usize,
    matches: usize,
    patterns: usize,
}

/// What callers see of a set.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) routes: Arc<Routes>,
    /// Ports that `routes` refer to by their place here.
    pub(super) backends: Vec<usize>,
    pub(super) is_too_large: bool,
}

impl<'a> Set<'a> {
    pub(super) fn first(&self) -> Option<&'a Route> {
        self.routes.first().copied()
    }

    /// Adds a route that refers to such ports; refused with the limit that it would break.
    pub(super) fn add(&mut self, route: &'a Route, backends: &[usize]) -> Result<(), String> {
        let rules = self.rules + route.rules.len();
        let all = || route.rules.iter().flat_map(|rule| &rule.matches);
        let matches = self.matches + all().count();
        let patterns = self.patterns + all().map(|(_, one)| one.patterns()).sum::<usize>();
        let mut referred = self.backends.clone();
        for port in backends {
            if !referred.contains(port) {
                referred.push(*port);
            }
            // One too many is all there is to know.
            if referred.len() > BACKENDS_MAX {
                break;
            }
        }
        for (what, count, max) in [
            ("rules", rules, RULES_MAX),
            ("matches", matches, MATCHES_MAX),
            ("regular expressions", patterns, PATTERNS_MAX),
            ("backends", referred.len(), BACKENDS_MAX),
        ] {
            if count > max {
                return Err(format!("more than {max} {what}"));
            }
        }
        self.routes.push(route);
        self.backends = referred;
        (self.rules, self.matches, self.patterns) = (rules, matches, patterns);
        Ok(())
    }

    /// All rules of all routes, their matches in order of precedence.
    pub(super) fn merged(&self, resolve: impl Fn(&Route, &BackendRef) -> Option<usize>) -> Variant {
        let is_tls = |route: &&Route| route.kind == RouteKind::Tls;
        let mut merged = Routes {
            tls: self.first().as_ref().is_some_and(is_tls),
            ..Routes::default()
        };
        let mut ranked: Vec<(Rank, Match)> = Vec::new();
        for (route, rule) in self
            .routes
            .iter()
            .flat_map(|route| route.rules.iter().map(move |rule| (route, rule)))
        {
            let place = |reference: usize| {
                let port = resolve(route, rule.refs.get(reference)?)?;
                self.backends.iter().position(|other| *other == port)
            };
            let mut resolved = rule.rule.clone();
            for weighted in &mut resolved.backends {
                weighted.backend = weighted.backend.and_then(place);
            }
            resolved.mirrors.retain_mut(|mirror| {
                let found = place(mirror.backend);
                mirror.backend = found.unwrap_or_default();
                found.is_some()
            });
            for (rank, one) in &rule.matches {
                let mut one = one.clone();
                one.rule = merged.rules.len();
                ranked.push((*rank, one));
            }
            merged.rules.push(resolved);
        }
        // Stable: the oldest route and the first rule stay in front where ranks are the same.
        ranked.sort_by_key(|(rank, _)| Reverse(*rank));
        merged.matches = ranked.into_iter().map(|(_, one)| one).collect();
        Variant {
            routes: Arc::new(merged),
            backends: self.backends.clone(),
            is_too_large: false,
        }
    }
}

impl Variant {
    /// Every request is answered 500, as one whose rule has no backend; every TLS connection is cut.
    pub(super) fn too_large(tls: bool) -> Self {
        let everything = (!tls).then(Match::default);
        let routes = Routes {
            matches: everything.into_iter().collect(),
            rules: vec![Rule::default()],
            tls,
        };
        Self {
            routes: Arc::new(routes),
            backends: Vec::new(),
            is_too_large: true,
        }
    }
}
