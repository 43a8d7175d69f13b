//! Where a request or a connection of our app goes: from the address it dialled to a stream to one pod's proxy.
//!
//! A service is resolved once for each change of it (`services`) into endpoints, which outlive such changes: each has
//! its load and its health, by which one is picked for each request (`balance`). The request is a `call` until it is
//! answered, and may be moved to another endpoint until then (`retry`, `budget`), as its route says.

/// Services, resolved.
pub(crate) mod services;

/// A request until it is answered.
pub(crate) mod call;

/// Calls of our own.
pub(crate) mod unary;

/// Copies for others.
pub(crate) mod mirror;

/// Whether to try again.
pub(crate) mod retry;

/// How often a service can bear that.
mod budget;

/// Which endpoint.
pub(crate) mod balance;

/// One endpoint.
mod endpoint;

/// How much it has to do.
mod load;

/// Whether it is asked at all.
mod health;

/// Our own app, for clients outside the mesh.
pub(crate) mod local;

/// Connections to other proxies.
pub(crate) mod peers;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::destination::{Destination, DestinationKind};
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::limit;

use crate::error::{Error, Reason};
use crate::http::context::{self, identify};
use crate::http::fields::{DECISION, REASON};
use crate::http::neutral::{Request, Response};
use crate::http::route::{Routed, route};
use crate::limits::{Admitted, leaving};
use crate::metrics::{Direction, Protocol, Traffic};
use crate::peer::stream::Stream;
use crate::records::{Record, Seen};
use crate::worker::Worker;
use call::{Call, Outgoing, Terms};
use endpoint::Try;
use health::Cause;
use local::Local;
use services::{Resolved, Target};

/// Who calls what.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Our app's address.
    pub(crate) source: IpAddr,
    /// The address it dialled.
    pub(crate) destination: SocketAddr,
    /// The caller is a client outside the mesh, and what it dialled is our own app.
    pub(crate) local: Option<Rc<Local>>,
}

impl Caller {
    /// What is behind the address it dialled.
    pub(crate) async fn behind(&self, worker: &Worker) -> Result<Arc<Destination>, Error> {
        match &self.local {
            None => worker.snapshot.destination(self.destination).await,
            Some(local) => Ok(local.destination()),
        }
    }

    /// Which way its requests go.
    pub(crate) fn direction(&self) -> Direction {
        match self.local {
            None => Direction::Outbound,
            Some(_) => Direction::Inbound,
        }
    }
}

/// How a connection leaves the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By streams to its pods.
    Service,
    /// As it is: to what is outside the mesh, or to our own app.
    Plain(SocketAddr),
}

/// How to reach a destination.
pub(crate) fn way(kind: &DestinationKind, caller: &Caller) -> Result<Way, Error> {
    let service = match kind {
        DestinationKind::External => return Ok(Way::Plain(caller.destination)),
        DestinationKind::Service(service) => service,
    };
    // Routes decide for each request where it goes.
    let mut others = service
        .endpoints
        .iter()
        .filter(|one| one.address.ip() != caller.source);
    if service.routes.is_some() || others.next().is_some() {
        return Ok(Way::Service);
    }
    // The caller is the only pod: it need not cross two proxies to reach itself.
    let own = service.endpoints.first().ok_or(Reason::NoEndpoints)?;
    Ok(Way::Plain(own.address))
}

/// How an HTTP request begins.
#[allow(
    clippy::large_enum_variant,
    reason = "lives as long as a request; a box would be an allocation for each"
)]
pub(crate) enum Begun<'a> {
    /// It is on its way to a pod; [`Call::head`] waits for the answer.
    Sent(Call<'a>, Stream),
    /// A route answers it: with a head in neutral form, and nothing else.
    Answered(Vec<u8>),
}

