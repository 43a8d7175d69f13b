//! Our certificate, key and trust bundle as one snapshot, and the configurations made from it.
//!
//! A snapshot is replaced whole at each renewal and each change of the bundle; connections keep the one they were made
//! with. Keys live only here, in memory, and are forgotten with the last connection that uses them.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::identity::SpiffeId;
use ringmail_proto::svid::Svid;
use ringmail_proto::tls::{ALPN_RINGMAIL, ClientCertificate, client_config, server_config};
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{ClientConfig, ServerConfig};

use crate::error::{Error, Reason};

/// Who we are and whom we trust, for as long as the certificate lasts.
pub(crate) struct Identity {
    /// What our certificate says.
    pub(crate) svid: Svid,
    /// Counts renewals and bundle changes; connections of an older generation take no new streams.
    pub(crate) generation: u64,
    /// How we answer peers.
    pub(crate) server: Arc<ServerConfig>,
    bundle: Arc<TrustBundle>,
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// A snapshot from what the controller issued.
    pub(crate) fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
        bundle: Arc<TrustBundle>,
        generation: u64,
    ) -> Result<Self, Error> {
        let leaf = chain.first().ok_or(Reason::NotReady)?;
        let svid = Svid::read(leaf).map_err(|error| Reason::NotReady.because(error))?;
        let key = Arc::new(CertifiedKey::new(chain, key));
        key.keys_match()
            .map_err(|error| Reason::NotReady.because(error))?;
        Self::assemble(svid, key, bundle, generation)
    }

    /// The same certificate under another bundle.
    pub(crate) fn with_bundle(&self, bundle: Arc<TrustBundle>) -> Result<Self, Error> {
        Self::assemble(
            self.svid.clone(),
            self.key.clone(),
            bundle,
            self.generation + 1,
        )
    }

    fn assemble(
        svid: Svid,
        key: Arc<CertifiedKey>,
        bundle: Arc<TrustBundle>,
        generation: u64,
    ) -> Result<Self, Error> {
        let server = server_config(
            bundle.clone(),
            key.clone(),
            ClientCertificate::Required,
            &[ALPN_RINGMAIL],
        )
        .map_err(|error| Reason::Internal.because(error))?;
        Ok(Self {
            svid,
            generation,
            server: Arc::new(server),
            bundle,
            key,
        })
    }

    /// How we dial a proxy that must be `expected`.
    pub(crate) fn client(
        &self,
        expected: SpiffeId,
        alpn: &[u8],
    ) -> Result<Arc<ClientConfig>, Error> {
        client_config(self.bundle.clone(), expected, Some(self.key.clone()), alpn)
            .map(Arc::new)
            .map_err(|error| Reason::Internal.because(error))
    }

    /// Our certificate and those above it, as we show them to peers: nothing of it is a secret.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// What proves us, key and all.
    pub(crate) fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Whom we trust.
    pub(crate) fn bundle(&self) -> &Arc<TrustBundle> {
        &self.bundle
    }

    /// Refuses to be used past the end of its certificate: we fail closed, with a name for it.
    pub(crate) fn check_lifetime(&self) -> Result<(), Error> {
        if unix_now() <= self.svid.not_after {
            Ok(())
        } else {
            Err(Reason::CertificateExpired.into())
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Identity({}, serial {}, generation {})",
            self.svid.id, self.svid.serial, self.generation
        )
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn unix_now() -> i64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}
