//! HTTP as it crosses the mesh: taken from the app in whatever version it speaks, carried in one neutral form, given
//! to the other app in the version that one speaks.

/// The neutral form of message heads and trailers.
pub(crate) mod neutral;

/// Which fields cross, and which belong to one hop.
pub(crate) mod fields;

/// The one normal form of a request's target and host.
pub(crate) use ringmail_proto::target;

/// Changes of a head that are asked for.
pub(crate) mod edits;

/// What lets people follow a request.
pub(crate) mod context;

/// What routes make of a request.
pub(crate) mod route;

/// WebSocket, over either version.
pub(crate) mod websocket;

/// HTTP/1.0 and 1.1, our own engine.
pub(crate) mod h1;

/// HTTP/2, our own engine.
pub(crate) mod h2;

/// One exchange on the wire: what both versions need to know of it.
pub(crate) mod exchange;
