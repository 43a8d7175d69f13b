//! Whom nobody trusts any more, whatever their certificate says: identities and serial numbers, each until a time after
//! which no certificate of theirs can be valid. Limit: `REVOKED_MAX`.

use std::collections::HashMap;

use crate::identity::SpiffeId;
use crate::svid::Svid;
use crate::{Invalid, pb};

/// Revoked identities and serial numbers together.
pub const REVOKED_MAX: usize = 10_000;
/// Hexadecimal digits of a serial number (RFC 5280 section 4.1.2.2: 20 octets).
const SERIAL_DIGITS_MAX: usize = 40;

/// All that is revoked in a mesh. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations {
    identities: HashMap<SpiffeId, i64>,
    serials: HashMap<Serial, i64>,
}

/// A serial number in lower-case hexadecimal digits, without zeros before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Serial(String);

impl Serial {
    /// Reads one; colons between its digits are passed over.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let digits: String = text.chars().filter(|one| *one != ':').collect();
        let is_number = digits.bytes().all(|b| b.is_ascii_hexdigit());
        let digits = digits.trim_start_matches('0').to_ascii_lowercase();
        if !is_number || digits.is_empty() || digits.len() > SERIAL_DIGITS_MAX {
            let problem = "is no serial number of at most 40 hexadecimal digits";
            return Err(Invalid::new("serial", problem));
        }
        Ok(Self(digits))
    }
}

impl Revocations {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.serials.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.len() + self.serials.len()
    }

    /// Nobody trusts it until then.
    pub fn add_identity(&mut self, id: SpiffeId, until: i64) {
        let end = self.identities.entry(id).or_insert(until);
        *end = until.max(*end);
    }

    /// Nobody trusts certificates of that number until then.
    pub fn add_serial(&mut self, serial: Serial, until: i64) {
        let end = self.serials.entry(serial).or_insert(until);
        *end = until.max(*end);
    }

    /// Whether an identity is revoked at `now`.
    #[must_use]
    pub fn has_identity(&self, id: &SpiffeId, now: i64) -> bool {
        self.identities.get(id).is_some_and(|until| now < *until)
    }

    /// Whether a certificate is revoked at `now`.
    #[must_use]
    pub fn has(&self, svid: &Svid, now: i64) -> bool {
        let has_serial = || {
            let serial = Serial::parse(&svid.serial).ok();
            let until = serial.and_then(|serial| self.serials.get(&serial));
            until.is_some_and(|until| now < *until)
        };
        self.has_identity(&svid.id, now) || !self.serials.is_empty() && has_serial()
    }
}

impl TryFrom<pb::Revocations> for Revocations {
    type Error = Invalid;

    fn try_from(wire: pb::Revocations) -> Result<Self, Invalid> {
        if wire.revoked.len() > REVOKED_MAX {
            let problem = format!("are more than {REVOKED_MAX}");
            return Err(Invalid::new("revoked", problem));
        }
        let mut checked = Self::default();
        for one in wire.revoked {
            use pb::revoked::Kind;
            let inside = |e: Invalid| e.inside("revoked");
            match one.kind {
                Some(Kind::SpiffeId(id)) => {
                    checked.add_identity(id.parse().map_err(inside)?, one.until);
                }
                Some(Kind::Serial(serial)) => {
                    checked.add_serial(Serial::parse(&serial).map_err(inside)?, one.until);
                }
                None => {
                    let problem = "is missing, or one this version does not know";
                    return Err(Invalid::new("revoked.kind", problem));
                }
            }
        }
        Ok(checked)
    }
}

impl From<&Revocations> for pb::Revocations {
    fn from(checked: &Revocations) -> Self {
        use pb::revoked::Kind;
        let identities = checked.identities.iter();
        let identities = identities.map(|(id, until)| (Kind::SpiffeId(id.to_string()), until));
        let serials = checked.serials.iter();
        let serials = serials.map(|(serial, until)| (Kind::Serial(serial.0.clone()), until));
        let revoked = identities.chain(serials).map(|(kind, until)| pb::Revoked {
            until: *until,
            kind: Some(kind),
        });
        Self {
            revoked: revoked.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_identity_or_serial_until_its_time() {
        let id: SpiffeId = "spiffe://mesh/ns/a/sa/b".parse().expect("an identity");
        let svid = |serial: &str| Svid {
            id: id.clone(),
            serial: serial.to_owned(),
            not_before: 0,
            not_after: 0,
        };
        let mut all = Revocations::default();
        assert!(all.is_empty() && !all.has(&svid("0a"), 0));
        all.add_serial(Serial::parse("00:0A:fF").expect("a serial"), 100);
        assert!(all.has(&svid("0aff"), 99) && !all.has(&svid("0aff"), 100));
        assert!(!all.has(&svid("0afe"), 99));
        all.add_identity(id.clone(), 50);
        all.add_identity(id.clone(), 40);
        assert!(all.has(&svid("01"), 49) && !all.has(&svid("01"), 50));
        let again = Revocations::try_from(pb::Revocations::from(&all)).expect("valid");
        assert_eq!((again, all.len()), (all, 2));
        for text in ["", "0", "x", "-1", &"f".repeat(41)] {
            assert!(Serial::parse(text).is_err(), "{text}");
        }
        assert!(Serial::parse(&"f".repeat(40)).is_ok(), "the longest");
        let mut one = Revocations::default();
        one.add_identity(id, 1);
        assert!(!one.is_empty());
        let mut one = Revocations::default();
        one.add_serial(Serial::parse("1").expect("a serial"), 1);
        assert!(!one.is_empty());
    }

    #[test]
    fn so_many_are_taken_and_no_more() {
        let revoked = |count: usize| {
            let all = (1..=count).map(|n| pb::Revoked {
                until: 1,
                kind: Some(pb::revoked::Kind::Serial(format!("{n:x}"))),
            });
            Revocations::try_from(pb::Revocations {
                revoked: all.collect(),
            })
        };
        assert_eq!(
            revoked(REVOKED_MAX).expect("as many as there may be").len(),
            REVOKED_MAX
        );
        assert!(revoked(REVOKED_MAX + 1).is_err());
    }
}
