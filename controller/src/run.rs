//! Starts the parts and stops them again. Proxies are let in once the objects have been read, never before: a proxy that
//! finds no controller keeps what it knows, one that finds an empty controller would be told that its pod is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use ringmail_proto::identity::TrustDomain;
use rustls::pki_types::UnixTime;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admin::{self, Pages};
use crate::attest::Attestor;
use crate::authority::Authority;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::model::Mesh;
use crate::publish::Publisher;
use crate::serve::certify::Certificates;
use crate::serve::identity::Upkeep;
use crate::serve::watch::Discovery;
use crate::serve::{self, Front, Routes};
use crate::source;
use crate::stop::{self, Stop, Stopper};

/// After the drain, for tasks to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A controller that runs. Dropping it stops it at once.
#[derive(Debug)]
pub struct Running {
    /// Where proxies call.
    pub address: SocketAddr,
    /// Where metrics are.
    pub metrics_address: SocketAddr,
    stopper: Stopper,
    tasks: JoinSet<()>,
    pages: Arc<Pages>,
    drain_timeout: Duration,
}

/// Starts a controller.
///
/// # Errors
/// When its state or a listener cannot be opened.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    let metrics = Arc::new(Metrics::default());
    let opened = config.clone();
    let authority = tokio::task::spawn_blocking(move || Authority::open(&opened, UnixTime::now()))
        .await?
        .context("cannot open the certificate authority")?;
    let authority = Arc::new(authority);
    let attestor = Attestor::open(&config, &metrics).context("cannot open the credentials")?;
    let attestor = Arc::new(attestor);
    let listener = listen(config.listen).await?;
    let metrics_listener = listen(config.metrics_listen).await?;

    let (publisher, snapshots) = Publisher::new(authority.bundle())?;
    let (states, source) = watch::channel(None);
    let (stopper, stop) = stop::pair();
    let pages = Arc::new(Pages {
        registry: metrics.registry(),
        ready: AtomicBool::new(false),
        source: source.clone(),
        snapshots: snapshots.clone(),
    });
    let upkeep = Upkeep {
        authority: authority.clone(),
        trust_domain: config.trust_domain.clone(),
        metrics: metrics.clone(),
    };
    let (tls, wait) = upkeep.fresh(authority.bundle())?;
    let tls = Arc::new(ArcSwap::new(tls));
    let domain = config.trust_domain.clone();
    let certificates = Certificates::new(
        authority,
        attestor.clone(),
        domain.clone(),
        snapshots.clone(),
        metrics.clone(),
    );
    let discovery = Discovery::new(
        domain.clone(),
        snapshots.clone(),
        metrics.clone(),
        stop.clone(),
    );
    let front = Arc::new(Front {
        tls: tls.clone(),
        routes: Routes::new(certificates, discovery),
        metrics: metrics.clone(),
        drain_timeout: config.drain_timeout,
    });

    let running = Running {
        address: listener.local_addr()?,
        metrics_address: metrics_listener.local_addr()?,
        stopper,
        tasks: JoinSet::new(),
        pages: pages.clone(),
        drain_timeout: config.drain_timeout,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve(metrics_listener, pages.clone(), stop.clone()));
    tasks.spawn(source::follow(
        config.source_dir,
        metrics.clone(),
        states,
        stop.clone(),
    ));
    let (first, read) = oneshot::channel();
    let model = Model {
        publisher,
        trust_domain: domain,
        metrics,
    };
    tasks.spawn(model.follow(source, first, stop.clone()));
    tasks.spawn(upkeep.run(tls, wait, snapshots, stop.clone()));
    let (follower, followed) = (stop.clone(), attestor);
    tasks.spawn(async move {
        if let Some(jwks) = followed.jwks() {
            jwks.follow(follower).await;
        }
    });
    tasks.spawn(async move {
        // An error means that we stop before there was anything to serve.
        if read.await.is_ok() {
            pages.ready.store(true, Ordering::Release);
            info!("ready");
            serve::serve(listener, front, stop).await;
        }
    });
    Ok(Running { tasks, ..running })
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

/// Turns objects into snapshots.
struct Model {
    publisher: Publisher,
    trust_domain: TrustDomain,
    metrics: Arc<Metrics>,
}

impl Model {
    /// Fires `first` once there is something to serve. A directory that was never readable is nothing.
    async fn follow(
        self,
        mut source: watch::Receiver<Option<Arc<source::State>>>,
        first: oneshot::Sender<()>,
        mut stop: Stop,
    ) {
        let mut first = Some(first);
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                changed = source.changed() => if changed.is_err() {
                    return;
                },
            }
            let Some(state) = source.borrow_and_update().clone() else {
                continue;
            };
            if first.is_some() && state.unreadable.is_some() {
                continue;
            }
            let domain = self.trust_domain.clone();
            let built = tokio::task::spawn_blocking(move || Mesh::build(&state.objects, &domain));
            let Ok(mesh) = built.await else {
                warn!("the objects could not be understood, the state before stays in force");
                continue;
            };
            self.publish(mesh);
            if let Some(first) = first.take() {
                // The one who waits may have been stopped.
                let _ = first.send(());
            }
        }
    }

    fn publish(&self, mesh: Mesh) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.workloads.set(count(mesh.workload_count()));
        self.metrics
            .workloads_meshed
            .set(count(mesh.meshed_count()));
        self.metrics
            .snapshot_problems
            .set(count(mesh.problems().len()));
        for problem in mesh.problems() {
            warn!("{problem}");
        }
        let version = self.publisher.mesh(mesh);
        self.metrics.snapshot_sequence.set(version.sequence);
    }
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
}
