//! Where a request or a connection of our app goes: from the address it dialled to a stream to one pod's proxy.
//!
//! Limit: [`ATTEMPTS_MAX`] pods are tried before a request is refused; nothing was sent to those that failed.

/// Connections to other proxies.
pub(crate) mod peers;

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ringmail_proto::destination::{DestinationKind, Endpoint, Service};
use ringmail_proto::identity::SpiffeId;

use crate::error::{Blame, Error, Reason};
use crate::metrics::{Protocol, Traffic};
use crate::peer::open::{Kind, Open};
use crate::peer::stream::Stream;
use crate::worker::Worker;

/// Pods that are tried for one request.
const ATTEMPTS_MAX: usize = 3;

/// Who calls what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    /// Our app's address.
    pub(crate) source: IpAddr,
    /// The address it dialled.
    pub(crate) destination: SocketAddr,
}

/// How a connection leaves the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By streams to the proxies of pods in the mesh.
    Mesh,
    /// As it is: to what is outside the mesh, or to our own app.
    Plain(SocketAddr),
}

/// How to reach a destination. A service with pods in the mesh is reached through those only.
pub(crate) fn way(kind: &DestinationKind, caller: Caller, turn: usize) -> Result<Way, Error> {
    let service = match kind {
        DestinationKind::External => return Ok(Way::Plain(caller.destination)),
        DestinationKind::Service(service) => service,
    };
    if meshed(service, caller).next().is_some() {
        return Ok(Way::Mesh);
    }
    let count = service.endpoints.len();
    if count == 0 {
        return Err(Reason::NoEndpoints.into());
    }
    Ok(Way::Plain(service.endpoints[turn % count].address))
}

/// The pods behind a sidecar, without the caller's own: it need not cross two proxies to reach itself.
fn meshed(service: &Service, caller: Caller) -> impl Iterator<Item = (&Endpoint, &SpiffeId)> {
    let others = service
        .endpoints
        .iter()
        .filter(move |endpoint| endpoint.address.ip() != caller.source);
    others.filter_map(|endpoint| {
        endpoint
            .identity
            .as_ref()
            .map(|identity| (endpoint, identity))
    })
}

/// Opens a stream for one HTTP request, whose head is in neutral form.
pub(crate) async fn open_http(
    worker: &Rc<Worker>,
    caller: &Caller,
    head: &[u8],
    end: bool,
    protocol: Protocol,
) -> Result<(Stream, Rc<Traffic>), Error> {
    open(worker, caller, Kind::Http, head, end, protocol).await
}

/// Opens a stream for an opaque connection.
pub(crate) async fn open_tcp(
    worker: &Rc<Worker>,
    caller: &Caller,
) -> Result<(Stream, Rc<Traffic>), Error> {
    open(worker, caller, Kind::Tcp, &[], false, Protocol::Tcp).await
}

async fn open(
    worker: &Rc<Worker>,
    caller: &Caller,
    kind: Kind,
    head: &[u8],
    end: bool,
    protocol: Protocol,
) -> Result<(Stream, Rc<Traffic>), Error> {
    let destination = worker.snapshot.destination(caller.destination).await?;
    let DestinationKind::Service(service) = &destination.kind else {
        return Err(Reason::NoEndpoints.into());
    };
    let count = meshed(service, *caller).count();
    let first = worker.next_turn();
    let mut last = Error::from(Reason::NoEndpoints);
    for attempt in 0..ATTEMPTS_MAX.min(count) {
        let Some((endpoint, identity)) =
            meshed(service, *caller).nth(first.wrapping_add(attempt) % count)
        else {
            break;
        };
        let open = Open {
            port: endpoint.address.port(),
            kind,
            head,
        };
        match worker
            .peers
            .open(
                worker,
                endpoint.address.ip(),
                identity,
                &open,
                end,
                protocol,
            )
            .await
        {
            Ok(opened) => return Ok(opened),
            Err(error) if error.reason.row().blame == Blame::Peer => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmail_proto::identity::WorkloadName;

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
        };
        DestinationKind::Service(Service {
            name: name("cart"),
            port: 80,
            protocol: ringmail_proto::workload::Protocol::Detect,
            endpoints: endpoints.iter().map(endpoint).collect(),
        })
    }

    #[test]
    fn the_mesh_where_there_is_one_and_never_through_ourselves() {
        let dialled: SocketAddr = "10.96.0.1:80".parse().expect("valid");
        let caller = Caller {
            source: [10, 0, 0, 1].into(),
            destination: dialled,
        };
        let plain = |text: &str| Way::Plain(text.parse().expect("valid"));
        let check = |kind: &DestinationKind, expected| {
            assert_eq!(way(kind, caller, 0).ok(), expected, "{kind:?}")
        };
        check(&DestinationKind::External, Some(Way::Plain(dialled)));
        check(&service(&[]), None);
        check(&service(&[("10.0.0.2:8080", true)]), Some(Way::Mesh));
        check(
            &service(&[("10.0.0.3:8080", false), ("10.0.0.2:8080", true)]),
            Some(Way::Mesh),
        );
        check(
            &service(&[("10.0.0.3:8080", false)]),
            Some(plain("10.0.0.3:8080")),
        );
        check(
            &service(&[("10.0.0.1:8080", true)]),
            Some(plain("10.0.0.1:8080")),
        );
    }
}
