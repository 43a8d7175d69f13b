//! How many leases a second one ledger gives: clients with many keys each on real streams to the real controller, which
//! has one processor. Each says of all its keys that what it held is spent and that it wants more, and again as soon as
//! all are granted.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use ringmail_proto::pb;
use ringmail_proto::pb::certify_request::Credential;
use ringmail_proto::pb::lease_service_client::LeaseServiceClient;
use ringmail_tests::mesh::{Binaries, CONTROLLER_PORT, Mesh, Settings, TRUST_DOMAIN, Workload};
use ringmail_tests::netns::{NODE_V4, Node};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use crate::arguments::Arguments;
use crate::dial::{Controller, NAMESPACE, Pod, certify, connect, origin};
use crate::processor;

/// Clients, each with so many keys.
const CLIENTS: usize = 50;
const KEYS: u32 = 400;
/// Tokens that each key wants at a time.
const WANTED: u64 = 100;
/// The limit's name in the ledger.
const LIMIT: &str = "fleet/bench/0";
const ACCOUNT: &str = "caller";
/// Before anything is counted: names, buckets, and the time in which a new ledger only listens.
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(5);
const QUICK: Duration = Duration::from_secs(2);
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(20);

/// Where a ledger keeps its buckets, as people call it, and how many grants a second are the goal.
const HOMES: [(&str, f64); 1] = [("memory", 200_000.0)];

/// What one ledger gave.
#[derive(Debug, Serialize)]
pub(crate) struct Grants {
    pub(crate) home: &'static str,
    pub(crate) clients: usize,
    pub(crate) keys_each: u32,
    pub(crate) per_second: f64,
    /// Of the controller's processor, and for each grant.
    pub(crate) processor_percent: f64,
    pub(crate) micros_each: f64,
    pub(crate) goal: f64,
    pub(crate) is_met: bool,
}

pub(crate) fn measure(
    node: &Node,
    binaries: &Binaries,
    arguments: &Arguments,
) -> anyhow::Result<Vec<Grants>> {
    let homes = HOMES.iter();
    homes
        .map(|(home, goal)| one(node, binaries, arguments, (home, *goal)))
        .collect()
}

fn one(
    node: &Node,
    binaries: &Binaries,
    arguments: &Arguments,
    (home, goal): (&'static str, f64),
) -> anyhow::Result<Grants> {
    let mut mesh = Mesh::start(node, binaries, Settings::default())?;
    mesh.put_namespace(NAMESPACE, true)?;
    mesh.put("bench", &objects())?;
    let process = mesh.controller().context("it runs")?.id();
    processor::pin_all(process, processor::MEASURED)?;
    processor::pin_all(std::process::id(), processor::OTHERS)?;
    let root = mesh.state_directory().join("root.pem");
    let controller = Arc::new(Controller {
        address: SocketAddr::new(NODE_V4.into(), CONTROLLER_PORT),
        domain: TRUST_DOMAIN.parse()?,
        root: CertificateDer::from_pem_file(&root)?,
    });
    let tokens = (0..CLIENTS).map(|n| {
        let mut workload = Workload::new(NAMESPACE, &format!("pod-{n}"));
        workload.service_account = ACCOUNT.to_owned();
        Ok(fs::read_to_string(mesh.join_token(&workload)?)?)
    });
    let tokens: Vec<_> = tokens.collect::<anyhow::Result<_>>()?;
    let lasts = if arguments.quick { QUICK } else { MEASURED };
    let work = async move {
        let from = Instant::now() + WARM_UP;
        let until = from + lasts;
        let mut clients = JoinSet::new();
        for (n, token) in tokens.into_iter().enumerate() {
            clients.spawn(client(controller.clone(), n, token, from, until));
        }
        sleep(WARM_UP).await;
        let before = processor::cpu(process)?;
        sleep(lasts).await;
        let used = processor::cpu(process)? - before;
        let mut granted = 0;
        while let Some(one) = clients.join_next().await {
            granted += one??;
        }
        anyhow::Ok((granted, used))
    };
    let measured = mesh.explain(node.namespace.block_on(work)?);
    let (granted, used) = measured?;
    let per_second = granted as f64 / lasts.as_secs_f64();
    Ok(Grants {
        home,
        clients: CLIENTS,
        keys_each: KEYS,
        per_second,
        processor_percent: 100.0 * used.as_secs_f64() / lasts.as_secs_f64(),
        micros_each: used.as_secs_f64() * 1e6 / granted as f64,
        goal,
        is_met: per_second >= goal,
    })
}

/// A pod for each client, and a limit that is never reached.
fn objects() -> String {
    let pods = (0..CLIENTS).map(|n| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod-{n}, namespace: {NAMESPACE}}}\n\
             spec: {{serviceAccountName: {ACCOUNT}, containers: []}}\nstatus: {{podIP: 10.1.0.{}}}\n",
            n + 1
        )
    });
    let pods: String = pods.collect();
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: bench, namespace: {NAMESPACE}}}\n\
         spec:\n  targetRefs: [{{kind: Namespace}}]\n  limits:\n  \
         - {{requests: 1000000, per: second, burst: 1000000, key: [{{by: Header, name: x-run}}]}}\n{pods}"
    )
}

