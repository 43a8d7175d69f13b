//! Fields to header blocks.

/// What the static table calls a field; entries with a value have that one too (RFC 7541 appendix A).
pub(in crate::http::h2) mod index {
    pub(in crate::http::h2) const AUTHORITY: u8 = 1;
    pub(in crate::http::h2) const METHOD: u8 = 2;
    pub(in crate::http::h2) const METHOD_GET: u8 = 2;
    pub(in crate::http::h2) const METHOD_POST: u8 = 3;
    pub(in crate::http::h2) const PATH: u8 = 4;
    pub(in crate::http::h2) const PATH_ROOT: u8 = 4;
    pub(in crate::http::h2) const SCHEME_HTTP: u8 = 6;
    pub(in crate::http::h2) const STATUS: u8 = 8;
    /// Statuses with an entry of their own, from [`STATUS`].
    pub(in crate::http::h2) const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
}

/// The longest name that the static table has.
const NAMED_BYTES_MAX: usize = 27;

/// Appends a field that an entry of the static table is.
pub(in crate::http::h2) fn put_indexed(out: &mut Vec<u8>, index: u8) {
    out.push(0x80 | index);
}

/// Appends a field with the name of an entry of the static table.
pub(in crate::http::h2) fn put_named(out: &mut Vec<u8>, index: u8, value: &[u8]) {
    put_number(out, 0x00, 4, usize::from(index));
    put_string(out, value);
}

/// Appends a field; its name becomes lower case.
pub(in crate::http::h2) fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if let Some(index) = named(name) {
        return put_named(out, index, value);
    }
    out.push(0x00);
    put_number(out, 0x00, 7, name.len());
    let start = out.len();
    out.extend_from_slice(name);
    out[start..].make_ascii_lowercase();
    put_string(out, value);
}

/// Appends the word that the table is to be no larger from now on (RFC 7541 section 4.2).
pub(in crate::http::h2) fn put_resize(out: &mut Vec<u8>, size: usize) {
    put_number(out, 0x20, 5, size);
}

/// RFC 7541 section 5.1, behind `flags`.
#[inline]
fn put_number(out: &mut Vec<u8>, flags: u8, prefix: u32, number: usize) {
    let mask = (1_usize << prefix) - 1;
    match u8::try_from(number) {
        Ok(short) if number < mask => out.push(flags | short),
        _ => put_long_number(out, flags | mask.to_le_bytes()[0], number - mask),
    }
}

/// What is left of a number that fills its prefix, behind `first`.
fn put_long_number(out: &mut Vec<u8>, first: u8, mut rest: usize) {
    out.push(first);
    while rest >= 0x80 {
        out.push(0x80 | rest.to_le_bytes()[0]);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

/// RFC 7541 section 5.2, as it is.
fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    put_number(out, 0x00, 7, string.len());
    out.extend_from_slice(string);
}

/// The entry of the static table with that name, in any case.
fn named(name: &[u8]) -> Option<u8> {
    let mut room = [0; NAMED_BYTES_MAX];
    let lower = room.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"accept-charset" => 15,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"accept" => 19,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"expect" => 35,
        b"expires" => 36,
        b"from" => 37,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"max-forwards" => 47,
        b"range" => 50,
        b"referer" => 51,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"user-agent" => 58,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::table::STATIC;
    use super::*;

    #[test]
    fn names_are_those_of_the_table() {
        for (name, place) in STATIC.iter().map(|(name, _)| name).zip(1..) {
            if let Some(index) = named(name.to_uppercase().as_bytes()) {
                assert_eq!(index, place, "{name}");
            }
        }
        assert!(STATIC.iter().all(|(name, _)| name.len() <= NAMED_BYTES_MAX));
        for (status, place) in index::STATUSES
            .into_iter()
            .zip(usize::from(index::STATUS)..)
        {
            assert_eq!(STATIC[place - 1], (":status", status.to_string().as_str()));
        }
        let is = |index: u8, name, value| assert_eq!(STATIC[usize::from(index) - 1], (name, value));
        is(index::AUTHORITY, ":authority", "");
        is(index::METHOD, ":method", "GET");
        is(index::METHOD_GET, ":method", "GET");
        is(index::METHOD_POST, ":method", "POST");
        is(index::PATH, ":path", "/");
        is(index::PATH_ROOT, ":path", "/");
        is(index::SCHEME_HTTP, ":scheme", "http");
    }
}
