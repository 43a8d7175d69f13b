//! What went wrong, who is to blame, and what everyone is told about it: one table.
//!
//! An [`Error`] is a [`Reason`] from the table, with the rule that was broken, for whoever broke it, and the underlying
//! error, for the log. The reason decides the HTTP status, the gRPC status, the code on the peer wire and the metric
//! label; nothing else does.

use std::fmt;
use std::io;
use std::num::NonZeroU64;

/// Who has to mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Whoever sent us the request or dialled us.
    Client,
    /// The app in our own pod, or the network between us and it.
    App,
    /// The proxy at the other end of the wire.
    Peer,
    /// This proxy or its configuration.
    Us,
    /// The controller, or who is asked in its place: what we need was not learnt.
    Controller,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Metric label and `x-ringmail-reason`.
    pub label: &'static str,
    /// Who has to mend it.
    pub blame: Blame,
    /// HTTP status (RFC 9110 section 15).
    pub status: u16,
    /// gRPC status, for requests whose content type is gRPC.
    pub grpc_status: u8,
    /// A sentence for people.
    pub explanation: &'static str,
}

macro_rules! reasons {
    ($($code:literal $name:ident $label:literal $blame:ident $status:literal $grpc:literal $explanation:literal)*) => {
        /// Why a connection or a request ended badly. The number is its code on the peer wire.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub(crate) enum Reason {
            $(#[doc = $explanation] $name = $code,)*
        }

        impl Reason {
            /// Every reason there is.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// What everyone is told.
            #[must_use]
            pub(crate) fn row(self) -> Row {
                match self {
                    $(Self::$name => Row {
                        label: $label,
                        blame: Blame::$blame,
                        status: $status,
                        grpc_status: $grpc,
                        explanation: $explanation,
                    },)*
                }
            }
        }
    };
}

reasons! {
    1  ClientGone          "client_gone"          Client     499 1  "the client closed or reset its connection"
    2  MalformedRequest    "malformed_request"    Client     400 3  "the request breaks RFC 9110 or RFC 9112"
    3  HeadTooLarge        "head_too_large"       Client     431 8  "the request's head is larger than 64 KiB or has more than 128 fields"
    4  ClientTimeout       "client_timeout"       Client     408 4  "the client did not finish its request head in time"
    5  MtlsRequired        "mtls_required"        Client     403 7  "plaintext is not accepted here: this workload is strict"
    6  NotHttp             "not_http"             Client     400 3  "the port is declared to speak HTTP and these bytes do not"
    7  Loop                "loop"                 Client     508 13 "the connection was addressed to the proxy itself"
    8  HttpVersion         "http_version"         Client     505 12 "this version of HTTP is not spoken here"
    9  ClientFlood         "client_flood"        Client     429 8  "the client sent more control frames or resets than its requests call for"
    17 NotTls              "not_tls"             Client     400 3  "the port has TLS routes and these bytes are no TLS"
    10 AppUnreachable      "app_unreachable"      App        503 14 "the application refused the connection or did not answer it"
    11 AppGone             "app_gone"             App        502 14 "the application closed its connection in the middle of an exchange"
    12 AppMalformed        "app_malformed"        App        502 13 "the application's response breaks RFC 9110 or RFC 9112"
    13 AppFlood            "app_flood"           App        502 8  "the application sent more control frames or resets than its answers call for"
    14 AppRefused          "app_refused"         App        503 14 "the application refused the request before it processed it"
    15 ResponseHeadTimeout "response_head_timeout" App      504 4  "the application did not begin its response in time"
    16 IdleTimeout         "idle_timeout"        App        504 4  "nothing moved for longer than the service allows"
    18 RequestTimeout      "request_timeout"      App        504 4  "the request's time ran out before the response was complete"
    19 BackendTimeout      "backend_timeout"      App        504 4  "the time for one try ran out before the response was complete"
    20 PeerUnreachable     "peer_unreachable"     Peer       503 14 "the proxy of the destination did not accept the connection in time"
    21 PeerIdentity        "peer_identity"        Peer       503 14 "the destination did not prove the identity it should have"
    22 PeerGone            "peer_gone"            Peer       502 14 "the connection to the peer's proxy broke"
    23 PeerProtocol        "peer_protocol"        Peer       502 13 "the peer's proxy broke the wire protocol"
    24 PeerRefusedIdentity "peer_refused_identity" Peer      503 14 "the peer's proxy refused our certificate"
    30 NotReady            "not_ready"            Us         503 14 "this proxy has no certificate yet"
    31 CertificateExpired  "certificate_expired"  Us         503 14 "this proxy's certificate has expired and could not be renewed"
    32 Overloaded          "overloaded"           Us         503 8  "a limit of this proxy is reached"
    33 Draining            "draining"             Us         503 14 "this proxy is shutting down"
    34 Internal            "internal"             Us         500 13 "a bug in this proxy ended the exchange"
    35 NotImplemented      "not_implemented"     Us         501 12 "this use of HTTP is not spoken here"
    36 NoRoute             "no_route"             Us         404 12 "the service has routes and none is for this request"
    37 NoBackend           "no_backend"           Us         500 14 "the route of this request has no backend that exists"
    40 UnknownDestination  "unknown_destination"  Controller 503 14 "the controller could not be asked what is behind this address"
    41 NoEndpoints         "no_endpoints"         Controller 503 14 "no pod serves this destination now"
    42 PolicyNotLoaded     "policy_not_loaded"    Controller 503 14 "what is allowed here was not learnt yet"
    50 EgressDenied        "egress_denied"        Client     403 7  "the address is outside the mesh, and this namespace does not let anything out"
    51 PolicyDenied        "policy_denied"        Client     403 7  "the policy of the destination does not allow this"
    53 IdentityRevoked     "identity_revoked"     Client     403 7  "the identity was revoked"
    52 PolicyCut           "policy_cut"           Client     403 7  "the policy of the destination does not allow this any more"
    58 RateLimited         "rate_limited"        Client     429 8  "a rate limit of the destination is reached"
    55 AuthorizerDenied    "authorizer_denied"    Client     403 7  "whoever the destination's policy asks does not allow this"
    56 AuthorizerFailed    "authorizer_failed"    Controller 403 7  "whoever the destination's policy asks did not answer"
    57 BodyTooLarge        "body_too_large"       Client     413 8  "the body is larger than what the destination's policy may ask about"
    54 TokenInvalid        "token_invalid"        Client     401 16 "the request's token is not accepted here"
}

