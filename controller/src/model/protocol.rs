//! What a port was declared to speak: annotation, then appProtocol, then the port's name, then well-known ports.

use std::num::NonZeroU16;

use ringmail_proto::workload::Protocol;

/// Ports whose servers speak first or are not HTTP (BEHAVIOURS, Protocols 2): SMTP, MySQL, NATS, PostgreSQL, Redis,
/// Elasticsearch's transport, memcached. A user's list adds to it.
const OPAQUE_PORTS: [u16; 10] = [25, 587, 3306, 4222, 4444, 5432, 6379, 6222, 9300, 11211];

/// What is said of one port.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Declared<'a> {
    /// An annotation lists it as opaque.
    pub(super) opaque: bool,
    pub(super) app_protocol: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    /// As dialled, and as served.
    pub(super) ports: [Option<NonZeroU16>; 2],
}

impl Declared<'_> {
    pub(super) fn protocol(self) -> Protocol {
        if self.opaque {
            return Protocol::Tcp;
        }
        self.app_protocol
            .and_then(by_app_protocol)
            .or_else(|| self.name.and_then(by_name))
            .unwrap_or_else(|| self.by_number())
    }

    fn by_number(self) -> Protocol {
        let opaque = |port: NonZeroU16| OPAQUE_PORTS.contains(&port.get());
        if self.ports.into_iter().flatten().any(opaque) {
            Protocol::Tcp
        } else {
            Protocol::Detect
        }
    }
}

/// Kubernetes' standard names, and those that others use. Unknown ones say nothing.
fn by_app_protocol(name: &str) -> Option<Protocol> {
    match name.to_ascii_lowercase().as_str() {
        "http" | "http1" | "kubernetes.io/ws" => Some(Protocol::Http1),
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => Some(Protocol::Http2),
        "tcp" | "tls" | "https" | "kubernetes.io/wss" => Some(Protocol::Tcp),
        other => by_word(other),
    }
}

/// `<protocol>` or `<protocol>-<anything>`.
fn by_name(name: &str) -> Option<Protocol> {
    let word = name.split('-').next().unwrap_or_default();
    match word {
        "http" | "http1" => Some(Protocol::Http1),
        "http2" | "h2c" | "grpc" => Some(Protocol::Http2),
        "tcp" | "tls" | "https" => Some(Protocol::Tcp),
        other => by_word(other),
    }
}

/// Protocols that are bytes to us.
fn by_word(word: &str) -> Option<Protocol> {
    let known = [
        "mysql",
        "postgres",
        "postgresql",
        "redis",
        "mongo",
        "mongodb",
        "smtp",
        "nats",
        "kafka",
        "amqp",
        "memcached",
        "memcache",
        "mssql",
    ];
    known.contains(&word).then_some(Protocol::Tcp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_speaks_wins() {
        let row = |opaque, app_protocol, name, dialled, served, expected| {
            let declared = Declared {
                opaque,
                app_protocol,
                name,
                ports: [NonZeroU16::new(dialled), NonZeroU16::new(served)],
            };
            assert_eq!(declared.protocol(), expected, "{declared:?}");
        };
        use Protocol::{Detect, Http1, Http2, Tcp};
        row(false, None, None, 80, 8080, Detect);
        row(false, None, Some("web"), 80, 8080, Detect);
        row(false, None, Some("http"), 80, 8080, Http1);
        row(false, None, Some("http-web"), 3306, 3306, Http1);
        row(false, None, Some("httpweb"), 80, 80, Detect);
        row(false, None, Some("http2"), 80, 80, Http2);
        row(false, None, Some("grpc-api"), 80, 80, Http2);
        row(false, None, Some("grpc-web-api"), 80, 80, Http2);
        row(false, None, Some("https"), 443, 443, Tcp);
        row(false, None, Some("tls-x"), 443, 443, Tcp);
        row(false, None, Some("mysql"), 80, 80, Tcp);
        row(false, None, Some("redis-a"), 80, 80, Tcp);
        row(false, Some("http"), Some("tcp"), 5432, 5432, Http1);
        row(false, Some("kubernetes.io/h2c"), None, 80, 80, Http2);
        row(false, Some("kubernetes.io/ws"), None, 80, 80, Http1);
        row(false, Some("GRPC"), None, 80, 80, Http2);
        row(false, Some("example.com/own"), Some("http"), 80, 80, Http1);
        row(false, None, None, 3306, 13306, Tcp);
        row(false, None, None, 80, 6379, Tcp);
        row(true, Some("http"), Some("http"), 80, 80, Tcp);
    }
}