/// Routes an HTTP request to the service that was dialled, and sends it on its way.
pub(crate) async fn begin_http<'a>(
    worker: &'a Rc<Worker>,
    caller: &Caller,
    destination: &'a Arc<Destination>,
    mut outgoing: Outgoing,
    record: &mut Option<Record>,
) -> Result<Begun<'a>, Error> {
    let head = std::mem::take(&mut outgoing.head);
    if let Some(local) = &caller.local {
        let outgoing = Outgoing { head, ..outgoing };
        let (call, stream) = Call::local(worker, local, outgoing)?;
        return Ok(Begun::Sent(call, stream));
    }
    let dialled = dialled(destination)?.service;
    let forward = match route(dialled, head, worker.services.roll_u32())? {
        Routed::Answer(head) => return Ok(answered(head, record)),
        Routed::Forward(forward) => forward,
    };
    // Boxed: most apps ask without limits, and every request would hold room for it.
    let admitted = match worker.limits.has(limit::Direction::Outbound) {
        false => Admitted::default(),
        true => {
            let leaving = leaving::request(worker, caller, forward.route, &forward.head);
            match Box::pin(leaving).await? {
                Ok(admitted) => admitted,
                Err(answer) => return Ok(answered(answer, record)),
            }
        }
    };
    let target = Target {
        destination,
        service: forward.service,
    };
    if let Some(record) = record {
        record.goes_to(&forward.service.name, forward.route);
    }
    outgoing.head = forward.head;
    let terms = Terms {
        route: forward.route,
        policy: forward.policy,
        response: forward.response,
        mirrors: forward.mirrors,
    };
    let service = resolve(worker, caller.source, target);
    let now = Instant::now();
    if let Some(spell) = service.exhausted(now) {
        let answer = leaving::shed(worker, caller, &outgoing.head, (&spell, now))?;
        return Ok(answered(answer, record));
    }
    let (mut call, stream) = Call::open(worker, (service, now), terms, outgoing).await?;
    call.hold(admitted);
    if let Some(record) = record {
        record.is_with(call.peer());
    }
    Ok(Begun::Sent(call, stream))
}

/// What a route or a limit answers.
fn answered<'a>(head: Vec<u8>, record: &mut Option<Record>) -> Begun<'a> {
    if let (Some(record), Ok((response, fields))) = (record, Response::decode(&head)) {
        record.answered(response.status, Duration::ZERO);
        record.explained([REASON, DECISION].map(|name| fields.first(name)));
    }
    Begun::Answered(head)
}

/// Gives a request, whose head is in neutral form, what lets people follow it: an id, and the context of our span where
/// there is one; with a record of it if somebody wants one. Of clients outside the mesh the inbound side keeps those.
pub(crate) fn follow(
    worker: &Worker,
    caller: &Caller,
    protocol: Protocol,
    head: &mut Vec<u8>,
) -> Option<Record> {
    identify(head, || worker.services.roll());
    if caller.local.is_some() {
        return None;
    }
    let record = worker.records.begin(|| {
        let (request, fields) = Request::of_ours(head)?;
        Some(Seen {
            direction: Direction::Outbound,
            protocol,
            begun: Instant::now(),
            source: caller.source,
            destination: caller.destination,
            peer: None,
            request: Some(request.asked(fields)),
        })
    });
    if let Some(span) = record.as_ref().and_then(|record| record.span()) {
        context::go_on(head, span);
    }
    record
}

/// The service as this worker knows it, for a caller at `source`.
fn resolve(worker: &Worker, source: IpAddr, target: Target<'_>) -> Rc<Resolved> {
    worker
        .services
        .resolve(target, source, &worker.snapshot, &worker.peers)
}

/// The service that was dialled, where no route says otherwise.
fn dialled(destination: &Arc<Destination>) -> Result<Target<'_>, Error> {
    match &destination.kind {
        DestinationKind::Service(service) => Ok(Target {
            destination,
            service,
        }),
        DestinationKind::External => Err(Reason::NoEndpoints.into()),
    }
}

/// An opaque connection that is under way. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) stream: Stream,
    pub(crate) traffic: Rc<Traffic>,
    service: WorkloadName,
    current: Try,
}

impl Carrier {
    /// Tells where it goes, and to whom.
    pub(crate) fn identify(&self, record: &mut Record) {
        record.goes_to(&self.service, "");
        record.is_with(self.current.endpoint().peer.spiffe_id().cloned());
    }

    /// It ended well.
    pub(crate) fn ended(&self, worker: &Worker) {
        self.current.closed(&worker.metrics);
    }

