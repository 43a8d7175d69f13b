//! Other ways to limit what fifty nodes admit together, in this process and real time: a share for each, counts that are
//! exchanged now and then, and a question to Redis for every request.

use std::time::Duration;

use ringmail_proto::limit::Pace;
use tokio::time::{Instant, sleep_until};

use crate::judge::{Asked, Bucket, Outcome};
use crate::redis::Redis;
use crate::trace::{Arrival, PODS};

/// What the others are called, in the order in which their runs are returned.
pub(crate) const NAMES: [&str; 3] = ["static shares", "100 ms sync", "Redis each"];

/// Between two exchanges of one node's counts.
const SYNC: Duration = Duration::from_millis(100);

/// Each node has its part of the limit, and nobody talks.
struct Static(Vec<Bucket>);

/// Each node admits by what it knows of all: their sum when it was told last, and its own since.
struct Synchronised {
    all: Bucket,
    nodes: Vec<Node>,
}

struct Node {
    view: Bucket,
    used: f64,
    next: Duration,
}

impl Static {
    fn new(pace: Pace) -> Self {
        Self(vec![Bucket::full(pace, 1.0 / PODS as f64); PODS])
    }

    fn take(&mut self, pod: usize, now: Duration) -> bool {
        self.0[pod].take(now)
    }
}

impl Synchronised {
    fn new(pace: Pace) -> Self {
        let all = Bucket::full(pace, 1.0);
        let node = |n| Node {
            view: all.clone(),
            used: 0.0,
            // Not all at once.
            next: SYNC.mul_f64(n as f64 / PODS as f64),
        };
        Self {
            nodes: (0..PODS).map(node).collect(),
            all,
        }
    }

    fn take(&mut self, pod: usize, now: Duration) -> bool {
        self.exchange(now);
        let node = &mut self.nodes[pod];
        let is_there = node.view.take(now);
        node.used += f64::from(u8::from(is_there));
        is_there
    }

    /// All that is due by now; it takes no time, which is more than a network can do.
    fn exchange(&mut self, now: Duration) {
        for node in &mut self.nodes {
            while node.next <= now {
                self.all.refill(node.next);
                self.all.level -= std::mem::take(&mut node.used);
                node.view = self.all.clone();
                node.next += SYNC;
            }
        }
    }
}

/// Plays a trace to all of them at once. Without Redis its run is empty.
pub(crate) async fn play(
    pace: Pace,
    trace: Vec<Arrival>,
    redis: Option<Redis>,
) -> anyhow::Result<[Vec<Asked>; 3]> {
    let (mut shares, mut synchronised) = (Static::new(pace), Synchronised::new(pace));
    let [mut by_share, mut by_count] = [Vec::new(), Vec::new()];
    let begun = Instant::now();
    for arrival in trace.iter().filter(|arrival| arrival.is_limited) {
        if begun.elapsed() < arrival.at {
            sleep_until(begun + arrival.at).await;
        }
        if let Some(redis) = &redis {
            redis.ask(arrival.pod, begun)?;
        }
        let at = begun.elapsed();
        let decided = |is_there: bool| Asked {
            at,
            answered: at,
            outcome: match is_there {
                true => Outcome::Admitted,
                false => Outcome::Refused,
            },
            is_limited: true,
        };
        by_share.push(decided(shares.take(arrival.pod, at)));
        by_count.push(decided(synchronised.take(arrival.pod, at)));
    }
    let by_redis = match redis {
        Some(redis) => redis.end().await?,
        None => Vec::new(),
    };
    Ok([by_share, by_count, by_redis])
}
