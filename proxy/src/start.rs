//! From a checked configuration to a running proxy, and from SIGTERM to its end: a line per part.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::admin::{self, Admin, Door};
use crate::buffer::{sweep_pool, write_all};
use crate::capture::{Plan, probe};
use crate::config::{
    ADMIN_PORT, Config, Explicit, INBOUND_PORT, OUTBOUND_PORT, PEER_PORT, STATUS_PORT,
};
use crate::drain::{Drainer, drain};
use crate::error::{Blamed, Error, Reason};
use crate::inventory::Inventory;
use crate::limits::buckets::Buckets;
use crate::listen::Party;
use crate::metrics::{self, Metrics, enter_shard};
use crate::records::Scribes;
use crate::snapshot::Snapshot;
use crate::worker::{Shared, Worker};
use crate::{control, inbound, listen, outbound, policy};

/// How often a worker closes what has been idle too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks whether connections are still captured; readiness falls within 5 s of the rules' loss.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Before the process ends although the drain did.
const LAST_BYTES: Duration = Duration::from_millis(50);

/// Runs the data plane until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// When a listener cannot be bound or a thread cannot be started. Nothing else ends the process.
pub fn run(config: Config) -> io::Result<()> {
    let config = Arc::new(config);
    let metrics = Arc::new(Metrics::new(config.workers.get(), &config.owner));
    let (snapshot, wanted) = Snapshot::new();
    let (drainer, drain) = drain();
    let (buckets, news) = Buckets::new();
    let inventory = Arc::<Inventory>::default();

    let status = listen::bind(config.bind_address, STATUS_PORT, Party::App)?;
    let loopback = config
        .bind_address
        .filter(IpAddr::is_loopback)
        .unwrap_or(Ipv4Addr::LOCALHOST.into());
    let local = listen::bind(Some(loopback), ADMIN_PORT, Party::App)?;
    let counts = metrics.counts();
    let (scribes, export) = Scribes::start(&config, &snapshot, &counts)?;
    let shared = Shared {
        config: config.clone(),
        snapshot: snapshot.clone(),
        metrics: metrics.clone(),
        drain: drain.clone(),
        buckets: buckets.clone(),
        inventory: inventory.clone(),
        hands: scribes.hands(counts.clone()),
    };
    for n in 1..=config.workers.get() {
        let listeners = Listeners::bind(&config)?;
        let shared = shared.clone();
        let run_worker = move || {
            enter_shard(n);
            worker(listeners, shared)
        };
        std::thread::Builder::new()
            .name(format!("worker-{n}"))
            .spawn(run_worker)?;
    }

    // Everything that is not on the path of a request shares this thread.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = Arc::new(Notify::new());
        let admin = Admin {
            snapshot: snapshot.clone(),
            metrics: metrics.clone(),
            inventory,
            drain,
            config: config.clone(),
            stop: stop.clone(),
        };
        let admin = Arc::new(admin);
        for listener in status {
            tokio::spawn(admin::serve(
                admin.clone(),
                TcpListener::from_std(listener)?,
                Door::Status,
            ));
        }
        for listener in local {
            tokio::spawn(admin::serve(
                admin.clone(),
                TcpListener::from_std(listener)?,
                Door::Admin,
            ));
        }
        if let Some(plan) = config.capture.clone() {
            tokio::spawn(watch_capture(plan, metrics.clone()));
        }
        if let Some(export) = export {
            tokio::spawn(export.run(config.clone(), snapshot.clone(), counts));
        }
        tokio::spawn(sweep_metrics(metrics.clone()));
        let controlled = control::run(config.clone(), snapshot, metrics, wanted, (buckets, news));
        let told = end(&stop);
        tokio::select! {
            () = controlled => unreachable_end(),
            outcome = told => outcome?,
        }
        finish(&drainer, &config).await;
        scribes.finish().await;
        Ok(())
    })
}

/// Sees that connections are captured, for as long as the process lives: readiness and a metric follow.
async fn watch_capture(plan: Plan, metrics: Arc<Metrics>) {
    let mut was_in_force = None;
    loop {
        let probed = probe::probe_outbound(&plan).await;
        if was_in_force != Some(probed.is_ok()) {
            match &probed {
                Ok(()) => tracing::info!("connections are captured"),
                Err(error) => tracing::error!(?error, "connections are not captured"),
            }
        }
        was_in_force = Some(probed.is_ok());
        metrics.capture_in_force.set(probed.is_ok().into());
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

/// Drops series of peers that are gone, for as long as the process lives.
async fn sweep_metrics(metrics: Arc<Metrics>) {
    let mut turn = tokio::time::interval(metrics::SWEEP_INTERVAL);
    loop {
        metrics.sweep(turn.tick().await.into());
    }
}

/// Control never ends by itself.
fn unreachable_end() {
    tracing::error!("the control task ended");
}

/// SIGTERM, SIGINT, or a request to drain.
async fn end(stop: &Notify) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop.notified() => {}
    }
    Ok(())
}

