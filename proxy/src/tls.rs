//! Mutual TLS toward other proxies: who we are, whom we trust, and the stream that carries it.
//!
//! The rules (TLS 1.3 only, which algorithms, what a valid peer is) are shared with the controller in
//! `ringmail_proto::tls`; here they meet sockets. The only module of the data path that knows rustls.

/// Our certificate, key and trust bundle as one snapshot, and the configurations made from it.
pub(crate) mod identity;

/// TLS toward whoever answers, for probes.
mod anyone;

pub(crate) use anyone::anyone;

/// A TLS connection over a TCP socket.
pub(crate) mod stream;

/// Until both ends have proved who they are.
mod handshake;
/// Records, once there are keys.
mod record;
