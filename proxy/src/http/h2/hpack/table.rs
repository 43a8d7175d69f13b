//! What an index stands for (RFC 7541 section 2.3): the static table, then what the other side's encoder had us remember,
//! the newest first.

use std::collections::VecDeque;

use super::TABLE_BYTES;

/// RFC 7541 appendix A, from index 1.
pub(super) const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
/// RFC 7541 section 4.1: what an entry counts beside its bytes.
pub(super) const ENTRY_BYTES: usize = 32;

/// The dynamic table, and the static one before it.
#[derive(Debug)]
pub(super) struct Table {
    /// Names and values, the oldest first, behind what is dead already.
    bytes: Vec<u8>,
    /// How many were there before those in `bytes`.
    gone: usize,
    entries: VecDeque<Entry>,
    /// As RFC 7541 section 4.1 counts.
    size: usize,
    size_max: usize,
}

/// A field: its name at `start`, its value behind it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    start: usize,
    name: usize,
    value: usize,
}

impl Entry {
    fn size(&self) -> usize {
        self.name + self.value + ENTRY_BYTES
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            gone: 0,
            entries: VecDeque::new(),
            size: 0,
            size_max: TABLE_BYTES,
        }
    }
}

impl Table {
    /// The field that `index` stands for.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        if let Some((name, value)) = STATIC.get(index.wrapping_sub(1)) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let age = index.checked_sub(STATIC.len() + 1)?;
        let newest = self.entries.len().checked_sub(1)?;
        let entry = self.entries[newest.checked_sub(age)?];
        let (name, rest) = self.bytes[entry.start - self.gone..].split_at(entry.name);
        Some((name, &rest[..entry.value]))
    }

    /// Remembers a field, if it fits at all, and forgets others for it (RFC 7541 section 4.4).
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let entry = Entry {
            start: 0,
            name: name.len(),
            value: value.len(),
        };
        self.shrink_to(self.size_max.saturating_sub(entry.size()));
        if entry.size() > self.size_max {
            return;
        }
        // Seldom enough that what is moved costs less than what was written since.
        if self.bytes.len() >= 2 * TABLE_BYTES {
            let oldest = self.entries.front().map(|entry| entry.start - self.gone);
            let dead = oldest.unwrap_or(self.bytes.len());
            self.bytes.drain(..dead);
            self.gone += dead;
        }
        let start = self.gone + self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += entry.size();
        self.entries.push_back(Entry { start, ..entry });
    }

    /// RFC 7541 section 4.3. False when it is more than was offered.
    pub(super) fn resize(&mut self, size_max: usize) -> bool {
        self.size_max = size_max.min(TABLE_BYTES);
        self.shrink_to(self.size_max);
        size_max <= TABLE_BYTES
    }

    fn shrink_to(&mut self, size: usize) {
        while self.size > size
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
        }
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }
}
