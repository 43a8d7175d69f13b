use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use super::*;
use crate::identity::SpiffeId;
use crate::pb;
use crate::policy::{Asked, Caller, Http};

type Field<'a> = (&'a [u8], &'a [u8]);

fn wire() -> pb::RateLimit {
    pb::RateLimit {
        name: "shop/calls/0".to_owned(),
        mode: pb::PolicyMode::Enforce.into(),
        counts: pb::LimitCounts::Requests.into(),
        rate: Some(pb::LimitRate {
            tokens: 10,
            period_seconds: 60,
            burst: 20,
        }),
        scope: pb::LimitScope::Global.into(),
        on_unavailable: pb::LimitUnavailable::LocalShare.into(),
        ..pb::RateLimit::default()
    }
}

fn key(kind: pb::limit_key::Kind) -> pb::LimitKey {
    pb::LimitKey { kind: Some(kind) }
}

fn limit(change: impl FnOnce(&mut pb::RateLimit)) -> Limit {
    let mut wire = wire();
    change(&mut wire);
    Limit::try_from(wire).expect("named and targeted")
}

fn problem(change: impl FnOnce(&mut pb::RateLimit)) -> String {
    limit(change).terms.expect_err("not understood").to_string()
}

#[test]
fn what_travels_comes_back() {
    use pb::limit_key::Kind;
    let whole = || pb::LimitKeyPart {};
    let template = pb::PathTemplate {
        kind: Some(pb::path_template::Kind::Template("/orders/{id}".to_owned())),
    };
    let sent = limit(|wire| {
        wire.ports = vec![8080];
        wire.mode = pb::PolicyMode::Shadow.into();
        wire.scope = pb::LimitScope::Local.into();
        wire.on_unavailable = pb::LimitUnavailable::Deny.into();
        wire.key = vec![
            key(Kind::Identity(whole())),
            key(Kind::Network(pb::LimitKeyNetwork {
                ipv4_prefix: 24,
                ipv6_prefix: 56,
            })),
            key(Kind::Paths(pb::PathSet {
                any: vec![template],
            })),
            key(Kind::Claim("realm.user".to_owned())),
        ];
        wire.cost = Some(pb::LimitCost {
            tokens: 2,
            header: "x-cost".to_owned(),
        });
        wire.proxies = 3;
    });
    assert!(sent.terms.is_ok(), "{:?}", sent.terms);
    let again = Limit::try_from(pb::RateLimit::from(&sent)).expect("our own");
    assert_eq!(again, sent);
}

#[test]
fn what_is_not_understood_has_no_terms() {
    assert!(problem(|wire| wire.scope = 9).starts_with("scope:"));
    assert!(problem(|wire| wire.counts = 0).starts_with("counts:"));
    assert!(problem(|wire| wire.mode = 7).starts_with("mode:"));
    assert!(problem(|wire| wire.rate = None).starts_with("rate:"));
    assert!(problem(|wire| wire.key = vec![pb::LimitKey { kind: None }]).starts_with("key:"));
    let rate = |tokens, period_seconds, burst| {
        problem(move |wire| {
            wire.rate = Some(pb::LimitRate {
                tokens,
                period_seconds,
                burst,
            });
        })
    };
    assert!(rate(0, 1, 1).starts_with("rate.tokens:"));
    assert!(rate(1, 2, 1).starts_with("rate.period_seconds:"));
    assert!(rate(1, 1, 0).starts_with("rate.burst:"));
    let of_requests = problem(|wire| {
        wire.counts = pb::LimitCounts::Connections.into();
        wire.key = vec![key(pb::limit_key::Kind::Header("x-user".to_owned()))];
    });
    assert!(of_requests.starts_with("key:"), "{of_requests}");
    let of_route =
        problem(|wire| wire.key = vec![key(pb::limit_key::Kind::Route(pb::LimitKeyPart {}))]);
    assert!(of_route.contains("outbound requests only"), "{of_route}");
    let of_token = problem(|wire| {
        wire.direction = pb::LimitDirection::Outbound.into();
        wire.key = vec![key(pb::limit_key::Kind::Claim("sub".to_owned()))];
    });
    assert!(of_token.contains("inbound requests only"), "{of_token}");
    assert!(problem(|wire| wire.direction = 7).starts_with("direction:"));
    // It stays one that is not understood, wherever it is told.
    let again = Limit::try_from(pb::RateLimit::from(&limit(|wire| wire.scope = 9)));
    assert!(again.expect("named").terms.is_err());
}