async fn finish(drainer: &Drainer, config: &Config) {
    tracing::info!(limit = ?config.drain_timeout, "draining");
    drainer.begin();
    let cut = drainer
        .finish(config.drain_linger, config.drain_timeout)
        .await;
    tokio::time::sleep(LAST_BYTES).await;
    tracing::info!(connections_cut = cut, "drained");
}

/// The sockets of one worker.
struct Listeners {
    outbound: Vec<std::net::TcpListener>,
    inbound: Vec<std::net::TcpListener>,
    peers: Vec<std::net::TcpListener>,
    explicit: Vec<(std::net::TcpListener, Explicit)>,
}

impl Listeners {
    fn bind(config: &Config) -> io::Result<Self> {
        let explicit = config
            .explicit
            .iter()
            .map(|one| Ok((listen::bind_one(one.listen, Party::App)?, *one)));
        Ok(Self {
            // Redirected connections arrive at loopback, whatever they were dialled to: nobody else need reach this.
            outbound: listen::bind_loopback(config.bind_address, OUTBOUND_PORT)?,
            inbound: listen::bind(config.bind_address, INBOUND_PORT, Party::App)?,
            peers: listen::bind(config.bind_address, PEER_PORT, Party::Mesh)?,
            explicit: explicit.collect::<io::Result<_>>()?,
        })
    }
}

/// One worker's life: a single-threaded runtime on which everything of its connections stays.
fn worker(listeners: Listeners, shared: Shared) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let worker = Worker::new(shared);
        let recording = worker.clone();
        spawn_local(async move { recording.records.hand_over().await });
        for listener in listeners.outbound {
            spawn_local(listen::accept(
                worker.clone(),
                TcpListener::from_std(listener)?,
                captured,
            ));
        }
        for listener in listeners.inbound {
            spawn_local(listen::accept(
                worker.clone(),
                TcpListener::from_std(listener)?,
                inbound::plain::serve,
            ));
        }
        for listener in listeners.peers {
            spawn_local(listen::accept(
                worker.clone(),
                TcpListener::from_std(listener)?,
                |worker, socket, _| inbound::serve(worker, socket),
            ));
        }
        for (listener, Explicit { destination, .. }) in listeners.explicit {
            let serve =
                move |worker, socket, from| outbound::serve(worker, socket, from, destination);
            spawn_local(listen::accept(
                worker.clone(),
                TcpListener::from_std(listener)?,
                serve,
            ));
        }
        keep_tidy(&worker).await;
        Ok(())
    })
}

/// A connection of our app that the kernel redirected to us.
async fn captured(worker: Rc<Worker>, socket: TcpStream, from: SocketAddr) -> Result<(), Error> {
    let dialled = listen::original_destination(&socket, from)?;
    let is_here = |ip: IpAddr| ip.is_loopback() || worker.config.bind_address == Some(ip);
    if dialled.port() == OUTBOUND_PORT && is_here(dialled.ip()) {
        return Err(Reason::Loop.into());
    }
    if probe::is_probe(dialled) {
        return answer_probe(socket).await;
    }
    outbound::serve(worker, socket, from, dialled).await
}

/// The connection that [`watch_capture`] made, having come where it should.
async fn answer_probe(mut socket: TcpStream) -> Result<(), Error> {
    write_all(&mut socket, probe::PROBE_ANSWER)
        .await
        .blame(Reason::ClientGone)
}

/// Closes what is idle, and what was made with an identity that is not ours any more.
async fn keep_tidy(worker: &Worker) {
    let mut changes = worker.snapshot.changes();
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    let mut draining = std::pin::pin!(worker.drain.begun());
    let mut dismissed = false;
    loop {
        tokio::select! {
            () = &mut draining, if !dismissed => {
                dismissed = true;
                worker.idlers.dismiss();
            }
            _ = sweep.tick() => {
                let now = std::time::Instant::now();
                sweep_pool();
                worker.idlers.sweep(now);
                worker.apps.sweep();
                worker.app_sessions.sweep(now);
                worker.peers.sweep(now);
                worker.services.sweep(&worker.snapshot);
                worker.policies.sweep(policy::now());
                worker.observer.hand_over(policy::now());
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                worker.policies.adopt();
                worker.limits.adopt();
                worker.peers.cut_revoked(&worker.snapshot);
                if let Some(identity) = worker.snapshot.last_identity() {
                    worker.peers.retire_before(identity.generation);
                }
            }
        }
    }
}
