//! Netlink as bytes: attributes, messages, and a socket that asks the kernel and reads its answer.
//!
//! Knows no subsystem: `capture` speaks nf_tables through it, and the test bed builds its virtual links with it.
//! Blocking, with `ANSWER_TIMEOUT`; the kernel answers within the system call. Reads at most `ANSWER_BYTES_MAX`
//! bytes at a time, which is what the kernel itself bounds a dump to.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::net::{
    self, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink,
};

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel's dumps use buffers of at most 32 KiB; an error repeats the message that caused it.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 1 << 15;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Every request has this flag.
pub const NLM_F_REQUEST: u16 = 1;
/// The kernel is to answer even when all is well.
pub const NLM_F_ACK: u16 = 4;
/// List all objects.
pub const NLM_F_DUMP: u16 = 0x300;
/// Refuse when the object exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Make the object when it does not exist.
pub const NLM_F_CREATE: u16 = 0x400;
/// Add at the end.
pub const NLM_F_APPEND: u16 = 0x800;

/// A list of attributes, or the fixed header and attributes of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Starts with a family's fixed header.
    pub fn after(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    /// Appends one attribute.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length =
            u16::try_from(4 + value.len()).expect("no attribute of ours comes near 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a number in network byte order, as nf_tables wants its own.
    #[must_use]
    pub fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a zero-terminated string.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Appends a list of attributes as one.
    #[must_use]
    pub fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }

    /// What goes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The attributes in `bytes` as (kind, value), ending at the first that is malformed.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    raw_attributes(bytes).map(|(kind, value)| (kind & NLA_TYPE_MASK, value))
}

/// The value of the first attribute of `kind`.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// Is all that `ours` says also said by `theirs`? The kernel adds attributes of its own when it shows an object, but
/// never drops or reorders ours; of a kind that repeats (a list) both must have equally many.
pub fn says_the_same(ours: &[u8], theirs: &[u8]) -> bool {
    let of = |bytes, kind| attributes(bytes).filter(move |(other, _)| *other == kind);
    raw_attributes(ours).all(|(raw_kind, _)| {
        let kind = raw_kind & NLA_TYPE_MASK;
        let nested = raw_kind & NLA_F_NESTED != 0;
        of(ours, kind).count() == of(theirs, kind).count()
            && of(ours, kind)
                .zip(of(theirs, kind))
                .all(|((_, mine), (_, other))| {
                    if nested {
                        says_the_same(mine, other)
                    } else {
                        mine == other
                    }
                })
    })
}

/// As [`attributes`], with the flag that tells a nest from a value.
fn raw_attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (read_u16(bytes, 0)?, read_u16(bytes, 2)?);
        let value = bytes.get(4..usize::from(length))?;
        bytes = bytes
            .get(usize::from(length).next_multiple_of(4)..)
            .unwrap_or_default();
        Some((kind, value))
    })
}

/// A message: header and payload.
pub fn message(kind: u16, flags: u16, sequence: u32, payload: &Attributes) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + payload.0.len()).expect("payloads are below 64 KiB");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.0.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(&payload.0);
    bytes
}

/// Why the kernel did not do as asked.
#[derive(Debug)]
pub struct Refusal {
    /// The sequence number of the message it refused; `None` when the socket itself failed.
    pub sequence: Option<u32>,
    /// What it answered.
    pub error: io::Error,
}

impl From<rustix::io::Errno> for Refusal {
    fn from(errno: rustix::io::Errno) -> Self {
        Self {
            sequence: None,
            error: errno.into(),
        }
    }
}

