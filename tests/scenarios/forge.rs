//! Certificates that no authority should have signed, made with the mesh's own keys, and handshakes with them. All of it
//! over rustls directly: another implementation of the rules than the one under test.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use rcgen::{
    CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use ringmail_tests::mesh::Mesh;
use ringmail_tests::netns::Pod;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, ServerConnection,
    SignatureScheme, StreamOwned,
};

use crate::raw::dial;

/// What proxies agree on.
const ALPN: &[u8] = b"ringmail/1";
/// Stream 0, kind 7, no payload; and the same with kind 8.
const PING: [u8; 8] = [0, 0, 0, 0, 7, 0, 0, 0];
pub(crate) const PONG: [u8; 8] = [0, 0, 0, 0, 8, 0, 0, 0];

/// A certificate with those above it, and its key.
pub(crate) struct Forged {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Who signs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum By {
    /// The mesh's issuer.
    Mesh,
    /// An authority that nobody knows.
    Stranger,
}

/// When a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Valid {
    Now,
    Formerly,
    /// As the controller would have issued it a moment ago, with a clock that is so many seconds ahead of ours, or
    /// behind; for [`SKEWED_LIFETIME`], and back-dated as all are.
    Skewed(i64),
}

/// Seconds.
const SKEWED_LIFETIME: i64 = 60;
const BACKDATED: i64 = 300;

/// A leaf as the mesh makes them, but with these names and this validity.
pub(crate) fn forge(
    mesh: &Mesh<'_>,
    by: By,
    uris: &[&str],
    valid: Valid,
) -> anyhow::Result<Forged> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for uri in uris {
        params
            .subject_alt_names
            .push(SanType::URI((*uri).try_into()?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    (params.not_before, params.not_after) = match valid {
        Valid::Now => (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1)),
        Valid::Formerly => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
        Valid::Skewed(ahead) => {
            let issued = i64::try_from(UNIX_EPOCH.elapsed()?.as_secs())? + ahead;
            let at = |seconds: i64| {
                let since = Duration::from_secs(u64::try_from(seconds)?);
                anyhow::Ok(date_time_ymd(1970, 1, 1) + since)
            };
            (at(issued - BACKDATED)?, at(issued + SKEWED_LIFETIME)?)
        }
    };
    let key = KeyPair::generate()?;
    let (leaf, issuer) = match by {
        By::Mesh => {
            let pem =
                fs::read_to_string(mesh.state_directory().join("authority").join("issuer.pem"))?;
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes())?;
            let key_pem = pem
                .find("-----BEGIN PRIVATE KEY")
                .context("no key in issuer.pem")?;
            let issuer =
                Issuer::from_ca_cert_der(&certificate, KeyPair::from_pem(&pem[key_pem..])?)?;
            (params.signed_by(&key, &issuer)?, certificate)
        }
        By::Stranger => {
            let mut authority = CertificateParams::default();
            authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            authority.subject_alt_names = vec![SanType::URI("spiffe://mesh.local".try_into()?)];
            let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
            (params.signed_by(&key, &issuer)?, issuer.der().clone())
        }
    };
    Ok(Forged {
        chain: vec![leaf.der().clone(), issuer],
        key: PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?,
    })
}

/// What came of a handshake with a proxy.
#[derive(Debug)]
pub(crate) struct Knock {
    /// The certificate that the proxy showed, if it came to that.
    pub(crate) shown: Option<CertificateDer<'static>>,
    /// The answer to a ping, or why there was none.
    pub(crate) answer: Result<[u8; 8], String>,
}

/// Dials a proxy's peer port as whoever `ourselves` are, and asks whether it is there.
pub(crate) fn knock(
    from: &Pod,
    to: SocketAddr,
    ourselves: Option<Forged>,
) -> anyhow::Result<Knock> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)));
    let mut config = match ourselves {
        Some(Forged { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    let session = ClientConnection::new(Arc::new(config), ServerName::from(to.ip()))?;
    let mut stream = StreamOwned::new(session, dial(from, to)?);
    let mut pong = [0; 8];
    let answer = stream
        .write_all(&PING)
        .and_then(|()| stream.read_exact(&mut pong));
    Ok(Knock {
        shown: stream
            .conn
            .peer_certificates()
            .and_then(|chain| chain.first().cloned()),
        answer: answer.map(|()| pong).map_err(|error| error.to_string()),
    })
}

/// Answers one dialler as whoever `ourselves` are; what it says after the handshake, or why it did not come to that.
pub(crate) fn answer(
    stream: TcpStream,
    ourselves: Forged,
) -> anyhow::Result<Result<Vec<u8>, String>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(ourselves.chain, ourselves.key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config))?, stream);
    let mut heard = Vec::new();
    let read = stream.read_to_end(&mut heard);
    Ok(read.map(|_| heard).map_err(|error| error.to_string()))
}

/// Accepts whatever certificate is shown.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
