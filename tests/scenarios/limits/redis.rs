//! Limits whose ledger is in Redis, a real one: two controllers share it, it goes away, it forgets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::{Client, Load, Outcome, Pace, Running};
use ringmail_tests::mesh::{Settings, Sidecar, Workload};
use ringmail_tests::netns::NODE_V4;
use ringmail_tests::netns::Pod;
use ringmail_tests::observe::board::Needs;
use ringmail_tests::process::Process;
use ringmail_tests::wait;

use super::{DECISIONS, policy};
use crate::observe;
use crate::shop::{LIMIT, Plan, Shop, WEB, metric, play, service};
use crate::suites::tools;

const REDIS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 16_379);
const PASSWORD: &str = "plaintext-password-51d2";

/// The second controller.
const OTHER_PORT: u16 = 15_112;
const OTHER_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15_114);

/// Of the limit that all share.
const RATE: f64 = 100.0;
const BURST: f64 = 40.0;
const CALLS: &str = "{requests: 100, per: second, burst: 40, onUnavailable: deny}";

/// Nothing is admitted for so long: what was leased is over.
const QUIET: Duration = Duration::from_millis(500);

/// Over which as much is admitted as the limit allows.
const STEADY: Duration = Duration::from_secs(2);

/// Two servers behind one service, each with a proxy that leases from another controller; both controllers lease from Redis.
struct Pair<'shop, 'node> {
    shop: &'shop mut Shop<'node>,
    redis: Option<Process>,
    controller: Option<Process>,
    sidecar: Sidecar,
    _pod: Pod,
    runs: u32,
}

/// What both proxies had admitted, between when and when it was looked at.
#[derive(Debug, Clone, Copy)]
struct Sample {
    from: Instant,
    admitted: f64,
    to: Instant,
}

fn plan() -> Plan {
    let url = format!("redis://:{PASSWORD}@{REDIS}/3");
    let controller_flags = vec!["--limits-redis".to_owned(), url];
    Plan {
        settings: Settings {
            controller_flags,
            ..Settings::default()
        },
        ..Plan::default()
    }
}