fn key_of(key: Vec<pb::LimitKey>, fields: &[Field<'_>]) -> Vec<u8> {
    let terms = limit(|wire| wire.key = key).terms.expect("understood");
    let id = "spiffe://cluster.local/ns/shop/sa/web"
        .parse::<SpiffeId>()
        .expect("an id");
    let asked = Asked {
        caller: Caller {
            identity: Some(&id),
            address: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
        },
        port: 80,
        http: Some(Http {
            method: "GET",
            path: "/orders/7",
            host: Some("cart:8080"),
            fields: fields.iter().copied(),
            claims: None,
        }),
    };
    let mut written = Vec::new();
    terms.write_key(&asked, "", &mut written);
    written
}

#[test]
fn keys_tell_apart_what_they_should() {
    use pb::limit_key::Kind;
    let whole = || pb::LimitKeyPart {};
    let header = |name: &str| key(Kind::Header(name.to_owned()));
    let user: Field<'_> = (b"X-User", b"ada");
    let rows: [(Vec<pb::LimitKey>, &[Field<'_>], &[u8]); 7] = [
        (vec![], &[], b""),
        (vec![key(Kind::Namespace(whole()))], &[], b"shop"),
        (vec![key(Kind::ServiceAccount(whole()))], &[], b"shop/web"),
        (
            vec![key(Kind::Host(whole())), key(Kind::Method(whole()))],
            &[],
            b"cart\0GET",
        ),
        (
            vec![header("x-user"), key(Kind::Namespace(whole()))],
            &[user],
            b"ada\0shop",
        ),
        (vec![header("x-user")], &[], b""),
        (
            vec![key(Kind::Network(pb::LimitKeyNetwork {
                ipv4_prefix: 16,
                ipv6_prefix: 64,
            }))],
            &[],
            b"10.1.0.0/16",
        ),
    ];
    for (parts, fields, expected) in rows {
        let found = key_of(parts.clone(), fields);
        assert_eq!(found, expected, "{parts:?}");
    }
    let long = vec![b'a'; 3000];
    let longer = vec![b'b'; 4000];
    let both = [&long, &longer].map(|value| key_of(vec![header("x-user")], &[(b"x-user", value)]));
    assert_eq!(both[0], both[1], "what is too long shares a bucket");
    assert!(both[0].len() < 8);
}

#[test]
fn a_header_may_say_the_cost() {
    let terms = limit(|wire| {
        wire.cost = Some(pb::LimitCost {
            tokens: 3,
            header: "x-cost".to_owned(),
        });
    });
    let terms = terms.terms.expect("understood");
    let cost = |value: &'static [u8]| {
        let fields: HashMap<&[u8], &[u8]> = HashMap::from([(&b"x-cost"[..], value)]);
        terms.cost(&Asked {
            caller: Caller {
                identity: None,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            },
            port: 80,
            http: Some(Http {
                method: "GET",
                path: "/",
                host: None,
                fields,
                claims: None,
            }),
        })
    };
    let rows: [(&[u8], u32); 6] = [
        (b"1", 1),
        (b"7", 7),
        (b"0", 3),
        (b"-4", 3),
        (b"many", 3),
        (b"4000000", 20),
    ];
    for (value, expected) in rows {
        assert_eq!(cost(value), expected, "{}", value.escape_ascii());
    }
}

/// A session may come by one bucket twice, when it had given it up and others of its threads had not.
#[test]
fn numbers_of_one_bucket_are_served_alike() {
    let pace = Pace {
        tokens: 10,
        period: Duration::from_secs(1),
        burst: 10,
    };
    let now = Instant::now();
    let mut ledger = ledger::Ledger::reopened(now);
    let mut memory = home::Memory::new(now);
    ledger.open(1, now);
    let named = |number| pb::LeaseKey {
        number,
        limit: "shop/calls/0".to_owned(),
        key: Vec::new(),
        ..pb::LeaseKey::default()
    };
    let wants = |number| pb::LeaseUsage {
        number,
        wanted: 2,
        ..pb::LeaseUsage::default()
    };
    let mut ask = |sequence, keys: Vec<u32>, wanted: Vec<u32>, forgotten| {
        let request = pb::LeaseRequest {
            workload: None,
            sequence,
            keys: keys.into_iter().map(named).collect(),
            usages: wanted.into_iter().map(wants).collect(),
            forgotten,
        };
        let heard = ledger.hear(1, &request, |_| Some(pace), now);
        heard.expect("as it should be");
        for (at, name, pace, order) in ledger.orders(now) {
            let answer = memory.carry_out(name, pace, &order, now);
            ledger.deal(at, answer, now);
        }
        let responses = ledger.responses(now);
        let grants = responses.into_iter().flat_map(|(_, one)| one.grants);
        grants
            .map(|one| (one.number, one.granted))
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(1, vec![1, 2], vec![1], vec![]), [(1, 2)]);
    assert_eq!(ask(2, vec![], vec![], vec![1]), []);
    assert_eq!(
        ask(3, vec![], vec![2], vec![]),
        [(2, 2)],
        "the other is still there"
    );
}

/// Its proxy may not know yet that it is over.
#[test]
fn what_a_closed_session_holds_keeps_its_room() {
    let pace = Pace {
        tokens: 10,
        period: Duration::from_secs(1),
        burst: 10,
    };
    let begun = Instant::now();
    let mut ledger = ledger::Ledger::reopened(begun);
    let mut memory = home::Memory::new(begun);
    let request = pb::LeaseRequest {
        sequence: 1,
        keys: vec![pb::LeaseKey {
            number: 1,
            limit: "shop/calls/0".to_owned(),
            ..pb::LeaseKey::default()
        }],
        usages: vec![pb::LeaseUsage {
            number: 1,
            wanted: 10,
            ..pb::LeaseUsage::default()
        }],
        ..pb::LeaseRequest::default()
    };
    let mut granted = |ledger: &mut ledger::Ledger, id, now| {
        ledger.open(id, now);
        let heard = ledger.hear(id, &request, |_| Some(pace), now);
        heard.expect("as it should be");
        for (at, name, pace, order) in ledger.orders(now) {
            let answer = memory.carry_out(name, pace, &order, now);
            ledger.deal(at, answer, now);
        }
        let grants = ledger.responses(now).into_iter();
        let grants = grants.flat_map(|(_, one)| one.grants);
        grants.map(|one| one.granted).sum::<u64>()
    };
    assert_eq!(granted(&mut ledger, 1, begun), 10);
    ledger.close(1);
    let later = begun + Duration::from_millis(500);
    assert!(ledger.hear(1, &request, |_| Some(pace), later).is_err());
    assert_eq!(granted(&mut ledger, 2, later), 0, "ten may still be spent");
    ledger.close(2);
    let over = begun + LEDGER_TIME + Duration::from_millis(1);
    assert_eq!(ledger.expire(over), [1]);
    assert_eq!(
        granted(&mut ledger, 3, over),
        0,
        "nothing came in while there was no room"
    );
    ledger.close(3);
    let refilled = over + Duration::from_millis(500);
    assert_eq!(granted(&mut ledger, 4, refilled), 5);
}

/// A ledger as one proxy's session sees it: what it says goes with every grant.
struct Alone {
    session: session::Session,
    lease: Arc<lease::Lease>,
    now: Instant,
    granted: u64,
    told: (f64, u32),
}

impl Alone {
    fn new(burst: u32, sharers: u32) -> Self {
        let pace = Pace {
            tokens: burst,
            period: Duration::from_secs(1),
            burst,
        };
        let (now, lease) = (Instant::now(), Arc::default());
        let mut session = session::Session::new();
        let name = ("shop/calls/0".into(), Box::default());
        session.hold(Arc::clone(&lease), name, pace, None, now);
        Self {
            session,
            lease,
            now,
            granted: 0,
            told: (burst.into(), sharers),
        }
    }

    /// After a while: what is said, and all that is wanted is granted.
    fn after(&mut self, milliseconds: u64) -> Option<pb::LeaseRequest> {
        self.now += Duration::from_millis(milliseconds);
        let request = self.session.report(self.now)?;
        let wanted: u64 = request.usages.iter().map(|one| one.wanted).sum();
        self.granted += wanted;
        let grant = pb::LeaseGrant {
            number: 0,
            granted: self.granted,
            unspent: self.told.0,
            sharers: self.told.1,
            ..pb::LeaseGrant::default()
        };
        let response = pb::LeaseResponse {
            heard: request.sequence,
            grants: vec![grant],
            opens_us: 0,
        };
        let received = self.session.receive(&response, self.now);
        received.expect("as it should be");
        Some(request)
    }

    /// As a request does that has to wait for its token.
    fn request(&mut self) {
        if !self.lease.spend(1) {
            self.lease.miss(1);
            self.after(1);
            assert!(self.lease.spend(1));
        }
    }
}

/// Sessions once looked at every key on every tick.
#[test]
fn a_key_out_of_use_is_looked_at_when_it_is_missed() {
    let mut alone = Alone::new(1000, 4);
    alone.request();
    alone.after(10);
    assert!(alone.lease.held() > 0, "there is enough for all");
    alone.after(1100);
    assert_eq!(alone.lease.held(), 0, "it came back");
    while alone.after(10).is_some() {}
    assert_eq!(alone.after(5000), None);
    alone.request();
    assert!(alone.after(10).is_some(), "what was spent is said");
    while alone.after(10).is_some() {}
    alone.lease.spend_alone(3);
    let said = alone.after(10).expect("something to say");
    assert_eq!(said.usages.first().map(|one| one.alone), Some(3));
    let mut forgotten = Vec::new();
    for _ in 0..200 {
        forgotten.extend(alone.after(100).into_iter().flat_map(|one| one.forgotten));
    }
    assert_eq!(
        (forgotten, alone.session.take_given_up()),
        (vec![0], vec![0])
    );
}

/// Fifty proxies that each held a token or ten for a while kept most of twenty from those who needed them.
#[test]
fn of_what_is_scarce_nothing_is_held_that_is_not_needed() {
    for (burst, sharers, is_held) in [(20, 50, false), (20, 4, true), (1000, 50, true)] {
        let mut alone = Alone::new(burst, sharers);
        alone.request();
        alone.after(10);
        for _ in 0..3 {
            alone.request();
            alone.after(10);
            alone.after(300);
            assert_eq!(alone.lease.held() > 0, is_held, "{burst} for {sharers}");
        }
    }
    let mut once = Alone::new(20, 4);
    once.request();
    once.after(10);
    assert_eq!(once.lease.held(), 0, "one says nothing of another");
    // A look at it comes before the request that waited wakes up.
    once.after(500);
    once.lease.miss(1);
    once.after(1);
    once.after(1);
    assert!(once.lease.spend(1), "it was given back");
    let mut busy = Alone::new(1000, 50);
    for _ in 0..100 {
        for _ in 0..2 {
            busy.request();
        }
        busy.after(10);
    }
    let held = busy.lease.held();
    assert!((10..=40).contains(&held), "a tenth of a second's: {held}");
}

/// Whoever is refused has cost a message by asking in vain, and costs no other of his own but one a second.
#[test]
fn refusals_are_said_with_what_else_there_is_to_say_or_once_a_second() {
    let mut alone = Alone::new(1000, 4);
    alone.request();
    alone.after(10);
    while alone.after(10).is_some() {}
    let (mut said, mut requests) = (0, 0);
    for n in 0..300 {
        for _ in 0..3 {
            alone.lease.refuse();
        }
        if n % 50 == 0 {
            // It stays in use.
            alone.lease.miss(0);
        }
        for usage in alone.after(10).into_iter().flat_map(|one| one.usages) {
            requests += 1;
            said = usage.refused;
        }
    }
    assert!((600..=900).contains(&said), "{said} of 900");
    assert!(requests <= 40, "{requests} messages in three seconds");
    alone.after(1010);
    assert_eq!(alone.after(1010).map_or(0, |one| one.usages.len()), 0);
}
