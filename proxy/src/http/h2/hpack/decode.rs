//! Header blocks to fields.

use super::Malformed;
use super::huffman;
use super::table::Table;

/// The largest number that a block may hold: no index and no length is larger by far.
const NUMBER_BITS_MAX: u32 = 28;

/// Bytes that the fields of one block may have, wanted or not: four times what any head may, each of them copied.
const BLOCK_BYTES_MAX: usize = 256 * 1024;
/// A block says more than that.
pub(in crate::http::h2) const TOO_MUCH: Malformed =
    Malformed("a block stands for too many bytes (RFC 9113 section 10.5.1)");

const ENDS: Malformed = Malformed("a header block ends in a field (RFC 7541 section 6)");

/// What one direction of a connection knows of fields. Blocks come in order, each whole.
#[derive(Debug, Default)]
pub(in crate::http::h2) struct Decoder {
    table: Table,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    #[cfg(test)]
    pub(super) fn table(&mut self) -> &mut Table {
        &mut self.table
    }

    /// Frees what the next block can do without.
    pub(in crate::http::h2) fn rest(&mut self) {
        self.name = Vec::new();
        self.value = Vec::new();
    }

    /// What is held beside the table.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.name.capacity() + self.value.capacity()
    }

    /// Hands on every field of the block, until `field` says that it wants no more: what is left only goes to the table.
    pub(in crate::http::h2) fn decode(
        &mut self,
        mut block: &[u8],
        field: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Malformed> {
        let mut may_resize = true;
        let mut is_wanted = true;
        let mut bytes = 0;
        let mut field = |name: &[u8], value: &[u8]| {
            bytes += name.len() + value.len();
            is_wanted = is_wanted && field(name, value);
            bytes <= BLOCK_BYTES_MAX
        };
        let field = &mut field;
        while let Some(first) = block.first() {
            match first {
                0x80.. => {
                    let index = number(&mut block, 7)?;
                    let (name, value) = self.table.get(index).ok_or(NO_ENTRY)?;
                    if !field(name, value) {
                        return Err(TOO_MUCH);
                    }
                }
                0x40.. => self.literal(&mut block, 6, field)?,
                0x20.. => {
                    let size = number(&mut block, 5)?;
                    if !may_resize || !self.table.resize(size) {
                        let rule = "a table is resized in the middle of a block or beyond its limit (RFC 7541 section 4.2)";
                        return Err(Malformed(rule));
                    }
                    continue;
                }
                // Whether it may be indexed by others makes no difference here.
                0x00.. => self.literal(&mut block, 4, field)?,
            }
            may_resize = false;
        }
        Ok(())
    }

    /// RFC 7541 section 6.2. Those with a prefix of six bits are to be remembered.
    fn literal(
        &mut self,
        block: &mut &[u8],
        prefix: u32,
        field: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Malformed> {
        let Self { table, name, value } = self;
        let index = number(block, prefix)?;
        let is_kept = prefix == 6;
        if index == 0 {
            let (name, value) = (string(block, name)?, string(block, value)?);
            if !field(name, value) {
                return Err(TOO_MUCH);
            }
            if is_kept {
                table.insert(name, value);
            }
            return Ok(());
        }
        let value = string(block, value)?;
        let (known, _) = table.get(index).ok_or(NO_ENTRY)?;
        if !field(known, value) {
            return Err(TOO_MUCH);
        }
        if is_kept {
            // The entry that it is the name of may have to go for it.
            name.clear();
            name.extend_from_slice(known);
            table.insert(name, value);
        }
        Ok(())
    }
}

const NO_ENTRY: Malformed = Malformed("an index stands for nothing (RFC 7541 section 2.3.3)");

/// RFC 7541 section 5.1.
fn number(block: &mut &[u8], prefix: u32) -> Result<usize, Malformed> {
    let (first, mut rest) = block.split_first().ok_or(ENDS)?;
    let mask = (1 << prefix) - 1;
    let mut number = usize::from(*first) & mask;
    if number == mask {
        let mut shift = 0;
        loop {
            let (byte, after) = rest.split_first().ok_or(ENDS)?;
            rest = after;
            number += usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift >= NUMBER_BITS_MAX {
                return Err(Malformed("a number is too large (RFC 7541 section 5.1)"));
            }
        }
    }
    *block = rest;
    Ok(number)
}

/// RFC 7541 section 5.2: as it is, or decoded in `room`.
fn string<'a, 'block: 'a>(
    block: &mut &'block [u8],
    room: &'a mut Vec<u8>,
) -> Result<&'a [u8], Malformed> {
    let is_coded = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = number(block, 7)?;
    let (string, rest) = block.split_at_checked(length).ok_or(ENDS)?;
    *block = rest;
    if !is_coded {
        return Ok(string);
    }
    room.clear();
    huffman::decode(string, room)?;
    Ok(room)
}
