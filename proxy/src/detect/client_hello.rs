//! The name of the server that a client's TLS asks for, from its first bytes: records (RFC 8446 section 5.1), the
//! ClientHello in them however it is cut (section 4.1.2), and its `server_name` extension (RFC 6066 section 3). Pure.
//!
//! Nothing is decided on but the name, and nothing is changed. Limits: [`HELLO_BYTES_MAX`].

/// Bytes of a ClientHello: that of a browser has two thousand, one with every post-quantum share that there is six.
const HELLO_BYTES_MAX: usize = 16 * 1024;

/// Record type (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 22;
/// Bytes of a record's header.
const RECORD_HEADER_BYTES: usize = 5;
/// Bytes of a record's content (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 1 << 14;
/// Handshake type (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;
/// Bytes of a handshake message's header.
const MESSAGE_HEADER_BYTES: usize = 4;
/// Extension type (RFC 6066 section 1.1).
const SERVER_NAME: u16 = 0;
/// Type of a name (RFC 6066 section 3).
const HOST_NAME: u8 = 0;

/// What the first bytes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The message is not complete.
    More,
    /// It is no ClientHello, or one that no server would take.
    Not,
    /// It is one; with the server's name in lower case, if it says one.
    Tls(Option<String>),
}

/// Looks at all bytes so far.
pub(crate) fn client_hello(bytes: &[u8]) -> Hello {
    match message(bytes) {
        Ok(Some(message)) => parse(&message).map_or(Hello::Not, Hello::Tls),
        Ok(None) => Hello::More,
        Err(NotTls) => Hello::Not,
    }
}

/// Bytes that are no TLS.
#[derive(Debug)]
struct NotTls;

/// The ClientHello's body out of as many records as it is cut into; none while bytes are missing.
fn message(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, NotTls> {
    let mut message = Vec::new();
    loop {
        // Each byte that is there is looked at, so that what is no TLS is not waited for.
        let header = &bytes[..bytes.len().min(RECORD_HEADER_BYTES)];
        let is_handshake = header.first().is_none_or(|kind| *kind == HANDSHAKE);
        let is_version = header.get(1).is_none_or(|major| *major == 3);
        if !is_handshake || !is_version {
            return Err(NotTls);
        }
        let [_, _, _, high, low] = *header else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > RECORD_BYTES_MAX {
            return Err(NotTls);
        }
        let content = &bytes[RECORD_HEADER_BYTES..];
        message.extend_from_slice(&content[..content.len().min(length)]);
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(NotTls);
        }
        if let [_, high, middle, low, ..] = message[..] {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > HELLO_BYTES_MAX {
                return Err(NotTls);
            }
            if message.len() >= MESSAGE_HEADER_BYTES + length {
                message.truncate(MESSAGE_HEADER_BYTES + length);
                message.drain(..MESSAGE_HEADER_BYTES);
                return Ok(Some(message));
            }
        }
        match content.get(length..) {
            Some(rest) => bytes = rest,
            None => return Ok(None),
        }
    }
}

/// The name in a whole ClientHello; no outer option where the message breaks its own lengths.
fn parse(message: &[u8]) -> Option<Option<String>> {
    let mut hello = Bytes(message);
    hello.take(2 + 32)?;
    hello.vector8()?;
    let suites = hello.vector16()?;
    let compressions = hello.vector8()?;
    if suites.0.is_empty() || !suites.0.len().is_multiple_of(2) || compressions.0.is_empty() {
        return None;
    }
    if hello.0.is_empty() {
        return Some(None);
    }
    let mut extensions = hello.vector16()?;
    if !hello.0.is_empty() {
        return None;
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let content = extensions.vector16()?;
        if kind == SERVER_NAME {
            // Each extension is there once (RFC 8446 section 4.2).
            if found.replace(name(content)?).is_some() {
                return None;
            }
        }
    }
    Some(found)
}

/// The one name of the only type there is.
fn name(mut extension: Bytes<'_>) -> Option<String> {
    let mut list = extension.vector16()?;
    let kind = list.take(1)?[0];
    let name = list.vector16()?.0;
    let is_name = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    if kind != HOST_NAME || !is_name || !list.0.is_empty() || !extension.0.is_empty() {
        return None;
    }
    let name = std::str::from_utf8(name).ok()?;
    Some(name.to_ascii_lowercase())
}

/// What is left to read.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn vector8(&mut self) -> Option<Self> {
        let length = self.take(1)?[0];
        self.take(length.into()).map(Bytes)
    }

    fn vector16(&mut self) -> Option<Self> {
        let length = self.number16()?;
        self.take(length.into()).map(Bytes)
    }
}

#[cfg(test)]
mod tests;
