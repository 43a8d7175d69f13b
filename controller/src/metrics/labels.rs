//! Labels of metrics, and how each value is written: every value there can be is listed here.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Why a certificate was not issued, or that it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certified {
    /// Issued.
    Issued,
    /// The credential proves nothing, or something else.
    Denied,
    /// The request itself is bad.
    Invalid,
    /// No such pod.
    UnknownWorkload,
    /// Too often.
    RateLimited,
    /// Our own fault.
    Failed,
}

/// How the caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A join token.
    JoinToken,
    /// A JWT.
    Jwt,
    /// The certificate of its connection.
    Certificate,
    /// Nothing at all.
    None,
}

/// Labels of a certificate request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CertifyLabels {
    /// What came of it.
    pub outcome: Certified,
    /// What the caller showed.
    pub credential: Credential,
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeOutcome {
    /// With a verified client certificate.
    Identified,
    /// Without a client certificate.
    Anonymous,
    /// A certificate was refused.
    Refused,
    /// TLS itself failed.
    Failed,
    /// Took too long.
    TimedOut,
}

/// Labels of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct HandshakeLabels {
    /// How it ended.
    pub outcome: HandshakeOutcome,
}

/// Why a watch stream ended or was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamEnd {
    /// The proxy left.
    Closed,
    /// The proxy did not acknowledge in time.
    Unacknowledged,
    /// The proxy broke the protocol.
    Invalid,
    /// Its pod is gone or is another's.
    WorkloadGone,
    /// Its certificate expired.
    Expired,
    /// Not admitted: no such pod, or not its own.
    Denied,
    /// Not admitted: too many, or too fast.
    Overload,
    /// We stop.
    Draining,
}

/// Labels of the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StreamLabels {
    /// Why.
    pub reason: StreamEnd,
}

/// Why a proxy was told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It is new, or asked.
    Asked,
    /// Something is different now.
    Changed,
}

/// Labels of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResponseLabels {
    /// Why it was sent.
    pub cause: Cause,
}

/// Labels of a watch of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabels {
    /// Of the objects: one of those that are watched.
    pub kind: String,
}

/// Labels of a rate limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// One that there is, by its name.
    pub limit: String,
}

/// What the API server calls us for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Webhook {
    /// `/namespaces`.
    Namespaces,
    /// `/pods`.
    Pods,
    /// `/validate`.
    Validate,
    /// Any other path.
    Unknown,
}

/// How a call of the API server was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reviewed {
    /// As it is.
    Allowed,
    /// With a change.
    Patched,
    /// With warnings.
    Warned,
    /// Not at all.
    Denied,
    /// It was no review that we understand.
    Invalid,
    /// It took too long.
    TimedOut,
}

/// Labels of a call of the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WebhookLabels {
    /// What for.
    pub webhook: Webhook,
    /// What came of it.
    pub outcome: Reviewed,
}

/// Labels of how long such a call took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// What for.
    pub webhook: Webhook,
}

/// What the leader writes into the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Written {
    /// Status of routes.
    Status,
    /// Status of policies.
    PolicyStatus,
    /// The roots, as a ConfigMap.
    Bundle,
    /// The roots in a webhook configuration.
    CaBundle,
    /// A namespace's label.
    Label,
    /// An event.
    Event,
    /// A pod's eviction.
    Eviction,
}

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteOutcome {
    /// It is there.
    Done,
    /// It is not, and will be tried again.
    Failed,
}

/// Labels of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// What.
    pub object: Written,
    /// How it ended.
    pub outcome: WriteOutcome,
}

/// How an exchange with the ledger's home went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeOutcome {
    /// All was carried out.
    Done,
    /// Nothing came in time.
    TimedOut,
    /// An error came, or the connection broke.
    Failed,
    /// It has forgotten what was leased, or took us for gone.
    Forgotten,
}

/// Labels of an exchange with the ledger's home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ExchangeLabels {
    /// How it went.
    pub outcome: ExchangeOutcome,
}

/// How each value is written.
macro_rules! label_values {
    ($type:ident, $($variant:ident = $text:literal),+) => {
        impl EncodeLabelValue for $type {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

label_values!(
    Certified,
    Issued = "issued",
    Denied = "denied",
    Invalid = "invalid",
    UnknownWorkload = "unknown_workload",
    RateLimited = "rate_limited",
    Failed = "failed"
);
label_values!(
    Credential,
    JoinToken = "join_token",
    Jwt = "jwt",
    Certificate = "certificate",
    None = "none"
);
label_values!(
    Webhook,
    Namespaces = "namespaces",
    Pods = "pods",
    Validate = "validate",
    Unknown = "unknown"
);
label_values!(
    Reviewed,
    Allowed = "allowed",
    Patched = "patched",
    Warned = "warned",
    Denied = "denied",
    Invalid = "invalid",
    TimedOut = "timed_out"
);
label_values!(
    Written,
    Status = "status",
    PolicyStatus = "policy_status",
    Bundle = "bundle",
    CaBundle = "ca_bundle",
    Label = "label",
    Event = "event",
    Eviction = "eviction"
);
label_values!(
    ExchangeOutcome,
    Done = "done",
    TimedOut = "timed_out",
    Failed = "failed",
    Forgotten = "forgotten"
);
label_values!(Cause, Asked = "asked", Changed = "changed");
label_values!(WriteOutcome, Done = "done", Failed = "failed");
label_values!(
    HandshakeOutcome,
    Identified = "identified",
    Anonymous = "anonymous",
    Refused = "refused",
    Failed = "failed",
    TimedOut = "timed_out"
);
label_values!(
    StreamEnd,
    Closed = "closed",
    Unacknowledged = "unacknowledged",
    Invalid = "invalid",
    WorkloadGone = "workload_gone",
    Expired = "expired",
    Denied = "denied",
    Overload = "overload",
    Draining = "draining"
);
