//! Objects as they arrive, to objects as they are kept: cut to what the model reads, checked by the rules of every source.
//!
//! A pod counts as meshed when its spec carries the proxy's container, whatever it or its namespace says: annotations
//! tell what shall be, the spec what is.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, Lifecycle, LifecycleHandler, Namespace, Pod, PodSpec, PodStatus, Service,
    ServiceAccount, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::DynamicObject;
use ringmail_proto::Invalid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::source::Refusal;
use crate::source::annotations::{self, INJECT, cautious};
use crate::source::authentication::{self, RequestAuthentication};
use crate::source::check::check;
use crate::source::gateway::{GrpcRoute, HttpRoute, Spec, TlsRoute};
use crate::source::limit::{self, RateLimitPolicy};
use crate::source::objects::{Key, Kind, Object};
use crate::source::policy::{self, AuthorizationPolicy};
use crate::source::revocation::{self, IdentityRevocation};
use crate::source::route;

/// The sidecar's container.
pub(crate) const PROXY_CONTAINER: &str = "ringmail-proxy";
/// Of a kept pod: what it says itself of injection, where [`INJECT`] is whether it has a sidecar. No annotation as it was
/// written has this name: only ours are kept.
pub(crate) const SAID: &str = "said";
/// Characters of a problem as shown: it may quote the object.
const PROBLEM_CHARS_MAX: usize = 512;

/// An object that was told of.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) key: Key,
    pub(crate) uid: String,
    pub(crate) object: Result<Object, Refusal>,
    /// In its place, where it is refused and nothing better was known.
    pub(crate) instead: Option<Object>,
    pub(crate) warnings: Vec<String>,
}

pub(crate) fn of_namespace(mut one: Namespace) -> Found {
    one.metadata = trimmed(one.metadata);
    one.spec = None;
    one.status = None;
    let instead = Object::Namespace(Arc::new(Namespace {
        metadata: cautious(one.metadata.clone()),
        ..Namespace::default()
    }));
    Found {
        instead: Some(instead),
        ..found(Kind::Namespace, one.metadata.clone(), || {
            Ok(Object::Namespace(Arc::new(one)))
        })
    }
}

pub(super) fn of_service_account(one: ServiceAccount) -> Found {
    let kept = ServiceAccount {
        metadata: trimmed(one.metadata),
        ..ServiceAccount::default()
    };
    found(Kind::ServiceAccount, kept.metadata.clone(), || {
        Ok(Object::ServiceAccount(Arc::new(kept)))
    })
}

pub(crate) fn of_service(one: Service) -> Found {
    let kept = Service {
        metadata: trimmed(one.metadata),
        spec: one.spec.map(|spec| ServiceSpec {
            cluster_ip: spec.cluster_ip,
            cluster_ips: spec.cluster_ips,
            ports: spec.ports,
            publish_not_ready_addresses: spec.publish_not_ready_addresses,
            selector: spec.selector,
            ..ServiceSpec::default()
        }),
        status: None,
    };
    found(Kind::Service, kept.metadata.clone(), || {
        Ok(Object::Service(Arc::new(kept)))
    })
}

pub(super) fn of_slice(mut one: EndpointSlice) -> Found {
    one.metadata = trimmed(one.metadata);
    for endpoint in one.endpoints.iter_mut().flatten() {
        endpoint.deprecated_topology = None;
        endpoint.hostname = None;
        endpoint.node_name = None;
        if let Some(target) = &mut endpoint.target_ref {
            target.uid = None;
            target.resource_version = None;
        }
    }
    found(Kind::EndpointSlice, one.metadata.clone(), || {
        Ok(Object::EndpointSlice(Arc::new(one)))
    })
}

