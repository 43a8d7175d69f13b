//! The certificate under which the API server knows us: a leaf of our own authority under the names of our Service, made
//! anew with a new key at half of its life. TLS 1.3; nobody is asked for a certificate, since a review tells no secrets
//! and changes nothing here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio::time::sleep;
use tracing::error;

use crate::authority::{Authority, LeafKey};
use crate::cluster::client::provider;
use crate::config::CONTROLLER_ACCOUNT;
use crate::stop::Stop;

/// After a renewal that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the certificate fresh.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) authority: Arc<Authority>,
    /// Ours.
    pub(crate) namespace: String,
}

impl Upkeep {
    /// A TLS configuration with a fresh certificate, and how long until the next should be made.
    pub(crate) fn fresh(&self) -> anyhow::Result<(Arc<ServerConfig>, Duration)> {
        let service = format!("{CONTROLLER_ACCOUNT}.{}.svc", self.namespace);
        let names = [service.clone(), format!("{service}.cluster.local")];
        let key = KeyPair::generate().context("cannot make a key")?;
        let now = UnixTime::now();
        let (chain, valid_for) = self
            .authority
            .issue_named(&LeafKey::of(&key)?, &names, now)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok((Arc::new(config), valid_for / 2))
    }

    /// Renews until told to stop, also when another issuer signs.
    pub(crate) async fn run(
        self,
        tls: Arc<ArcSwap<ServerConfig>>,
        mut wait: Duration,
        mut stop: Stop,
    ) {
        let mut successions = self.authority.successions();
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                () = sleep(wait) => {}
                Ok(()) = successions.changed() => {}
            }
            wait = match self.fresh() {
                Ok((config, wait)) => {
                    tls.store(config);
                    wait
                }
                Err(e) => {
                    error!("cannot renew the webhooks' certificate, the old one stays: {e:#}");
                    RETRY
                }
            };
        }
    }
}
