//! The bound, under a network and clocks that do as they like: random runs of the shipped ledger and leases over messages
//! that are late, doubled or lost with all that follow, clocks of different pace, streams that break, ledgers that start anew.
//!
//! Whatever happens, all admitted requests together fit one token bucket of the limit's rate and burst, seen by a clock as
//! fast as clocks may be; where a ledger started anew, less what proxies that came back late had not told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::home::Memory;
use super::lease::Lease;
use super::ledger::{Ledger, SessionId};
use super::session::{self, Session};
use super::{LEASE_TIME, Pace, RESYNC_TIME};
use crate::pb;

const LIMIT: &str = "shop/calls/0";
const TICK: u64 = 10_000;
/// Clocks' paces, in hundredths.
const DRIFT: std::ops::RangeInclusive<u64> = 96..=104;

/// One run's circumstances.
#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    pace: Pace,
    proxies: usize,
    /// Requests a second, of each proxy, at first; they change each half second.
    load: u64,
    /// Microseconds, usually; one in twenty takes up to fifty times that.
    delay: u64,
    /// Of ten thousand messages.
    lost: u64,
    /// Of a hundred.
    doubled: u64,
    /// Streams, of ten thousand ticks.
    broken: u64,
    /// Milliseconds between two starts of the ledger; 0: it never starts anew.
    restarts: u64,
}

/// SplitMix64: a run is its seed's.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    pub(super) fn hits(&mut self, hundredths: u64) -> bool {
        self.below(100) < hundredths
    }
}

/// Somebody's clock: true microseconds as it shows them.
#[derive(Debug, Clone, Copy)]
struct Clock {
    start: Instant,
    pace: u64,
}

impl Clock {
    fn at(self, now: u64) -> Instant {
        self.start + Duration::from_micros(now * self.pace / 100)
    }
}

#[derive(Debug)]
struct Proxy {
    clock: Clock,
    lease: Arc<Lease>,
    session: Option<(SessionId, Session)>,
    remembered: Option<session::Memory>,
    /// Until when what the last session left may be spent.
    lingers: Option<Instant>,
    /// When it dials again.
    back: u64,
    load: u64,
}

impl Proxy {
    fn has_memory(&self) -> bool {
        let session = self.session.as_ref();
        self.remembered.is_some() || session.is_some_and(|(_, one)| !one.memories().is_empty())
    }
}

#[derive(Debug, Clone)]
enum Message {
    Request(SessionId, pb::LeaseRequest),
    Response(usize, SessionId, pb::LeaseResponse),
    /// The stream of that session has ended.
    Ended(usize, SessionId),
}

#[derive(Debug)]
struct World {
    case: Case,
    random: Random,
    now: u64,
    sequence: u64,
    network: BTreeMap<(u64, u64), Message>,
    ledger: Ledger,
    buckets: Memory,
    clock: Clock,
    proxies: Vec<Proxy>,
    owners: BTreeMap<SessionId, usize>,
    sessions: SessionId,
    /// When the last message of each stream and direction arrives.
    last: BTreeMap<(SessionId, bool), u64>,
    /// Streams that carry nothing any more.
    cut: BTreeSet<SessionId>,
    /// When the ledger that started anew leases again, and which proxies it has heard of.
    opens: Option<Instant>,
    heard: BTreeSet<usize>,
    /// The one bucket that everything has to fit, and what may be beyond.
    level: f64,
    beyond: f64,
    level_at: u64,
    admitted: u64,
    ideal: Ideal,
}

/// One bucket that every request asks at once: the most that may be admitted.
#[derive(Debug)]
struct Ideal {
    level: f64,
    at: u64,
    admitted: u64,
}

impl Ideal {
    fn offer(&mut self, now: u64, pace: Pace, clock: Clock) {
        let passed = (now - self.at) as f64 / 1e6 * clock.pace as f64 / 100.0;
        self.level = (self.level + passed * pace.per_second()).min(pace.burst_tokens());
        self.at = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            self.admitted += 1;
        }
    }
}

impl World {
    fn new(case: &Case) -> Self {
        let mut random = Random(case.seed);
        let start = Instant::now();
        let clock = |random: &mut Random| Clock {
            start,
            pace: DRIFT.start() + random.below(DRIFT.end() - DRIFT.start() + 1),
        };
        let ledgers = clock(&mut random);
        let proxies = (0..case.proxies).map(|_| Proxy {
            clock: clock(&mut random),
            lease: Arc::default(),
            session: None,
            remembered: None,
            lingers: None,
            back: random.below(100_000),
            load: case.load,
        });
        Self {
            proxies: proxies.collect(),
            case: case.clone(),
            now: 0,
            sequence: 0,
            network: BTreeMap::new(),
            ledger: Ledger::reopened(start),
            buckets: Memory::new(start),
            clock: ledgers,
            owners: BTreeMap::new(),
            sessions: 0,
            last: BTreeMap::new(),
            cut: BTreeSet::new(),
            opens: None,
            heard: BTreeSet::new(),
            level: case.pace.burst_tokens(),
            beyond: 0.0,
            level_at: 0,
            admitted: 0,
            ideal: Ideal {
                level: case.pace.burst_tokens(),
                at: 0,
                admitted: 0,
            },
            random,
        }
    }

