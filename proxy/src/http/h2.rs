//! HTTP/2 toward applications, by the h2 crate: a stream of theirs is a stream of ours.
//!
//! Limits are stated in [`limits`] and in `budget`, on both sides of the app.

/// A connection of our own app as client.
pub(crate) mod serve;

/// A request of a peer, forwarded to our own app as server.
pub(crate) mod forward;

/// Connections to our own app as server.
mod sessions;

/// How many requests clients hold open.
mod held;

/// A socket whose frames are counted.
mod metered;

/// How many frames a connection may send that are no use.
mod budget;

/// Neutral form to the `http` crate's heads and back.
mod heads;

/// A body between an h2 stream and a stream of the wire.
mod pump;

pub(crate) use held::Held;
pub(crate) use sessions::AppSessions;

/// What an app may make us hold, said in h2's words.
mod limits {
    /// Window of one stream.
    pub(super) const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
    /// Window of a connection: so large that one slow stream does not stall the others.
    pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
    /// A head, after decompression.
    pub(super) const HEADER_LIST_BYTES: u32 = 64 * 1024;
    /// Streams at once.
    pub(super) const STREAMS: u32 = 1000;
    /// Streams reset by the app that we still answer for.
    pub(super) const RESETS: usize = 100;
    /// Bytes that one stream may have waiting to be sent.
    pub(super) const SEND_BUFFER_BYTES: usize = 256 * 1024;
}
