//! What the API server calls us for: TLS under a name of our Service, HTTP/1, one JSON review in and one out.
//!
//! Never an error that stands in anybody's way by itself: whether a call that fails refuses an object is for the webhook
//! configuration to say. Limits: `SEATS_MAX` connections, `HANDSHAKE_TIMEOUT`, `REVIEW_BYTES_MAX`, of which all large ones
//! have `LARGE_BYTES_MAX`, `REVIEWS_MAX` at a time, `BUDGET` for each, `NAMESPACE_WAIT` of it for the namespace of a pod. Told to stop, it answers for `LINGER` more, until
//! the API server has learnt of it.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::config::CONTROLLER_ACCOUNT;
use crate::inject::{Settings, Surroundings};
use crate::metrics::{CallLabels, Metrics, Reviewed, Webhook, WebhookLabels};
use crate::source::State;
use crate::stop::Stop;

/// The certificate under which the API server knows us.
pub(crate) mod identity;

/// Who is connected.
mod seats;

/// A review as it travels.
mod review;

/// `/namespaces`: the annotation becomes the label.
mod namespaces;

/// `/pods`: the sidecar.
mod pods;

/// `/validate`: what our own reading says.
mod validate;

use review::{Answer, Question};
use seats::{Seated, Seats};

/// From accept to the end of the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of one review: the API server takes objects of 1.5 MiB, and an update has two.
const REVIEW_BYTES_MAX: u32 = 3 * 1024 * 1024;
/// A review up to this size needs no leave: nearly every pod is smaller.
const SMALL_BYTES_MAX: u32 = 64 * 1024;
/// Bytes of all larger reviews at a time; others wait before they are received.
const LARGE_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Reviews that are read at a time; others wait. Bounds what they hold in memory beside their texts.
const REVIEWS_MAX: usize = 32;
/// From the head of a call to its answer: before the API server gives up after 5 s, so that it hears why.
const BUDGET: Duration = Duration::from_millis(4500);
/// From the stop to the end of accepting.
const LINGER: Duration = Duration::from_secs(3);
/// For the namespace of a pod to be seen.
const NAMESPACE_WAIT: Duration = Duration::from_secs(1);
/// Between two calls of one connection; an idle one must not hold its place for long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// After accept failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every call shares.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) tls: Arc<ArcSwap<ServerConfig>>,
    pub(crate) states: watch::Receiver<Option<Arc<State>>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain_timeout: Duration,
    /// What pods are given.
    pub(crate) sidecar: Settings,
    reviews: Semaphore,
    large_bytes: Semaphore,
    seats: Arc<Seats>,
}

impl Front {
    pub(crate) fn new(
        tls: Arc<ArcSwap<ServerConfig>>,
        states: watch::Receiver<Option<Arc<State>>>,
        metrics: Arc<Metrics>,
        drain_timeout: Duration,
        sidecar: Settings,
    ) -> Self {
        Self {
            tls,
            states,
            metrics,
            drain_timeout,
            sidecar,
            reviews: Semaphore::new(REVIEWS_MAX),
            large_bytes: Semaphore::new(LARGE_BYTES_MAX),
            seats: Arc::default(),
        }
    }
}

