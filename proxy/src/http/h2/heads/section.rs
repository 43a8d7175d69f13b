//! Fields on their way from a block to neutral form, each looked at once.

use super::{FIELD_BYTES, Malformed, Room};
use crate::error::{Error, Reason};
use crate::http::fields::{Fate, fate};
use crate::http::h1::parse::content_length;
use crate::http::h2::limits::HEADER_LIST_BYTES;
use crate::http::neutral::{self, FIELDS_MAX, Version, is_value, put_field};

/// What is wrong with a block.
#[derive(Debug)]
pub(super) enum Bad {
    Malformed(Malformed),
    Refused(Error),
}

impl Bad {
    /// For blocks whose sender gets no answer.
    pub(super) fn rule(&self) -> Malformed {
        match self {
            Self::Malformed(rule) => rule,
            Self::Refused(error) => error.rule.unwrap_or("there is too much of it"),
        }
    }
}

pub(super) fn refused(rule: &'static str) -> Bad {
    Bad::Refused(Reason::MalformedRequest.rule(rule))
}

/// Fields on their way from a block to neutral form.
pub(super) struct Section<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) room: &'a mut Room,
    pub(super) list_bytes: usize,
    /// But for pseudo-header fields.
    pub(super) count: usize,
    pub(super) length: Option<u64>,
    /// What was wrong first; nothing is written any more.
    pub(super) bad: Option<Bad>,
}

impl<'a> Section<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, room: &'a mut Room) -> Self {
        room.pseudo.clear();
        room.cookies.clear();
        Self {
            out,
            room,
            list_bytes: 0,
            count: 0,
            length: None,
            bad: None,
        }
    }

    /// Whether the field is to be looked at.
    pub(super) fn counts(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.list_bytes += name.len() + value.len() + FIELD_BYTES;
        if self.list_bytes > HEADER_LIST_BYTES as usize {
            self.bad
                .get_or_insert(Bad::Refused(Reason::HeadTooLarge.into()));
        }
        self.bad.is_none()
    }

    fn malformed(&mut self, rule: Malformed) {
        self.bad.get_or_insert(Bad::Malformed(rule));
    }

    /// Begins the head of a response.
    pub(super) fn status(&mut self, value: &[u8]) -> Option<u16> {
        let Some(status @ (100 | 102..)) = number(value) else {
            self.malformed("the status is none (RFC 9113 sections 8.3.2 and 8.6)");
            return None;
        };
        neutral::Response {
            version: Version::Http2,
            upgrade: false,
            status,
            phrase: b"",
        }
        .encode(self.out);
        Some(status)
    }

    /// A field that is no pseudo-header field, or should be none.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        if let Err(bad) = self.put(name, value) {
            self.bad.get_or_insert(bad);
        }
    }

    pub(super) fn put(&mut self, name: &[u8], value: &[u8]) -> Result<(), Bad> {
        self.count += 1;
        // The host that we make is one of them.
        if self.count >= FIELDS_MAX {
            return Err(Bad::Refused(Reason::HeadTooLarge.into()));
        }
        if name.is_empty() || !name.iter().all(|byte| is_lower_token(*byte)) {
            return Err(Bad::Malformed(
                "a field name is none, or a pseudo-header field is out of place (RFC 9113 sections 8.2.1 and 8.3)",
            ));
        }
        if !is_value(value) {
            let rule = "a field value has a control byte (RFC 9113 section 8.2.1)";
            return Err(Bad::Malformed(rule));
        }
        // RFC 9113 section 8.2.1 forbids blanks around it; HTTP/1 does not know them from its own.
        let value = value.trim_ascii();
        match fate(name) {
            // RFC 9113 section 8.2.3: what HTTP/2 may split, HTTP/1 knows as one field.
            Fate::Forward if name == b"cookie" && value.is_empty() => {}
            Fate::Forward if name == b"cookie" => {
                if !self.room.cookies.is_empty() {
                    self.room.cookies.extend_from_slice(b"; ");
                }
                self.room.cookies.extend_from_slice(value);
            }
            Fate::Forward => put_field(self.out, name, value),
            Fate::ContentLength => {
                let length = content_length(value).ok_or(refused(
                    "Content-Length is no number (RFC 9110 section 8.6)",
                ))?;
                if self.length.replace(length).is_some() {
                    let rule = "there is more than one Content-Length (RFC 9110 section 8.6)";
                    return Err(refused(rule));
                }
                put_field(self.out, name, value);
            }
            Fate::Te if value == b"trailers" => put_field(self.out, name, value),
            Fate::Host | Fate::Mesh => {}
            Fate::HopByHop
            | Fate::TransferEncoding
            | Fate::Connection
            | Fate::Upgrade
            | Fate::Te => {
                let rule = "a field is about a connection of HTTP/1 (RFC 9113 section 8.2.2)";
                return Err(Bad::Malformed(rule));
            }
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), Bad> {
        if !self.room.cookies.is_empty() {
            put_field(self.out, b"cookie", &self.room.cookies);
        }
        self.bad.take().map_or(Ok(()), Err)
    }
}

/// RFC 9110 section 5.6.2 in lower case (RFC 9113 section 8.2.1).
fn is_lower_token(byte: u8) -> bool {
    const LOWER: [bool; 256] = {
        let mut table = [false; 256];
        let bytes = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";
        let mut place = 0;
        while place < bytes.len() {
            table[bytes[place] as usize] = true;
            place += 1;
        }
        table
    };
    LOWER[usize::from(byte)]
}

/// A status.
fn number(value: &[u8]) -> Option<u16> {
    let value: &[u8; 3] = value.try_into().ok()?;
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = || {
        value
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
    };
    digits.then(number)
}
