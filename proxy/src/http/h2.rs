//! HTTP/2 toward applications, our own engine: a lane of theirs is a stream of ours.
//!
//! Fields go from HPACK to neutral form and back without anything in between, each frame is looked at once, and what all
//! lanes have to send leaves in one write. What is pure owns no socket and no clock (`frame`, `hpack`, `budget`,
//! `heads`). Limits are stated in [`limits`] and in `budget`, on both sides of the app.

/// A connection of our own app as client.
pub(crate) mod serve;

/// A client that comes in HTTP/1.1.
pub(crate) mod upgrade;

/// A request of a peer, forwarded to our own app as server.
pub(crate) mod forward;

/// Connections to apps as servers.
mod sessions;

/// How many requests clients hold open.
mod held;

/// A body between a lane and a stream of the wire.
mod pump;

/// The task that moves the frames of one connection.
mod connection;

/// One stream of HTTP/2, as the code that serves it sees it.
mod lane;

/// All that the lanes of one connection share.
mod lanes;

/// What one lane has with its connection.
mod half;

/// How the last lanes ended.
mod past;

/// How many frames a connection may send that are no use.
mod budget;

/// Header blocks to neutral form and back.
pub(crate) mod heads;

/// Header blocks to fields and back.
mod hpack;

/// Frames.
mod frame;

/// A door for fuzzers.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

pub(crate) use held::Held;
pub(crate) use sessions::AppSessions;

/// What an app may make us hold.
mod limits {
    /// Window of one stream.
    pub(super) const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
    /// Window of a connection: so large that one slow stream does not stall the others.
    pub(super) const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
    /// A head, after decompression.
    pub(super) const HEADER_LIST_BYTES: u32 = 64 * 1024;
    /// Streams at once.
    pub(super) const STREAMS: u32 = 1000;
}
