//! The peer wire, `ringmail/1`: many streams on one TLS connection between two proxies.
//!
//! The proxy that dialled opens streams. A stream is one HTTP exchange or one opaque TCP connection. Frames of all
//! streams that are ready leave in one write per scheduler tick, which is the largest saving there is. A stream may
//! send only what its credit allows, so a slow reader holds up nobody else and holds bounded memory.

/// Bytes to frames and back; no socket, no state beyond one frame.
pub(crate) mod frame;

/// All that the streams of one connection share.
pub(crate) mod streams;

/// Frames of one stream that wait to be read.
pub(crate) mod inbox;

/// What one stream has with its connection.
mod half;

/// What was sent on a stream, to be sent again.
pub(crate) mod record;

/// One stream, as the code that serves it sees it.
pub(crate) mod stream;

/// The task that moves the frames of one connection.
pub(crate) mod connection;

/// Both ends of the wire in one proxy.
pub(crate) mod local;

/// What a stream is for: the payload of its first frame.
pub(crate) mod open;
