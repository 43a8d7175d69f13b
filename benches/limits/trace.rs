//! When requests come, and to which pod: made of a seed, so that every contender gets the same.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringmail_proto::limit::Pace;

use crate::arguments::Arguments;

/// Pods that share every limit.
pub(crate) const PODS: usize = 50;
/// For each request that a limit is for, so many that none is for: latencies are compared with theirs.
const FREE: f64 = 0.05;
/// Of a flash, in parts of its trace.
const FLASH: std::ops::Range<f64> = 0.4..0.5;
/// What a trace begins with.
const SEED: u64 = 6;

/// One request that is to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Since the trace began.
    pub(crate) at: Duration,
    pub(crate) pod: usize,
    /// Whether a limit is for it.
    pub(crate) is_limited: bool,
}

/// How load is spread over time and pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Steady,
    Overload,
    Moving,
    Flash,
}

/// All of them, with their names and what they are.
pub(crate) const SHAPES: [(Shape, &str, &str); 4] = [
    (Shape::Steady, "steady", "0.9 of the limit, by a Zipf law"),
    (
        Shape::Overload,
        "overload",
        "3 times the limit, by a Zipf law",
    ),
    (
        Shape::Moving,
        "moving",
        "1.2 of the limit, 90 % of it to one pod, each second another",
    ),
    (
        Shape::Flash,
        "flash",
        "half of the limit, and for a tenth of the time 10 times the limit",
    ),
];

/// A limit, and how long it is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    /// Its path, and how people call it.
    pub(crate) path: &'static str,
    pub(crate) name: &'static str,
    /// As a policy says it.
    pub(crate) per: &'static str,
    pub(crate) pace: Pace,
    seconds: f64,
    quick_seconds: f64,
    /// Only where it is asked for: it takes more than two processors.
    pub(crate) is_large: bool,
}

const fn pace(tokens: u32, seconds: u64, burst: u32) -> Pace {
    Pace {
        tokens,
        period: Duration::from_secs(seconds),
        burst,
    }
}

/// All of them. The slow ones run together: they are no load.
pub(crate) const RATES: [Rate; 4] = [
    Rate {
        path: "/five-thousand",
        name: "5000/s",
        per: "second",
        pace: pace(5000, 1, 5000),
        seconds: 12.0,
        quick_seconds: 4.0,
        is_large: true,
    },
    Rate {
        path: "/thousand",
        name: "1000/s",
        per: "second",
        pace: pace(1000, 1, 1000),
        seconds: 15.0,
        quick_seconds: 5.0,
        is_large: false,
    },
    Rate {
        path: "/twenty",
        name: "20/s",
        per: "second",
        pace: pace(20, 1, 20),
        seconds: 20.0,
        quick_seconds: 10.0,
        is_large: false,
    },
    Rate {
        path: "/ten",
        name: "10/min",
        per: "minute",
        pace: pace(10, 60, 10),
        seconds: 120.0,
        quick_seconds: 20.0,
        is_large: false,
    },
];

impl Rate {
    /// Whether its traces run together with others.
    pub(crate) fn is_slow(&self) -> bool {
        self.per_second() < 100.0
    }

    pub(crate) fn per_second(&self) -> f64 {
        f64::from(self.pace.tokens) / self.pace.period.as_secs_f64()
    }

    pub(crate) fn seconds(&self, arguments: &Arguments) -> f64 {
        match arguments.quick {
            true => self.quick_seconds,
            false => self.seconds,
        }
    }
}

impl Shape {
    /// In parts of the limit's rate, at such a part of the trace.
    fn load(self, part: f64) -> f64 {
        match self {
            Self::Steady => 0.9,
            Self::Overload => 3.0,
            Self::Moving => 1.2,
            Self::Flash if FLASH.contains(&part) => 10.0,
            Self::Flash => 0.5,
        }
    }

    fn load_max(self) -> f64 {
        match self {
            Self::Steady | Self::Overload | Self::Moving => self.load(0.0),
            Self::Flash => self.load(FLASH.start),
        }
    }

    /// The pod of a request.
    fn pod(self, second: usize, zipf: &Zipf, random: &mut StdRng) -> usize {
        match self {
            Self::Moving if random.random_bool(0.9) => (second * 17 + 3) % PODS,
            Self::Moving => random.random_range(0..PODS),
            Self::Steady | Self::Overload | Self::Flash => zipf.pod(random),
        }
    }

    /// Requests as they come by themselves: each at a time that no other has to do with.
    pub(crate) fn trace(self, rate: &Rate, seconds: f64) -> Vec<Arrival> {
        let mut random = StdRng::seed_from_u64(SEED);
        let zipf = Zipf::new();
        let most = rate.per_second() * self.load_max() * (1.0 + FREE);
        let (mut at, mut arrivals) = (0.0, Vec::new());
        loop {
            at += -(1.0 - random.random_range(0.0..1.0_f64)).ln() / most;
            if at >= seconds {
                return arrivals;
            }
            if random.random_range(0.0..1.0) * self.load_max() >= self.load(at / seconds) {
                continue;
            }
            let arrival = Arrival {
                at: Duration::from_secs_f64(at),
                pod: self.pod(second(at), &zipf, &mut random),
                is_limited: !random.random_bool(FREE / (1.0 + FREE)),
            };
            arrivals.push(arrival);
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a trace"
)]
fn second(at: f64) -> usize {
    at as usize
}

/// Pod `n` gets a part in proportion to `1 / (n + 1)`.
struct Zipf {
    /// Sums of the parts up to each pod.
    sums: Vec<f64>,
}

impl Zipf {
    fn new() -> Self {
        let mut sum = 0.0;
        let sums = (1..=PODS).map(|n| {
            sum += 1.0 / n as f64;
            sum
        });
        Self {
            sums: sums.collect(),
        }
    }

    fn pod(&self, random: &mut StdRng) -> usize {
        let all = self.sums.last().copied().unwrap_or_default();
        let drawn = random.random_range(0.0..all);
        self.sums.partition_point(|sum| *sum <= drawn).min(PODS - 1)
    }
}