pub(super) fn of_pod(one: Pod) -> Found {
    let spec = one.spec.unwrap_or_default();
    let sidecars = spec.init_containers.iter().flatten();
    let meshed = sidecars
        .clone()
        .any(|container| container.name == PROXY_CONTAINER);
    let owners = one.metadata.owner_references.clone();
    let mut metadata = trimmed(one.metadata);
    metadata.owner_references = owners.map(|owners| {
        let makes = |owner: &OwnerReference| owner.controller == Some(true);
        owners.into_iter().filter(makes).collect()
    });
    if let Some(own) = metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(INJECT))
    {
        let own = own.clone();
        metadata
            .annotations
            .get_or_insert_default()
            .insert(SAID.into(), own);
    }
    let said = if meshed { "enabled" } else { "disabled" };
    metadata
        .annotations
        .get_or_insert_default()
        .insert(INJECT.into(), said.into());
    let status = one.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.into_iter().find(|one| one.type_ == "Ready");
    let kept = Pod {
        spec: Some(PodSpec {
            containers: spec.containers.iter().map(container).collect(),
            init_containers: Some(sidecars.map(container).collect()),
            host_network: spec.host_network,
            service_account_name: spec.service_account_name.clone(),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            conditions: ready.map(|mut ready| {
                // When it last changed is of no interest, and would make every heartbeat a new state.
                ready.last_probe_time = None;
                ready.last_transition_time = None;
                ready.message = None;
                vec![ready]
            }),
            ..PodStatus::default()
        }),
        metadata,
    };
    found(Kind::Pod, kept.metadata.clone(), || {
        Ok(Object::Pod(Arc::new(kept)))
    })
}

fn container(one: &Container) -> Container {
    Container {
        name: one.name.clone(),
        ports: one.ports.clone(),
        liveness_probe: one.liveness_probe.clone(),
        readiness_probe: one.readiness_probe.clone(),
        startup_probe: one.startup_probe.clone(),
        lifecycle: one.lifecycle.clone().map(hooks),
        ..Container::default()
    }
}

/// Those that are called by HTTP: a command may be long, and is nobody's business here.
fn hooks(one: Lifecycle) -> Lifecycle {
    let get = |hook: Option<LifecycleHandler>| {
        let http_get = hook?.http_get?;
        Some(LifecycleHandler {
            http_get: Some(http_get),
            ..LifecycleHandler::default()
        })
    };
    Lifecycle {
        post_start: get(one.post_start),
        pre_stop: get(one.pre_stop),
        stop_signal: None,
    }
}

/// The same of a route as it was written.
pub(crate) fn of_written_route(kind: Kind, text: &Value) -> Option<Found> {
    of_route(kind, DynamicObject::deserialize(text).ok()?)
}

/// None for a route of others: one without a Service as parent.
pub(crate) fn of_route(kind: Kind, one: DynamicObject) -> Option<Found> {
    let spec = one.data.get("spec").cloned().unwrap_or_default();
    let parents = spec.get("parentRefs").and_then(Value::as_array);
    if !parents.into_iter().flatten().any(is_service) {
        return None;
    }
    let metadata = trimmed(one.metadata);
    let own = metadata.clone();
    Some(found(kind, metadata, || {
        let route = match kind {
            Kind::GRPCRoute => route::of_grpc(GrpcRoute {
                metadata: own,
                spec: read_spec(spec)?,
            }),
            Kind::TLSRoute => route::of_tls(TlsRoute {
                metadata: own,
                spec: read_spec(spec)?,
            }),
            _ => route::of_http(HttpRoute {
                metadata: own,
                spec: read_spec(spec)?,
            }),
        };
        route
            .map(|route| Object::Route(Arc::new(route)))
            .map_err(|e| refusal(&e))
    }))
}

/// The same of a policy as it was written.
pub(crate) fn of_written_policy(text: &Value) -> Option<Found> {
    Some(of_policy(DynamicObject::deserialize(text).ok()?))
}

/// A policy that cannot be read denies, and is kept.
pub(super) fn of_policy(one: DynamicObject) -> Found {
    let mode = policy::Mode::of_unread(one.data.get("spec").unwrap_or(&Value::Null));
    let (metadata, spec) = ours(one);
    let meant = match spec {
        Ok(spec) => policy::meant(AuthorizationPolicy {
            metadata: metadata.clone(),
            spec,
            status: None,
        }),
        Err(invalid) => policy::unreadable(metadata.clone(), mode, invalid),
    };
    found(Kind::AuthorizationPolicy, metadata, || {
        Ok(Object::Policy(Arc::new(meant)))
    })
}

/// The same of what is said of tokens, as it was written.
pub(crate) fn of_written_authentication(text: &Value) -> Option<Found> {
    Some(of_authentication(DynamicObject::deserialize(text).ok()?))
}

/// What is said of tokens and cannot be read refuses, and is kept.
pub(super) fn of_authentication(one: DynamicObject) -> Found {
    let (metadata, spec) = ours(one);
    let meant = match spec {
        Ok(spec) => authentication::meant(RequestAuthentication {
            metadata: metadata.clone(),
            spec,
            status: None,
        }),
        Err(invalid) => authentication::unreadable(metadata.clone(), invalid),
    };
    found(Kind::RequestAuthentication, metadata, || {
        Ok(Object::Authentication(Arc::new(meant)))
    })
}

