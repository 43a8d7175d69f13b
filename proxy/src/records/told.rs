//! What one record tells, as plain data.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use ringmail_proto::identity::{SpiffeId, WorkloadName};

use super::trace::{Parent, Span, TraceId};
use super::{PATH_BYTES_MAX, Seen, VALUE_BYTES_MAX};
use crate::error::{DecisionId, Error, Reason};
use crate::metrics::{Direction, Protocol};

/// By which records of all that a request passes can be joined: it always has one.
const REQUEST_ID: &str = "x-request-id";

/// Headers of one name.
const SAME_HEADERS_MAX: usize = 2;

/// What one record tells.
#[derive(Debug)]
pub(crate) struct Told {
    /// The access log has it.
    pub(super) is_logged: bool,
    /// The trace it belongs to, whether or not we record that.
    pub(super) trace: Option<TraceId>,
    /// Our span of it, where we do.
    pub(super) span: Option<Span>,
    pub(super) at: SystemTime,
    begun: Instant,
    pub(super) took: Duration,
    /// Until the response began.
    pub(super) first_byte: Option<Duration>,
    pub(super) direction: Direction,
    pub(super) protocol: Protocol,
    pub(super) source: IpAddr,
    pub(super) destination: SocketAddr,
    pub(super) peer: Option<SpiffeId>,
    pub(super) request: Option<Request>,
    pub(super) service: Option<WorkloadName>,
    /// `namespace/name`; empty without one.
    pub(super) route: Box<str>,
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u16>,
    pub(super) reason: Option<Reason>,
    pub(super) decision: Option<DecisionId>,
    /// Bytes of bodies or of the connection, toward the peer.
    pub(super) sent: u64,
    /// From the peer.
    pub(super) received: u64,
}

/// What was asked.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) version: &'static str,
    pub(super) method: Box<str>,
    /// Without the query.
    pub(super) path: Box<str>,
    pub(super) host: Option<Box<str>>,
    /// Its id, and those that are asked for, by their lower-case names.
    pub(super) headers: Vec<(String, Box<str>)>,
}

impl Told {
    pub(super) fn begin<'a, Fields>(
        seen: Seen<'a, Fields>,
        headers: &[String],
        is_logged: bool,
        (parent, span): (Option<Parent>, Option<Span>),
    ) -> Self
    where
        Fields: IntoIterator<Item = (&'a [u8], &'a [u8])> + Copy,
    {
        let of_span = span.as_ref().map(|span| span.trace);
        let request = seen.request.map(|asked| {
            let path = asked.target.split('?').next().unwrap_or_default();
            let mut request = Request {
                version: asked.version,
                method: capped(asked.method.as_bytes(), VALUE_BYTES_MAX),
                path: capped(path.as_bytes(), PATH_BYTES_MAX),
                host: None,
                headers: Vec::new(),
            };
            request.note(asked.fields, headers);
            request
        });
        Self {
            is_logged,
            trace: of_span.or(parent.map(|parent| parent.trace)),
            span,
            at: SystemTime::now(),
            begun: seen.begun,
            took: Duration::ZERO,
            first_byte: None,
            direction: seen.direction,
            protocol: seen.protocol,
            source: seen.source,
            destination: seen.destination,
            peer: seen.peer.cloned(),
            request,
            service: None,
            route: Box::default(),
            status: None,
            grpc_status: None,
            reason: None,
            decision: None,
            sent: 0,
            received: 0,
        }
    }

    /// Our span of its trace, where we record that.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.span.as_ref()
    }

    /// It goes to that service, by that route if it is not empty.
    pub(crate) fn goes_to(&mut self, service: &WorkloadName, route: &str) {
        self.service = Some(service.clone());
        self.route = route.into();
    }

    /// Who is at the other end now.
    pub(crate) fn is_with(&mut self, peer: Option<SpiffeId>) {
        self.peer = peer;
    }

    /// A response began so long after the request.
    pub(crate) fn answered(&mut self, status: u16, after: Duration) {
        self.status = Some(status);
        self.first_byte = Some(after);
    }

    /// A gRPC call ended with this status.
    pub(crate) fn ended_as(&mut self, grpc_status: Option<u16>) {
        self.grpc_status = grpc_status;
    }

    /// It ended, or is answered, for a reason.
    pub(crate) fn refused(&mut self, error: &Error) {
        self.reason = Some(error.reason);
        self.decision = error.decision;
    }

    /// Why it was refused and the refusal's name, as a response says it.
    pub(crate) fn explained(&mut self, [reason, decision]: [Option<&[u8]>; 2]) {
        if let Some(reason) = reason.and_then(Reason::of_label) {
            self.reason = Some(reason);
            self.decision = decision.and_then(DecisionId::read);
        }
    }

    /// An opaque connection ended so.
    pub(crate) fn ended(&mut self, (sent, received): (u64, u64), outcome: &Result<(), Error>) {
        self.moved(sent, received);
        if let Err(error) = outcome {
            self.refused(error);
        }
    }

    /// Bytes passed.
    pub(crate) fn moved(&mut self, sent: u64, received: u64) {
        self.sent += sent;
        self.received += received;
    }

    pub(super) fn end(&mut self, now: Instant) {
        self.took = now.saturating_duration_since(self.begun);
        if self.status.is_none() {
            // What the client is told of a refusal, unless nobody is told.
            let told = self.reason.filter(|_| self.request.is_some());
            self.status = told.map(|reason| reason.row().status);
        }
    }
}

