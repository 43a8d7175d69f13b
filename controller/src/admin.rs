//! `/metrics`, `/ready`, `/live`, `/status`, `/limits`, `/workloads`: for people, probes and scrapers; `/applied`: for the replica
//! that leads; never for proxies. Nothing here changes anything.
//!
//! Limits: pages that sum something up are made one at a time, aside; who asks waits [`BUSY_MAX`] for its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};
use k8s_openapi::ByteString;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use prost::Message;
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use ringmail_proto::pb;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use crate::applied::{self, PolicyState, Proxies};
use crate::ledger::shown::Shown;
use crate::model::RouteStatus;
use crate::publish::Snapshots;
use crate::source;
use crate::stop::Stop;

/// `/limits`.
pub(crate) mod limits;

use limits::{Fingerprints, LedgerHome};

/// For the pages that others asked for before.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// What the pages show.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) registry: Registry,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) ready: AtomicBool,
    pub(crate) source: watch::Receiver<Option<Arc<source::State>>>,
    pub(crate) snapshots: Snapshots,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) ledger: watch::Receiver<Shown>,
    pub(crate) ledger_home: LedgerHome,
    pub(crate) fingerprints: Fingerprints,
    /// Whose turn it is.
    pub(crate) turn: Semaphore,
}

#[derive(Serialize)]
struct Status<'a> {
    ready: bool,
    version: String,
    workloads: usize,
    workloads_meshed: usize,
    service_addresses: usize,
    objects: usize,
    source_unreadable: Option<&'a str>,
    files: &'a [source::FileStatus],
    noted: &'a [source::ObjectStatus],
    problems: &'a [String],
    routes: Vec<RouteStatus>,
    policies: Vec<PolicyState>,
}

pub(crate) async fn serve(listener: TcpListener, pages: Arc<Pages>, mut stop: Stop) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/ready", get(ready))
        .route("/live", get(|| async { "live\n" }))
        .route("/status", get(status))
        .route("/limits", get(limits))
        .route("/applied", get(applied))
        .route("/workloads/{namespace}/{name}", get(workload))
        .with_state(pages);
    let serving =
        axum::serve(listener, router).with_graceful_shutdown(async move { stop.stopped().await });
    if let Err(e) = serving.await {
        warn!("metrics are not served any more: {e}");
    }
}

async fn metrics(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &pages.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn ready(State(pages): State<Arc<Pages>>) -> impl IntoResponse {
    if pages.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// A page that takes a while to make.
async fn made(
    pages: Arc<Pages>,
    make: impl FnOnce(&Pages) -> Response + Send + 'static,
) -> Response {
    let Ok(Ok(_turn)) = timeout(BUSY_MAX, pages.turn.acquire()).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "others ask as well\n").into_response();
    };
    let asked = pages.clone();
    let made = spawn_blocking(move || make(&asked)).await;
    made.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// Which port of a Service, if it is one that is named.
#[derive(Deserialize)]
struct Port {
    port: Option<u16>,
}

/// What the proxy of a pod is told of who may do what, as it is told; for the command line.
#[derive(Serialize)]
struct Told {
    workload: String,
    /// None of a pod without a sidecar.
    identity: Option<String>,
    port: u16,
    version: String,
    /// `ringmail.v1.Authorization`.
    authorization: ByteString,
}

async fn workload(
    State(pages): State<Arc<Pages>>,
    Path((namespace, name)): Path<(String, String)>,
    Query(Port { port }): Query<Port>,
) -> Response {
    made(pages, move |pages| told(pages, &namespace, &name, port)).await
}

fn told(pages: &Pages, namespace: &str, name: &str, port: Option<u16>) -> Response {
    let snapshot = pages.snapshots.borrow().clone();
    let told = WorkloadName::new(namespace, name).ok().and_then(|name| {
        let (name, port) = snapshot.mesh.behind(&name, port.unwrap_or(0))?;
        let workload = snapshot.mesh.workload(&name)?;
        let account = &workload.service_account;
        let identity = SpiffeId::new(&pages.trust_domain, &name.namespace, account).ok()?;
        let authorization = snapshot.mesh.authorization(&name)?;
        let authorization = pb::Authorization::from(&*authorization);
        Some(Told {
            workload: name.to_string(),
            identity: snapshot.mesh.is_meshed(&name).then(|| identity.to_string()),
            port,
            version: snapshot.version.to_string(),
            authorization: ByteString(authorization.encode_to_vec()),
        })
    });
    match told {
        Some(told) => axum::Json(told).into_response(),
        None => {
            let problem = format!(
                "there is no pod and no Service {namespace}/{name} with that port, or nothing is behind it\n"
            );
            (StatusCode::NOT_FOUND, problem).into_response()
        }
    }
}

async fn status(State(pages): State<Arc<Pages>>) -> Response {
    made(pages, summed).await
}

fn summed(pages: &Pages) -> Response {
    let source = pages.source.borrow().clone().unwrap_or_default();
    let snapshot = pages.snapshots.borrow().clone();
    // As far as this replica's proxies go.
    let said = applied::say(&snapshot.mesh, &pages.proxies);
    let states = applied::states(&snapshot.mesh, &[said], 0);
    let status = Status {
        ready: pages.ready.load(Ordering::Acquire),
        version: snapshot.version.to_string(),
        workloads: snapshot.mesh.workload_count(),
        workloads_meshed: snapshot.mesh.meshed_count(),
        service_addresses: snapshot.mesh.service_count(),
        objects: source.objects.len(),
        source_unreadable: source.unreadable.as_deref(),
        files: &source.files,
        noted: &source.noted,
        problems: snapshot.mesh.problems(),
        routes: states.routes,
        policies: states.policies,
    };
    match serde_json::to_string_pretty(&status) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn limits(State(pages): State<Arc<Pages>>) -> Response {
    made(pages, |pages| {
        axum::Json(limits::page(pages)).into_response()
    })
    .await
}

async fn applied(State(pages): State<Arc<Pages>>) -> Response {
    let say = |pages: &Pages| {
        let mesh = pages.snapshots.borrow().mesh.clone();
        axum::Json(applied::say(&mesh, &pages.proxies)).into_response()
    };
    made(pages, say).await
}
