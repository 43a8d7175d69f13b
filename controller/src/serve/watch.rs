//! `Watch`: one stream a proxy. The proxy must be the pod it names; it is told its trust bundle and workload, then the
//! destinations it asks for, then what changes of them. A proxy that does not keep up is cut, with a reason.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::Invalid;
use ringmail_proto::identity::TrustDomain;
use ringmail_proto::pb;
use ringmail_proto::pb::discovery_service_server::DiscoveryService;
use ringmail_proto::pb::watch_request::Request as Message;
use ringmail_proto::svid::Svid;
use rustls::pki_types::UnixTime;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::Peer;
use super::admission::Admission;
use super::pod::{NotIts, named};
use super::session::{Broken, OUTSTANDING_MAX, Session};
use super::slowness::Slowness;
use crate::applied::{Proxies, Seat};
use crate::metrics::{Cause, Metrics, ResponseLabels, StreamEnd, StreamLabels};
use crate::publish::Snapshots;
use crate::stop::Stop;

/// From the start of a stream to its hello.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// From a response to its answer.
const ACK_TIMEOUT: Duration = Duration::from_secs(15);
/// Characters of a nack's reason that are logged.
const REASON_CHARS_MAX: usize = 1024;
/// Responses on their way to the connection, and one place for the final status.
const QUEUE: usize = OUTSTANDING_MAX + 1;