impl Reason {
    /// What a client is told to bring instead (RFC 6750 section 3), if that is what it takes.
    pub(crate) fn challenge(self) -> Option<&'static str> {
        (self == Self::TokenInvalid).then_some("Bearer error=\"invalid_token\"")
    }

    /// The reason behind a code on the peer wire; one we do not know is a reason of the peer's.
    #[must_use]
    pub(crate) fn from_code(code: u8) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| *reason as u8 == code)
            .unwrap_or(Self::PeerGone)
    }

    /// The reason of a label.
    pub(crate) fn of_label(label: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|reason| reason.row().label.as_bytes() == label)
    }

    /// This reason because of `source`.
    pub(crate) fn because(
        self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error {
            reason: self,
            decision: None,
            rule: None,
            source: Some(source.into()),
        }
    }

    /// This reason because `rule` was broken: what is wrong, and where it says so.
    pub(crate) fn rule(self, rule: &'static str) -> Error {
        Error {
            reason: self,
            decision: None,
            rule: Some(rule),
            source: None,
        }
    }
}

/// Names one refusal by policy, to whoever was refused and in the audit of whoever refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecisionId(NonZeroU64);

impl DecisionId {
    /// One that no other has.
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }

    /// As it crosses the peer wire.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// As it is shown.
    pub(crate) fn read(digits: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(digits).ok()?;
        Some(Self(NonZeroU64::new(
            u64::from_str_radix(digits, 16).ok()?,
        )?))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id = u64::from_be_bytes(bytes.try_into().ok()?);
        Some(Self(NonZeroU64::new(id)?))
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A reason, and what led to it.
pub(crate) struct Error {
    /// From the table.
    pub(crate) reason: Reason,
    /// Of the refusal, where policy refused.
    pub(crate) decision: Option<DecisionId>,
    /// The rule that was broken, if that is why; told to whoever broke it.
    pub(crate) rule: Option<&'static str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// The same, of that refusal.
    pub(crate) fn decided(self, decision: Option<DecisionId>) -> Self {
        Self { decision, ..self }
    }
}

impl From<Reason> for Error {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            decision: None,
            rule: None,
            source: None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.row().explanation)?;
        match self.rule {
            Some(rule) => write!(f, ": {rule}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.reason.row().label;
        match (&self.source, self.rule) {
            (Some(source), _) => write!(f, "{label}: {source}"),
            (None, Some(rule)) => write!(f, "{label}: {rule}"),
            (None, None) => f.write_str(label),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// Names whose socket an I/O error happened on: that alone tells the blame.
pub(crate) trait Blamed<T> {
    /// An error here is for `reason`.
    fn blame(self, reason: Reason) -> Result<T, Error>;
}

impl<T> Blamed<T> for io::Result<T> {
    fn blame(self, reason: Reason) -> Result<T, Error> {
        self.map_err(|error| reason.because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn labels_and_codes_are_unique_and_codes_come_back() {
        let labels: HashSet<_> = Reason::ALL
            .iter()
            .map(|reason| reason.row().label)
            .collect();
        assert_eq!(labels.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(*reason as u8), *reason);
            assert_eq!(
                Reason::of_label(reason.row().label.as_bytes()),
                Some(*reason)
            );
        }
        assert_eq!(Reason::from_code(255), Reason::PeerGone);
        let id = DecisionId::random();
        assert_eq!(DecisionId::read(id.to_string().as_bytes()), Some(id));
    }
}
