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
        let mut server = server_config(
            bundle.clone(),
            key.clone(),
            ClientCertificate::Required,
            &[ALPN_RINGMAIL],
        )
        .map_err(|error| Reason::Internal.because(error))?;
        // Records are ours to protect.
        server.enable_secret_extraction = true;
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
        let config = client_config(self.bundle.clone(), expected, Some(self.key.clone()), alpn);
        let mut config = config.map_err(|error| Reason::Internal.because(error))?;
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
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

#[cfg(test)]
mod testing {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa,
        KeyPair, KeyUsagePurpose, SanType,
    };
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    impl Identity {
        /// One that trusts only the CA it was made by, and so itself.
        pub(crate) fn of_test(id: &str) -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key"));
            let ca = ca.expect("CA");
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            params.is_ca = IsCa::ExplicitNoCa;
            let key = KeyPair::generate().expect("key");
            let leaf = params.signed_by(&key, &ca).expect("signed");
            let root = CertificateDer::from(ca.der().to_vec());
            let bundle = TrustBundle::single("mesh.local".parse().expect("domain"), vec![root]);
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("P-256");
            let chain = vec![leaf.der().clone()];
            Self::new(chain, key, Arc::new(bundle.expect("a CA")), 1).expect("consistent")
        }
    }
}