fn play_pair(
    bed: Bed,
    scenario: impl FnOnce(&mut Pair<'_, '_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    play(bed, &plan(), |shop| {
        let controller = shop
            .mesh
            .replica("other-controller", OTHER_PORT, OTHER_METRICS)?;
        let pod = shop.node.pod("other")?;
        let mut workload = Workload::new("shop", "other");
        let address = SocketAddr::new(NODE_V4.into(), OTHER_PORT).to_string();
        let to = ("RINGMAIL_CONTROLLER_ADDRESS".to_owned(), address);
        workload.environment.push(to);
        apps::serve_web(&pod.namespace, "shop", 8080)?;
        shop.mesh.put_workload(&pod, &workload)?;
        let sidecar = shop.mesh.sidecar(&pod, &workload)?;
        let backends = [
            (&Workload::new("shop", "server"), &shop.server),
            (&workload, &pod),
        ];
        shop.mesh.put_service(&service(), &backends)?;
        let mut pair = Pair {
            shop,
            redis: None,
            controller: Some(controller),
            sidecar,
            _pod: pod,
            runs: 0,
        };
        pair.start_redis()?;
        // Each controller knows of its own proxies only; that both have it, they show by leasing.
        pair.shop.mesh.put("limit", &policy("", CALLS))?;
        scenario(&mut pair)
    })
}

impl Pair<'_, '_> {
    /// Starts it, empty.
    fn start_redis(&mut self) -> anyhow::Result<()> {
        let mut command = tools::command("redis-server")?;
        command.args(["--bind", &REDIS.ip().to_string()]);
        command.args(["--port", &REDIS.port().to_string()]);
        command.args(["--requirepass", PASSWORD, "--save", "", "--dir", "/"]);
        self.runs += 1;
        let log = self.shop.mesh.log(&format!("redis-{}", self.runs));
        self.redis = Some(self.shop.node.namespace.start(&command, 0, &log)?);
        Ok(())
    }

    /// Has Redis do something.
    fn redis_cli(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("redis-cli");
        let port = REDIS.port().to_string();
        command.args(["-p", &port, "--no-auth-warning", "-a", PASSWORD]);
        command.args(arguments);
        let output = self.shop.node.namespace.run(move || command.output())??;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    }

    fn redis(&self) -> anyhow::Result<&Process> {
        self.redis.as_ref().context("it was killed")
    }

    /// More than the limit allows, on both proxies.
    fn load(&self) -> anyhow::Result<Running> {
        let load = Load {
            client: Client::Http1(WEB, "/".to_owned()),
            connections: 40,
            pace: Pace::Open { per_second: 400 },
        };
        let running = Running::start(&self.shop.client.namespace, load);
        wait::until(LIMIT, || running.exchanges() >= 40).context("no load")?;
        Ok(running)
    }

    fn both(&self, name: &str, labels: &[(&str, &str)]) -> [f64; 2] {
        let other = metric(&self.sidecar, self.shop.node, name, labels);
        [self.shop.server_metric(name, labels), other]
    }

    fn ledgers_up(&self) -> f64 {
        self.both("ringmail_rate_limit_ledger_up", &[]).iter().sum()
    }

    /// Waits until so many proxies lease.
    fn until_leasing(&self, proxies: f64) -> anyhow::Result<()> {
        let is_so = || self.ledgers_up() == proxies;
        wait::until(LIMIT, is_so).with_context(|| format!("not {proxies} that lease"))
    }

    /// What is admitted until `holds`, look by look.
    fn watch(&self, mut holds: impl FnMut(&[Sample]) -> bool) -> anyhow::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        wait::until(LIMIT, || {
            let from = Instant::now();
            let admitted = self
                .both(DECISIONS, &[("outcome", "admitted")])
                .iter()
                .sum();
            let to = Instant::now();
            samples.push(Sample { from, admitted, to });
            holds(&samples)
        })?;
        Ok(samples)
    }

    /// The same until about as much is admitted as the limit allows.
    fn watch_until_near(&self) -> anyhow::Result<Vec<Sample>> {
        let watched = self.watch(is_near);
        watched.context("less is admitted than the limit allows")
    }

    /// The same for a time.
    fn watch_for(&self, time: Duration) -> anyhow::Result<Vec<Sample>> {
        self.watch(|samples| passed(samples) >= time)
    }
}

fn passed(samples: &[Sample]) -> Duration {
    match samples {
        [first, .., last] => last.from - first.to,
        _ => Duration::ZERO,
    }
}

/// In no window was more admitted than the limit allows, and something else allowed once.
fn assert_bound(samples: &[Sample], beyond: f64) -> anyhow::Result<()> {
    for (n, first) in samples.iter().enumerate() {
        for last in &samples[n..] {
            let most = RATE * (last.to - first.from).as_secs_f64() + BURST + beyond;
            let admitted = last.admitted - first.admitted;
            ensure!(admitted <= most, "{admitted} of {most}: {first:?} {last:?}");
        }
    }
    Ok(())
}

/// Whether of late about as much was admitted as the limit allows.
fn is_near(samples: &[Sample]) -> bool {
    let Some(last) = samples.last() else {
        return false;
    };
    let is_early = |one: &&Sample| last.from - one.to >= STEADY;
    let first = samples.iter().rev().find(is_early);
    first.is_some_and(|first| {
        let allowed = RATE * (last.from - first.to).as_secs_f64();
        last.admitted - first.admitted >= 0.95 * allowed
    })
}

/// Requests are admitted or refused by the limit, never anything else.
fn finish(pair: &Pair<'_, '_>, load: Running) -> anyhow::Result<Outcome> {
    let outcome = load.finish(&pair.shop.client.namespace)?;
    let strange = outcome.failed.keys().find(|why| !why.contains("429"));
    ensure!(strange.is_none(), "{outcome}");
    Ok(outcome)
}

