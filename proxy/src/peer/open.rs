//! What a stream is for: the payload of its first frame.
//!
//! ```text
//! port: u16 | kind: u8 | for HTTP: the request head in neutral form (`http::neutral`)
//! ```

/// What the stream carries to `port` of the pod behind the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One HTTP exchange.
    Http,
    /// An opaque TCP connection.
    Tcp,
}

/// The opening of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Open<'a> {
    /// The port that the app listens on.
    pub(crate) port: u16,
    pub(crate) kind: Kind,
    /// The request head, for HTTP.
    pub(crate) head: &'a [u8],
}

impl<'a> Open<'a> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.port.to_be_bytes());
        out.push(match self.kind {
            Kind::Http => 1,
            Kind::Tcp => 2,
        });
        out.extend_from_slice(self.head);
    }

    /// None when it is no opening that this version knows.
    pub(crate) fn decode(payload: &'a [u8]) -> Option<Self> {
        let (&[high, low, kind], head) = payload.split_first_chunk()?;
        let kind = match kind {
            1 => Kind::Http,
            2 if head.is_empty() => Kind::Tcp,
            _ => return None,
        };
        Some(Self {
            port: u16::from_be_bytes([high, low]),
            kind,
            head,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_was_encoded_and_nothing_else() {
        for (kind, head) in [(Kind::Http, &b"head"[..]), (Kind::Tcp, b"")] {
            let open = Open {
                port: 8080,
                kind,
                head,
            };
            let mut bytes = Vec::new();
            open.encode(&mut bytes);
            assert_eq!(Open::decode(&bytes), Some(open));
        }
        for bytes in [
            &b""[..],
            b"\x1f\x90",
            b"\x1f\x90\x00",
            b"\x1f\x90\x03",
            b"\x1f\x90\x02x",
        ] {
            assert_eq!(Open::decode(bytes), None, "{bytes:?}");
        }
    }
}