/// What several tell alike.
impl Told {
    /// Of whoever asks, and of whoever is asked.
    pub(super) fn identities<'a>(
        &'a self,
        own: Option<&'a str>,
    ) -> (Option<&'a str>, Option<&'a str>) {
        let peer = self.peer.as_ref().map(|peer| peer.as_str());
        match self.direction {
            Direction::Outbound => (own, peer),
            Direction::Inbound => (peer, own),
        }
    }

    pub(super) fn protocol_name(&self) -> &'static str {
        match self.protocol {
            Protocol::Http1 | Protocol::Http2 => "http",
            Protocol::Tcp => "tcp",
        }
    }

    pub(super) fn request_bytes(&self) -> u64 {
        match self.direction {
            Direction::Outbound => self.sent,
            Direction::Inbound => self.received,
        }
    }

    pub(super) fn response_bytes(&self) -> u64 {
        match self.direction {
            Direction::Outbound => self.received,
            Direction::Inbound => self.sent,
        }
    }

    /// Whom the request names, without a port; of an IPv6 address, what is in the brackets. What was dialled if it names nobody.
    pub(super) fn host(&self) -> Cow<'_, str> {
        let request = self.request.as_ref();
        match request.and_then(|request| request.host.as_deref()) {
            Some(host) => match host.strip_prefix('[') {
                Some(rest) => rest.split(']').next().unwrap_or_default().into(),
                None => host.split(':').next().unwrap_or_default().into(),
            },
            None => self.destination.ip().to_string().into(),
        }
    }
}

impl Request {
    fn note<'a>(
        &mut self,
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        headers: &[String],
    ) {
        for (name, value) in fields {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if is("host") && self.host.is_none() {
                self.host = Some(capped(value, VALUE_BYTES_MAX));
            }
            let asked = headers.iter().map(String::as_str);
            let known = asked.chain([REQUEST_ID]).find(|known| is(known));
            // A header may be there any number of times.
            let count = |known: &str| {
                self.headers
                    .iter()
                    .filter(|(name, _)| name == known)
                    .count()
            };
            if let Some(known) = known.filter(|known| count(known) < SAME_HEADERS_MAX) {
                let value = capped(value, VALUE_BYTES_MAX);
                self.headers.push((known.to_owned(), value));
            }
        }
    }
}

/// As text, and no more of it.
fn capped(bytes: &[u8], max: usize) -> Box<str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(max)]).into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::records::Asked;

    /// Fields as those of a head are: to be copied.
    #[derive(Clone, Copy)]
    pub(in crate::records) struct Section<'a>(pub(in crate::records) &'a [(&'a str, &'a str)]);

    impl<'a> IntoIterator for Section<'a> {
        type Item = (&'a [u8], &'a [u8]);
        type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

        fn into_iter(self) -> Self::IntoIter {
            let fields = self.0.iter();
            Box::new(fields.map(|(name, value)| (name.as_bytes(), value.as_bytes())))
        }
    }

    /// A request with these fields, of which two are recorded.
    pub(in crate::records) fn told(target: &str, fields: &[(&str, &str)]) -> Told {
        let peer = "spiffe://mesh.local/ns/shop/sa/them";
        let seen = Seen {
            direction: Direction::Inbound,
            protocol: Protocol::Http1,
            begun: Instant::now(),
            source: [10, 0, 0, 2].into(),
            destination: ([10, 0, 0, 3], 8080).into(),
            peer: Some(&peer.parse().expect("valid")),
            request: Some(Asked {
                version: "1.1",
                method: "GET",
                target,
                fields: Section(fields),
            }),
        };
        let headers = ["user-agent", "x-tenant"].map(str::to_owned);
        Told::begin(seen, &headers, true, (None, None))
    }

    #[test]
    fn what_a_client_says_is_bounded() {
        let long = "a".repeat(5000);
        let many: Vec<_> = (0..100).map(|_| ("x-tenant", &*long)).collect();
        let told = told(&format!("/{long}"), &many);
        let request = told.request.expect("a request");
        assert_eq!(request.path.len(), PATH_BYTES_MAX);
        assert_eq!(request.headers.len(), SAME_HEADERS_MAX);
        assert!(
            request
                .headers
                .iter()
                .all(|(_, value)| value.len() == VALUE_BYTES_MAX)
        );
    }
}
