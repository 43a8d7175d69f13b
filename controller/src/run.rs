//! Starts the parts and stops them again. Proxies are let in once the objects have been read, never before: a proxy that
//! finds no controller keeps what it knows, one that finds an empty controller would be told that its pod is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::pki_types::UnixTime;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admin::limits::{Fingerprints, LedgerHome};
use crate::admin::{self, Pages};
use crate::applied::Proxies;
use crate::attest::Attestor;
use crate::authority::Authority;
use crate::config::{Config, DirectoryHome, Home};
use crate::jwks::Keeper;
use crate::ledger;
use crate::ledger::shown::Shown;
use crate::metrics::Metrics;
use crate::model::Defaults;
use crate::publish::Publisher;
use crate::serve::certify::Certificates;
use crate::serve::identity::Upkeep;
use crate::serve::lease::Leases;
use crate::serve::watch::Discovery;
use crate::serve::{self, Front, Routes};
use crate::source;
use crate::stop::{self, Stop, Stopper};

/// The part that only runs in a cluster.
mod cluster;

/// Turns objects into snapshots.
mod model;

use cluster::Cluster;
use model::Model;

/// After the drain, for tasks to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Callers that wait to be accepted; as many as Linux allows, where nobody has said otherwise.
const BACKLOG: u32 = 4096;

/// A controller that runs. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running {
    /// Where proxies call.
    pub address: SocketAddr,
    /// Where metrics are.
    pub metrics_address: SocketAddr,
    /// Where the API server calls, in a cluster.
    pub webhook_address: Option<SocketAddr>,
    stopper: Stopper,
    tasks: JoinSet<()>,
    pages: Arc<Pages>,
    drain_timeout: Duration,
}

/// What can fail before anything runs.
struct Opened {
    authority: Arc<Authority>,
    attestor: Arc<Attestor>,
    surroundings: Surroundings,
    listener: TcpListener,
    metrics_listener: TcpListener,
}

/// Where objects come from.
enum Surroundings {
    Directory(Box<DirectoryHome>),
    Cluster(Box<Cluster>),
}

/// Starts a controller.
///
/// # Errors
/// When its state, the cluster or a listener cannot be opened.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    let metrics = Arc::new(Metrics::default());
    let opened = open(&config, &metrics).await?;
    let authority = opened.authority;
    let (publisher, snapshots) = Publisher::new(authority.bundle())?;
    let (states, source) = watch::channel(None);
    let (stopper, stop) = stop::pair();
    let proxies = Arc::new(Proxies::new(metrics.proxies_connected.clone()));
    let (shown, ledger) = watch::channel(Shown::default());
    let pages = Arc::new(Pages {
        trust_domain: config.trust_domain.clone(),
        registry: metrics.registry(),
        ready: AtomicBool::new(false),
        source: source.clone(),
        snapshots: snapshots.clone(),
        proxies: proxies.clone(),
        ledger,
        ledger_home: match config.limits_redis {
            Some(_) => LedgerHome::Redis,
            None => LedgerHome::Memory,
        },
        fingerprints: Fingerprints::new()?,
        turn: Semaphore::new(1),
    });
    let upkeep = Upkeep {
        authority: authority.clone(),
        id: config.identity()?,
        metrics: metrics.clone(),
    };
    let (tls, wait) = upkeep.fresh(authority.bundle())?;
    let tls = Arc::new(ArcSwap::new(tls));
    // Who is alone leads.
    let (alone, leads) = watch::channel(matches!(opened.surroundings, Surroundings::Directory(_)));
    let place = ledger_place(&config, leads, &metrics)?;
    let (ledger, events) = ledger::Keeper::new(snapshots.clone(), place, shown, metrics.clone());
    let credentials = (authority.clone(), opened.attestor.clone());
    let routes = routes(&pages, credentials, &metrics, events, &stop);
    let front = Arc::new(Front {
        tls: tls.clone(),
        routes,
        metrics: metrics.clone(),
        drain_timeout: config.drain_timeout,
        strangers: Arc::default(),
    });
    let (first, read) = oneshot::channel();
    let (reachable, reached) = oneshot::channel();
    let (fetched, keys) = watch::channel(Arc::default());
    let keeper = Keeper {
        fetching: config.jwks.clone(),
        metrics: metrics.clone(),
    };
    let model = Model {
        keys,
        publisher: publisher.clone(),
        defaults: Defaults::from(&config),
        metrics: metrics.clone(),
    };

    let address = opened.listener.local_addr()?;
    let metrics_address = opened.metrics_listener.local_addr()?;
    let mut webhook_address = None;
    let mut tasks = JoinSet::new();
    let shown = pages.clone();
    tasks.spawn(admin::serve(opened.metrics_listener, shown, stop.clone()));
    match opened.surroundings {
        Surroundings::Directory(home) => {
            let follow = source::follow(home.source_dir, metrics, states, stop.clone());
            tasks.spawn(follow);
            // Nobody but proxies calls.
            let _ = reachable.send(());
        }
        Surroundings::Cluster(cluster) => {
            webhook_address = Some(cluster.webhook_listener.local_addr()?);
            let shared = cluster::Shared {
                config: &config,
                authority,
                publisher,
                source: source.clone(),
                snapshots: snapshots.clone(),
                proxies,
                metrics,
                leader: alone,
            };
            cluster.spawn(shared, states, reachable, &mut tasks, &stop)?;
        }
    }
    tasks.spawn(ledger.run(stop.clone()));
    tasks.spawn(keeper.run(source.clone(), fetched, stop.clone()));
    tasks.spawn(model.follow(source, first, stop.clone()));
    tasks.spawn(upkeep.run(tls, wait, snapshots, stop.clone()));
    tasks.spawn(keep_keys(opened.attestor, stop.clone()));
    let let_in = let_in(read, reached, pages.clone(), opened.listener, front, stop);
    tasks.spawn(let_in);
    Ok(Running {
        address,
        metrics_address,
        webhook_address,
        stopper,
        tasks,
        pages,
        drain_timeout: config.drain_timeout,
    })
}

