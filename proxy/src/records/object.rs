//! JSON objects as records have them, written member by member without a tree of values. Pure.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

/// One JSON object of flat members, which are written as they are told.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self {
            out,
            is_empty: true,
        }
    }

    fn name(&mut self, name: &str) {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        // Names are ours, or those of headers: none has anything to escape.
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn string(&mut self, text: &str) {
        // A vector takes all that is written, and a string can always be.
        let _ = serde_json::to_writer(&mut *self.out, text);
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.string(value);
    }

    pub(crate) fn texts<'v>(&mut self, name: &str, values: impl Iterator<Item = &'v str>) {
        self.name(name);
        for (n, value) in values.enumerate() {
            self.out.push(if n == 0 { b'[' } else { b',' });
            self.string(value);
        }
        self.out.push(b']');
    }

    pub(crate) fn text_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    pub(crate) fn number_if(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    /// Of a type whose text needs no escape.
    pub(crate) fn display(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.out, "\"{value}\"");
    }

    pub(crate) fn number(&mut self, name: &str, value: impl Into<u64>) {
        self.name(name);
        let _ = write!(self.out, "{}", value.into());
    }

    pub(crate) fn seconds(&mut self, name: &str, value: Duration) {
        self.name(name);
        let _ = write!(self.out, "{}.{:06}", value.as_secs(), value.subsec_micros());
    }

    pub(crate) fn end(self) {
        self.out.push(b'}');
    }
}