/// A socket to one of the kernel's netlink families, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Opens a socket; `None` is the routing family.
    pub fn open(family: Option<net::Protocol>) -> io::Result<Self> {
        let fd = net::socket_with(
            net::AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            family,
        )?;
        net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        net::sockopt::set_socket_timeout(&fd, net::sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self(fd))
    }

    /// Sends messages of which the one numbered `last` asks for an acknowledgement, and waits for that one or for the
    /// first refusal of any.
    pub fn execute(&self, messages: &[u8], last: u32) -> Result<(), Refusal> {
        self.send(messages)?;
        self.answers(|sequence, _, _| sequence == last).map(drop)
    }

    /// Sends a request for a list; the payloads of the messages that answer it. Fails with `Interrupted` when the
    /// list changed while it was read.
    pub fn dump(&self, request: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
        self.send(request)?;
        self.answers(|_, kind, _| kind == NLMSG_DONE)
    }

    /// Sends a request whose answer is one message; its payload.
    pub fn ask(&self, request: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
        self.send(request)?;
        self.answers(|_, kind, _| kind == NLMSG_ERROR)
            .map(|found| found.into_iter().next())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Refusal> {
        net::sendto(
            &self.0,
            bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        Ok(())
    }

    /// Reads messages until `is_last` of (sequence, kind, payload), or a refusal.
    fn answers(&self, is_last: impl Fn(u32, u16, &[u8]) -> bool) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut buffer = vec![0; ANSWER_BYTES_MAX];
        let mut found = Vec::new();
        loop {
            let (count, _) = net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..count];
            while let Some((header, payload, next)) = split(rest) {
                rest = next;
                if let Some(error) = header.error(payload) {
                    return Err(Refusal {
                        sequence: Some(header.sequence),
                        error,
                    });
                }
                if is_last(header.sequence, header.kind, payload) {
                    return Ok(found);
                }
                found.push(payload.to_vec());
            }
        }
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

impl Header {
    /// What the message complains of, if it does.
    fn error(&self, payload: &[u8]) -> Option<io::Error> {
        if self.flags & NLM_F_DUMP_INTR != 0 {
            return Some(io::ErrorKind::Interrupted.into());
        }
        let code = match self.kind {
            NLMSG_ERROR | NLMSG_DONE => read_u32(payload, 0)?.cast_signed(),
            _ => 0,
        };
        (code < 0).then(|| io::Error::from_raw_os_error(-code))
    }
}

/// The first message: header, payload, and what follows it.
fn split(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = usize::try_from(read_u32(bytes, 0)?).ok()?;
    let header = Header {
        kind: read_u16(bytes, 4)?,
        flags: read_u16(bytes, 6)?,
        sequence: read_u32(bytes, 8)?,
    };
    let payload = bytes.get(HEADER_BYTES..length)?;
    Some((
        header,
        payload,
        bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let made = Attributes::default()
            .text(1, "ab")
            .be32(2, 7)
            .nest(3, &Attributes::default().bytes(1, b"x"));
        assert_eq!(made.as_bytes().len(), 8 + 8 + 12);
        let read: Vec<_> = attributes(made.as_bytes())
            .map(|(kind, value)| (kind, value.len()))
            .collect();
        assert_eq!(read, [(1, 3), (2, 4), (3, 8)]);
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        for bytes in [
            &[][..],
            &[1],
            &[3, 0, 1, 0],
            &[9, 0, 1, 0, 0],
            &[0, 0, 0, 0],
        ] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
    }

    #[test]
    fn additions_of_the_kernel_are_ignored_but_not_ours_missing() {
        let one = Attributes::default().be32(1, 1);
        let list = |count| (0..count).fold(Attributes::default(), |all, _| all.nest(1, &one));
        let rows = [
            (one.clone(), one.clone().be32(2, 2), true),
            (one.clone().be32(2, 2), one.clone(), false),
            (one.clone(), Attributes::default().be32(1, 2), false),
            (list(2), list(2), true),
            (list(1), list(2), false),
            (
                Attributes::default().nest(4, &list(2)),
                Attributes::default().nest(4, &list(1)),
                false,
            ),
        ];
        for (row, (ours, theirs, same)) in rows.into_iter().enumerate() {
            assert_eq!(
                says_the_same(ours.as_bytes(), theirs.as_bytes()),
                same,
                "row {row}"
            );
        }
    }
}
