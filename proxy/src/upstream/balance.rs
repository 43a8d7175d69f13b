//! Which endpoint takes a request: of two at random the one that costs less, so that a choice takes the same time
//! however many there are, and nobody herds to the best. An endpoint of three times the weight of another is as three of
//! them, each with a third of what is under way there. Pure.
//!
//! An endpoint that was ejected is asked again, once its time is up, by the first request that comes across it. Only
//! when both of the two are out are all looked at; when all are out, the one whose time is up first is the least bad.

use std::time::Instant;

/// Costs closer to each other than this are the same: to prefer the slightly better one always is to use one endpoint.
const CLEARLY_LESS: f64 = 0.8;

/// What an endpoint looks like to whoever chooses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Standing {
    /// Takes requests, at a cost.
    Open(f64),
    /// Was ejected, and is to be asked with one request.
    Due,
    /// Is ejected.
    Out(Instant),
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picked {
    pub(crate) index: usize,
    /// The request finds out whether an ejected endpoint is well again.
    pub(crate) is_probe: bool,
}

/// Those to choose from.
#[derive(Debug, Default)]
pub(crate) struct Field {
    count: usize,
    /// Sums of the weights so far; nothing where all weigh the same.
    ends: Box<[u32]>,
    /// The least weight that is any.
    unit: u32,
}

impl Field {
    /// Weights are at most `WEIGHT_MAX`, of at most `ENDPOINTS_MAX`: their sum fits.
    pub(crate) fn new(weights: &[u32]) -> Self {
        let is_even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let sums = weights.iter().scan(0_u32, |sum, weight| {
            *sum = sum.saturating_add(*weight);
            Some(*sum)
        });
        Self {
            count: weights.len(),
            ends: sums.filter(|_| !is_even).collect(),
            unit: weights
                .iter()
                .copied()
                .filter(|one| *one > 0)
                .min()
                .unwrap_or(1),
        }
    }

    /// How much of what is under way at an endpoint of that weight one unit of it has.
    pub(crate) fn crowding(&self, weight: u32) -> f64 {
        f64::from(self.unit) / f64::from(weight.max(self.unit))
    }

    /// So many that weigh the same.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn even(count: usize) -> Self {
        Self {
            count,
            ends: Box::default(),
            unit: 1,
        }
    }

    /// Two units' places: two endpoints where all weigh the same, else maybe one twice.
    fn two(&self, random: u64) -> Option<(usize, usize)> {
        let below = |random: u64, limit: usize| {
            let limit = u64::try_from(limit).unwrap_or(u64::MAX);
            usize::try_from(((random & 0xffff_ffff) * limit) >> 32).unwrap_or_default()
        };
        match (self.count, self.ends.last()) {
            (0, _) => None,
            (1, _) => Some((0, 0)),
            (count, None) => {
                let first = below(random, count);
                let second = below(random >> 32, count - 1);
                Some((first, second + usize::from(second >= first)))
            }
            (_, Some(total)) => {
                let (total, unit) = (*total as usize, self.unit as usize);
                let first = self.at(below(random, total));
                if total == unit {
                    return Some((first, first));
                }
                // One unit of the first is taken.
                let place = below(random >> 32, total - unit);
                let over = if place + unit >= self.ends[first] as usize {
                    unit
                } else {
                    0
                };
                Some((first, self.at(place + over)))
            }
        }
    }

    /// Whose weight covers `place`.
    fn at(&self, place: usize) -> usize {
        self.ends.partition_point(|end| *end as usize <= place)
    }
}

/// A third number out of `random`, from 0 to less than 1.
pub(crate) fn chance(random: u64) -> f64 {
    let mixed = random.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    u32::try_from(mixed).map_or(0.0, f64::from) / 4_294_967_296.0
}

/// One of the field; `standing` is none for those that must not be picked.
pub(crate) fn pick(
    field: &Field,
    random: u64,
    standing: impl Fn(usize) -> Option<Standing>,
) -> Option<Picked> {
    let (first, second) = field.two(random)?;
    let chosen = |index, is_probe| Some(Picked { index, is_probe });
    match (standing(first), standing(second)) {
        (Some(Standing::Due), _) => chosen(first, true),
        (_, Some(Standing::Due)) => chosen(second, true),
        (Some(Standing::Open(cost)), Some(Standing::Open(other)))
            if other < cost * CLEARLY_LESS =>
        {
            chosen(second, false)
        }
        (Some(Standing::Open(_)), _) => chosen(first, false),
        (_, Some(Standing::Open(_))) => chosen(second, false),
        (None | Some(Standing::Out(_)), None | Some(Standing::Out(_))) => {
            least_bad(field.count, first, standing)
        }
    }
}

fn least_bad(
    count: usize,
    from: usize,
    standing: impl Fn(usize) -> Option<Standing>,
) -> Option<Picked> {
    let mut best: Option<(usize, Standing)> = None;
    for index in (from..count).chain(0..from) {
        let Some(here) = standing(index) else {
            continue;
        };
        if best.is_none_or(|(_, best)| is_better(here, best)) {
            best = Some((index, here));
        }
    }
    best.map(|(index, standing)| Picked {
        index,
        is_probe: standing == Standing::Due,
    })
}

fn is_better(this: Standing, than: Standing) -> bool {
    match (this, than) {
        (Standing::Due, than) => than != Standing::Due,
        (Standing::Open(cost), Standing::Open(other)) => cost < other,
        (Standing::Open(_), Standing::Due) => false,
        (Standing::Open(_), Standing::Out(_)) => true,
        (Standing::Out(until), Standing::Out(other)) => until < other,
        (Standing::Out(_), Standing::Open(_) | Standing::Due) => false,
    }
}

#[cfg(test)]
mod tests;
