//! TLS as both sides speak it: version 1.3 only, X25519MLKEM768 before X25519, certificates on both ends verified as
//! X.509-SVIDs, no resumption (a resumed session would skip the certificate), no server name (identities are not
//! host names).

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use crate::bundle::TrustBundle;
use crate::identity::SpiffeId;
use crate::svid::{Role, Svid, SvidError};

/// ALPN of the wire between our proxies.
pub const ALPN_RINGMAIL: &[u8] = b"ringmail/1";
/// ALPN of gRPC, and of HBONE.
pub const ALPN_H2: &[u8] = b"h2";

/// What the client does about the certificate of whoever calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificate {
    /// No certificate, no connection.
    Required,
    /// A caller may be without one (it has no identity yet); one that is sent must be valid.
    Optional,
}

/// The one set of algorithms: AEAD suites of TLS 1.3, hybrid key exchange first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
            ..aws_lc_rs::default_provider()
        })
    });
    PROVIDER.clone()
}

/// What may sign a certificate or a handshake.
pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

/// How we dial someone who must be `expected`, as ourselves if we have an identity.
///
/// # Errors
/// None in practice: the provider supports TLS 1.3.
pub fn client_config(
    bundle: Arc<TrustBundle>,
    expected: SpiffeId,
    ourselves: Option<Arc<CertifiedKey>>,
    alpn: &[u8],
) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(ExpectServer { bundle, expected });
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match ourselves {
        Some(key) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// How we answer callers, as ourselves.
///
/// # Errors
/// None in practice: the provider supports TLS 1.3.
pub fn server_config(
    bundle: Arc<TrustBundle>,
    ourselves: Arc<CertifiedKey>,
    client_certificate: ClientCertificate,
    alpn: &[&[u8]],
) -> Result<ServerConfig, Error> {
    let verifier = Arc::new(AnyClient {
        bundle,
        client_certificate,
    });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(ourselves)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(config)
}

/// The refusal inside a TLS error, when it was ours.
#[must_use]
pub fn svid_error(error: &Error) -> Option<&SvidError> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref()
        }
        _ => None,
    }
}

#[derive(Debug)]
struct ExpectServer {
    bundle: Arc<TrustBundle>,
    expected: SpiffeId,
}

impl ServerCertVerifier for ExpectServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let svid = Svid::verify(end_entity, intermediates, &self.bundle, Role::Server, now)
            .map_err(refusal)?;
        if svid.id != self.expected {
            return Err(refusal(SvidError::WrongIdentity {
                expected: self.expected.clone(),
                found: svid.id,
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &signature_algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_algorithms().supported_schemes()
    }
}

#[derive(Debug)]
struct AnyClient {
    bundle: Arc<TrustBundle>,
    client_certificate: ClientCertificate,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        self.client_certificate == ClientCertificate::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Svid::verify(end_entity, intermediates, &self.bundle, Role::Client, now)
            .map_err(refusal)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &signature_algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_algorithms().supported_schemes()
    }
}

/// Kept whole inside the TLS error, so that the log and the metrics can name the rule.
fn refusal(error: SvidError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