    /// It ended so: an endpoint whose connections break is not well.
    pub(crate) fn broke(&self, worker: &Worker, reason: Reason) {
        let now = Instant::now();
        self.current
            .failed(Cause::Broken, reason, &worker.metrics, now);
    }
}

/// Opens a stream for an opaque connection to the service that was dialled.
pub(crate) async fn open_tcp(worker: &Rc<Worker>, caller: &Caller) -> Result<Carrier, Error> {
    let destination = worker.snapshot.destination(caller.destination).await?;
    open(worker, caller, dialled(&destination)?).await
}

/// Opens a stream for a connection of the app's own TLS to where the service's routes send that server name; none where
/// they have nothing for it.
pub(crate) async fn open_tls(
    worker: &Rc<Worker>,
    caller: &Caller,
    server_name: Option<&str>,
) -> Result<Carrier, Error> {
    let destination = worker.snapshot.destination(caller.destination).await?;
    let Target { service, .. } = dialled(&destination)?;
    let routes = service.routes.as_ref();
    let rule = routes.and_then(|routes| routes.pick_server(server_name?));
    let weighted = rule
        .ok_or(Reason::NoRoute)?
        .backend(worker.services.roll_u32());
    let backend = weighted
        .and_then(|weighted| weighted.backend)
        .and_then(|index| service.backends.get(index));
    let target = Target {
        destination: &destination,
        service: backend.ok_or(Reason::NoBackend)?,
    };
    open(worker, caller, target).await
}

async fn open(worker: &Rc<Worker>, caller: &Caller, target: Target<'_>) -> Result<Carrier, Error> {
    let name = target.service.name.clone();
    let service = resolve(worker, caller.source, target);
    let tried = RefCell::default();
    let now = Instant::now();
    let (current, streams) = call::begin(worker, &service, &tried, now).await?;
    let stream = Stream::tcp(&streams, current.endpoint().port)?;
    stream.limit_idle(service.timeouts.idle, now);
    current.opened(&worker.metrics);
    let to = (&*current.endpoint().peer, "");
    let traffic = service.traffic(worker, to, Protocol::Tcp);
    Ok(Carrier {
        stream,
        traffic,
        service: name,
        current,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmail_proto::destination::{Endpoint, Service, WEIGHT_DEFAULT};
    use ringmail_proto::identity::SpiffeId;

    fn service(endpoints: &[(&str, bool)]) -> DestinationKind {
        let name = |name| WorkloadName::new("shop", name).expect("valid");
        let id = "spiffe://mesh.local/ns/shop/sa/cart"
            .parse()
            .expect("valid");
        let endpoint = |(address, meshed): &(&str, bool)| Endpoint {
            address: address.parse().expect("valid"),
            workload: name("cart-0"),
            identity: meshed.then_some(SpiffeId::clone(&id)),
            zone_hints: Vec::new(),
            weight: WEIGHT_DEFAULT,
        };
        DestinationKind::Service(Service {
            name: name("cart"),
            port: 80,
            protocol: ringmail_proto::workload::Protocol::Detect,
            endpoints: endpoints.iter().map(endpoint).collect(),
            routes: None,
            backends: Vec::new(),
            timeouts: Default::default(),
        })
    }

    #[test]
    fn by_streams_to_every_pod_but_our_own() {
        let dialled: SocketAddr = "10.96.0.1:80".parse().expect("valid");
        let caller = Caller {
            source: [10, 0, 0, 1].into(),
            destination: dialled,
            local: None,
        };
        let plain = |text: &str| Way::Plain(text.parse().expect("valid"));
        let check = |kind: &DestinationKind, expected| {
            assert_eq!(way(kind, &caller).ok(), expected, "{kind:?}")
        };
        check(&DestinationKind::External, Some(Way::Plain(dialled)));
        check(&service(&[]), None);
        check(&service(&[("10.0.0.2:8080", true)]), Some(Way::Service));
        check(
            &service(&[("10.0.0.3:8080", false), ("10.0.0.2:8080", true)]),
            Some(Way::Service),
        );
        check(&service(&[("10.0.0.3:8080", false)]), Some(Way::Service));
        check(
            &service(&[("10.0.0.1:8080", true)]),
            Some(plain("10.0.0.1:8080")),
        );
    }
}
