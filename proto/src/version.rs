//! The order of configuration states: within one epoch of one controller by sequence; across epochs there is none.

use std::fmt;

use crate::{Invalid, pb};

/// A state of one controller's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Which run of which controller; zero is no epoch.
    pub epoch: u64,
    /// Counts changes within the epoch.
    pub sequence: u64,
}

impl Version {
    /// Whether a delta that leads to `next` may be applied to a state at `self`.
    #[must_use]
    pub fn admits_delta(self, next: Self) -> bool {
        self.epoch == next.epoch && self.sequence <= next.sequence
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{}", self.epoch, self.sequence)
    }
}

impl TryFrom<Option<pb::Version>> for Version {
    type Error = Invalid;

    fn try_from(wire: Option<pb::Version>) -> Result<Self, Invalid> {
        match wire {
            Some(pb::Version { epoch, sequence }) if epoch != 0 => Ok(Self { epoch, sequence }),
            Some(_) => Err(Invalid::new("version.epoch", "is zero")),
            None => Err(Invalid::new("version", "is missing")),
        }
    }
}

impl From<Version> for pb::Version {
    fn from(checked: Version) -> Self {
        Self {
            epoch: checked.epoch,
            sequence: checked.sequence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_stay_in_their_epoch_and_never_go_back() {
        let v = |epoch, sequence| Version { epoch, sequence };
        assert!(v(1, 4).admits_delta(v(1, 5)));
        assert!(
            v(1, 4).admits_delta(v(1, 4)),
            "a subscription is answered at the state it finds"
        );
        assert!(!v(1, 4).admits_delta(v(1, 3)));
        assert!(!v(1, 4).admits_delta(v(2, 5)));
    }
}