    fn run(&mut self, seconds: u64) {
        let mut next_restart = self.case.restarts * 1000;
        while self.now < seconds * 1_000_000 {
            self.now += 1000;
            if self.case.restarts > 0 && self.now >= next_restart {
                next_restart += self.case.restarts * 1000;
                self.restart();
            }
            self.deliver();
            for at in 0..self.proxies.len() {
                self.requests(at);
                if (self.now + at as u64 * 1000).is_multiple_of(TICK) {
                    self.tick(at);
                }
            }
            if self.now.is_multiple_of(TICK) {
                self.tick_ledger();
            }
        }
    }

    fn send(&mut self, message: Message) {
        let copies = 1 + u64::from(self.random.hits(self.case.doubled));
        for _ in 0..copies {
            let is_slow = self.random.hits(5);
            let longest = self.case.delay * if is_slow { 50 } else { 1 };
            let mut at = self.now + self.random.below(longest);
            // On a stream nothing is lost but the rest of it, and not at once seen to be.
            if let Message::Request(id, _) | Message::Response(_, id, _) = &message {
                if self.random.below(10_000) < self.case.lost {
                    self.cut.insert(*id);
                }
                if self.cut.contains(id) {
                    continue;
                }
                // Nor does anything overtake.
                let is_request = matches!(message, Message::Request(..));
                let last = self.last.entry((*id, is_request)).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.sequence += 1;
            self.network.insert((at, self.sequence), message.clone());
        }
    }

    fn deliver(&mut self) {
        while let Some(first) = self.network.first_entry()
            && first.key().0 <= self.now
        {
            match first.remove() {
                Message::Request(id, request) => self.hear(id, &request),
                Message::Response(at, id, response) => {
                    let proxy = &mut self.proxies[at];
                    let now = proxy.clock.at(self.now);
                    if let Some((own, session)) = &mut proxy.session
                        && *own == id
                    {
                        session.receive(&response, now).expect("our own ledger");
                    }
                }
                Message::Ended(at, id) => self.hang_up(at, id),
            }
        }
    }

    fn hear(&mut self, id: SessionId, request: &pb::LeaseRequest) {
        let pace = self.case.pace;
        let known = |limit: &str| (limit == LIMIT).then_some(pace);
        let now = self.clock.at(self.now);
        match self.ledger.hear(id, request, known, now) {
            Ok(()) => self.heard.extend(self.owners.get(&id)),
            Err(_) => {
                self.ledger.close(id);
                self.end(id);
            }
        }
    }

    fn end(&mut self, id: SessionId) {
        if let Some(at) = self.owners.remove(&id) {
            self.send(Message::Ended(at, id));
        }
    }

    /// A proxy sees that its stream is over, and dials again soon.
    fn hang_up(&mut self, at: usize, id: SessionId) {
        let back = self.now + self.random.below(400_000);
        let proxy = &mut self.proxies[at];
        if let Some((_, session)) = proxy.session.take_if(|(own, _)| *own == id) {
            proxy.lingers = session.spend_until();
            proxy.remembered = session.memories().remove(&0).or(proxy.remembered);
            proxy.back = back;
            self.ledger.close(id);
            self.owners.remove(&id);
        }
    }

    fn tick(&mut self, at: usize) {
        if self.now.is_multiple_of(500_000) {
            self.proxies[at].load = self.random.below(self.case.load * 3 + 1);
        }
        let breaks = self.random.below(10_000) < self.case.broken;
        let sessions = self.sessions + 1;
        let (ledgers, now) = (self.clock.at(self.now), self.now);
        let proxy = &mut self.proxies[at];
        let here = proxy.clock.at(now);
        match &mut proxy.session {
            None if proxy.back <= now => {
                let mut session = Session::new();
                let name = (LIMIT.into(), Box::default());
                let memory = proxy.remembered.take();
                session.hold(proxy.lease.clone(), name, self.case.pace, memory, here);
                proxy.session = Some((sessions, session));
                self.sessions = sessions;
                self.owners.insert(sessions, at);
                self.ledger.open(sessions, ledgers);
            }
            Some((id, _)) if breaks => {
                let id = *id;
                self.hang_up(at, id);
            }
            Some((id, session)) => {
                let id = *id;
                let lost = session.unanswered_since();
                if lost.is_some_and(|since| here > since + LEASE_TIME * 2) {
                    return self.hang_up(at, id);
                }
                if let Some(request) = session.report(here) {
                    self.send(Message::Request(id, request));
                }
            }
            None => {}
        }
    }

    /// Requests of this millisecond.
    fn requests(&mut self, at: usize) {
        let load = self.proxies[at].load;
        let count = load / 1000 + u64::from(self.random.below(1000) < load % 1000);
        for _ in 0..count {
            self.ideal.offer(self.now, self.case.pace, self.clock);
            let proxy = &self.proxies[at];
            let session = proxy.session.as_ref();
            let until = session.map_or(proxy.lingers, |(_, session)| session.spend_until());
            let may = until.is_some_and(|until| proxy.clock.at(self.now) < until);
            if may && proxy.lease.spend(1) {
                self.admit();
            } else {
                proxy.lease.miss(1);
            }
        }
    }

    fn admit(&mut self) {
        let passed = (self.now - self.level_at) as f64 / 1e6;
        // The ledger's clock makes the rate.
        let rate = self.case.pace.per_second() * self.clock.pace as f64 / 100.0;
        self.level = (self.level + passed * rate).min(self.case.pace.burst_tokens()) - 1.0;
        self.level_at = self.now;
        self.admitted += 1;
        // A millisecond is as far as this world tells things apart.
        let slack = rate / 1000.0 + 1e-3;
        assert!(
            self.level + self.beyond >= -slack,
            "at {} us more was admitted than the limit allows, by {}",
            self.now,
            -self.level
        );
    }

    fn tick_ledger(&mut self) {
        let now = self.clock.at(self.now);
        if self.opens.take_if(|opens| *opens <= now).is_some() {
            let mut late = (0..self.proxies.len()).filter(|at| !self.heard.contains(at));
            let is_one_late = late.any(|at| self.proxies[at].has_memory());
            self.beyond += f64::from(u8::from(is_one_late)) * self.case.pace.burst_tokens();
        }
        for id in self.ledger.expire(now) {
            self.end(id);
        }
        for (at, name, pace, order) in self.ledger.orders(now) {
            let answer = self.buckets.carry_out(name, pace, &order, now);
            self.ledger.deal(at, answer, now);
        }
        for (id, response) in self.ledger.responses(now) {
            if let Some(at) = self.owners.get(&id) {
                self.send(Message::Response(*at, id, response));
            }
        }
    }

    fn restart(&mut self) {
        let now = self.clock.at(self.now);
        self.ledger = Ledger::new(now);
        self.buckets = Memory::new(now + RESYNC_TIME);
        self.opens = Some(now + RESYNC_TIME);
        self.heard.clear();
        for id in std::mem::take(&mut self.owners).into_keys() {
            let at = self.proxies.iter().position(|proxy| {
                let session = proxy.session.as_ref();
                session.is_some_and(|(own, _)| *own == id)
            });
            if let Some(at) = at {
                self.network
                    .insert((self.now, self.sequence), Message::Ended(at, id));
                self.sequence += 1;
            }
        }
    }
}

fn paces() -> impl Strategy<Value = Pace> {
    let pace = |(tokens, seconds, burst)| Pace {
        tokens,
        period: Duration::from_secs(seconds),
        burst,
    };
    prop_oneof![
        (1_u32..20, Just(60), 1_u32..20).prop_map(pace),
        (1_u32..100, Just(1), 1_u32..100).prop_map(pace),
        (100_u32..5000, Just(1), 1_u32..5000).prop_map(pace),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let network = (1_000_u64..40_000, 0_u64..50, 0_u64..20, 0_u64..50);
    let restarts = prop_oneof![Just(0), 1500_u64..4000];
    (
        any::<u64>(),
        paces(),
        1_usize..8,
        1_u64..2000,
        network,
        restarts,
    )
        .prop_map(
            |(seed, pace, proxies, load, (delay, lost, doubled, broken), restarts)| Case {
                seed,
                pace,
                proxies,
                load,
                delay,
                lost,
                doubled,
                broken,
                restarts,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_more_is_admitted_than_the_limit_allows(case in cases()) {
        World::new(&case).run(6);
    }
}

/// A message that took long made a memory older than it was.
#[test]
fn slow_messages_bring_no_tokens() {
    let case = Case {
        seed: 16_656_328_750_426_641_973,
        pace: Pace {
            tokens: 12,
            period: Duration::from_secs(60),
            burst: 2,
        },
        proxies: 2,
        load: 190,
        delay: 31_887,
        lost: 0,
        doubled: 6,
        broken: 13,
        restarts: 2836,
    };
    World::new(&case).run(6);
}

/// Where nothing breaks, about as much is admitted as if every request asked one bucket.
#[test]
fn little_is_lost_where_nothing_breaks() {
    // Limit a second, requests a second of each of four proxies, and how many fewer may be admitted.
    for (tokens, load, part) in [
        (1000, 150, 0.01),
        (1000, 1500, 0.01),
        (5000, 1250, 0.01),
        (5000, 3750, 0.01),
        (20, 5, 0.1),
        (20, 100, 0.1),
    ] {
        let case = Case {
            seed: 7,
            pace: Pace {
                tokens,
                period: Duration::from_secs(1),
                burst: tokens,
            },
            proxies: 4,
            load,
            delay: 1_000,
            lost: 0,
            doubled: 0,
            broken: 0,
            restarts: 0,
        };
        let mut world = World::new(&case);
        world.run(20);
        let lost = 1.0 - world.admitted as f64 / world.ideal.admitted as f64;
        assert!(lost <= part, "{tokens}/s, {load}: {lost} lost");
    }
}
