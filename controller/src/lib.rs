//! Ringmail's control plane.
//!
//! One life of the controller, in the order of the modules: a checked configuration opens an authority and reads the
//! Kubernetes objects of a directory or of a cluster; objects become an immutable snapshot; a proxy proves which pod it serves, is given
//! a certificate, and from then on watches the part of the snapshot that its app uses.

/// Flags and environment, checked once.
pub mod config;

/// Reading, and writing so that a crash never leaves half a file.
mod files;

/// Root, issuer and the leaves they sign.
pub mod authority;

/// Where objects come from: a directory of YAML, or a cluster.
pub mod source;

/// Fetching what an issuer publishes.
mod fetch;

/// Keys of the issuers whose tokens objects speak of.
pub mod jwks;

/// What objects mean: workloads and destinations.
pub mod model;

/// The current state of everything proxies are told, versioned.
pub mod publish;

/// Which proxies have which policies in force.
mod applied;

/// Tokens of rate limits.
mod ledger;

/// The Kubernetes API: client, Secrets, lease, and what the leader writes.
pub mod cluster;

/// Which identity a credential proves.
pub mod attest;

/// What makes a pod part of the mesh.
pub mod inject;

/// Token buckets: how often one may ask.
mod pace;

/// The gRPC services on our own TLS.
pub mod serve;

/// What the API server calls us for.
mod webhook;

/// Every metric, by name.
pub mod metrics;

/// What they are called, for the tests of dashboards.
#[doc(hidden)]
pub use metrics::catalogue;

/// `/metrics`, `/ready`, `/live`, `/status`.
mod admin;

/// How tasks are told to stop.
mod stop;

/// Starts the parts and stops them again.
pub mod run;

/// `ringmail`, for people.
pub mod cli;
