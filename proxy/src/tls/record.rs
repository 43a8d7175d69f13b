//! The record protection of TLS 1.3 (RFC 8446, section 5), for connections whose keys rustls has agreed on.
//!
//! rustls would copy every record twice on its way out and once on its way in, each time into fresh memory; here a record
//! is sealed from where the plaintext is to where the socket takes it, and opened where it came. No socket, no clock.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

/// Content type and two bytes each of version and length.
pub(super) const HEADER_BYTES: usize = 5;
/// The tag of every AEAD of TLS 1.3.
const TAG_BYTES: usize = 16;
/// What a record adds to its plaintext: header, content type, tag.
pub(super) const OVERHEAD: usize = HEADER_BYTES + 1 + TAG_BYTES;
/// Plaintext of one record.
pub(super) const PLAINTEXT_BYTES_MAX: usize = 1 << 14;
/// What follows the header: plaintext, content type, padding, and what an AEAD may add.
const SEALED_BYTES_MAX: usize = PLAINTEXT_BYTES_MAX + 256;
/// Records under one key; AES-GCM is safe for 2^24.5 (RFC 8446, section 5.5).
const RECORDS_PER_KEY_MAX: u64 = 1 << 23;

/// What a record carries, as it is numbered.
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const DATA: u8 = 23;

/// How a record breaks RFC 8446.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("a record of type {0} is not encrypted")]
    NotEncrypted(u8),
    #[error("a record of {0} bytes is longer than TLS allows")]
    TooLong(usize),
    #[error("a record cannot be decrypted")]
    NotAuthentic,
    #[error("a record has no content")]
    NoContent,
    #[error("a record has content of type {0}")]
    Unexpected(u8),
    #[error("a message behind the handshake is no key update")]
    Handshake,
    #[error("more than {0} records came with no data in them")]
    Fruitless(u32),
    #[error("an alert is malformed")]
    Alert,
    #[error("this AEAD is none of TLS 1.3's, or it failed")]
    Aead,
}

/// The key of one direction, and how many records it protected.
struct Protection {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Protection {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Aead),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Aead)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Aead)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv,
            sequence,
        })
    }

    /// The nonce of the next record, which no other under this key has (section 5.3).
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, counted) in nonce[NONCE_LEN - 8..]
            .iter_mut()
            .zip(self.sequence.to_be_bytes())
        {
            *byte ^= counted;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Protects what we send.
pub(super) struct Sealer(Protection);

impl Sealer {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        Protection::new(secrets).map(Self)
    }

    /// Whether the key has protected as much as it should.
    pub(super) fn is_worn(&self) -> bool {
        self.0.sequence >= RECORDS_PER_KEY_MAX
    }

    /// One record into the front of `room`, which has [`OVERHEAD`] more than `plaintext`. How long it is.
    pub(super) fn seal(
        &mut self,
        content: u8,
        plaintext: &[u8],
        room: &mut [u8],
    ) -> Result<usize, RecordError> {
        let length = plaintext.len() + OVERHEAD;
        let sealed = u16::try_from(length - HEADER_BYTES);
        let [high, low] = sealed
            .map_err(|_| RecordError::TooLong(length))?
            .to_be_bytes();
        let header = [DATA, 3, 3, high, low];
        let (front, rest) = room[..length].split_at_mut(HEADER_BYTES);
        let (ciphertext, end) = rest.split_at_mut(plaintext.len());
        front.copy_from_slice(&header);
        let nonce = self.0.next_nonce();
        let aad = Aad::from(header);
        self.0
            .key
            .seal_out_of_place_scatter(nonce, aad, plaintext, ciphertext, &[content], end)
            .map_err(|_| RecordError::Aead)?;
        Ok(length)
    }
}

/// Reads what the peer protected.
pub(super) struct Opener(Protection);

impl Opener {
    pub(super) fn new(secrets: (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        Protection::new(secrets).map(Self)
    }

    /// Decrypts a whole record in place: what it carries, and the plaintext.
    pub(super) fn open<'record>(
        &mut self,
        record: &'record mut [u8],
    ) -> Result<(u8, &'record [u8]), RecordError> {
        let (header, sealed) = record.split_at_mut(HEADER_BYTES);
        let nonce = self.0.next_nonce();
        let opened = self.0.key.open_in_place(nonce, Aad::from(header), sealed);
        let opened = opened.map_err(|_| RecordError::NotAuthentic)?;
        // The content type is the last byte that is no padding.
        let end = opened.iter().rposition(|&byte| byte != 0);
        let end = end.ok_or(RecordError::NoContent)?;
        if end > PLAINTEXT_BYTES_MAX {
            return Err(RecordError::TooLong(end));
        }
        Ok((opened[end], &opened[..end]))
    }
}

