//! `cargo bench --bench fleet -- 1000`: what a fleet of proxies costs one controller. The controller is the real program
//! with objects in a directory; proxies are simulated, each with a certificate, a connection and a stream of its own.
//!
//! Prints the controller's memory and CPU, how long one change of an endpoint takes to every proxy, and how long until all
//! are in sync again after the controller was killed. The controller has a processor of its own where there are several,
//! and each proxy an address of its own, as pods have; all proxies share the other processors, so times are upper bounds.

/// How one reaches the controller.
mod dial;

/// One of the fleet.
mod proxy;

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use rcgen::KeyPair;
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::Binaries;
use ringmail_tests::process::Process;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use dial::Controller;
use proxy::{About, Told};

/// Proxies, unless the first argument says how many.
const PROXIES: usize = 1000;
/// The one Service that all of them use.
const SERVICE: &str = "10.96.0.10:80";
/// Changes of its endpoints.
const CHANGES: u8 = 20;
/// For whatever all proxies have to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between looks at what has to come true.
const PAUSE: Duration = Duration::from_millis(20);
/// The controller's processor, and those of the proxies.
const CONTROLLERS: Range<usize> = 0..1;
const OTHERS: Range<usize> = 1..1024;
/// The controller reads ten thousand files, and no more.
const PODS_PER_FILE: usize = 100;
/// Ticks of `/proc/PID/stat` in a second, on every Linux.
const TICKS: f64 = 100.0;

fn main() -> anyhow::Result<()> {
    // As the launcher of another program this does not return.
    let _ = Bed::start();
    let said = std::env::args().skip(1).find_map(|one| one.parse().ok());
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // Threads are where the one is that starts them.
    pin(OTHERS);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(said.unwrap_or(PROXIES)))
}

async fn measure(proxies: usize) -> anyhow::Result<()> {
    let binaries = Binaries::build()?;
    let directory = tempfile::tempdir()?;
    let tokens = objects(directory.path(), proxies)?;
    let (address, metrics) = (free()?, free()?);
    let start = || controller(&binaries, directory.path(), address, metrics);
    let process = start()?;
    let root = directory.path().join("state/root.pem");
    while !root.exists() {
        sleep(PAUSE).await;
    }
    let controller = Arc::new(Controller {
        address,
        domain: "mesh.local".parse()?,
        root: CertificateDer::from_pem_file(&root)?,
    });
    let alone = usage(process.id())?;
    let (told, mut heard) = mpsc::channel(proxies);
    let begun = Instant::now();
    for (number, token) in tokens.into_iter().enumerate() {
        let run = proxy::run(controller.clone(), number, token, SERVICE, told.clone());
        tokio::spawn(run);
    }
    let is_joined = |told: &Told| told.is_full && told.about == About::Destination;
    all(&mut heard, proxies, is_joined).await?;
    let joined = begun.elapsed();
    let fleet = usage(process.id())?;
    writeln!(
        io::stdout(),
        "{proxies} proxies joined in {joined:.1?}: {} MiB beside {} MiB without, {:.2} ms of CPU for each",
        fleet.mib,
        alone.mib,
        (fleet.cpu - alone.cpu) * 1000.0 / proxies as f64
    )?;
    for (what, about, write) in CHANGED {
        writeln!(io::stdout(), "{what}:")?;
        let change = |number| write(directory.path(), number);
        let is_it = |told: &Told| !told.is_full && told.about == about;
        changes(change, is_it, proxies, &process, &mut heard).await?;
    }

    drop(process);
    let begun = Instant::now();
    let process = start()?;
    all(&mut heard, proxies, is_joined).await?;
    writeln!(
        io::stdout(),
        "killed and started again: all in sync after {:.1?}, {} MiB",
        begun.elapsed(),
        usage(process.id())?.mib
    )?;
    Ok(())
}

