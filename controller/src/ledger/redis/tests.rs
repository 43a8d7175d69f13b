//! The script against a real `redis-server`, and against the buckets in memory.

use std::cell::{Cell, RefCell};
use std::io::{Write, stderr};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ringmail_proto::limit::home::{BucketName, Memory, Order};
use ringmail_proto::limit::{LEDGER_TIME, Pace};

use super::*;

/// A server of a test's own; its drop ends it.
struct Own {
    child: Child,
    port: u16,
    metrics: Arc<Metrics>,
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Own {
    /// None, and said so, where there is no such program.
    fn start() -> Option<Self> {
        Self::start_with("--port", &[])
    }

    fn start_with(port_flag: &str, more: &[&str]) -> Option<Self> {
        // Nobody takes the port again so soon.
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let started = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--requirepass",
                "s3cret",
            ])
            .args([port_flag, &port.to_string()])
            .args(more)
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = started else {
            // Said even where the output of tests that pass is not shown.
            let said = "TIER SKIPPED: buckets in Redis; install redis-server by .ci/tools";
            let _ = writeln!(stderr(), "{said}");
            return None;
        };
        let metrics = Arc::default();
        Some(Self {
            child,
            port,
            metrics,
        })
    }

    fn server(&self) -> Server {
        self.server_with("127.0.0.1", None)
    }

    fn server_with(&self, host: &str, root_cert: Option<PathBuf>) -> Server {
        let config = LimitsRedis {
            host: host.to_owned(),
            port: self.port,
            root_cert,
            username: None,
            password: Some("s3cret".to_owned().into()),
            database: 1,
            prefix: "ringmail".to_owned(),
        };
        Server::new(&config, "mesh.local", self.metrics.clone()).expect("no roots to read")
    }

    /// A home that is open.
    async fn open(&self) -> Redis {
        let (mut redis, _) = self.server().open().await;
        while redis.call(&[]).await.expect("it answers").0.opens_in > Duration::ZERO {}
        redis
    }
}

fn name(key: &str) -> BucketName {
    ("shop/calls/0".into(), key.as_bytes().into())
}

fn pace(tokens: u32, seconds: u64, burst: u32) -> Pace {
    Pace {
        tokens,
        period: Duration::from_secs(seconds),
        burst,
    }
}

fn asked(key: &str, pace: Pace, order: Order) -> Asked {
    (0, name(key), pace, order)
}

fn wants(wanted: u64) -> Order {
    Order {
        wanted,
        sharers: 1,
        ..Order::default()
    }
}

async fn lease(redis: &mut Redis, key: &str, pace: Pace, order: Order) -> Answer {
    let answers = redis.exchange(&[asked(key, pace, order)]).await;
    answers.expect("it answers")[0]
}

fn orders() -> impl Strategy<Value = Order> {
    let cap = prop_oneof![4 => Just(None), 1 => (0.0..200.0_f64).prop_map(Some)];
    let debit = prop_oneof![4 => Just(0), 1 => 0_u64..50];
    let order = |(spent, returned, wanted, cap, debit)| Order {
        spent,
        returned,
        wanted,
        cap,
        debit,
        sharers: 1,
        ..Order::default()
    };
    (0_u64..30, 0_u64..30, 0_u64..100, cap, debit).prop_map(order)
}

/// The same of tokens that come back.
fn at_once(order: Order) -> Order {
    Order {
        spent: 0,
        cap: None,
        debit: 0,
        claimed: order.debit,
        ..order
    }
}

/// Of whichever buckets, in one batch, some batches one after the other; a pace may change in between.
fn batches() -> impl Strategy<Value = Vec<Vec<(usize, usize, Order)>>> {
    let batch = prop::collection::vec((0_usize..4, 0_usize..4, orders()), 1..6);
    prop::collection::vec(batch, 1..12)
}