/// One limit over both; then one controller is killed, and the other has all of it.
pub(crate) fn two_controllers(bed: Bed) -> anyhow::Result<()> {
    play_pair(bed, |pair| {
        let load = pair.load()?;
        pair.until_leasing(2.0)?;
        let mut samples = pair.watch_for(Duration::from_secs(3))?;
        samples.extend(pair.watch_until_near()?);
        assert_bound(&samples, 0.0)?;
        let each = pair.both(DECISIONS, &[("outcome", "admitted")]);
        ensure!(each.iter().all(|one| *one > RATE), "both lease: {each:?}");

        pair.controller = None;
        let mut samples = pair.watch(|_| pair.ledgers_up() == 1.0)?;
        samples.extend(pair.watch_until_near()?);
        assert_bound(&samples, 0.0)?;
        finish(pair, load)?;
        for name in ["controller", "other-controller"] {
            let log = std::fs::read_to_string(pair.shop.mesh.log(name))?;
            ensure!(
                !log.contains(PASSWORD),
                "the password is in the log of {name}"
            );
        }
        Ok(())
    })
}

/// Killed and started anew, empty; and hung. Each time the limit does as its `onUnavailable` says, and holds afterwards.
pub(crate) fn goes_away(bed: Bed) -> anyhow::Result<()> {
    play_pair(bed, |pair| {
        let load = pair.load()?;
        pair.until_leasing(2.0)?;
        pair.watch_until_near()?;
        for hangs in [false, true] {
            if hangs {
                pair.redis()?.signal(Signal::SIGSTOP)?;
            } else {
                pair.redis = None;
            }
            let away = Instant::now();
            let is_denied = |samples: &[Sample]| {
                let last = samples.last().copied();
                let since = samples
                    .iter()
                    .find(|one| last.is_some_and(|last| one.admitted == last.admitted));
                since
                    .zip(last)
                    .is_some_and(|(since, last)| last.from - since.to >= QUIET)
            };
            let mut samples =
                pair.watch(|samples| is_denied(samples) && pair.ledgers_up() == 0.0)?;
            // Two lease times, the quiet, and as long as such a machine takes for anything.
            ensure!(
                away.elapsed() < QUIET + Duration::from_millis(2500),
                "{:?}",
                away.elapsed()
            );
            let denied = pair.watch_for(Duration::from_secs(1))?;
            ensure!(
                denied.first().map(|one| one.admitted) == denied.last().map(|one| one.admitted),
                "admitted without a ledger: {denied:?}"
            );
            samples.extend(denied);
            if hangs {
                pair.redis()?.signal(Signal::SIGCONT)?;
            } else {
                pair.start_redis()?;
            }
            samples.extend(pair.watch(|_| pair.ledgers_up() == 2.0)?);
            samples.extend(pair.watch_until_near()?);
            assert_bound(&samples, 0.0)?;
        }
        observe::shown(pair.shop, Needs::Redis, || true)?;
        finish(pair, load)?;
        Ok(())
    })
}

/// Its cache of scripts is emptied, which nobody notices; then all of it, and whatever it knew was wrong once at most.
pub(crate) fn forgets(bed: Bed) -> anyhow::Result<()> {
    play_pair(bed, |pair| {
        let load = pair.load()?;
        pair.until_leasing(2.0)?;
        pair.redis_cli(&["SCRIPT", "FLUSH"])?;
        let samples = pair.watch_until_near()?;
        assert_bound(&samples, 0.0)?;
        ensure!(pair.ledgers_up() == 2.0, "sessions ended");

        pair.redis_cli(&["FLUSHALL"])?;
        let mut samples = pair.watch(|_| pair.ledgers_up() < 2.0)?;
        samples.extend(pair.watch(|_| pair.ledgers_up() == 2.0)?);
        samples.extend(pair.watch_until_near()?);
        // What a proxy had leased and did not tell of in time.
        assert_bound(&samples, BURST)?;
        finish(pair, load)?;
        Ok(())
    })
}
