//! HTTP/1.0 and 1.1, our own engine: strict where RFC 9112 leaves a choice, because two readers that choose
//! differently are how requests are smuggled.

/// Head text to neutral form, checked.
pub(crate) mod parse;

/// Body framing as it arrives: length, chunks, or until close.
pub(crate) mod body;

/// Neutral form to text, and body framing as it leaves.
pub(crate) mod write;

/// A body from a socket to a stream.
pub(crate) mod pump;

/// One connection of our own app as client.
pub(crate) mod serve;

/// One request of a client.
mod request;

/// One request of a peer, forwarded to our own app as server.
pub(crate) mod forward;

/// The end of a connection that we end.
pub(crate) mod goodbye;
