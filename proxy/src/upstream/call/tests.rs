//! Calls to an endpoint at the other end of a wire in memory, which does as a script says.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use ringmail_proto::destination::{
    Destination, DestinationKind, Endpoint, Service, WEIGHT_DEFAULT,
};
use ringmail_proto::identity::{SpiffeId, WorkloadName};
use ringmail_proto::route::Retry;
use tokio::task::spawn_local;

use super::*;
use crate::config::Config;
use crate::drain::drain;
use crate::http::neutral::{Version, put_field};
use crate::limits::buckets::Buckets;
use crate::metrics::Metrics;
use crate::peer::frame::Decoder;
use crate::peer::streams::Side;
use crate::records::Hands;
use crate::snapshot::Snapshot;
use crate::tls::identity::Identity;
use crate::upstream::dialled;
use crate::upstream::resolve;
use crate::worker::Shared;

const ID: &str = "spiffe://mesh.local/ns/shop/sa/cart";
const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const SHORT: Duration = Duration::from_millis(50);

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
enum Act {
    Answer(u16),
    /// With `Retry-After: 0`.
    AnswerSoon(u16),
    Reset(Reason),
    Silence,
    /// A 103, then a reset.
    HintsThenReset,
}

fn worker() -> Rc<Worker> {
    let variables = |name: &str| {
        let value = match name {
            "RINGMAIL_TRUST_DOMAIN" => "mesh.local",
            "RINGMAIL_CONTROLLER_ADDRESS" => "127.0.0.1:15012",
            "RINGMAIL_BOOTSTRAP_ROOTS_FILE" => "/nowhere",
            "RINGMAIL_WORKLOAD" => "shop/client",
            "RINGMAIL_JOIN_TOKEN_FILE" => "/nowhere",
            "RINGMAIL_PROXY_UID" => "1337",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let config = Config::from_variables(&variables).expect("a configuration");
    let (snapshot, _lookups) = Snapshot::new();
    snapshot.put_identity(Identity::of_test(ID));
    let (_drainer, drain) = drain();
    let (buckets, _news) = Buckets::new();
    let metrics = Arc::new(Metrics::new(1, &config.workload));
    Worker::new(Shared {
        config: Arc::new(config),
        snapshot,
        metrics,
        drain,
        buckets,
        inventory: Arc::default(),
        hands: Hands::none(),
    })
}

fn destination() -> Arc<Destination> {
    let name = |name| WorkloadName::new("shop", name).expect("valid");
    let endpoint = Endpoint {
        address: "10.0.0.2:8080".parse().expect("valid"),
        workload: name("cart-0"),
        identity: Some(ID.parse().expect("valid")),
        zone_hints: Vec::new(),
        weight: WEIGHT_DEFAULT,
    };
    let service = Service {
        name: name("cart"),
        port: 80,
        protocol: ringmail_proto::workload::Protocol::Detect,
        endpoints: vec![endpoint],
        routes: None,
        backends: Vec::new(),
        timeouts: Default::default(),
    };
    Arc::new(Destination {
        address: "10.96.0.1:80".parse().expect("valid"),
        kind: DestinationKind::Service(service),
    })
}

fn head(method: &str) -> Vec<u8> {
    let mut head = Vec::new();
    let request = Request {
        version: Version::Http11,
        upgrade: false,
        method,
        target: "/",
    };
    request.encode(&mut head);
    head
}

fn act(stream: Stream, act: Act, kept: &RefCell<Vec<Stream>>) {
    let send = |status, fields: &[(&[u8], &[u8])]| {
        let response = Response {
            version: Version::Http11,
            upgrade: false,
            status,
            phrase: b"",
        };
        stream.send_head(Kind::Head, status >= 200, |out| {
            response.encode(out);
            for (name, value) in fields {
                put_field(out, name, value);
            }
        });
    };
    match act {
        Act::Answer(status) => send(status, &[]),
        Act::AnswerSoon(status) => send(status, &[(b"retry-after", b"0")]),
        Act::Reset(reason) => stream.fail(reason),
        Act::HintsThenReset => {
            send(103, &[]);
            stream.fail(Reason::PeerGone);
        }
        Act::Silence => return kept.borrow_mut().push(stream),
    }
}

/// Puts the script's endpoint where the service's is, and lets it play.
fn attach(worker: &Rc<Worker>, mut script: VecDeque<Act>) {
    let (near, far) = (Streams::new(Side::Dialer), Streams::new(Side::Acceptor));
    let id: SpiffeId = ID.parse().expect("valid");
    let peer = worker
        .peers
        .peer([10, 0, 0, 2].into(), &crate::upstream::peers::Is::Proxy(id));
    peer.add(near.clone(), 1, None);
    spawn_local(async move {
        let _peer = peer;
        let mut decoders = [Decoder::default(), Decoder::default()];
        let kept = RefCell::default();
        poll_fn::<(), _>(|cx| {
            let mut accept = |stream, _: Reader, _: &[u8]| {
                act(stream, script.pop_front().unwrap_or(Act::Silence), &kept);
            };
            let mut ways = [(&near, &far), (&far, &near)].into_iter().cycle();
            let mut idle = 0;
            while idle < 2 {
                let Some((from, to)) = ways.next() else {
                    break;
                };
                let mut bytes = Vec::new();
                let decoder = &mut decoders[usize::from(Rc::ptr_eq(from, &far))];
                idle = match from.take_out(&mut bytes, cx.waker()) {
                    true => 0,
                    false => idle + 1,
                };
                let decoded = decoder.decode(&bytes, &mut |frame| {
                    to.receive(frame, &mut accept).expect("we keep the rules");
                });
                decoded.expect("we make frames");
            }
            Poll::Pending
        })
        .await;
    });
}

/// What a client sees of a request: the status, or why there is none.
async fn outcome(policy: &Policy, method: &str, script: &[Act]) -> Result<u16, Reason> {
    let (worker, destination) = (worker(), destination());
    attach(&worker, script.iter().copied().collect());
    let outgoing = Outgoing {
        head: head(method),
        end: true,
        protocol: Protocol::Http1,
        patience: None,
    };
    let target = dialled(&destination).expect("a service");
    let terms = Terms {
        route: "",
        policy,
        response: ResponseEdits::default(),
        mirrors: &[],
    };
    let service = (resolve(&worker, SOURCE, target), Instant::now());
    let opened = Call::open(&worker, service, terms, outgoing).await;
    let (call, stream) = opened.map_err(|error| error.reason)?;
    let traffic = call.traffic().map_err(|error| error.reason)?;
    let mut exchange = Exchange::begin(traffic, call.begun());
    let mut reader = Reader::default();
    let answered = async {
        loop {
            call.head(&stream, &mut reader, &mut exchange).await?;
            let received = stream.receive(&mut reader).await?;
            if let Some(status @ 200..) = Response::status_of(received.payload) {
                return Ok(status);
            }
        }
    };
    call.in_time(pin!(answered))
        .await
        .map_err(|error| error.reason)
}

#[test]
fn what_a_client_sees_of_an_endpoint_that_fails_and_then_does_not() {
    let plain = Policy::default();
    let retry = Some(Retry {
        attempts: 2,
        statuses: vec![429, 503, 504],
        backoff: Duration::from_millis(1),
    });
    let listed = Policy {
        retry: retry.clone(),
        ..Policy::default()
    };
    let hasty = Policy {
        backend_timeout: Some(SHORT),
        retry,
        ..Policy::default()
    };
    let hastier = Policy {
        request_timeout: Some(SHORT / 2),
        ..hasty.clone()
    };
    let brief = Policy {
        backend_timeout: Some(SHORT),
        ..Policy::default()
    };
    let (gone, refused) = (Act::Reset(Reason::PeerGone), Act::Reset(Reason::Draining));
    let fine = Act::Answer(200);
    type Row<'a> = (&'a Policy, &'a str, &'a [Act], Result<u16, Reason>);
    let rows: &[Row<'_>] = &[
        (&plain, "POST", &[fine], Ok(200)),
        // Refused unprocessed: whatever the method. Broken off: only if it is idempotent.
        (&plain, "POST", &[refused, refused, fine], Ok(200)),
        (&plain, "GET", &[gone, fine], Ok(200)),
        (&plain, "POST", &[gone, fine], Err(Reason::PeerGone)),
        (
            &plain,
            "GET",
            &[gone, gone, gone, fine],
            Err(Reason::PeerGone),
        ),
        (
            &plain,
            "GET",
            &[Act::HintsThenReset, fine],
            Err(Reason::PeerGone),
        ),
        (
            &plain,
            "GET",
            &[Act::Reset(Reason::AppMalformed), fine],
            Err(Reason::AppMalformed),
        ),
        // The only app there is hung up on it.
        (
            &plain,
            "GET",
            &[Act::Reset(Reason::AppGone), fine],
            Err(Reason::AppGone),
        ),
        // Statuses: as the route says, the last one as it is.
        (&plain, "GET", &[Act::Answer(503), fine], Ok(503)),
        (
            &listed,
            "POST",
            &[Act::Answer(503), Act::Answer(503), fine],
            Ok(200),
        ),
        (
            &listed,
            "GET",
            &[Act::Answer(503), Act::Answer(503), Act::Answer(503)],
            Ok(503),
        ),
        (&listed, "GET", &[Act::Answer(500), fine], Ok(500)),
        (&listed, "GET", &[Act::Answer(429), fine], Ok(429)),
        (&listed, "GET", &[Act::AnswerSoon(429), fine], Ok(200)),
        // Time.
        (
            &brief,
            "GET",
            &[Act::Silence, fine],
            Err(Reason::BackendTimeout),
        ),
        (&hasty, "POST", &[Act::Silence, Act::Silence, fine], Ok(200)),
        (
            &hasty,
            "GET",
            &[Act::Silence; 3],
            Err(Reason::BackendTimeout),
        ),
        (
            &hastier,
            "GET",
            &[Act::Silence; 3],
            Err(Reason::RequestTimeout),
        ),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    for (policy, method, script, expected) in rows {
        let found = runtime.block_on(outcome(policy, method, script));
        assert_eq!(found, *expected, "{policy:?} {method} {script:?}");
    }
}
