//! What `benches/micro` counts the instructions of: decisions and codecs that are private to the proxy, behind names of
//! their own. Nothing is decided here; what goes wrong is `None` or nothing. Only there with the feature `bench`.

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ringmail_proto::destination::Service;
use ringmail_proto::identity::WorkloadName;
use ringmail_proto::limit::session::Session;
use ringmail_proto::pb;
use ringmail_proto::policy::Authorizer;
use ringmail_proto::version::Version as Learnt;

use crate::config::Config;
use crate::detect::{self, Verdict};
use crate::http::exchange::Exchange;
use crate::http::h1::{body::Body, parse, write};
use crate::http::h2::heads::{self, Blocks, Tunnel};
use crate::http::neutral::{Request, Response, Version};
use crate::http::route::{Routed, route};
use crate::limits::buckets::Buckets;
use crate::limits::{Limits, Subject};
use crate::metrics::{Between, Direction, Metrics, Protocol, Tls, Traffic};
use crate::peer::frame::{self, Decoder, Kind};
use crate::policy::{Client, Wanted};
use crate::records::{self, Hands, Records, Seen};
use crate::snapshot::{Authorized, Snapshot};
use crate::upstream::balance::{self, Field, Standing};

/// Whether these first bytes are taken for HTTP/1.
pub fn is_http1(bytes: &[u8]) -> bool {
    detect::detect(bytes) == Verdict::Http1
}

/// A request's text to neutral form, appended to `out`.
pub fn h1_request(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    parse::request(text, out).ok()?.map(|_| ())
}

/// A response's text to neutral form, appended to `out`.
pub fn h1_response(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let asked = parse::Asked {
        is_head: false,
        is_connect: false,
        upgrade: false,
    };
    parse::response(text, asked, out).ok()?.map(|_| ())
}

/// A request in neutral form to text, appended to `out`.
pub fn h1_request_text(neutral: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (request, fields) = Request::decode(neutral).ok()?;
    write::request(&request, fields, false, out).ok()?;
    Some(())
}

/// A response in neutral form, whose body follows, to text, appended to `out`.
pub fn h1_response_text(neutral: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (response, fields) = Response::decode(neutral).ok()?;
    let answer = write::Answer {
        version: Version::Http11,
        is_head: false,
        persistent: true,
    };
    write::response(&response, fields, true, answer, out).ok()?;
    Some(())
}

/// What one direction of a connection of HTTP/2 knows of fields.
#[derive(Debug, Default)]
pub struct H2Blocks(Blocks);

impl H2Blocks {
    /// A request's block to neutral form.
    pub fn request(&mut self, block: &[u8]) -> Option<Vec<u8>> {
        let request = self.0.request(block).ok()?.ok()?;
        request.refused.is_none().then_some(request.neutral)
    }

    /// A response's block to neutral form, appended to `out`.
    pub fn response(&mut self, block: &[u8], out: &mut Vec<u8>) -> Option<()> {
        self.0.response(block, out).ok()?.ok().map(drop)
    }
}

/// A request in neutral form to a block, appended to `out`.
pub fn h2_request_block(neutral: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (request, fields) = Request::decode(neutral).ok()?;
    heads::put_request(&request, fields, &Tunnel::None, out).ok()
}

/// A response in neutral form to a block, appended to `out`.
pub fn h2_response_block(neutral: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let (response, fields) = Response::decode(neutral).ok()?;
    heads::put_response(response.status, fields, &Tunnel::None, out).ok()
}

/// The head that a request in neutral form goes on with.
pub fn routed(service: &Service, neutral: Vec<u8>, random: u32) -> Option<Vec<u8>> {
    match route(service, neutral, random).ok()? {
        Routed::Forward(forward) => Some(forward.head),
        Routed::Answer(_) => None,
    }
}

/// Appends a frame of DATA, if it is not too large for one.
pub fn put_data(out: &mut Vec<u8>, stream: u32, data: &[u8]) -> Option<()> {
    let put = frame::put(out, stream, Kind::Data, false, |out| {
        out.extend_from_slice(data);
    });
    put.ok().map(drop)
}

/// Bytes of payload in whole frames.
pub fn frames(bytes: &[u8]) -> Option<usize> {
    let mut payload = 0;
    let decoded = Decoder::default().decode(bytes, &mut |frame| payload += frame.payload.len());
    decoded.ok().map(|()| payload)
}

/// Appends a chunk to `out`.
pub fn put_chunk(data: &[u8], out: &mut Vec<u8>) -> Option<()> {
    write::Framing::Chunked.put(data, out).ok()
}

/// Bytes of a whole body in chunks.
pub fn chunks(mut text: &[u8]) -> Option<usize> {
    let (mut body, mut trailers, mut bytes) = (Body::chunked(), Vec::new(), 0);
    while !body.is_over() {
        let piece = body.decode(text, &mut trailers).ok()?;
        if piece.used == 0 {
            return None;
        }
        bytes += piece.data.len();
        text = &text[piece.used..];
    }
    Some(bytes)
}

/// Which of endpoints of such costs is asked.
pub fn picked(costs: &[f64], random: u64) -> Option<usize> {
    let standing = |index: usize| costs.get(index).copied().map(Standing::Open);
    balance::pick(&Field::even(costs.len()), random, standing).map(|picked| picked.index)
}

/// The limits of a worker that holds tokens of each.
#[derive(Debug)]
pub struct Limited {
    limits: Limits,
    client: Client,
    /// Whoever asks has read the clock.
    now: Instant,
}

