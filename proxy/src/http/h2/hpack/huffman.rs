//! The Huffman code of RFC 7541 appendix B. It is canonical: codes of one length count up in the order of their symbols,
//! so that the lengths are all there is to know.

use super::Malformed;

/// Bits of each byte's code; that of EOS has [`EOS_BITS`], all ones.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const EOS_BITS: u32 = 30;
/// Codes up to this length are found by a look into a table.
const SHORT_BITS: u32 = 10;

/// Bytes in the order of their codes.
const BYTES: [u8; 256] = ordered();
/// For each length, where its bytes begin in [`BYTES`].
const STARTS: [u8; 31] = positions().0;
/// For each length, its first code and the first that is longer, as the top of 32 bits.
const FIRST: [u32; 31] = positions().1;
const BEYOND: [u32; 31] = positions().2;
/// For each beginning of a code: its byte, and its length; zero if it is longer.
static SHORT: [(u8, u8); 1 << SHORT_BITS] = short();

const fn ordered() -> [u8; 256] {
    let (mut bytes, mut count, mut length) = ([0; 256], 0, 0);
    while length <= EOS_BITS {
        let mut byte = 0_u8;
        loop {
            if LENGTHS[byte as usize] as u32 == length {
                bytes[count] = byte;
                count += 1;
            }
            if byte == u8::MAX {
                break;
            }
            byte += 1;
        }
        length += 1;
    }
    bytes
}

const fn positions() -> ([u8; 31], [u32; 31], [u32; 31]) {
    let (mut starts, mut first, mut beyond) = ([0; 31], [0; 31], [0; 31]);
    let (mut place, mut code, mut length) = (0_u8, 0_u32, 1);
    while length <= EOS_BITS as usize {
        let shift = 32 - length;
        starts[length] = place;
        first[length] = code << shift;
        let (mut rest, mut last) = (place, false);
        while !last && LENGTHS[BYTES[rest as usize] as usize] as usize == length {
            code += 1;
            last = rest == u8::MAX;
            rest = rest.wrapping_add(1);
        }
        place = rest;
        beyond[length] = code << shift;
        code <<= 1;
        length += 1;
    }
    (starts, first, beyond)
}

const fn short() -> [(u8, u8); 1 << SHORT_BITS] {
    let mut table = [(0, 0); 1 << SHORT_BITS];
    let mut beginning = 0;
    while beginning < table.len() {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "try_from is not const, and ten bits fit"
        )]
        let top = (beginning as u32) << (32 - SHORT_BITS);
        let mut length = 5;
        while length <= SHORT_BITS as usize {
            if top < BEYOND[length] {
                let place = STARTS[length] as u32 + ((top - FIRST[length]) >> (32 - length));
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "try_from is not const, and ten bits fit"
                )]
                let length_bits = length as u8;
                table[beginning] = (BYTES[place as usize], length_bits);
                break;
            }
            length += 1;
        }
        beginning += 1;
    }
    table
}

/// Appends what `code` stands for to `out`.
pub(super) fn decode(code: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    // No code is shorter than five bits.
    out.reserve(code.len() * 8 / 5);
    // The next bits, from the top, of which so many are there; ones follow.
    let (mut window, mut bits) = (u64::MAX, 0_u32);
    let mut rest = code;
    loop {
        while bits <= 56
            && let [byte, after @ ..] = rest
        {
            let place = 56 - bits;
            window ^= u64::from(!byte) << place;
            bits += 8;
            rest = after;
        }
        if bits == 0 {
            return Ok(());
        }
        let top = u32::try_from(window >> 32).unwrap_or(u32::MAX);
        let (byte, length) = match SHORT[(top >> (32 - SHORT_BITS)) as usize] {
            (_, 0) => long(top),
            (byte, length) => (byte, u32::from(length)),
        };
        if length > bits {
            // RFC 7541 section 5.2: padding is less than a byte of ones.
            return match bits < 8 && window == u64::MAX {
                true => Ok(()),
                false => Err(Malformed(
                    "a string ends in its code (RFC 7541 section 5.2)",
                )),
            };
        }
        if length == EOS_BITS && top >= BEYOND[EOS_BITS as usize] {
            return Err(Malformed("a string holds EOS (RFC 7541 section 5.2)"));
        }
        out.push(byte);
        window = window << length | ((1 << length) - 1);
        bits -= length;
    }
}

/// One of the codes that no text has.
#[cold]
fn long(top: u32) -> (u8, u32) {
    for length in SHORT_BITS + 1..=EOS_BITS {
        let at = length as usize;
        if top < BEYOND[at] {
            let place = u32::from(STARTS[at]) + ((top - FIRST[at]) >> (32 - length));
            return (BYTES[place as usize & 0xff], length);
        }
    }
    (0, EOS_BITS)
}

/// What the code of `text` is; for tests, as we send none.
#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let (mut out, mut window, mut bits) = (Vec::new(), 0_u64, 0);
    for byte in text {
        let length = usize::from(LENGTHS[usize::from(*byte)]);
        let place = BYTES
            .iter()
            .position(|known| known == byte)
            .expect("all are there");
        let after = place - usize::from(STARTS[length]);
        let code = u64::from(FIRST[length] >> (32 - length)) + after as u64;
        window = window << length | code;
        bits += length;
        while bits >= 8 {
            bits -= 8;
            out.push(u8::try_from(window >> bits & 0xff).expect("a byte"));
        }
    }
    if bits > 0 {
        let ones = (1 << (8 - bits)) - 1;
        out.push(u8::try_from((window << (8 - bits) | ones) & 0xff).expect("a byte"));
    }
    out
}