/// Accepts until told to stop, and a little longer.
pub(crate) async fn serve(listener: TcpListener, front: Arc<Front>, mut stop: Stop) {
    let mut connections = JoinSet::new();
    let linger = LINGER.min(front.drain_timeout);
    let mut over = pin!(async {
        stop.stopped().await;
        sleep(linger).await;
    });
    let (ending, end) = crate::stop::pair();
    loop {
        tokio::select! {
            () = &mut over => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => {
                    let from = address.ip().to_canonical();
                    match front.seats.take(from, Instant::now()) {
                        Some(seat) => {
                            connections.spawn(front.clone().connection(socket, seat, end.clone()));
                        }
                        None => debug!(%from, "no seat for another call"),
                    }
                }
                Err(e) => {
                    warn!("cannot accept calls of the API server: {e}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    ending.stop();
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(BUDGET, finish).await.is_err() {
        connections.shutdown().await;
    }
}

impl Front {
    /// Until it ends, or its seat is somebody else's.
    async fn connection(self: Arc<Self>, socket: TcpStream, seat: Seated, stop: Stop) {
        tokio::select! {
            () = self.converse(socket, &seat, stop) => {}
            () = seat.left() => {}
        }
    }

    async fn converse(&self, socket: TcpStream, seat: &Seated, mut stop: Stop) {
        let _ = socket.set_nodelay(true);
        let acceptor = TlsAcceptor::from(self.tls.load_full());
        let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => {
                // An API server that does not know our root yet.
                debug!("handshake with the API server failed: {e}");
                return;
            }
            Err(_) => return,
        };
        let service =
            service_fn(|request| async { Ok::<_, Infallible>(self.call(request, seat).await) });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(KEEP_ALIVE)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.stopped() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            debug!("connection of the API server ended: {e}");
        }
    }

    async fn call(&self, request: Request<Incoming>, seat: &Seated) -> Response<Full<Bytes>> {
        let webhook = match request.uri().path() {
            "/namespaces" => Webhook::Namespaces,
            "/pods" => Webhook::Pods,
            "/validate" => Webhook::Validate,
            _ => Webhook::Unknown,
        };
        let begun = Instant::now();
        let answered = timeout(BUDGET, self.review(webhook, request, seat)).await;
        let (outcome, response) =
            answered.unwrap_or_else(|_| refused(Reviewed::TimedOut, StatusCode::GATEWAY_TIMEOUT));
        let labels = WebhookLabels { webhook, outcome };
        self.metrics.webhooks.get_or_create(&labels).inc();
        let took = &self.metrics.webhook_duration;
        let took = took.get_or_create(&CallLabels { webhook });
        took.observe(begun.elapsed().as_secs_f64());
        response
    }

    async fn review(
        &self,
        webhook: Webhook,
        request: Request<Incoming>,
        seat: &Seated,
    ) -> (Reviewed, Response<Full<Bytes>>) {
        if webhook == Webhook::Unknown {
            return refused(Reviewed::Invalid, StatusCode::NOT_FOUND);
        }
        if request.method() != Method::POST {
            return refused(Reviewed::Invalid, StatusCode::METHOD_NOT_ALLOWED);
        }
        let length = request.body().size_hint().upper();
        let length = length.and_then(|bytes| u32::try_from(bytes).ok());
        let length = length.unwrap_or(REVIEW_BYTES_MAX);
        if length > REVIEW_BYTES_MAX {
            return refused(Reviewed::Invalid, StatusCode::PAYLOAD_TOO_LARGE);
        }
        // Neither semaphore is ever closed.
        let _leave = match length > SMALL_BYTES_MAX {
            true => self.large_bytes.acquire_many(length).await.ok(),
            false => None,
        };
        // Received first: whoever sends slowly must not keep others from being answered, nor keeps its seat.
        let body = Limited::new(request.into_body(), length as usize);
        let Ok(body) = body.collect().await else {
            return refused(Reviewed::Invalid, StatusCode::PAYLOAD_TOO_LARGE);
        };
        let _asking = seat.ask();
        let _place = self.reviews.acquire().await;
        let question = match Question::read(&body.to_bytes()) {
            Ok(question) => question,
            Err(e) => {
                warn!("a call of the API server is no review: {e}");
                return refused(Reviewed::Invalid, StatusCode::BAD_REQUEST);
            }
        };
        let answer = match webhook {
            Webhook::Namespaces => namespaces::answer(&question),
            Webhook::Pods => self.pod(&question).await,
            Webhook::Validate | Webhook::Unknown => validate::answer(&question),
        };
        let outcome = answer.outcome();
        let text = answer.write(&question.uid);
        let response = Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(text))
            .unwrap_or_default();
        (outcome, response)
    }

    /// A namespace that was made a moment ago may not have been seen yet, and its annotations count.
    async fn pod(&self, question: &Question) -> Answer {
        let around = |state: &Option<Arc<State>>| {
            let objects = &state.as_ref()?.objects;
            let namespace = objects.namespace(&question.namespace)?;
            let own = objects.service(&self.sidecar.namespace, CONTROLLER_ACCOUNT);
            let address = own.and_then(|one| one.spec.as_ref()?.cluster_ip.as_ref()?.parse().ok());
            Some(Surroundings {
                owner: None,
                inherited: namespace.metadata.annotations.clone().unwrap_or_default(),
                controller: address,
            })
        };
        let mut states = self.states.clone();
        let seen = states.wait_for(|state| around(state).is_some());
        let around = match timeout(NAMESPACE_WAIT, seen).await {
            Ok(Ok(state)) => around(&state),
            Ok(Err(_)) | Err(_) => None,
        };
        pods::answer(question, around.as_ref(), &self.sidecar)
    }
}

fn refused(outcome: Reviewed, status: StatusCode) -> (Reviewed, Response<Full<Bytes>>) {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    (outcome, response)
}

#[cfg(test)]
mod tests;
