//! What comes of many choices: endpoints of known latency, asked at a steady rate by a clock that only moves here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::upstream::health::{Cause, Health};
use crate::upstream::load::Load;

/// How an endpoint of the test behaves.
#[derive(Debug, Clone, Copy)]
struct Behaviour {
    micros: u64,
    is_refusing: bool,
}

const FAST: Behaviour = answering(1_000);

const fn answering(micros: u64) -> Behaviour {
    Behaviour {
        micros,
        is_refusing: false,
    }
}

const fn refusing(micros: u64) -> Behaviour {
    Behaviour {
        micros,
        is_refusing: true,
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    seed.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

/// How many of `requests`, one each `every_micros`, each endpoint got. Without health: only cost decides.
fn shares(behaviours: &[Behaviour], requests: u64, every_micros: u64, seed: u64) -> Vec<u64> {
    weighted_shares(
        behaviours,
        &vec![1; behaviours.len()],
        requests,
        every_micros,
        seed,
    )
}

fn weighted_shares(
    behaviours: &[Behaviour],
    weights: &[u32],
    requests: u64,
    every_micros: u64,
    mut seed: u64,
) -> Vec<u64> {
    let field = Field::new(weights);
    let start = Instant::now();
    let at = |micros| start + Duration::from_micros(micros);
    let loads: Vec<Load> = behaviours.iter().map(|_| Load::default()).collect();
    let mut counts = vec![0; behaviours.len()];
    let mut under_way: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    for turn in 0..requests {
        let now = turn * every_micros;
        while let Some(Reverse((end, index))) = under_way.pop() {
            if end > now {
                under_way.push(Reverse((end, index)));
                break;
            }
            let behaviour = behaviours[index];
            let took = Duration::from_micros(behaviour.micros);
            loads[index].end();
            match behaviour.is_refusing {
                true => loads[index].failed(took, at(end)),
                false => loads[index].answered(took, at(end)),
            }
        }
        let random = random(&mut seed);
        let standing = |index: usize| {
            let crowding = field.crowding(weights[index]);
            let cost = loads[index].cost(crowding, chance(random), at(now));
            Some(Standing::Open(cost))
        };
        let picked = pick(&field, random, standing).expect("all are open");
        counts[picked.index] += 1;
        loads[picked.index].begin();
        under_way.push(Reverse((
            now + behaviours[picked.index].micros,
            picked.index,
        )));
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn equals_share_alike(count in 2..20_usize, every in 50..5_000_u64, seed in 1..u64::MAX) {
        let counts = shares(&vec![FAST; count], 20_000, every, seed);
        let fair = 20_000 / count as u64;
        for share in counts {
            prop_assert!((fair * 7 / 10..fair * 13 / 10).contains(&share), "{share} of {fair}");
        }
    }

    #[test]
    fn shares_follow_weights_whatever_the_load(
        weights in proptest::collection::vec(1..20_u32, 2..8),
        every in 20..5_000_u64,
        seed in 1..u64::MAX,
    ) {
        let behaviours = vec![FAST; weights.len()];
        let counts = weighted_shares(&behaviours, &weights, 40_000, every, seed);
        let total = u64::from(weights.iter().sum::<u32>());
        for (share, weight) in counts.iter().zip(&weights) {
            let fair = 40_000 * u64::from(*weight) / total;
            prop_assert!((fair * 6 / 10..fair * 14 / 10 + 40).contains(share), "{weights:?} {counts:?}");
        }
    }

    #[test]
    fn what_weighs_nothing_is_for_want_of_others(
        weights in proptest::collection::vec(0..3_u32, 1..8),
        seed in 1..u64::MAX,
    ) {
        let (field, mut seed) = (Field::new(&weights), seed);
        for _ in 0..100 {
            let open = |_| Some(Standing::Open(1.0));
            let index = pick(&field, random(&mut seed), open).expect("all are open").index;
            prop_assert!(weights[index] > 0 || weights.iter().all(|one| *one == 0), "{weights:?} {index}");
            let least = |index: usize| Some(match weights[index] {
                0 => Standing::Open(1.0),
                _ => Standing::Out(Instant::now() + Duration::from_secs(1)),
            });
            if weights.contains(&0) {
                let index = pick(&field, random(&mut seed), least).expect("one is open").index;
                prop_assert_eq!(weights[index], 0);
            }
        }
    }

    #[test]
    fn a_slow_one_gets_less(count in 2..10_usize, every in 50..5_000_u64, seed in 1..u64::MAX) {
        let mut behaviours = vec![FAST; count];
        behaviours[0] = answering(50_000);
        let counts = shares(&behaviours, 20_000, every, seed);
        let fair = 20_000 / count as u64;
        prop_assert!(counts[0] < fair / 4, "{counts:?}");
        prop_assert!(counts[0] > 0, "{counts:?}");
    }

    #[test]
    fn refusing_fast_does_not_attract(count in 2..10_usize, every in 50..5_000_u64, seed in 1..u64::MAX) {
        let mut behaviours = vec![answering(5_000); count];
        behaviours[0] = refusing(100);
        let counts = shares(&behaviours, 20_000, every, seed);
        let fair = 20_000 / count as u64;
        prop_assert!(counts[0] < fair / 4, "{counts:?}");
    }

    #[test]
    fn a_choice_is_one_that_may_be_made(
        usable in proptest::collection::vec(any::<bool>(), 0..20),
        seed in 1..u64::MAX,
    ) {
        let mut seed = seed;
        let standing = |index: usize| usable[index].then_some(Standing::Open(1.0));
        match pick(&Field::even(usable.len()), random(&mut seed), standing) {
            Some(picked) => prop_assert!(usable[picked.index] && !picked.is_probe),
            None => prop_assert!(usable.iter().all(|usable| !usable)),
        }
    }
}

#[test]
fn who_is_due_is_probed_once_and_the_least_bad_is_better_than_nobody() {
    let now = Instant::now();
    let later = |seconds| now + Duration::from_secs(seconds);
    let check = |standings: &[Standing], index, is_probe| {
        let mut seed = 7;
        for _ in 0..50 {
            let picked = pick(&Field::even(standings.len()), random(&mut seed), |index| {
                Some(standings[index])
            });
            assert_eq!(picked, Some(Picked { index, is_probe }), "{standings:?}");
        }
    };
    let (open, due, out) = (Standing::Open(1.0), Standing::Due, Standing::Out);
    check(&[open], 0, false);
    check(&[open, due], 1, true);
    check(&[out(later(9)), open], 1, false);
    check(&[out(later(9)), out(later(3)), out(later(5))], 1, false);
    check(&[Standing::Open(1.0), Standing::Open(10.0)], 0, false);
    assert_eq!(pick(&Field::even(0), 0, |_| None), None);
}

#[test]
fn an_ejected_one_gets_one_probe_at_a_time() {
    let now = Instant::now();
    let health = Health::default();
    health.failed(Cause::Connect, false, now, 0.5);
    let mut seed = 7;
    let mut probes = 0;
    for millisecond in 0..1_500 {
        let at = now + Duration::from_millis(millisecond);
        let standing = |index| match (index, health.ejected_until()) {
            (0, Some(until)) if until <= at => Some(Standing::Due),
            (0, Some(until)) => Some(Standing::Out(until)),
            (_, _) => Some(Standing::Open(1.0)),
        };
        let picked = pick(&Field::even(3), random(&mut seed), standing).expect("two are open");
        if picked.index == 0 {
            assert!(picked.is_probe);
            health.probed(at, 0.5);
            probes += 1;
        }
    }
    assert_eq!(probes, 1);
}
