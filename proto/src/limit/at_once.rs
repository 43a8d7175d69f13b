//! Limits on what is under way at once, under a network that takes its time and streams that break: random runs of the shipped
//! ledger and leases. Never are more under way than there may be, and in the end every token is back.
//!
//! A proxy that is away for longer than a lease is what may be beyond: that is not in here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::Pace;
use super::home::Memory;
use super::lease::Lease;
use super::ledger::{Ledger, SessionId};
use super::model::Random;
use super::session::Session;
use crate::pb;

const LIMIT: &str = "shop/calls/0";
const STEP: Duration = Duration::from_millis(1);
/// Of a report, in steps.
const TICK: u64 = 10;
/// Requests come for so many steps, and then time passes for all to end and to be given back.
const STEPS: u64 = 3000;
const REST: u64 = 4000;
/// Requests in a hundred steps, at least: nobody waits here, so of fewer all may miss the moment that their token is there.
const LOAD_MIN: u64 = 8;

#[derive(Debug, Clone)]
struct Case {
    seed: u64,
    most: u32,
    proxies: usize,
    /// Requests of a proxy in a hundred steps.
    load: u64,
    /// Steps that a message takes at most, and those that a request does.
    delay: u64,
    lasts: u64,
    /// Streams of ten thousand steps.
    broken: u64,
}

#[derive(Default)]
struct Proxy {
    lease: Arc<Lease>,
    session: Option<(SessionId, Session)>,
    back: u64,
    /// When each request under way ends.
    under_way: Vec<u64>,
    up: VecDeque<(u64, pb::LeaseRequest)>,
    down: VecDeque<(u64, pb::LeaseResponse)>,
    spend_until: Option<Instant>,
}

struct World {
    case: Case,
    random: Random,
    start: Instant,
    step: u64,
    ledger: Ledger,
    home: Memory,
    proxies: Vec<Proxy>,
    sessions: SessionId,
    admitted: u64,
}

impl World {
    fn new(case: Case) -> Self {
        let start = Instant::now();
        Self {
            random: Random(case.seed),
            start,
            step: 0,
            ledger: Ledger::reopened(start),
            home: Memory::new(start),
            proxies: (0..case.proxies).map(|_| Proxy::default()).collect(),
            sessions: 0,
            admitted: 0,
            case,
        }
    }

    fn now(&self) -> Instant {
        self.start + STEP * u32::try_from(self.step).expect("few")
    }

    fn pace(&self) -> Pace {
        Pace::at_once(self.case.most)
    }

    fn step(&mut self) -> Result<(), TestCaseError> {
        self.step += 1;
        for at in 0..self.proxies.len() {
            self.talk(at);
            self.serve(at);
        }
        self.keep();
        let under_way: u64 = self.proxies.iter().map(|one| one.lease.in_use()).sum();
        let listed: usize = self.proxies.iter().map(|one| one.under_way.len()).sum();
        prop_assert_eq!(under_way, listed as u64);
        prop_assert!(
            under_way <= self.case.most.into(),
            "{} at {}",
            under_way,
            self.step
        );
        Ok(())
    }

    /// One proxy and its stream.
    fn talk(&mut self, at: usize) {
        let (now, pace) = (self.now(), self.pace());
        let delay = 1 + self.random.below(self.case.delay);
        let breaks = self.step < STEPS && self.random.below(10_000) < self.case.broken;
        let back = self.step + self.random.below(400);
        let proxy = &mut self.proxies[at];
        // One that was not heard yet is one that is away for longer.
        let was_heard = |(_, session): &mut (_, Session)| session.spend_until().is_some();
        if breaks && let Some((id, _)) = proxy.session.take_if(was_heard) {
            self.ledger.close(id);
            (proxy.back, proxy.up, proxy.down) = (back, VecDeque::new(), VecDeque::new());
        }
        if proxy.session.is_none() && proxy.back <= self.step {
            self.sessions += 1;
            let mut session = Session::new();
            session.hold(
                proxy.lease.clone(),
                (LIMIT.into(), [].into()),
                pace,
                None,
                now,
            );
            self.ledger.open(self.sessions, now);
            proxy.session = Some((self.sessions, session));
        }
        let Some((_, session)) = &mut proxy.session else {
            return;
        };
        while let Some((_, response)) = proxy.down.pop_front_if(|(due, _)| *due <= self.step) {
            session.receive(&response, now).expect("as it should be");
        }
        proxy.spend_until = session.spend_until().or(proxy.spend_until);
        if self.step.is_multiple_of(TICK)
            && let Some(request) = session.report(now)
        {
            // In order, however late.
            let last = proxy.up.back().map_or(0, |(due, _)| *due);
            proxy.up.push_back((last.max(self.step + delay), request));
        }
    }

