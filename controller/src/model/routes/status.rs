//! What authors of routes are told: `status.parents` of the Gateway API. The same in a cluster and for a directory.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::source::objects::{Key, Kind};
use crate::source::route::{ParentRef, Route, RouteKind};

/// Not accepted, for a limit of ours: no reason of the Gateway API says that.
pub(super) const LIMIT_EXCEEDED: &str = "LimitExceeded";

/// A route and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// `HTTPRoute`, `GRPCRoute` or `TLSRoute`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which version of it this is about; a file has none.
    #[serde(rename = "observedGeneration", skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// In the order of its parentRefs.
    pub parents: Vec<ParentStatus>,
}

/// What became of a route at one parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// `Kind namespace/name:port`, as far as the reference says it.
    pub parent_ref: String,
    /// `Accepted` and `ResolvedRefs`.
    pub conditions: Vec<Condition>,
    /// Where it is in force; nowhere unless it is accepted.
    #[serde(skip)]
    pub(crate) places: Vec<Place>,
}

/// Where a route is in force: for callers of such a namespace, or for all that have no routes of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) callers: Option<Arc<str>>,
}

/// `metav1.Condition`, but for when it changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Accepted`, say.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    /// One word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl Condition {
    pub(super) fn not_accepted(reason: &'static str, message: String) -> Self {
        Self {
            kind: "Accepted",
            status: "False",
            reason,
            message,
        }
    }

    pub(super) fn unresolved(reason: &'static str, message: String) -> Self {
        Self {
            kind: "ResolvedRefs",
            status: "False",
            reason,
            message,
        }
    }

    /// Of a route that could not be read.
    pub(crate) fn refused(message: String) -> Self {
        Self::not_accepted("UnsupportedValue", message)
    }

    pub(crate) fn is_not_accepted(&self) -> bool {
        self.kind == "Accepted" && self.status == "False"
    }

    fn good(kind: &'static str) -> Self {
        Self {
            kind,
            status: "True",
            reason: kind,
            message: String::new(),
        }
    }
}

impl ParentStatus {
    pub(super) fn new(
        parent: &ParentRef,
        accepted: Result<Vec<Place>, Condition>,
        unresolved: &[Condition],
    ) -> Self {
        let (places, accepted) = match accepted {
            Ok(places) => (places, Condition::good("Accepted")),
            Err(condition) => (Vec::new(), condition),
        };
        let namespace = parent.namespace.iter().map(|name| format!("{name}/"));
        let port = parent.port.iter().map(|port| format!(":{port}"));
        let section = parent.section_name.iter().map(|name| format!(":{name}"));
        Self {
            parent_ref: format!(
                "{} {}{}{}{}",
                parent.kind,
                namespace.collect::<String>(),
                parent.name,
                port.collect::<String>(),
                section.collect::<String>()
            ),
            conditions: vec![
                accepted,
                unresolved
                    .first()
                    .cloned()
                    .unwrap_or_else(|| Condition::good("ResolvedRefs")),
            ],
            places,
        }
    }
}

impl RouteStatus {
    pub(super) fn new(route: &Route, parents: Vec<ParentStatus>) -> Self {
        Self {
            kind: match route.kind {
                RouteKind::Http => "HTTPRoute",
                RouteKind::Grpc => "GRPCRoute",
                RouteKind::Tls => "TLSRoute",
            },
            namespace: super::namespace(route).to_owned(),
            name: route.metadata.name.clone().unwrap_or_default(),
            generation: route.metadata.generation,
            parents,
        }
    }

    /// Which object it is about.
    pub(crate) fn key(&self) -> Key {
        let kind = match self.kind {
            "GRPCRoute" => Kind::GRPCRoute,
            "TLSRoute" => Kind::TLSRoute,
            _ => Kind::HTTPRoute,
        };
        Key {
            kind,
            namespace: self.namespace.as_str().into(),
            name: self.name.as_str().into(),
        }
    }
}

/// `namespace/name`.
pub(super) fn full_name(route: &Route) -> String {
    let name = route.metadata.name.as_deref().unwrap_or_default();
    format!("{}/{name}", super::namespace(route))
}
