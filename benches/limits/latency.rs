//! What a limit adds to a request's latency: the same load, one half of it with a limit whose tokens are always there.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::arguments::Arguments;
use crate::client::Run;
use crate::fleet::{Fleet, HOT};
use crate::judge::{Asked, Outcome};
use crate::trace::Arrival;

/// Requests a second, to one pod; every other one is limited.
const PER_SECOND: u32 = 2000;
const ROUNDS: usize = 9;
const SECONDS: u32 = 5;
/// Milliseconds that a limit may add to p99.
const GOAL_MICROS: f64 = 100.0;
/// With fewer latencies there is no p99.
const SAMPLES_MIN: u64 = 100;
/// Latencies above are taken for this.
const MICROS_MAX: u64 = 10_000_000;

/// Microseconds that requests waited.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Rounds of it.
#[derive(Debug, Serialize)]
pub(crate) struct Added {
    pub(crate) free: Vec<Latency>,
    pub(crate) limited: Vec<Latency>,
    /// Medians of the rounds' differences.
    pub(crate) added: Latency,
    pub(crate) is_met: bool,
}

/// Of what was admitted, with or without a limit; None if it was too little.
pub(crate) fn latency(all: &[Asked], is_limited: bool) -> Option<Latency> {
    let mut micros = Histogram::<u64>::new_with_bounds(1, MICROS_MAX, 3).ok()?;
    let own = |one: &&Asked| one.is_limited == is_limited && one.outcome == Outcome::Admitted;
    for one in all.iter().filter(own) {
        let took = one.answered.saturating_sub(one.at);
        micros.saturating_record(u64::try_from(took.as_micros()).unwrap_or(MICROS_MAX));
    }
    let at = |quantile| micros.value_at_quantile(quantile) as f64;
    (micros.len() >= SAMPLES_MIN).then(|| Latency {
        p50: at(0.5),
        p99: at(0.99),
    })
}

/// What the limited waited more than the others.
pub(crate) fn added(all: &[Asked]) -> Option<Latency> {
    let (free, limited) = (latency(all, false)?, latency(all, true)?);
    Some(limited.more_than(free))
}

impl Latency {
    fn more_than(self, other: Self) -> Self {
        Self {
            p50: self.p50 - other.p50,
            p99: self.p99 - other.p99,
        }
    }
}

pub(crate) fn measure(fleet: &Fleet<'_>, arguments: &Arguments) -> anyhow::Result<Added> {
    let rounds = if arguments.quick { 1 } else { ROUNDS };
    let (mut free, mut limited) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let run = Run {
            path: HOT,
            name: "hot".to_owned(),
        };
        let all = fleet.block_on(fleet.client.clone().play(run, load()))??;
        free.extend(latency(&all, false));
        limited.extend(latency(&all, true));
    }
    let differences = free.iter().zip(&limited).map(|(a, b)| b.more_than(*a));
    let differences: Vec<_> = differences.collect();
    let added = Latency {
        p50: median(differences.iter().map(|one| one.p50)),
        p99: median(differences.iter().map(|one| one.p99)),
    };
    Ok(Added {
        free,
        limited,
        is_met: added.p99 <= GOAL_MICROS,
        added,
    })
}

fn load() -> Vec<Arrival> {
    let between = Duration::from_secs(1) / PER_SECOND;
    let arrival = |n: u32| Arrival {
        at: between * n,
        pod: 0,
        // Neighbours go together, and none of both is always first.
        is_limited: matches!(n % 4, 0 | 3),
    };
    (0..PER_SECOND * SECONDS).map(arrival).collect()
}

/// Of none it is not a number.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
