//! What is counted of requests and connections, and by which labels: every value of a label but the peer is here.

use std::time::Duration;

use super::sharded::{Counter, Histogram};
use crate::error::{Blame, Reason};

/// Which way a connection goes, seen from the app in our pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// Our app called.
    Outbound,
    /// Our app is called.
    Inbound,
}

/// Handles for what passes between our app and one peer.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(super) requests: Option<[Counter; Outcome::ALL.len()]>,
    pub(super) latency: Option<Histogram>,
    pub(super) connections: Option<[Counter; Outcome::ALL.len()]>,
    /// Bytes toward the peer.
    pub(crate) sent: Counter,
    /// Bytes from the peer.
    pub(crate) received: Counter,
}

impl Traffic {
    /// For what is counted elsewhere.
    pub(crate) fn uncounted() -> Self {
        Self {
            requests: None,
            latency: None,
            connections: None,
            sent: Counter::nowhere(),
            received: Counter::nowhere(),
        }
    }

    /// A request is over.
    pub(crate) fn request(&self, outcome: Outcome) {
        if let Some(requests) = &self.requests {
            requests[outcome as usize].add(1);
        }
    }

    /// A response began so long after its request.
    pub(crate) fn answered(&self, after: Duration) {
        if let Some(latency) = &self.latency {
            latency.observe(after);
        }
    }

    /// A connection is over.
    pub(crate) fn connection(&self, outcome: Outcome) {
        if let Some(connections) = &self.connections {
            connections[outcome as usize].add(1);
        }
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

    /// By the status of the app's response.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            ..400 => Self::Success,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
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
