//! The contract between the controller and the proxies.
//!
//! [`pb`] is what travels; the other modules are what both sides work with. Wire types become checked types at the
//! border (`TryFrom`) and never get past it, so what the controller validates is exactly what a proxy accepts.

/// Names: trust domain, SPIFFE ID, pod.
pub mod identity;

/// Roots of trust, by trust domain.
pub mod bundle;

/// The one normal form of a request's target and host.
pub mod target;

/// What a proxy knows of its own pod.
pub mod workload;

/// What is behind an address that an app dials.
pub mod destination;

/// What is done with an HTTP request to it.
pub mod route;

/// Who may do what with a workload.
pub mod policy;

/// How much of it they may ask.
pub mod limit;

/// Whom nobody trusts any more.
pub mod revocation;

/// The order of configuration states.
pub mod version;

/// Is this certificate chain an X.509-SVID that we trust, and whose?
pub mod svid;

/// TLS 1.3 as both sides speak it.
pub mod tls;

/// Lists of what is counted.
pub mod catalogue;

/// What the process itself uses.
pub mod process;

/// What is recorded of traffic.
pub mod records;

/// The audit as a chain.
pub mod audit;

/// Doors for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

/// Wire types and service stubs, generated from `proto/ringmail/v1`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::excessive_nesting,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto files are its documentation"
)]
pub mod pb {
    include!(concat!(env!("OUT_DIR"), "/ringmail.v1.rs"));
}

/// gRPC's health checking.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::excessive_nesting,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto files are its documentation"
)]
pub mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

/// Asking an external authorizer, as Envoy does.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::excessive_nesting,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto files are its documentation"
)]
pub mod ext_authz {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.auth.v3.rs"));
}

/// The OpenTelemetry protocol, as packages of `opentelemetry.proto`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::unwrap_used,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::excessive_nesting,
    clippy::allow_attributes_without_reason,
    reason = "generated code; the .proto files are its documentation"
)]
pub mod otlp {
    pub mod common {
        pub mod v1 {
            include!(concat!(
                env!("OUT_DIR"),
                "/opentelemetry.proto.common.v1.rs"
            ));
        }
    }
    pub mod resource {
        pub mod v1 {
            include!(concat!(
                env!("OUT_DIR"),
                "/opentelemetry.proto.resource.v1.rs"
            ));
        }
    }
    pub mod trace {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.trace.v1.rs"));
        }
    }
    pub mod logs {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/opentelemetry.proto.logs.v1.rs"));
        }
    }
    pub mod collector {
        pub mod trace {
            pub mod v1 {
                include!(concat!(
                    env!("OUT_DIR"),
                    "/opentelemetry.proto.collector.trace.v1.rs"
                ));
            }
        }
        pub mod logs {
            pub mod v1 {
                include!(concat!(
                    env!("OUT_DIR"),
                    "/opentelemetry.proto.collector.logs.v1.rs"
                ));
            }
        }
    }
}

/// Why a message from the other side was refused: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The path of the field, as in the .proto files.
    pub field: String,
    /// What is wrong, in words for an operator.
    pub problem: String,
}

impl Invalid {
    /// A refusal of `field`.
    pub fn new(field: impl Into<String>, problem: impl ToString) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// The same refusal, seen from the message that holds the field.
    #[must_use]
    pub fn inside(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}
