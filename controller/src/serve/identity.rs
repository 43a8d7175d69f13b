//! The certificate we answer with: a leaf of our own authority, made anew with a new key at half of its life.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use rcgen::KeyPair;
use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::identity::SpiffeId;
use ringmail_proto::tls::{ALPN_H2, ClientCertificate, server_config};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use tokio::time::sleep;
use tracing::{error, info};

use crate::authority::{Authority, LeafKey};
use crate::metrics::Metrics;
use crate::publish::Snapshots;
use crate::stop::Stop;

/// After a renewal that failed.
const RETRY: Duration = Duration::from_secs(5);
/// How often the issuer's age is looked at, at least.
const UPKEEP: Duration = Duration::from_secs(3600);

/// Keeps the issuer and our own certificate fresh.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) authority: Arc<Authority>,
    /// Under which proxies know us.
    pub(crate) id: SpiffeId,
    pub(crate) metrics: Arc<Metrics>,
}

impl Upkeep {
    /// A TLS configuration with a fresh certificate, and how long until the next should be made.
    pub(crate) fn fresh(
        &self,
        bundle: Arc<TrustBundle>,
    ) -> anyhow::Result<(Arc<ServerConfig>, Duration)> {
        let now = UnixTime::now();
        if self.authority.renew_issuer(now)? {
            info!("made a new issuer certificate");
        }
        let key = KeyPair::generate().context("cannot make a key")?;
        let issued = self.authority.issue(&LeafKey::of(&key)?, &self.id, now)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signer = any_ecdsa_type(&der).context("cannot use a fresh key")?;
        let own = Arc::new(CertifiedKey::new(issued.chain, signer));
        let config = server_config(bundle, own, ClientCertificate::Optional, &[ALPN_H2])?;
        self.metrics
            .issuer_expiry
            .set(self.authority.issuer_not_after());
        self.metrics.own_issued.set(now.as_secs());
        self.metrics
            .own_expiry
            .set(u64::try_from(issued.svid.not_after).unwrap_or(0));
        Ok((Arc::new(config), (issued.valid_for / 2).min(UPKEEP)))
    }

    /// Renews until told to stop, also when the trust bundle changes or another issuer signs.
    pub(crate) async fn run(
        self,
        tls: Arc<ArcSwap<ServerConfig>>,
        mut wait: Duration,
        mut snapshots: Snapshots,
        mut stop: Stop,
    ) {
        let mut bundle = snapshots.borrow_and_update().bundle.clone();
        let mut successions = self.authority.successions();
        loop {
            let changed = async {
                while snapshots.changed().await.is_ok() {
                    let next = snapshots.borrow_and_update().bundle.clone();
                    if next != bundle {
                        return next;
                    }
                }
                std::future::pending().await
            };
            let next = tokio::select! {
                () = stop.stopped() => return,
                () = sleep(wait) => None,
                next = changed => Some(next),
                Ok(()) = successions.changed() => None,
            };
            bundle = next.unwrap_or(bundle);
            wait = match self.fresh(bundle.clone()) {
                Ok((config, wait)) => {
                    tls.store(config);
                    wait
                }
                Err(e) => {
                    error!("cannot renew our own certificate, the old one stays: {e:#}");
                    RETRY
                }
            };
        }
    }
}
