//! What the tasks of one worker share. Everything here stays on the worker's thread but for the snapshot, the metrics
//! and the drain, which are atomic.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::app::external::Checks;
use crate::config::Config;
use crate::drain::Drain;
use crate::http::h1::forward::Apps;
use crate::http::h2::{AppSessions, Held};
use crate::idle::Idlers;
use crate::inventory::{Inventory, Observer};
use crate::limits::Limits;
use crate::limits::buckets::Buckets;
use crate::metrics::Metrics;
use crate::policy::Policies;
use crate::records::{Hands, Records};
use crate::snapshot::Snapshot;
use crate::strangers::Strangers;
use crate::upstream::mirror::Mirroring;
use crate::upstream::peers::Peers;
use crate::upstream::services::Services;

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) config: Arc<Config>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
    /// What is recorded of traffic.
    pub(crate) records: Records,
    /// Who may ask our app for what.
    pub(crate) policies: Policies,
    /// How often they may.
    pub(crate) limits: Limits,
    /// What of our app's requests is looked at.
    pub(crate) observer: Observer,
    /// Connections to other proxies.
    pub(crate) peers: Peers,
    /// What is known of the services that our app calls.
    pub(crate) services: Services,
    /// Clients that wait for their next request.
    pub(crate) idlers: Idlers,
    /// Copies of requests.
    pub(crate) mirroring: Mirroring,
    /// Requests that somebody else is asked about.
    pub(crate) checks: Checks,
    /// HTTP/1 connections to our app.
    pub(crate) apps: Apps,
    /// HTTP/2 connections to our app.
    pub(crate) app_sessions: AppSessions,
    /// Requests under way of HTTP/2 clients.
    pub(crate) held: Held,
    /// Connections of peers between accept and the end of their handshake.
    pub(crate) handshakes: Strangers,
    /// Plaintext connections of which is not known yet whether they are probes.
    pub(crate) plaintext: Strangers,
}

/// What all workers share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
    pub(crate) buckets: Arc<Buckets>,
    /// What our app's API is seen to be.
    pub(crate) inventory: Arc<Inventory>,
    /// Whoever takes records.
    pub(crate) hands: Hands,
}

impl Worker {
    pub(crate) fn new(shared: Shared) -> Rc<Self> {
        let Shared {
            config,
            snapshot,
            metrics,
            drain,
            buckets,
            inventory,
            hands,
        } = shared;
        let records = Records::new(&config, hands);
        Rc::new(Self {
            policies: Policies::new(snapshot.clone(), metrics.clone(), records.trail(&config)),
            records,
            limits: Limits::new(snapshot.clone(), metrics.clone(), buckets),
            observer: Observer::new(inventory, Instant::now()),
            config,
            snapshot,
            metrics,
            drain,
            peers: Peers::default(),
            services: Services::default(),
            idlers: Idlers::default(),
            mirroring: Mirroring::default(),
            checks: Checks::default(),
            apps: Apps::default(),
            app_sessions: AppSessions::default(),
            held: Held::default(),
            handshakes: Strangers::default(),
            plaintext: Strangers::default(),
        })
    }
}
