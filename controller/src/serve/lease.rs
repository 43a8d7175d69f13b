//! `Lease`: one stream a proxy, to the ledger of rate limits. The proxy must be the pod it names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmail_proto::identity::TrustDomain;
use ringmail_proto::pb;
use ringmail_proto::pb::lease_service_server::LeaseService;
use ringmail_proto::svid::Svid;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::Peer;
use super::pod::{NotIts, named};
use super::watch::HELLO_TIMEOUT;
use crate::ledger::{Event, Events, Out, RESPONSES_MAX};
use crate::publish::Snapshots;
use crate::stop::Stop;

/// What leasing takes.
#[derive(Debug, Clone)]
pub(crate) struct Leases(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    trust_domain: TrustDomain,
    snapshots: Snapshots,
    events: Events,
    sessions: AtomicU64,
    stop: Stop,
}

impl Leases {
    pub(crate) fn new(
        trust_domain: TrustDomain,
        snapshots: Snapshots,
        events: Events,
        stop: Stop,
    ) -> Self {
        Self(Arc::new(Parts {
            trust_domain,
            snapshots,
            events,
            sessions: AtomicU64::new(0),
            stop,
        }))
    }
}

#[tonic::async_trait]
impl LeaseService for Leases {
    type LeaseStream = ReceiverStream<Result<pb::LeaseResponse, Status>>;

    async fn lease(
        &self,
        request: Request<Streaming<pb::LeaseRequest>>,
    ) -> Result<Response<Self::LeaseStream>, Status> {
        let parts = self.0.clone();
        let peer = request.extensions().get::<Peer>();
        let Some(peer) = peer.and_then(|peer| peer.0.clone()) else {
            return Err(Status::unauthenticated(
                "leasing takes a client certificate",
            ));
        };
        let (out, responses) = mpsc::channel(RESPONSES_MAX);
        // Ends with the stream: when the proxy leaves, breaks the protocol, or we stop.
        tokio::spawn(async move {
            let mut inbound = request.into_inner();
            if let Err(status) = parts.drive(&mut inbound, &peer, &out).await {
                info!(id = %peer.id, "lease stream cut: {}", status.message());
                // Nobody may be left to hear it.
                let _ = out.try_send(Err(status));
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

impl Parts {
    async fn drive(
        &self,
        inbound: &mut Streaming<pb::LeaseRequest>,
        peer: &Svid,
        out: &Out,
    ) -> Result<(), Status> {
        let stopping = || Status::unavailable("the controller is stopping");
        let mut stop = self.stop.clone();
        let first = tokio::select! {
            () = stop.stopped() => return Err(stopping()),
            first = timeout(HELLO_TIMEOUT, inbound.message()) => first,
        };
        let mut first = match first {
            Err(_) => return Err(Status::deadline_exceeded("nothing was said in time")),
            Ok(Err(_) | Ok(None)) => return Ok(()),
            Ok(Ok(Some(first))) => first,
        };
        let whose = first.workload.take();
        let (pod, _) =
            named(whose, peer, &self.trust_domain, &self.snapshots).map_err(|e| e.status())?;
        let id = self.sessions.fetch_add(1, Ordering::Relaxed);
        debug!(%pod, "a proxy leases");
        self.tell(Event::Opened(id, pod, out.clone())).await?;
        let mut said = Some(first);
        let ended = loop {
            if let Some(said) = said.take() {
                self.tell(Event::Said(id, said)).await?;
            }
            tokio::select! {
                () = stop.stopped() => break Err(stopping()),
                () = out.closed() => break Ok(()),
                message = inbound.message() => match message {
                    Ok(Some(message)) => said = Some(message),
                    Ok(None) | Err(_) => break Ok(()),
                },
            }
        };
        self.tell(Event::Closed(id)).await?;
        ended
    }

    /// An error: nobody keeps a ledger any more.
    async fn tell(&self, event: Event) -> Result<(), Status> {
        let told = self.events.send(event).await;
        told.map_err(|_| Status::unavailable("the controller is stopping"))
    }
}

impl NotIts {
    /// What the proxy is told.
    pub(super) fn status(&self) -> Status {
        let text = self.to_string();
        match self {
            Self::Invalid(_) => Status::invalid_argument(text),
            Self::UnknownWorkload(_) => Status::not_found(text),
            Self::OtherIdentity { .. } => Status::permission_denied(text),
        }
    }
}
