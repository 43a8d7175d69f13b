//! The Kubernetes API, as far as the controller uses it beside its watches: who it is there, what it keeps there, and
//! what the one replica that leads writes. Only this and `source/cluster` know of it.
//!
//! Every replica signs, pushes and answers webhooks; the leader alone writes, and stops at once when it leads no more.

/// The client, over our own TLS.
pub mod client;

/// Whom the API server takes a token for.
pub(crate) mod review;

/// The root and the issuer, in Secrets.
pub(crate) mod secret;

/// Who leads.
pub(crate) mod lease;

/// When it writes.
mod rounds;

/// What the leader does.
pub(crate) mod lead;

/// The roots, for pods that have no certificate yet.
mod bundle;

/// The roots, for the API server.
pub(crate) mod hooks;

/// Whether the API server knows us.
pub(crate) mod known;

/// Labels of namespaces.
pub(crate) mod labels;

/// Pods that should have a sidecar and have none.
mod coverage;

/// What the proxies of all replicas have in force.
mod looks;

/// Writing a status.
mod patch;

/// Status of routes.
mod status;

/// Status of policies.
mod policies;

/// What the other replicas know of their proxies.
mod peers;

/// What users must act on.
mod events;
