//! The data plane: one small proxy beside each app.
//!
//! The life of a connection, in the order of the modules: it is accepted ([`start`], `listen`), taken from our app to
//! the pod it dialled (`outbound`) or from another pod to our app (`inbound`), under mutual TLS (`tls`), as what it
//! turns out to be (`detect`), to whom the controller says (`upstream`) and in
//! the end to an app (`app`), as far as they may (`policy`), as streams (`peer`) of HTTP messages in one
//! neutral form (`http`) or of bytes (`tcp`). What all this rests on comes last: what was learnt (`control`,
//! `snapshot`), errors, the end, the figures. Imports go downward only.

/// What the proxy is told by its environment.
pub mod config;

/// Interception: rules in the kernel that bring the pod's connections here.
pub mod capture;

/// From a configuration to a running proxy, and to its end.
pub mod start;

/// Doors for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

/// Sockets.
mod listen;

/// What comes in.
mod inbound;

/// What our app sends out.
mod outbound;

/// Mutual TLS.
mod tls;

/// What a connection speaks.
mod detect;

/// Where a request goes.
mod upstream;

/// Streams that go to an app.
mod app;

/// Who may ask our app for what.
mod policy;

/// How often they may.
mod limits;

/// What our app's API is seen to be.
mod inventory;

/// The wire between two proxies.
mod peer;

/// HTTP, in whatever version.
mod http;

/// Bytes.
mod tcp;

/// What is recorded of all this.
mod records;

/// Talking to the controller.
mod control;

/// What the controller told us.
mod snapshot;

/// What went wrong, and who is to blame.
mod error;

/// How the proxy ends.
mod drain;

/// Connections that wait.
mod idle;

/// Streams that take turns.
mod turns;

/// Connections of nobody knows whom.
mod strangers;

/// What the tasks of one worker share.
mod worker;

/// What is counted.
mod metrics;

#[doc(inline)]
pub use metrics::catalogue;

/// What people and machines ask the proxy itself.
mod admin;

/// Bytes on their way.
mod buffer;

/// What the benches count.
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
