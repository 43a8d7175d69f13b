//! What is counted of requests and connections, and by which labels: every value that is a word is here.

use std::cell::OnceCell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::NO_IDENTITY;
use super::family::{Family, Value};
use super::sharded::{Counter, Histogram};
use crate::error::{Blame, Reason};

/// Which way a connection goes, seen from the app in our pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Our app called.
    Outbound,
    /// Our app is called.
    Inbound,
}

/// Who is at the two ends, and what is between them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Between<'a> {
    pub(crate) direction: Direction,
    /// The SPIFFE ID of the other side, or [`NO_IDENTITY`].
    pub(crate) peer: &'a str,
    /// `namespace/name` of the service that our app called; empty if it is called.
    pub(crate) service: &'a str,
    /// `namespace/name` of the route that says so; empty without one.
    pub(crate) route: &'a str,
    pub(crate) tls: Tls,
    pub(crate) protocol: Protocol,
}

impl Between<'_> {
    /// Of somebody without an identity, to our app.
    pub(crate) fn inbound(tls: Tls, protocol: Protocol) -> Self {
        Self {
            direction: Direction::Inbound,
            peer: NO_IDENTITY,
            service: "",
            route: "",
            tls,
            protocol,
        }
    }
}

/// Handles for what passes between our app and one peer.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(super) http: Option<Http>,
    pub(super) connections: Option<Ends>,
    /// Bytes toward the peer.
    pub(crate) sent: Counter,
    /// Bytes from the peer.
    pub(crate) received: Counter,
}

/// Beginnings and ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) started: Counter,
    pub(super) ended: [Counter; Outcome::ALL.len()],
}

/// What is counted of HTTP.
#[derive(Debug)]
pub(super) struct Http {
    pub(super) requests: Ends,
    pub(super) latency: Histogram,
    pub(super) codes: Arc<Codes>,
    pub(super) grpc: Grpc,
}

impl Traffic {
    /// For what is counted elsewhere.
    pub(crate) fn uncounted() -> Self {
        Self {
            http: None,
            connections: None,
            sent: Counter::nowhere(),
            received: Counter::nowhere(),
        }
    }

    /// A request is on its way.
    pub(crate) fn request_started(&self) {
        if let Some(http) = &self.http {
            http.requests.started.add(1);
        }
    }

    /// A request is over, after its response said so much.
    pub(crate) fn request(&self, outcome: Outcome, answer: Answer) {
        let Some(http) = &self.http else {
            return;
        };
        http.requests.ended[outcome as usize].add(1);
        if let Some(code) = answer.status {
            http.codes.count(code);
        }
        if let Some(status) = answer.grpc_status {
            http.grpc.count(status);
        }
    }

    /// A response began so long after its request.
    pub(crate) fn answered(&self, after: Duration) {
        if let Some(http) = &self.http {
            http.latency.observe(after);
        }
    }

    /// A connection is on its way.
    pub(crate) fn connection_started(&self) {
        if let Some(connections) = &self.connections {
            connections.started.add(1);
        }
    }

    /// A connection is over.
    pub(crate) fn connection(&self, outcome: Outcome) {
        if let Some(connections) = &self.connections {
            connections.ended[outcome as usize].add(1);
        }
    }
}

/// What a response said of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    /// Of gRPC, in the trailers, or in the head if that is all there is.
    pub(crate) grpc_status: Option<u16>,
}

/// Status codes of HTTP, of one direction. A handle is made for each that comes.
#[derive(Debug)]
pub(super) struct Codes {
    family: Family<Counter, 2>,
    direction: Direction,
    known: Box<[OnceLock<Counter>]>,
}

impl Codes {
    const ALL: std::ops::Range<u16> = 100..600;

    pub(super) fn new(family: Family<Counter, 2>, direction: Direction) -> Arc<Self> {
        Arc::new(Self {
            family,
            direction,
            known: Self::ALL.map(|_| OnceLock::new()).collect(),
        })
    }

    fn count(&self, code: u16) {
        let known = code.checked_sub(Self::ALL.start);
        let Some(known) = known.and_then(|at| self.known.get(usize::from(at))) else {
            return;
        };
        let label = || [self.direction.label().into(), code.to_string().into()];
        known.get_or_init(|| self.family.get(label())).add(1);
    }
}

/// Status codes of gRPC, of one peer. A handle is made for each that comes.
#[derive(Debug)]
pub(super) struct Grpc {
    family: Family<Counter, 4>,
    /// Direction, peer, service.
    labels: [Value; 3],
    known: OnceCell<Box<[OnceCell<Counter>; GRPC_STATUS.len()]>>,
}

/// Those that there are, and the rest.
const GRPC_STATUS: [&str; 18] = [
    "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
    "unknown",
];

impl Grpc {
    pub(super) fn new(family: &Family<Counter, 4>, labels: [Value; 3]) -> Self {
        Self {
            family: family.clone(),
            labels,
            known: OnceCell::new(),
        }
    }

    fn count(&self, status: u16) {
        let at = usize::from(status).min(GRPC_STATUS.len() - 1);
        let resolve = || {
            let [direction, peer, service] = self.labels.clone();
            self.family
                .get([direction, peer, service, GRPC_STATUS[at].into()])
        };
        self.known.get_or_init(Box::default)[at]
            .get_or_init(resolve)
            .add(1);
    }
}

/// How a request or a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should: a status below 400, a connection both ends closed.
    Success,
    /// A 4xx of the app.
    ClientError,
    /// A 5xx of the app.
    ServerError,
    /// One of our refusals; `ringmail_refusals_total` says which.
    Refused,
    /// Broken in the middle, by whomever; `ringmail_refusals_total` says by whom.
    Broken,
}

impl Outcome {
    pub(super) const ALL: [Self; 5] = [
        Self::Success,
        Self::ClientError,
        Self::ServerError,
        Self::Refused,
        Self::Broken,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::Refused => "refused",
            Self::Broken => "broken",
        }
    }

    /// By what the app's response said. Of gRPC, whose fault a status is is as OpenTelemetry's conventions have it.
    pub(crate) fn of(answer: Answer) -> Self {
        match (answer.status, answer.grpc_status) {
            (None, _) => Self::Broken,
            (Some(400..500), _) => Self::ClientError,
            (Some(500..), _) => Self::ServerError,
            (Some(_), Some(1 | 3 | 5..=11 | 16)) => Self::ClientError,
            (Some(_), Some(2 | 4 | 12..=15 | 17..)) => Self::ServerError,
            (Some(_), None | Some(0)) => Self::Success,
        }
    }

    /// By why it failed.
    pub(crate) fn of_reason(reason: Reason) -> Self {
        let row = reason.row();
        match row.blame {
            Blame::Client if row.status == 403 => Self::Refused,
            Blame::Client | Blame::App => Self::Broken,
            Blame::Peer | Blame::Us | Blame::Controller => Self::Refused,
        }
    }
}

/// What protects a connection to the other pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// Mutual TLS between proxies.
    Mutual,
    /// Nothing of ours.
    None,
}

impl Tls {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Mutual => "mutual",
            Self::None => "none",
        }
    }
}

/// What a connection of the app speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes.
    Tcp,
}

impl Protocol {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tcp => "tcp",
        }
    }
}

impl Direction {
    /// For logs and labels.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}