/// How long the record at the front of `bytes` is, once all of it is there.
pub(super) fn whole_record(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(&[content, _, _, high, low]) = bytes.first_chunk() else {
        return Ok(None);
    };
    if content != DATA {
        return Err(RecordError::NotEncrypted(content));
    }
    let sealed = usize::from(u16::from_be_bytes([high, low]));
    if sealed > SEALED_BYTES_MAX {
        return Err(RecordError::TooLong(sealed));
    }
    let length = HEADER_BYTES + sealed;
    Ok((bytes.len() >= length).then_some(length))
}

/// As if the key of `sealer`, which is `opener`'s, had protected as much as it should.
#[cfg(test)]
pub(super) fn wear(sealer: &mut Sealer, opener: &mut Opener) {
    sealer.0.sequence = RECORDS_PER_KEY_MAX;
    opener.0.sequence = RECORDS_PER_KEY_MAX;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    fn ends() -> (Sealer, Opener) {
        let secrets = || {
            let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; NONCE_LEN]));
            (3, ConnectionTrafficSecrets::Aes256Gcm { key, iv })
        };
        let (sealer, opener) = (Sealer::new(secrets()), Opener::new(secrets()));
        (sealer.expect("a key"), opener.expect("a key"))
    }

    fn sealed(sealer: &mut Sealer, content: u8, plaintext: &[u8]) -> Vec<u8> {
        let mut room = vec![0; plaintext.len() + OVERHEAD + 100];
        let length = sealer.seal(content, plaintext, &mut room).expect("sealed");
        room.truncate(length);
        room
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_in_order_and_unchanged(
            messages in prop::collection::vec((1..=u8::MAX, prop::collection::vec(any::<u8>(), 0..300)), 1..5),
            at in any::<prop::sample::Index>(),
            flip in 1..=u8::MAX,
        ) {
            let (mut sealer, mut opener) = ends();
            let records: Vec<_> = messages
                .iter()
                .map(|(content, plaintext)| sealed(&mut sealer, *content, plaintext))
                .collect();
            for (record, (content, plaintext)) in records.iter().zip(&messages) {
                let mut record = record.clone();
                prop_assert_eq!(whole_record(&record[..record.len() - 1]).map(|n| n.is_some()).ok(), Some(false));
                if let Ok(whole) = whole_record(&record) {
                    prop_assert_eq!(whole, Some(record.len()));
                }
                prop_assert_eq!(opener.open(&mut record), Ok((*content, &plaintext[..])));
            }
            // In another place, or with a bit changed, none is opened.
            let mut again = records[0].clone();
            prop_assert_eq!(opener.open(&mut again), Err(RecordError::NotAuthentic));
            let mut changed = records[0].clone();
            let at = at.index(changed.len());
            changed[at] ^= flip;
            prop_assert_eq!(ends().1.open(&mut changed), Err(RecordError::NotAuthentic));
        }
    }

    #[test]
    fn padding_is_no_content() {
        let (mut sealer, mut opener) = ends();
        let mut padded = sealed(&mut sealer, 0, b"text\x17\0\0\0");
        assert_eq!(opener.open(&mut padded), Ok((DATA, &b"text"[..])));
        let mut empty = sealed(&mut sealer, 0, &[0; 9]);
        assert_eq!(opener.open(&mut empty), Err(RecordError::NoContent));
        let mut long = sealed(&mut sealer, DATA, &[1; PLAINTEXT_BYTES_MAX + 1]);
        let expected = Err(RecordError::TooLong(PLAINTEXT_BYTES_MAX + 1));
        assert_eq!(opener.open(&mut long), expected);
    }

    #[test]
    fn what_is_no_record_is_seen_in_its_header() {
        let rows: [(&[u8], _); 6] = [
            (&[], Ok(None)),
            (&[23, 3, 3, 0], Ok(None)),
            (&[23, 3, 3, 0, 17], Ok(None)),
            (&[21, 3, 3, 0, 2, 2, 40], Err(RecordError::NotEncrypted(21))),
            (&[23, 3, 3, 0x41, 0], Ok(None)),
            (&[23, 3, 3, 0x41, 1], Err(RecordError::TooLong(0x4101))),
        ];
        for (bytes, expected) in rows {
            assert_eq!(whole_record(bytes), expected, "{bytes:?}");
        }
        // Too short for a tag.
        let mut short = *b"\x17\x03\x03\0\x02ab";
        assert_eq!(ends().1.open(&mut short), Err(RecordError::NotAuthentic));
    }
}
