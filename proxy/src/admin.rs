//! What people and machines ask the proxy itself: metrics and health on 15020, state on loopback 15000.
//!
//! Limits: [`CONNECTIONS_MAX`] at once, [`REQUEST_TIMEOUT`] each. A request that changes something needs POST and the
//! header `x-ringmail-admin`, so that no browser and no forged GET can make it.

/// Probes that we make for the kubelet.
mod probes;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pem::Pem;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};

pub(crate) use probes::Probes;

use crate::config::Config;
use crate::drain::Drain;
use crate::error::{Error, Reason};
use crate::inventory::Inventory;
use crate::metrics::Metrics;
use crate::policy::now;
use crate::snapshot::Snapshot;

/// Connections served at once, per listener.
const CONNECTIONS_MAX: usize = 64;
/// For a request's head, and for a connection that idles.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole connection: one that never takes its answer must not keep its place.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// OpenMetrics.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What can be asked about.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) inventory: Arc<Inventory>,
    pub(crate) drain: Drain,
    pub(crate) config: Arc<Config>,
    /// Told to end, as by SIGTERM.
    pub(crate) stop: Arc<Notify>,
}

/// Which of the two listeners a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// 15020, for the kubelet and Prometheus.
    Status,
    /// 15000, for the operator in the pod.
    Admin,
}

type Response = http::Response<String>;

/// Answers until the process ends.
pub(crate) async fn serve(admin: Arc<Admin>, listener: TcpListener, door: Door) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            // Whoever comes again opens another.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, serve_one(admin, socket, door)).await;
            drop(place);
        });
    }
}

async fn serve_one(admin: Arc<Admin>, socket: TcpStream, door: Door) {
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(&request, door).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(socket), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}

impl Admin {
    async fn answer(&self, request: &http::Request<Incoming>, door: Door) -> Response {
        let path = request.uri().path();
        if let (Door::Status, &Method::GET, Some(number)) =
            (door, request.method(), path.strip_prefix("/probe/"))
        {
            return self.probe(number).await;
        }
        match (door, request.method(), path) {
            (_, &Method::GET, "/metrics") => self.metrics(),
            (_, &Method::GET, "/live") => text(StatusCode::OK, "live\n"),
            (_, &Method::GET, "/ready") => self.ready(),
            (_, &Method::GET, "/identity") => self.identity(),
            (_, &Method::GET, "/apis") => self.apis(),
            (Door::Admin, &Method::GET, "/state") => self.state(),
            (Door::Admin, &Method::POST, "/drain")
                if request.headers().contains_key("x-ringmail-admin") =>
            {
                self.stop.notify_one();
                text(StatusCode::ACCEPTED, "draining\n")
            }
            (Door::Admin, &Method::POST, "/drain") => {
                text(StatusCode::FORBIDDEN, "needs the header x-ringmail-admin\n")
            }
            (_, &Method::GET | &Method::HEAD, _) => text(StatusCode::NOT_FOUND, "not found\n"),
            (_, _, _) => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"),
        }
    }

    /// What the app says to one of the pod's probes.
    async fn probe(&self, number: &str) -> Response {
        let Config {
            probes,
            pod_address,
            socket_mark,
            ..
        } = &*self.config;
        match probes.ask(number, *pod_address, *socket_mark).await {
            Ok(()) => text(StatusCode::OK, "well\n"),
            Err(problem) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
        }
    }

    fn metrics(&self) -> Response {
        let Ok(rendered) = self.metrics.render() else {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics could not be rendered\n",
            );
        };
        let mut response = text(StatusCode::OK, rendered);
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static(METRICS_TYPE),
        );
        response
    }

    fn ready(&self) -> Response {
        let unready = |why| text(StatusCode::SERVICE_UNAVAILABLE, why);
        match (
            self.drain.is_draining(),
            self.snapshot.identity(),
            self.snapshot.workload(),
        ) {
            (true, _, _) => unready("draining\n".to_owned()),
            (false, Err(error), _) | (false, Ok(_), Err(error)) => unready(format!("{error}\n")),
            (false, Ok(_), Ok(_)) if self.snapshot.authorization().is_none() => {
                unready(format!("{}\n", Error::from(Reason::PolicyNotLoaded)))
            }
            (false, Ok(_), Ok(_))
                if self.config.capture.is_some() && self.metrics.capture_in_force.get() == 0 =>
            {
                unready("the redirect rules are not in force\n".to_owned())
            }
            (false, Ok(_), Ok(_)) => text(StatusCode::OK, "ready\n"),
        }
    }

    /// The certificate that every peer is shown, as PEM lines too.
    fn identity(&self) -> Response {
        let Some(identity) = self.snapshot.last_identity() else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "no certificate yet\n");
        };
        let identity = serde_json::json!({
            "spiffe_id": identity.svid.id.as_str(),
            "serial": identity.svid.serial,
            "not_before": identity.svid.not_before,
            "not_after": identity.svid.not_after,
            "chain": identity.chain().iter().map(|one| pem::encode(&Pem::new("CERTIFICATE", one.to_vec()))).collect::<Vec<_>>(),
        });
        text(StatusCode::OK, format!("{identity:#}\n"))
    }

    /// What our app's API is seen to be.
    fn apis(&self) -> Response {
        let mut page = self.inventory.page(now());
        page["workload"] = self.config.owner.to_string().into();
        text(StatusCode::OK, format!("{page:#}\n"))
    }

    /// What is in force, for people: no key, no credential.
    fn state(&self) -> Response {
        let identity = self.snapshot.last_identity();
        let identity = identity.map(|identity| {
            serde_json::json!({
                "spiffe_id": identity.svid.id.as_str(),
                "serial": identity.svid.serial,
                "not_after": identity.svid.not_after,
                "generation": identity.generation,
            })
        });
        let workload = self
            .snapshot
            .workload()
            .ok()
            .map(|workload| workload.name.to_string());
        let mut destinations: Vec<_> = self
            .snapshot
            .known_addresses()
            .iter()
            .map(ToString::to_string)
            .collect();
        destinations.sort_unstable();
        let state = serde_json::json!({ "identity": identity, "workload": workload, "destinations": destinations });
        text(StatusCode::OK, format!("{state:#}\n"))
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}
