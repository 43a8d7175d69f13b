//! Tokens that were good, by their digest: one that comes again costs a hash and no signature. Nothing here outlives what
//! it rests on: it goes with the objects and keys that it was judged by, and an entry with its token's expiry.
//!
//! Limits: [`KNOWN_MAX`] tokens of at most [`KNOWN_BYTES_MAX`] bytes; of those that were used longest ago, half goes at
//! once.

use std::collections::HashMap;
use std::rc::Rc;

use ringmail_proto::policy::authentication::Verified;

/// Tokens of one worker.
const KNOWN_MAX: usize = 1024;
/// Bytes of a token that is remembered: a larger one is verified each time.
const KNOWN_BYTES_MAX: usize = 4096;

pub(super) type Digest = [u8; 32];

/// A token that is good.
#[derive(Debug)]
pub(super) struct Vouched {
    pub(super) verified: Verified,
    /// Whose it is, by its place among the issuers for its port.
    pub(super) issuer: usize,
}

/// The tokens.
#[derive(Debug, Default)]
pub(in crate::policy) struct Known {
    young: HashMap<Digest, Rc<Vouched>>,
    old: HashMap<Digest, Rc<Vouched>>,
}

impl Known {
    pub(super) fn find(&mut self, digest: &Digest, now: u64) -> Option<Rc<Vouched>> {
        let is_good = |one: &&Rc<Vouched>| now < one.verified.expires;
        if let Some(vouched) = self.young.get(digest) {
            return Some(vouched).filter(is_good).cloned();
        }
        let vouched = self.old.remove(digest)?;
        self.put(*digest, &vouched);
        Some(&vouched).filter(is_good).cloned()
    }

    pub(super) fn remember(&mut self, digest: Digest, bytes: usize, vouched: &Rc<Vouched>) {
        if bytes <= KNOWN_BYTES_MAX {
            self.put(digest, vouched);
        }
    }

    fn put(&mut self, digest: Digest, vouched: &Rc<Vouched>) {
        if self.young.len() >= KNOWN_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, vouched.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: usize) -> Digest {
        let mut digest = Digest::default();
        digest[..8].copy_from_slice(&n.to_be_bytes());
        digest
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let mut known = Known::default();
        let vouched = Rc::new(Vouched {
            verified: Verified {
                claims: Default::default(),
                expires: 10,
            },
            issuer: 0,
        });
        known.remember(digest(0), 1, &vouched);
        for n in 1..10 * KNOWN_MAX {
            known.remember(digest(n), 1, &vouched);
            assert!(known.find(&digest(0), 9).is_some(), "{n}");
            assert!(known.young.len() + known.old.len() <= KNOWN_MAX);
        }
        assert!(known.find(&digest(1), 9).is_none());
        assert!(known.find(&digest(0), 10).is_none(), "expired");
        known.remember(digest(1), KNOWN_BYTES_MAX + 1, &vouched);
        assert!(known.find(&digest(1), 9).is_none());
    }
}
