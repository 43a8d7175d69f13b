//! HPACK (RFC 7541): header blocks to fields and back. Pure: no socket, no clock, no allocation per field.
//!
//! The decoder hands on names and values as slices, whoever wants them checks them. The encoder names what the static
//! table names and indexes nothing: what it writes goes no further than our own pod, where bytes cost less than tables.
//! Limit: [`TABLE_BYTES`], what the other side's encoder may make us remember.

/// Blocks to fields.
pub(super) mod decode;

/// Fields to blocks.
pub(super) mod encode;

/// What an index stands for.
mod table;

/// The code of strings.
mod huffman;

pub(super) use decode::TOO_MUCH;

/// RFC 9113 section 6.5.2: the initial value of `SETTINGS_HEADER_TABLE_SIZE`, which we leave as it is.
pub(super) const TABLE_BYTES: usize = 4096;

/// The block is none, and what it did to the table is unknown: the connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(super) &'static str);

#[cfg(test)]
mod tests;