    /// Its app.
    fn serve(&mut self, at: usize) {
        let comes = self.step < STEPS && self.random.hits(self.case.load);
        let ends = self.step + 1 + self.random.below(self.case.lasts);
        let (now, step) = (self.now(), self.step);
        let proxy = &mut self.proxies[at];
        let over = proxy.under_way.extract_if(.., |end| *end <= step);
        over.for_each(|_| proxy.lease.bring_back());
        if !comes {
            return;
        }
        if proxy.spend_until.is_some_and(|until| now < until) && proxy.lease.take() {
            proxy.under_way.push(ends);
            self.admitted += 1;
        } else {
            proxy.lease.miss(1);
        }
    }

    /// The ledger.
    fn keep(&mut self) {
        let (now, pace) = (self.now(), self.pace());
        for proxy in &mut self.proxies {
            let Some((id, _)) = &proxy.session else {
                continue;
            };
            while let Some((_, request)) = proxy.up.pop_front_if(|(due, _)| *due <= self.step) {
                let heard = self.ledger.hear(*id, &request, |_| Some(pace), now);
                heard.expect("as it should be");
            }
        }
        self.ledger.expire(now);
        for (at, name, pace, order) in self.ledger.orders(now) {
            let answer = self.home.carry_out(name, pace, &order, now);
            self.ledger.deal(at, answer, now);
        }
        for (id, response) in self.ledger.responses(now) {
            let delay = 1 + self.random.below(self.case.delay);
            let is_its = |one: &&mut Proxy| one.session.as_ref().is_some_and(|(own, _)| *own == id);
            if let Some(proxy) = self.proxies.iter_mut().find(is_its) {
                let last = proxy.down.back().map_or(0, |(due, _)| *due);
                proxy
                    .down
                    .push_back((last.max(self.step + delay), response));
            }
        }
    }

    /// What a new session is given that wants everything.
    fn all_that_is_there(&mut self) -> u64 {
        let (now, pace) = (self.now(), self.pace());
        self.ledger.open(0, now);
        let request = pb::LeaseRequest {
            sequence: 1,
            keys: vec![pb::LeaseKey {
                number: 1,
                limit: LIMIT.to_owned(),
                ..pb::LeaseKey::default()
            }],
            usages: vec![pb::LeaseUsage {
                number: 1,
                wanted: self.case.most.into(),
                ..pb::LeaseUsage::default()
            }],
            ..pb::LeaseRequest::default()
        };
        let heard = self.ledger.hear(0, &request, |_| Some(pace), now);
        heard.expect("as it should be");
        for (at, name, pace, order) in self.ledger.orders(now) {
            let answer = self.home.carry_out(name, pace, &order, now);
            self.ledger.deal(at, answer, now);
        }
        let responses = self.ledger.responses(now).into_iter();
        let grants = responses
            .filter(|(id, _)| *id == 0)
            .flat_map(|(_, one)| one.grants);
        grants.map(|grant| grant.granted).sum()
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let times = (1_u64..40, 1_u64..300, 0_u64..30);
    (any::<u64>(), 1_u32..60, 1_usize..5, LOAD_MIN..100, times).prop_map(
        |(seed, most, proxies, load, (delay, lasts, broken))| Case {
            seed,
            most,
            proxies,
            load,
            delay,
            lasts,
            broken,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn never_more_at_once_and_all_come_back(case in cases()) {
        let mut world = World::new(case);
        for _ in 0..STEPS + REST {
            world.step()?;
        }
        prop_assert!(world.admitted > 0, "nobody was ever let through");
        prop_assert_eq!(world.all_that_is_there(), u64::from(world.case.most));
    }
}

/// Alone, a proxy has as many as there may be, and need not ask for those that came back.
#[test]
fn little_is_lost() {
    let case = Case {
        seed: 7,
        most: 20,
        proxies: 1,
        load: 100,
        delay: 2,
        lasts: 20,
        broken: 0,
    };
    let mut world = World::new(case);
    for _ in 0..STEPS {
        world.step().expect("bounded");
    }
    // A request in each step, some ten under way: there is always room, and what is missed at first would wait for it.
    assert!(
        world.admitted > STEPS * 94 / 100,
        "{} of {STEPS}",
        world.admitted
    );
}