/// The same of rate limits as they were written.
pub(crate) fn of_written_limits(text: &Value) -> Option<Found> {
    Some(of_limits(DynamicObject::deserialize(text).ok()?))
}

/// Limits that cannot be read refuse, and are kept.
pub(super) fn of_limits(one: DynamicObject) -> Found {
    let (metadata, spec) = ours(one);
    let meant = match spec {
        Ok(spec) => limit::meant(RateLimitPolicy {
            metadata: metadata.clone(),
            spec,
            status: None,
        }),
        Err(invalid) => limit::unreadable(metadata.clone(), invalid),
    };
    found(Kind::RateLimitPolicy, metadata, || {
        Ok(Object::Limits(Arc::new(meant)))
    })
}

/// An object of a kind of ours, and what it says, or why that cannot be read.
fn ours<T: DeserializeOwned>(one: DynamicObject) -> (ObjectMeta, Result<T, Invalid>) {
    let spec = one.data.get("spec").cloned().unwrap_or_default();
    let spec = serde_path_to_error::deserialize(spec).map_err(|e| {
        let field = format!("spec.{}", e.path());
        Invalid::new(shown(&field), shown(&e.inner().to_string()))
    });
    (trimmed(one.metadata), spec)
}

/// The same of a revocation as it was written.
pub(crate) fn of_written_revocation(text: &Value) -> Option<Found> {
    Some(of_revocation(DynamicObject::deserialize(text).ok()?))
}

pub(super) fn of_revocation(one: DynamicObject) -> Found {
    let metadata = trimmed(one.metadata);
    let spec = one.data.get("spec").cloned().unwrap_or_default();
    let own = metadata.clone();
    found(Kind::IdentityRevocation, metadata, || {
        let spec = serde_path_to_error::deserialize(spec).map_err(|e| Refusal {
            line: 0,
            field: format!("spec.{}", e.path()),
            problem: shown(&e.inner().to_string()),
        })?;
        let revoked = revocation::meant(IdentityRevocation {
            metadata: own,
            spec,
            status: None,
        });
        let revoked = revoked.map_err(|e| refusal(&e))?;
        Ok(Object::Revocation(Arc::new(revoked)))
    })
}

/// Whether a parent reference, as written, is to a Service.
pub(crate) fn is_service(reference: &Value) -> bool {
    let said = |field| reference.get(field).and_then(Value::as_str);
    said("kind") == Some("Service") && said("group") == Some("")
}

fn read_spec<Rule: DeserializeOwned>(spec: Value) -> Result<Spec<Rule>, Refusal> {
    serde_path_to_error::deserialize(spec).map_err(|e| Refusal {
        line: 0,
        field: format!("spec.{}", e.path()),
        problem: shown(&e.inner().to_string()),
    })
}

/// Refused by its names and annotations, or by what it says.
fn found(
    kind: Kind,
    metadata: ObjectMeta,
    object: impl FnOnce() -> Result<Object, Refusal>,
) -> Found {
    let warnings = annotations::unknown(metadata.annotations.as_ref())
        .map(|key| format!("annotation {} is unknown", shown(key)))
        .collect();
    let checked = check(kind, &metadata);
    let object = checked.map_err(|e| refusal(&e)).and_then(|_| object());
    Found {
        key: key_of(kind, &metadata),
        uid: metadata.uid.unwrap_or_default(),
        object,
        instead: None,
        warnings,
    }
}

pub(super) fn key_of(kind: Kind, metadata: &ObjectMeta) -> Key {
    Key {
        kind,
        namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
        name: metadata.name.as_deref().unwrap_or_default().into(),
    }
}

fn refusal(e: &Invalid) -> Refusal {
    Refusal {
        line: 0,
        field: shown(&e.field),
        problem: shown(&e.problem),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(PROBLEM_CHARS_MAX).collect()
}

/// Without what nobody here reads; annotations of others may be as large as the object.
fn trimmed(metadata: ObjectMeta) -> ObjectMeta {
    let annotations: BTreeMap<_, _> = metadata
        .annotations
        .into_iter()
        .flatten()
        .filter(|(key, _)| annotations::is_ours(key))
        .collect();
    ObjectMeta {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        generation: metadata.generation,
        labels: metadata.labels,
        annotations: (!annotations.is_empty()).then_some(annotations),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        ..ObjectMeta::default()
    }
}