/// What is changed, and how.
type Changed = (&'static str, About, fn(&Path, u8) -> anyhow::Result<()>);
const CHANGED: [Changed; 2] = [
    ("one endpoint, told to all", About::Destination, endpoints),
    ("one policy, told to all", About::Authorization, policy),
];

/// How long until each proxy knows, from the change of the file and from the first proxy on.
async fn changes(
    change: impl Fn(u8) -> anyhow::Result<()>,
    is_it: impl Fn(&Told) -> bool,
    proxies: usize,
    process: &Process,
    heard: &mut mpsc::Receiver<Told>,
) -> anyhow::Result<()> {
    let mut from_file = Histogram::<u64>::new(3)?;
    let mut from_first = Histogram::<u64>::new(3)?;
    let before = usage(process.id())?;
    for number in 0..CHANGES {
        let begun = Instant::now();
        change(number)?;
        let times = all(heard, proxies, &is_it).await?;
        let first = times.iter().min().copied().context("somebody was told")?;
        for at in times {
            from_file.record(micros(at - begun)?)?;
            from_first.record(micros(at - first)?)?;
        }
    }
    let cpu = (usage(process.id())?.cpu - before.cpu) / f64::from(CHANGES);
    for (since, times) in [("the file", from_file), ("the first", from_first)] {
        let at = |quantile| times.value_at_quantile(quantile) as f64 / 1000.0;
        writeln!(
            io::stdout(),
            "  since {since}: p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms",
            at(0.5),
            at(0.99),
            at(1.0)
        )?;
    }
    writeln!(
        io::stdout(),
        "  CPU of the controller for one: {:.1} ms",
        cpu * 1000.0
    )?;
    Ok(())
}

fn micros(time: Duration) -> anyhow::Result<u64> {
    Ok(time.as_micros().try_into()?)
}

/// When each was told, once all have been.
async fn all(
    heard: &mut mpsc::Receiver<Told>,
    proxies: usize,
    is_it: impl Fn(&Told) -> bool,
) -> anyhow::Result<Vec<Instant>> {
    let mut times = Vec::with_capacity(proxies);
    let every = async {
        while times.len() < proxies {
            let told = heard.recv().await.context("proxies are there")?;
            if is_it(&told) {
                times.push(told.at);
            }
        }
        anyhow::Ok(())
    };
    let outcome = timeout(PATIENCE, every).await;
    ensure!(outcome.is_ok(), "{} of {proxies} were told", times.len());
    outcome??;
    Ok(times)
}

fn controller(
    binaries: &Binaries,
    directory: &Path,
    address: SocketAddr,
    metrics: SocketAddr,
) -> anyhow::Result<Process> {
    let mut command = Command::new(&binaries.controller);
    command
        .args(["run", "--trust-domain", "mesh.local"])
        .args(["--jwt-issuer", "https://issuer", "--jwks"])
        .arg(directory.join("jwks.json"))
        .arg("--source-dir")
        .arg(directory.join("source"))
        .arg("--state-dir")
        .arg(directory.join("state"))
        .args(["--listen", &address.to_string()])
        .args(["--metrics-listen", &metrics.to_string()]);
    pin(CONTROLLERS);
    let process = Process::start(&command, &directory.join("controller.log"));
    pin(OTHERS);
    process
}

/// This thread, and those that it starts, run on these processors; on any, if none of them is there.
fn pin(processors: Range<usize>) {
    let mut set = CpuSet::new();
    for one in processors.take_while(|one| *one < CpuSet::count()) {
        // It is less than there can be.
        let _ = set.set(one);
    }
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A Service and its callers, an issuer of tokens, and a token for each caller.
fn objects(directory: &Path, proxies: usize) -> anyhow::Result<Vec<String>> {
    let source = directory.join("source");
    fs::create_dir(&source)?;
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: fleet, annotations: {ringmail.io/inject: enabled}}\n";
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: shop, namespace: fleet}\nspec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}\n";
    fs::write(source.join("shop.yaml"), format!("{namespace}{service}"))?;
    let all: Vec<usize> = (0..proxies).collect();
    for (file, numbers) in all.chunks(PODS_PER_FILE).enumerate() {
        let pods = numbers.iter().map(|number| {
            let (high, low) = (number / 250, number % 250 + 1);
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{number}, namespace: fleet}}\n\
                 spec: {{serviceAccountName: caller, containers: []}}\nstatus: {{podIP: 10.1.{high}.{low}}}\n"
            )
        });
        fs::write(
            source.join(format!("pods-{file}.yaml")),
            pods.collect::<String>(),
        )?;
    }
    endpoints(directory, u8::MAX)?;

    let key = KeyPair::generate()?;
    let key = EncodingKey::from_ec_der(&key.serialize_der());
    let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256)?;
    jwk.common.key_id = Some("one".into());
    let keys = JwkSet { keys: vec![jwk] };
    fs::write(directory.join("jwks.json"), serde_json::to_vec(&keys)?)?;
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some("one".into());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let sign = |number| {
        let claims = json!({"iss": "https://issuer", "aud": ["ringmail"], "iat": now, "exp": now + 3600,
            "sub": "system:serviceaccount:fleet:caller",
            "kubernetes.io": {"namespace": "fleet", "serviceaccount": {"name": "caller"},
                "pod": {"name": format!("pod-{number}"), "uid": "1"}}});
        encode(&header, &claims, &key)
    };
    Ok((0..proxies).map(sign).collect::<Result<_, _>>()?)
}

/// The Service's endpoints, all at once: the last of them is another each time.
fn endpoints(directory: &Path, last: u8) -> anyhow::Result<()> {
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {{name: shop-1, namespace: fleet, labels: {{kubernetes.io/service-name: shop}}}}\n\
         ports: [{{port: 8080}}]\nendpoints: [{{addresses: [10.2.0.1]}}, {{addresses: [10.2.1.{last}]}}]\n"
    );
    let draft = directory.join("draft");
    fs::write(&draft, slice)?;
    Ok(fs::rename(draft, directory.join("source/endpoints.yaml"))?)
}

/// A policy for every pod: another path each time.
fn policy(directory: &Path, number: u8) -> anyhow::Result<()> {
    let policy = format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: one, namespace: fleet}}\n\
         spec: {{targetRefs: [{{kind: Namespace}}], action: deny, rules: [{{to: [{{paths: [{{exact: /{number}}}]}}]}}]}}\n"
    );
    let draft = directory.join("draft");
    fs::write(&draft, policy)?;
    Ok(fs::rename(draft, directory.join("source/policy.yaml"))?)
}

/// What a process has used.
struct Usage {
    mib: u64,
    /// Seconds.
    cpu: f64,
}

fn usage(process: u32) -> anyhow::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|one| one.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().next())
        .context("VmRSS")?
        .parse()?;
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // After the program's name: state is the third field, user and system time the 14th and 15th.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |field: usize| {
        fields
            .get(field)
            .context("stat")?
            .parse::<f64>()
            .map_err(anyhow::Error::from)
    };
    Ok(Usage {
        mib: kib / 1024,
        cpu: (ticks(12)? + ticks(13)?) / TICKS,
    })
}
