//! What is scarce is shared: whoever wants less than an equal share gets it all, the others share the rest alike.

/// Shares `there` among `wants`, in place: each want becomes what it gets. What does not divide goes to those from
/// `first` on, one each, so that nobody is always last.
pub(super) fn share(wants: &mut [u64], there: u64, first: usize) {
    let wanted: u64 = wants.iter().fold(0, |sum, want| sum.saturating_add(*want));
    if wanted <= there || wants.is_empty() {
        return;
    }
    let level = level(wants, there);
    let dealt: u64 = wants.iter().map(|want| level.min(*want)).sum();
    let mut left = there - dealt;
    let count = wants.len();
    for at in (0..count).map(|n| (first + n) % count) {
        let more = u64::from(left > 0 && wants[at] > level);
        left -= more;
        wants[at] = wants[at].min(level + more);
    }
}

/// The largest equal share such that all of them together are there.
fn level(wants: &[u64], there: u64) -> u64 {
    let mut sorted = wants.to_vec();
    sorted.sort_unstable();
    let mut left = there;
    for (n, want) in sorted.iter().enumerate() {
        let equal = left / (sorted.len() - n) as u64;
        if *want > equal {
            return equal;
        }
        left -= want;
    }
    there
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn small_wants_are_met_and_the_rest_is_shared() {
        let rows: [(&[u64], u64, usize, &[u64]); 6] = [
            (&[1, 2, 3], 10, 0, &[1, 2, 3]),
            (&[1, 10, 10], 9, 0, &[1, 4, 4]),
            (&[10, 10, 10], 10, 1, &[3, 4, 3]),
            (&[10, 10, 10], 11, 2, &[4, 3, 4]),
            (&[5, 0, 5], 1, 1, &[0, 0, 1]),
            (&[5, 5], 0, 0, &[0, 0]),
        ];
        for (wants, there, first, expected) in rows {
            let mut shares = wants.to_vec();
            share(&mut shares, there, first);
            assert_eq!(shares, expected, "{wants:?} of {there}");
        }
    }

    proptest! {
        #[test]
        fn all_that_is_there_is_dealt_and_nobody_envies(
            wants in prop::collection::vec(0_u64..1000, 1..40),
            there in 0_u64..5000,
            first in 0_usize..40,
        ) {
            let mut shares = wants.clone();
            share(&mut shares, there, first);
            let sum: u64 = shares.iter().sum();
            prop_assert_eq!(sum, there.min(wants.iter().sum()));
            let most = shares.iter().max().copied().unwrap_or_default();
            for (want, got) in wants.iter().zip(&shares) {
                prop_assert!(got <= want);
                prop_assert!(got == want || got + 1 >= most, "{wants:?} {shares:?}");
            }
        }
    }
}