/// Grants to one client between these times.
async fn client(
    controller: Arc<Controller>,
    n: usize,
    token: String,
    from: Instant,
    until: Instant,
) -> anyhow::Result<u64> {
    let pod = Pod::new(n);
    let credential = Credential::JoinToken(token.trim().to_owned());
    let certified = async {
        // The controller may not have read the pods yet.
        while Instant::now() < from {
            if let Ok(identity) = certify(&controller, &pod, credential.clone()).await {
                return Some(identity);
            }
            sleep(PAUSE).await;
        }
        None
    };
    let identity = certified.await.context("no certificate")?;
    let channel = connect(&controller, &pod, Some(&identity)).await?;
    let (requests, outgoing) = mpsc::channel(1);
    requests.send(first(&pod, n)).await?;
    let mut responses = LeaseServiceClient::with_origin(channel, origin())
        .lease(ReceiverStream::new(outgoing))
        .await?
        .into_inner();
    let mut held = [0; KEYS as usize];
    let (mut counted, mut sequence, mut missing) = (0, 1, KEYS as usize);
    while Instant::now() < until {
        let response = timeout(PATIENCE, responses.message()).await;
        let response = response
            .context("no answer")??
            .context("the stream ended")?;
        let now = Instant::now();
        let is_counted = now >= from && now < until;
        for grant in &response.grants {
            let key = held
                .get_mut(grant.number as usize)
                .context("an unknown key")?;
            if grant.granted > *key {
                *key = grant.granted;
                counted += u64::from(is_counted);
                missing = missing.saturating_sub(1);
            }
        }
        if missing == 0 {
            sequence += 1;
            missing = KEYS as usize;
            requests.send(more(&held, sequence)).await?;
        }
    }
    ensure!(counted > 0, "client {n} was granted nothing");
    Ok(counted)
}

/// Names all keys, and asks for them.
fn first(pod: &Pod, n: usize) -> pb::LeaseRequest {
    let key = |number: u32| pb::LeaseKey {
        number,
        limit: LIMIT.to_owned(),
        key: format!("client-{n}-key-{number}").into_bytes(),
        ..pb::LeaseKey::default()
    };
    pb::LeaseRequest {
        workload: Some(pod.workload()),
        keys: (0..KEYS).map(key).collect(),
        ..more(&[0; KEYS as usize], 1)
    }
}

/// All that is held is spent, and more is wanted.
fn more(held: &[u64], sequence: u64) -> pb::LeaseRequest {
    let usage = |(number, spent): (u32, &u64)| pb::LeaseUsage {
        number,
        spent: *spent,
        wanted: WANTED,
        ..pb::LeaseUsage::default()
    };
    pb::LeaseRequest {
        sequence,
        usages: (0..).zip(held).map(usage).collect(),
        ..pb::LeaseRequest::default()
    }
}