/// What watching takes.
#[derive(Debug, Clone)]
pub(crate) struct Discovery(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    trust_domain: TrustDomain,
    snapshots: Snapshots,
    proxies: Arc<Proxies>,
    metrics: Arc<Metrics>,
    admission: Admission,
    stop: Stop,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the proxy left")]
    Closed,
    #[error("no answer to a response in time")]
    Unacknowledged,
    #[error("no hello in time")]
    NoHello,
    #[error("{0}")]
    Message(&'static str),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    NotIts(#[from] NotIts),
    #[error("the certificate of this connection has expired; come back with the current one")]
    Expired,
    #[error("the controller is stopping")]
    Draining,
}

impl Discovery {
    pub(crate) fn new(
        trust_domain: TrustDomain,
        snapshots: Snapshots,
        proxies: Arc<Proxies>,
        metrics: Arc<Metrics>,
        stop: Stop,
    ) -> Self {
        Self(Arc::new(Parts {
            trust_domain,
            snapshots,
            proxies,
            metrics,
            admission: Admission::new(Instant::now()),
            stop,
        }))
    }
}

#[tonic::async_trait]
impl DiscoveryService for Discovery {
    type WatchStream = ReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let parts = self.0.clone();
        let peer = request
            .extensions()
            .get::<Peer>()
            .and_then(|peer| peer.0.clone());
        let Some(peer) = peer else {
            parts.count(StreamEnd::Denied);
            return Err(Status::unauthenticated(
                "watching takes a client certificate",
            ));
        };
        let place = parts
            .admission
            .admit(Instant::now())
            .inspect_err(|_| parts.count(StreamEnd::Overload))?;
        let (out, responses) = mpsc::channel(QUEUE);
        // Ends with the stream: when the proxy leaves, is cut, or we stop.
        tokio::spawn(async move {
            parts.metrics.streams.inc();
            let mut inbound = request.into_inner();
            let ended = parts.drive(&mut inbound, &peer, &out).await;
            parts.metrics.streams.dec();
            parts.count(ended.label());
            if let Some(status) = ended.status() {
                info!(id = %peer.id, "watch stream cut: {ended}");
                // Nobody may be left to hear it.
                let _ = out.try_send(Err(status));
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// One proxy, and what the leader is to know of it.
struct Watcher {
    session: Session,
    seat: Seat,
    slowness: Slowness,
}

type Out = mpsc::Sender<Result<pb::WatchResponse, Status>>;

impl Parts {
    fn count(&self, reason: StreamEnd) {
        self.metrics
            .stream_ends
            .get_or_create(&StreamLabels { reason })
            .inc();
    }

    async fn drive(
        &self,
        inbound: &mut Streaming<pb::WatchRequest>,
        peer: &Svid,
        out: &Out,
    ) -> Ended {
        let mut stop = self.stop.clone();
        let first = tokio::select! {
            () = stop.stopped() => return Ended::Draining,
            first = timeout(HELLO_TIMEOUT, inbound.message()) => first,
        };
        let admitted = match first {
            Err(_) => return Ended::NoHello,
            Ok(Err(_) | Ok(None)) => return Ended::Closed,
            Ok(Ok(Some(first))) => self.hello(first, peer),
        };
        let mut watcher = match admitted {
            Ok(watcher) => watcher,
            Err(ended) => return ended,
        };
        let ended = self.converse(&mut watcher, inbound, peer, out, stop).await;
        let left = i64::try_from(watcher.session.outstanding()).unwrap_or(0);
        self.metrics.outstanding.dec_by(left);
        ended
    }

    fn hello(&self, first: pb::WatchRequest, peer: &Svid) -> Result<Watcher, Ended> {
        let Some(Message::Hello(hello)) = first.request else {
            return Err(Ended::Message("the first request is not hello"));
        };
        let (name, account) = named(hello.workload, peer, &self.trust_domain, &self.snapshots)?;
        let version: String = hello.proxy_version.chars().take(64).collect();
        info!(pod = %name, version, "proxy watches");
        Ok(Watcher {
            seat: self.proxies.seat(name.clone()),
            session: Session::new(name, account),
            slowness: Slowness::new(self.metrics.proxies_behind.clone()),
        })
    }

    async fn converse(
        &self,
        watcher: &mut Watcher,
        inbound: &mut Streaming<pb::WatchRequest>,
        peer: &Svid,
        out: &Out,
        mut stop: Stop,
    ) -> Ended {
        let mut snapshots = self.snapshots.clone();
        let expiry = Instant::now() + life_left(peer, UnixTime::now());
        loop {
            if let Err(ended) = self.tell(&mut watcher.session, &mut snapshots, out) {
                return ended;
            }
            let since = watcher.session.waits_since();
            let overdue = since.map(|at| at + ACK_TIMEOUT);
            let slow = watcher.slowness.see(since, Instant::now());
            let deadline = [overdue, slow]
                .into_iter()
                .flatten()
                .fold(expiry, Instant::min);
            tokio::select! {
                () = stop.stopped() => return Ended::Draining,
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        if let Err(ended) = self.hear(watcher, message, peer) {
                            return ended;
                        }
                    }
                    Ok(None) | Err(_) => return Ended::Closed,
                },
                changed = snapshots.changed() => if changed.is_err() {
                    return Ended::Draining;
                },
                () = out.closed() => return Ended::Closed,
                () = sleep_until(deadline.into()) => {
                    let now = Instant::now();
                    if now >= expiry {
                        return Ended::Expired;
                    }
                    if overdue.is_some_and(|at| now >= at) {
                        return Ended::Unacknowledged;
                    }
                }
            }
        }
    }

    /// Everything there is to tell now and the proxy keeps up with.
    fn tell(
        &self,
        session: &mut Session,
        snapshots: &mut Snapshots,
        out: &Out,
    ) -> Result<(), Ended> {
        let snapshot = snapshots.borrow_and_update().clone();
        while let Some(response) = session.next(&snapshot, Instant::now())? {
            let cause = match response.full {
                true => Cause::Asked,
                false => Cause::Changed,
            };
            out.try_send(Ok(response)).map_err(|e| match e {
                mpsc::error::TrySendError::Full(_) => Ended::Unacknowledged,
                mpsc::error::TrySendError::Closed(_) => Ended::Closed,
            })?;
            let labels = ResponseLabels { cause };
            self.metrics.responses.get_or_create(&labels).inc();
            self.metrics.outstanding.inc();
        }
        Ok(())
    }

    fn hear(
        &self,
        watcher: &mut Watcher,
        message: pb::WatchRequest,
        peer: &Svid,
    ) -> Result<(), Ended> {
        let Watcher { session, seat, .. } = watcher;
        match message.request {
            Some(Message::Subscribe(names)) => session.subscribe(names)?,
            Some(Message::Unsubscribe(names)) => seat.left(&session.unsubscribe(names)?),
            Some(Message::Ack(ack)) => {
                let (told, sent) = session.answered(&ack.nonce)?;
                seat.took(told, Vec::new());
                let took = sent.elapsed().as_secs_f64();
                self.metrics.ack_duration.observe(took);
                self.metrics.outstanding.dec();
                self.metrics.acks.inc();
            }
            Some(Message::Nack(nack)) => {
                let (told, _) = session.answered(&nack.nonce)?;
                self.metrics.outstanding.dec();
                self.metrics.nacks.inc();
                let reason: String = nack.reason.chars().take(REASON_CHARS_MAX).collect();
                let (id, nonce) = (&peer.id, &nack.nonce);
                if nack.denied.is_empty() {
                    warn!(%id, nonce, reason, "a proxy refused a response and keeps what it had");
                    seat.refused(told, &reason);
                } else if told.authorization.is_some() {
                    warn!(%id, nonce, reason, "a proxy cannot act on a policy and denies what it is for");
                    seat.took(told, nack.denied);
                } else {
                    return Err(Ended::Message("denied: no policy was told"));
                }
            }
            Some(Message::Hello(_)) => return Err(Ended::Message("hello was said before")),
            None => {
                return Err(Ended::Message(
                    "the request is empty, or newer than this controller",
                ));
            }
        }
        Ok(())
    }
}

/// How long the certificate of a connection stays valid.
fn life_left(peer: &Svid, now: UnixTime) -> Duration {
    let end = u64::try_from(peer.not_after).unwrap_or(0);
    Duration::from_secs(end.saturating_sub(now.as_secs()))
}

impl Ended {
    fn label(&self) -> StreamEnd {
        match self {
            Self::Closed => StreamEnd::Closed,
            Self::Unacknowledged => StreamEnd::Unacknowledged,
            Self::Broken(Broken::NoWorkload(_) | Broken::OtherIdentity(_)) => {
                StreamEnd::WorkloadGone
            }
            Self::NoHello | Self::Message(_) | Self::Invalid(_) | Self::Broken(_) => {
                StreamEnd::Invalid
            }
            Self::NotIts(NotIts::Invalid(_)) => StreamEnd::Invalid,
            Self::NotIts(_) => StreamEnd::Denied,
            Self::Expired => StreamEnd::Expired,
            Self::Draining => StreamEnd::Draining,
        }
    }

    /// What the proxy is told; nothing when it is gone.
    fn status(&self) -> Option<Status> {
        let text = self.to_string();
        Some(match self {
            Self::Closed => return None,
            Self::Unacknowledged | Self::NoHello => Status::deadline_exceeded(text),
            Self::NotIts(not_its) => not_its.status(),
            Self::Broken(Broken::NoWorkload(_)) => Status::not_found(text),
            Self::Broken(Broken::OtherIdentity(_)) => Status::permission_denied(text),
            Self::Broken(Broken::TooMany) => Status::resource_exhausted(text),
            Self::Message(_) | Self::Invalid(_) | Self::Broken(_) => Status::invalid_argument(text),
            // Both mean: come back over a new connection.
            Self::Expired | Self::Draining => Status::unavailable(text),
        })
    }
}