/// Tokens, and how long they may be spent.
const LEASED: u64 = 1 << 50;
const LEASED_FOR: Duration = Duration::from_secs(3600);

impl Limited {
    /// By such policy, whose limits have one bucket each.
    pub fn new(wire: pb::Authorization) -> Option<Self> {
        let learnt: ringmail_proto::policy::Authorization = wire.try_into().ok()?;
        let limits = learnt.limits.clone();
        let (snapshot, _) = Snapshot::new();
        let (buckets, _) = Buckets::new();
        let now = Instant::now();
        buckets.set(true, Some(now + LEASED_FOR));
        let mut session = Session::new();
        for limit in &limits {
            let terms = limit.terms.as_ref().ok()?;
            let key = buckets.key(&limit.name, b"", terms);
            let name = (key.limit.clone(), key.name.clone());
            session.hold(key.lease.clone(), name, key.pace, None, now);
        }
        if let Some(request) = session.report(now) {
            let grant = |key: &pb::LeaseKey| pb::LeaseGrant {
                number: key.number,
                granted: LEASED,
                ..pb::LeaseGrant::default()
            };
            let response = pb::LeaseResponse {
                heard: request.sequence,
                grants: request.keys.iter().map(grant).collect(),
                opens_us: 0,
            };
            session.receive(&response, now).ok()?;
        }
        snapshot.put_authorization(Authorized {
            authorizer: Authorizer::new(learnt),
            authentications: Vec::new(),
            limits,
            version: Learnt {
                epoch: 1,
                sequence: 1,
            },
        });
        let of = WorkloadName::new("shop", "cart").ok()?;
        Some(Self {
            limits: Limits::new(snapshot, Arc::new(Metrics::new(1, &of)), buckets),
            client: Client {
                svid: None,
                address: IpAddr::from([10, 1, 2, 3]),
            },
            now,
        })
    }

    /// Spends a token of each limit for a request in neutral form, if all are there.
    pub fn admit(&self, neutral: &[u8]) -> Option<()> {
        let request = Request::decode(neutral).ok()?;
        let wanted = Wanted {
            client: &self.client,
            port: 8080,
            request: Some(request),
            came: None,
            token: None,
            asking: &[],
        };
        let subject = Subject::from(&wanted);
        let admitted = pin!(self.limits.admit(&subject, self.now));
        match admitted.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(_)) => Some(()),
            Poll::Ready(Err(_)) | Poll::Pending => None,
        }
    }
}

/// Handles of one peer.
#[derive(Debug)]
pub struct Counted(Rc<Traffic>);

impl Counted {
    /// Of a client with an identity.
    pub fn new() -> Option<Self> {
        let of = WorkloadName::new("shop", "cart").ok()?;
        let between = Between {
            peer: "spiffe://cluster.local/ns/shop/sa/front",
            ..Between::inbound(Tls::Mutual, Protocol::Http1)
        };
        let traffic = Metrics::new(1, &of).traffic(&between);
        Some(Self(Rc::new(traffic)))
    }

    /// All that is counted of a request, between two times that were read anyway.
    pub fn request(&self, begun: Instant, answered: Instant) {
        let mut exchange = Exchange::begin(self.0.clone(), begun);
        exchange.answered(200, answered);
        exchange.sent(100);
        exchange.finish();
    }
}

/// Records of one worker's requests.
#[derive(Debug)]
pub struct Recorded(Records);

impl Recorded {
    /// As these variables have it.
    pub fn new(variables: &[(&str, &str)]) -> Option<Self> {
        let needed = [
            ("RINGMAIL_TRUST_DOMAIN", "mesh.local"),
            ("RINGMAIL_CONTROLLER_ADDRESS", "controller:15012"),
            ("RINGMAIL_BOOTSTRAP_ROOTS_FILE", "/root.pem"),
            ("RINGMAIL_WORKLOAD", "shop/cart-0"),
            ("RINGMAIL_JOIN_TOKEN_FILE", "/token"),
            ("RINGMAIL_PROXY_UID", "1337"),
        ];
        let variable = |name: &str| {
            let mut all = variables.iter().chain(&needed);
            let (_, value) = all.find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        };
        let config = Config::from_variables(&variable).ok()?;
        Some(Self(Records::new(&config, Hands::none())))
    }

    /// A request, whose head is in neutral form and was read, from its beginning to its end; whether there is a record of it.
    pub fn request(&self, neutral: &[u8], begun: Instant) -> Option<bool> {
        let record = self.0.begin(|| {
            let (request, fields) = Request::of_ours(neutral)?;
            Some(Seen {
                direction: Direction::Outbound,
                protocol: Protocol::Http1,
                begun,
                source: [10, 0, 0, 2].into(),
                destination: ([10, 96, 0, 1], 80).into(),
                peer: None,
                request: Some(request.asked(fields)),
            })
        });
        Some(match record {
            None => false,
            Some(mut record) => {
                record.answered(200, Duration::ZERO);
                true
            }
        })
    }

    /// The line of a request in the access log, appended to `out`.
    pub fn line(neutral: &[u8], begun: Instant, out: &mut Vec<u8>) -> Option<()> {
        let (request, fields) = Request::of_ours(neutral)?;
        let seen = Seen {
            direction: Direction::Outbound,
            protocol: Protocol::Http1,
            begun,
            source: [10, 0, 0, 2].into(),
            destination: ([10, 96, 0, 1], 80).into(),
            peer: None,
            request: Some(request.asked(fields)),
        };
        records::line(seen, out);
        Some(())
    }
}
