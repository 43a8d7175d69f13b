//! Which fields cross, and which belong to one hop (RFC 9110 section 7.6.1).

/// What becomes of a field at this hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Goes on as it is.
    Forward,
    /// Is about this connection; each side makes its own.
    HopByHop,
    /// `Content-Length`: framing that also informs; goes on, checked.
    ContentLength,
    /// `Host`.
    Host,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Upgrade`: goes on only with an upgrade.
    Upgrade,
    /// `TE`: only `trailers` goes on.
    Te,
    /// A field that only a proxy of the mesh may set: dropped, whoever sent it.
    Mesh,
}

/// Fields that only proxies of the mesh set start with this.
pub(crate) const MESH_PREFIX: &str = "x-ringmail-";

/// Why something was refused.
pub(crate) const REASON: &str = "x-ringmail-reason";
/// The refusal's name.
pub(crate) const DECISION: &str = "x-ringmail-decision";
/// From a server's proxy to its client's: for how long whatever it asks there is refused, and by which limit.
pub(crate) const EXHAUSTED: &str = "x-ringmail-exhausted";

/// Who reads a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    App,
    Client,
}

impl Toward {
    /// Whether it is told a field of the mesh: a client, what a proxy says of a refusal in a response that somebody else
    /// wrote. Apps cannot say it: what they send under such names is dropped where it comes from.
    pub(crate) fn is_told(self, name: &[u8]) -> bool {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        self == Self::Client && (is(REASON) || is(DECISION))
    }
}

/// The fate of a field by its name, any case.
pub(crate) fn fate(name: &[u8]) -> Fate {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    match name.len() {
        2 if is("te") => Fate::Te,
        4 if is("host") => Fate::Host,
        7 if is("upgrade") => Fate::Upgrade,
        10 if is("connection") => Fate::Connection,
        10 if is("keep-alive") => Fate::HopByHop,
        14 if is("content-length") => Fate::ContentLength,
        14 if is("http2-settings") => Fate::HopByHop,
        16 if is("proxy-connection") => Fate::HopByHop,
        17 if is("transfer-encoding") => Fate::TransferEncoding,
        n if n > MESH_PREFIX.len()
            && name[..MESH_PREFIX.len()].eq_ignore_ascii_case(MESH_PREFIX.as_bytes()) =>
        {
            Fate::Mesh
        }
        _ => Fate::Forward,
    }
}

/// The members of a comma-separated list, trimmed, without empty ones (RFC 9110 section 5.6.1).
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Whether an offered protocol is HTTP again, or hides it: as a tunnel it would be HTTP that nobody looks at. RFC 9110
/// section 7.8 lets a server ignore an offer, and RFC 9113 section 3.1 deprecates this one.
pub(crate) fn is_hidden_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|b| *b == b'/').next().unwrap_or_default();
    [&b"h2c"[..], b"h2", b"http", b"tls"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Whether an offered protocol is HTTP/2 in plaintext (RFC 7540 section 3.2), which an edge may take up itself.
pub(crate) fn is_h2c(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"h2c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_case() {
        assert_eq!(fate(b"CONNECTION"), Fate::Connection);
        assert_eq!(fate(b"Content-length"), Fate::ContentLength);
        assert_eq!(fate(b"X-RingMail-Peer"), Fate::Mesh);
        assert_eq!(fate(b"x-ringmail-"), Fate::Forward);
        assert_eq!(fate(b"x-request-id"), Fate::Forward);
    }

    #[test]
    fn lists() {
        assert!(list(b" close , ,Upgrade,").eq([&b"close"[..], b"Upgrade"]));
        assert_eq!(list(b"").count(), 0);
    }
}
