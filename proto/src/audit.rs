//! The audit as a chain: each line carries the digest of the one before it, so that a line that is missing, was changed or
//! stands elsewhere is found (`verify`).
//!
//! A line is one JSON object in exactly this form, on a line of its own; `Chain` makes it:
//!
//! ```text
//! {"target":"ringmail_audit","timestamp":T,"chain":C,"sequence":N,"previous":P,"fields":{...},"hash":H}
//! ```
//!
//! `hash` is the SHA-256 of all bytes of the line but for this last member, and `previous` is the `hash` of the line
//! before. A chain is one run of one proxy, by a random name. Its first line, number 0, has as `previous` the last hash of
//! the file that it continues, or zeros. Its last line says that it is the last, so that a missing end is seen as well; a
//! proxy that was killed leaves none.
//!
//! What this cannot find: who may write all of a chain anew can make another one. Send it where they cannot (OTLP, a log
//! that is collected), or keep its last hash there.

/// Whether a chain is whole.
mod verify;

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};

use crate::records::Timestamp;
pub use verify::{Summary, Verifier};

/// What marks lines of the audit among those of a log.
pub const TARGET: &str = "ringmail_audit";
/// How each of them begins.
const BEGIN: &str = "{\"target\":\"ringmail_audit\",";
/// What is before the hash, which is not hashed with the rest.
const BEFORE_HASH: &str = ",\"hash\":\"";
/// And behind it.
const BEHIND_HASH: &str = "\"}";
/// Digits of a hash.
const HASH_DIGITS: usize = 64;
/// How much of the end of a file is looked at for its last line.
pub const TAIL_BYTES: u64 = 64 * 1024;

/// What a line is about, where it is about the chain itself: `fields.event`.
pub const EVENT_BEGIN: &str = "begin";
/// There was more than could be told: `fields.count` lines are lost.
pub const EVENT_LOST: &str = "lost";
/// The last line.
pub const EVENT_END: &str = "end";

/// A SHA-256, in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash(String);

impl Hash {
    /// What the first line has where it continues nothing.
    #[must_use]
    pub fn none() -> Self {
        Self("0".repeat(HASH_DIGITS))
    }

    /// Of a line up to its last member.
    fn of(sealed: &[u8]) -> Self {
        let digest = digest(&SHA256, sealed);
        let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Self(digits.collect())
    }

    /// That of the last whole line at the end of a file.
    #[must_use]
    pub fn last_of(tail: &[u8]) -> Option<Self> {
        let mut lines = tail.split(|byte| *byte == b'\n').rev();
        lines.find_map(|line| Some(split(line)?.1))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A chain that is being made.
#[derive(Debug)]
pub struct Chain {
    name: String,
    next: u64,
    last: Hash,
}

/// A line, and how the chain goes on once it is kept.
#[derive(Debug)]
pub struct Seal {
    /// Without the end of the line.
    pub line: String,
    hash: Hash,
}

impl Chain {
    /// A chain by that random name, which continues another one or none.
    #[must_use]
    pub fn new(name: u128, continued: Option<Hash>) -> Self {
        Self {
            name: format!("{name:032x}"),
            next: 0,
            last: continued.unwrap_or_else(Hash::none),
        }
    }

    /// The next line; `fields` is a JSON object. It is part of the chain once it is [`Self::keep`]t.
    #[must_use]
    pub fn seal(&self, at: SystemTime, fields: &str) -> Seal {
        let Self { name, next, last } = self;
        let at = Timestamp(at);
        let mut line = format!(
            "{BEGIN}\"timestamp\":\"{at}\",\"chain\":\"{name}\",\"sequence\":{next},\"previous\":\"{last}\",\"fields\":{fields}"
        );
        let hash = Hash::of(line.as_bytes());
        line += &format!("{BEFORE_HASH}{hash}{BEHIND_HASH}");
        Seal { line, hash }
    }

    /// The line is where it belongs. One that could not be written is not: the next one takes its number.
    pub fn keep(&mut self, seal: Seal) {
        self.next += 1;
        self.last = seal.hash;
    }
}

/// A line of the audit that is somewhere in a line of a log, which may have put a time in front of it.
fn pick(line: &[u8]) -> Option<&[u8]> {
    let begin = BEGIN.as_bytes();
    let at = line.windows(begin.len()).position(|here| here == begin)?;
    Some(line[at..].trim_ascii_end())
}

/// What is hashed of a line, and the hash it says.
fn split(line: &[u8]) -> Option<(&[u8], Hash)> {
    let line = pick(line)?;
    let rest = line.strip_suffix(BEHIND_HASH.as_bytes())?;
    let (rest, hash) = rest.split_at_checked(rest.len().checked_sub(HASH_DIGITS)?)?;
    let sealed = rest.strip_suffix(BEFORE_HASH.as_bytes())?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let hash = std::str::from_utf8(hash).ok()?;
    hash.bytes()
        .all(|byte| is_digit(&byte))
        .then(|| (sealed, Hash(hash.to_owned())))
}

#[cfg(test)]
mod tests;
