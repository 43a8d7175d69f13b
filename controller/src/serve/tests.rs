//! The whole controller over loopback, in this process: real TLS, real HTTP/2, real gRPC.

mod bed;
mod certify;
mod watch;
