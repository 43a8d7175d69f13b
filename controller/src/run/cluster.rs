//! The part that only runs in a cluster: its objects, its Secrets, its lease and its webhooks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use kube::Client;
use rustls::pki_types::UnixTime;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::listen;
use crate::applied::Proxies;
use crate::attest::Attestor;
use crate::authority::Authority;
use crate::cluster::lead::{self, Desk, States};
use crate::cluster::lease::Election;
use crate::cluster::review::Reviewer;
use crate::cluster::secret::Kept;
use crate::cluster::{client, known, secret};
use crate::config::{ClusterHome, Config};
use crate::metrics::Metrics;
use crate::publish::{Publisher, Snapshots};
use crate::source::{self, State};
use crate::stop::Stop;
use crate::webhook;

/// For the authority's Secret; the next try is the next start.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

/// What can fail before anything runs.
pub(super) struct Cluster {
    client: Client,
    home: ClusterHome,
    /// What the authority is of.
    kept: Kept,
    pub(super) webhook_listener: TcpListener,
}

/// What the parts outside share with it.
pub(super) struct Shared<'a> {
    pub(super) config: &'a Config,
    pub(super) authority: Arc<Authority>,
    pub(super) publisher: Publisher,
    pub(super) source: States,
    pub(super) snapshots: Snapshots,
    pub(super) proxies: Arc<Proxies>,
    pub(super) metrics: Arc<Metrics>,
    /// Told whether we lead.
    pub(super) leader: watch::Sender<bool>,
}

impl Cluster {
    pub(super) async fn open(
        config: &Config,
        home: &ClusterHome,
    ) -> anyhow::Result<(Authority, Attestor, Self)> {
        let client = client::infer().await.context("cannot use the cluster")?;
        let (authority, kept) = timeout(OPEN_TIMEOUT, authority(config, home, &client))
            .await
            .with_context(|| format!("the API server does not answer within {OPEN_TIMEOUT:?}"))??;
        let reviewer = Reviewer::new(client.clone(), config.trust_domain.clone());
        let cluster = Self {
            client,
            home: home.clone(),
            kept,
            webhook_listener: listen(home.webhook_listen)?,
        };
        Ok((authority, Attestor::cluster(reviewer), cluster))
    }

    /// Fires `reachable` once the API server knows this replica.
    pub(super) fn spawn(
        self,
        shared: Shared<'_>,
        states: watch::Sender<Option<Arc<State>>>,
        reachable: oneshot::Sender<()>,
        tasks: &mut JoinSet<()>,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let ClusterHome {
            namespace,
            pod,
            sidecar,
            ..
        } = self.home;
        let client = self.client;
        tasks.spawn(source::cluster::follow(
            client.clone(),
            shared.metrics.clone(),
            states,
            stop.clone(),
        ));

        let upkeep = webhook::identity::Upkeep {
            authority: shared.authority.clone(),
            namespace: namespace.clone(),
        };
        let (tls, wait) = upkeep.fresh()?;
        let tls = Arc::new(ArcSwap::new(tls));
        let front = webhook::Front::new(
            tls.clone(),
            shared.source.clone(),
            shared.metrics.clone(),
            shared.config.drain_timeout,
            sidecar,
        );
        let front = Arc::new(front);
        tasks.spawn(upkeep.run(tls, wait, stop.clone()));
        tasks.spawn(webhook::serve(self.webhook_listener, front, stop.clone()));

        tasks.spawn(tell(
            client.clone(),
            shared.authority.clone(),
            reachable,
            stop.clone(),
        ));
        let (trouble, issuer_trouble) = watch::channel(None);
        let issuer_secret = self.home.issuer_secret;
        let issuer_secret = issuer_secret.unwrap_or_else(|| secret::ROOT_SECRET.to_owned());
        let following = secret::Following {
            kept: self.kept,
            authority: shared.authority,
            publisher: shared.publisher,
            trouble,
            metrics: shared.metrics.clone(),
        };
        tasks.spawn(following.run(
            client.clone(),
            namespace.clone(),
            issuer_secret.clone(),
            stop.clone(),
        ));

        let (election, leads) = Election::new(client.clone(), &namespace, pod.clone());
        tasks.spawn(election.run(stop.clone()));
        tasks.spawn(pass_on(leads.clone(), shared.leader));
        let desk = Desk {
            client,
            namespace,
            pod,
            trust_domain: shared.config.trust_domain.clone(),
            states: shared.source,
            snapshots: shared.snapshots,
            proxies: shared.proxies,
            issuer_trouble,
            issuer_secret,
            excluded: self.home.excluded.into(),
            evict: self.home.evict,
            metrics: shared.metrics,
        };
        tasks.spawn(lead::run(desk, leads, stop.clone()));
        Ok(())
    }
}

/// Says whether we lead, for as long as anybody does.
async fn pass_on(mut leads: watch::Receiver<bool>, leader: watch::Sender<bool>) {
    loop {
        leader.send_replace(*leads.borrow_and_update());
        if leads.changed().await.is_err() {
            return;
        }
    }
}

/// Says when the API server knows us.
async fn tell(
    client: Client,
    authority: Arc<Authority>,
    reachable: oneshot::Sender<()>,
    mut stop: Stop,
) {
    tokio::select! {
        () = stop.stopped() => {}
        // Nobody waits when we stop.
        () = known::wait(&client, &authority) => drop(reachable.send(())),
    }
}

/// Of the root that all replicas share, or of the issuer that somebody else keeps.
async fn authority(
    config: &Config,
    home: &ClusterHome,
    client: &Client,
) -> anyhow::Result<(Authority, Kept)> {
    let (namespace, now) = (&home.namespace, UnixTime::now());
    let authority = match &home.issuer_secret {
        Some(name) => {
            let given = secret::issuer(client, namespace, name)
                .await
                .with_context(|| format!("cannot read the issuer of Secret {name}"))?;
            let authority = Authority::of_issuer(config, &given, now);
            authority.map(|authority| (authority, Kept::Issuer))
        }
        None => {
            let root = secret::root(client, namespace, &config.trust_domain)
                .await
                .with_context(|| format!("cannot open Secret {}", secret::ROOT_SECRET))?;
            let origin = format!("Secret {namespace}/{}", secret::ROOT_SECRET);
            let authority = Authority::of_root(config, &origin, &root, now);
            authority.map(|authority| (authority, Kept::Root(root)))
        }
    };
    let (authority, kept) = authority.context("cannot open the certificate authority")?;
    authority.remember(&secret::former_roots(client, namespace).await, now);
    Ok((authority, kept))
}