#[test]
fn buckets_are_those_in_memory() {
    let paces = [
        pace(10, 60, 20),
        pace(1000, 1, 50),
        pace(100_000, 1, 100),
        pace(1_000_000, 1, 7),
    ];
    let Some(own) = Own::start() else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let redis = RefCell::new(runtime.block_on(own.open()));
    let mut runner = TestRunner::new(ProptestConfig::with_cases(200));
    let runs = Cell::new(0);
    let begun = Instant::now();
    let since = runtime
        .block_on(redis.borrow_mut().call(&[]))
        .expect("it answers")
        .0
        .now;
    let all = runner.run(&batches(), |batches| {
        let run = runs.replace(runs.get() + 1);
        let mut redis = redis.borrow_mut();
        let mut memory = Memory::new(begun);
        for batch in batches {
            let of = |(bucket, pace, order): (usize, usize, Order)| {
                let name = name(&format!("{run}/{bucket}"));
                match bucket {
                    3 => (0, name, Pace::at_once(40), at_once(order)),
                    _ => (0, name, paces[pace], order),
                }
            };
            let asked: Vec<Asked> = batch.into_iter().map(of).collect();
            let answered = runtime.block_on(redis.call(&asked));
            let Some((head, answers)) = answered.ok().filter(|(head, _)| head.is_known) else {
                // A machine that pauses for a second: by then we are taken for gone.
                *redis = runtime.block_on(own.open());
                return Err(TestCaseError::reject("a pause"));
            };
            let now = begun + Duration::from_micros(head.now - since);
            for ((_, name, pace, order), found) in asked.iter().zip(answers) {
                let expected = memory.carry_out(name.clone(), *pace, order, now);
                prop_assert_eq!(found.leased, expected.leased, "{:?}", order);
                prop_assert!((found.unspent - expected.unspent).abs() < 1e-6);
                let wait = found.wait.abs_diff(expected.wait);
                prop_assert!(wait <= Duration::from_micros(2), "{:?}", wait);
            }
        }
        Ok(())
    });
    all.expect("alike");
}

/// What one controller leased is in nobody else's hands, until that controller is gone.
#[tokio::test]
async fn what_a_gone_controller_leased_keeps_its_room_until_it_is_gone() {
    let Some(own) = Own::start() else { return };
    let limit = pace(10, 1, 10);
    let (mut first, mut second) = (own.open().await, own.open().await);
    assert_eq!(lease(&mut first, "a", limit, wants(10)).await.leased, 10);
    let heard = Instant::now();
    let mut answer = lease(&mut second, "a", limit, wants(10)).await;
    assert_eq!((answer.leased, answer.sharers), (0, 2));
    // It is not heard of any more.
    while answer.leased == 0 {
        answer = lease(&mut second, "a", limit, wants(1)).await;
    }
    // A token comes in 100 ms, once there is room.
    let waited = heard.elapsed();
    assert!(waited >= LEDGER_TIME, "{waited:?}");
    assert_eq!(answer.sharers, 1);
    // And it may not come back.
    let back = first.exchange(&[asked("b", limit, wants(1))]).await;
    assert!(matches!(back, Err(Lost::Forgotten)), "{back:?}");
}

#[tokio::test]
async fn what_a_gone_controller_had_under_way_is_over() {
    let Some(own) = Own::start() else { return };
    let limit = Pace::at_once(10);
    let (mut first, mut second) = (own.open().await, own.open().await);
    assert_eq!(lease(&mut first, "a", limit, wants(8)).await.leased, 8);
    let mut answer = lease(&mut second, "a", limit, wants(10)).await;
    assert_eq!(answer.leased, 2);
    while answer.leased == 0 || answer.leased == 2 {
        answer = lease(&mut second, "a", limit, wants(10)).await;
    }
    assert_eq!(answer.leased, 8);
    let back = Order {
        returned: 10,
        ..Order::default()
    };
    assert_eq!(lease(&mut second, "a", limit, back).await.unspent, 10.0);
}