/// Where the ledger of rate limits is at home.
fn ledger_place(
    config: &Config,
    leads: watch::Receiver<bool>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<ledger::Place> {
    let Some(redis) = &config.limits_redis else {
        return Ok(ledger::Place::Memory(leads));
    };
    let server = ledger::Server::new(redis, config.trust_domain.as_str(), metrics.clone());
    let server = server.context("cannot use --limits-redis")?;
    Ok(ledger::Place::Redis(Box::new(server)))
}

/// What proxies call.
fn routes(
    pages: &Pages,
    (authority, attestor): (Arc<Authority>, Arc<Attestor>),
    metrics: &Arc<Metrics>,
    events: ledger::Events,
    stop: &Stop,
) -> Routes {
    let (trust_domain, snapshots) = (&pages.trust_domain, &pages.snapshots);
    let certificates = Certificates::new(
        authority,
        attestor,
        trust_domain.clone(),
        snapshots.clone(),
        metrics.clone(),
    );
    let discovery = Discovery::new(
        trust_domain.clone(),
        snapshots.clone(),
        pages.proxies.clone(),
        metrics.clone(),
        stop.clone(),
    );
    let leases = Leases::new(
        trust_domain.clone(),
        snapshots.clone(),
        events,
        stop.clone(),
    );
    Routes::new(certificates, discovery, leases)
}

async fn open(config: &Config, metrics: &Metrics) -> anyhow::Result<Opened> {
    let (authority, attestor, surroundings) = match &config.home {
        Home::Directory(home) => {
            let (own, dirs) = (config.clone(), home.clone());
            let open = move || Authority::open(&own, &dirs, UnixTime::now());
            let authority = tokio::task::spawn_blocking(open)
                .await?
                .context("cannot open the certificate authority")?;
            let attestor = Attestor::local(home, &config.trust_domain, metrics)
                .context("cannot open the credentials")?;
            (
                authority,
                attestor,
                Surroundings::Directory(home.clone().into()),
            )
        }
        Home::Cluster(home) => {
            let (authority, attestor, cluster) = Cluster::open(config, home).await?;
            (
                authority,
                attestor,
                Surroundings::Cluster(Box::new(cluster)),
            )
        }
    };
    Ok(Opened {
        authority: Arc::new(authority),
        attestor: Arc::new(attestor),
        surroundings,
        listener: listen(config.listen)?,
        metrics_listener: listen(config.metrics_listen)?,
    })
}

/// Keeps the JWT issuer's keys fresh, when there is one.
async fn keep_keys(attestor: Arc<Attestor>, stop: Stop) {
    if let Some(jwks) = attestor.jwks() {
        jwks.follow(stop).await;
    }
}

/// Serves proxies once there is something to serve; we are ready when the API server knows us, too.
async fn let_in(
    read: oneshot::Receiver<()>,
    reached: oneshot::Receiver<()>,
    pages: Arc<Pages>,
    listener: TcpListener,
    front: Arc<Front>,
    stop: Stop,
) {
    // An error means that we stop before that, here and below.
    if read.await.is_err() {
        return;
    }
    let ready = async {
        if reached.await.is_ok() {
            pages.ready.store(true, Ordering::Release);
            info!("ready");
        }
    };
    tokio::join!(ready, serve::serve(listener, front, stop));
}

impl Running {
    /// Whether proxies are let in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.pages.ready.load(Ordering::Acquire)
    }

    /// Stops: unready at once, streams told to go elsewhere, open calls finished within the drain time-out.
    pub async fn stop(mut self) {
        self.pages.ready.store(false, Ordering::Release);
        self.stopper.stop();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(self.drain_timeout + STOP_TIMEOUT, all)
            .await
            .is_err()
        {
            warn!("some tasks did not end in time");
            self.tasks.shutdown().await;
        }
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Those whom the controller before has just left must not keep us from the port.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listener().with_context(|| format!("cannot listen on {address}"))
}