#[tokio::test]
async fn an_empty_server_only_listens_and_says_so() {
    let Some(own) = Own::start() else { return };
    let (mut early, opens_in) = own.server().open().await;
    assert!(opens_in > Duration::from_millis(900), "{opens_in:?}");
    let (limit, name) = (pace(10, 60, 10), "a");
    let memory = |unspent, debit| Order {
        cap: Some(unspent),
        debit,
        ..wants(10)
    };
    assert_eq!(
        lease(&mut early, name, limit, memory(8.0, 3)).await.leased,
        0
    );
    // Whoever tells later did not know of those three.
    let (mut late, _) = own.server().open().await;
    assert_eq!(
        lease(&mut late, name, limit, memory(7.0, 1)).await.leased,
        0
    );
    let mut redis = own.open().await;
    assert_eq!(lease(&mut redis, name, limit, wants(10)).await.leased, 3);

    // Scripts are told again, data is not there again.
    let flush = |what: &'static str| cmd(what).arg("FLUSH").take();
    let mut other = own.open().await;
    let flushed: Result<(), _> = flush("SCRIPT").query_async(&mut other.connection).await;
    flushed.expect("flushed");
    assert_eq!(lease(&mut redis, "b", limit, wants(3)).await.leased, 3);
    let flushed: Result<(), _> = cmd("FLUSHALL").query_async(&mut other.connection).await;
    flushed.expect("flushed");
    let lost = redis.exchange(&[asked("b", limit, wants(1))]).await;
    assert!(matches!(lost, Err(Lost::Forgotten)), "{lost:?}");
}

/// By how many sessions they speak for, however often each asks.
#[tokio::test]
async fn what_is_scarce_is_shared_by_all_controllers() {
    let Some(own) = Own::start() else { return };
    let limit = pace(1_000_000, 1, 100_000);
    let mut homes = [own.open().await, own.open().await];
    let sharers = [1, 3];
    let (mut last, mut all) = ([0; 2], [0; 2]);
    for _ in 0..200 {
        for ask in [0, 0, 1] {
            let order = Order {
                spent: last[ask],
                sharers: sharers[ask],
                ..wants(1_000_000)
            };
            last[ask] = lease(&mut homes[ask], "a", limit, order).await.leased;
            all[ask] += last[ask];
        }
    }
    // The first got all of the burst, when nobody else had asked.
    let ratio = all[1] as f64 / (all[0] - 100_000) as f64;
    assert!((1.2..4.5).contains(&ratio), "{all:?}");
}

/// A bucket that nobody uses is no key for long.
#[tokio::test]
async fn what_is_full_again_is_gone() {
    let Some(own) = Own::start() else { return };
    let mut redis = own.open().await;
    let limit = pace(1_000_000, 1, 10);
    assert_eq!(lease(&mut redis, "a", limit, wants(2)).await.leased, 2);
    let left: i64 = cmd("PTTL")
        .arg("{ringmail:mesh.local}:bucket:shop/calls/0\0a")
        .query_async(&mut redis.connection)
        .await
        .expect("an answer");
    assert!((50_000..=60_000).contains(&left), "{left} ms");
    let back = Order {
        returned: 2,
        ..Order::default()
    };
    lease(&mut redis, "a", limit, back).await;
    let keys: usize = cmd("DBSIZE")
        .query_async(&mut redis.connection)
        .await
        .expect("an answer");
    assert_eq!(keys, 2, "epoch and controllers");
}

#[tokio::test]
async fn over_tls_the_server_is_who_its_certificate_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("crt"), made.cert.pem()).expect("written");
    std::fs::write(path("key"), made.signing_key.serialize_pem()).expect("written");
    let [certificate, key] = ["crt", "key"].map(|name| path(name).display().to_string());
    let tls = [
        ["--port", "0"],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &certificate],
        ["--tls-auth-clients", "no"],
    ];
    let Some(own) = Own::start_with("--tls-port", tls.as_flattened()) else {
        return;
    };
    let (mut redis, _) = own.server_with("localhost", Some(path("crt"))).open().await;
    redis.exchange(&[]).await.expect("it answers");
    let other = own.server_with("127.0.0.1", Some(path("crt")));
    let refused = Redis::open(&other).await.expect_err("another name");
    assert!(refused.to_string().contains("certificate"), "{refused}");
}

#[test]
fn what_evicts_is_noticed() {
    let rows = [
        ("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", false),
        ("maxmemory:100\r\nmaxmemory_policy:noeviction\r\n", false),
        ("maxmemory:100\r\nmaxmemory_policy:allkeys-lru\r\n", true),
        ("", false),
    ];
    for (info, expected) in rows {
        assert_eq!(evicts(info), expected, "{info}");
    }
}
