//! The intruder speaks to `cart` past the mesh: in plaintext, and with certificates that no authority of ours made.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use ringmail_tests::load::fetch;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::figures::sum;
use crate::stage::{MARKER, Stage, WEB_PORT};

/// Where proxies take mutual TLS.
const PEER_PORT: u16 = 15008;
/// For any answer.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) fn plaintext_is_refused(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    for ip in stage.cart.pod.addresses() {
        let address = SocketAddr::new(ip, WEB_PORT);
        let request = Request::get(format!("/{MARKER}"))
            .header("host", "cart")
            .body(Full::<Bytes>::default())?;
        let reply = stage.intruder.namespace.block_on(fetch(address, request))?;
        let reply = reply.context("no answer at all")?;
        let reason = reply.headers.get("x-ringmail-reason");
        let reason = reason.map_or("none", |reason| reason.to_str().unwrap_or("unreadable"));
        stage.teller.say(format_args!(
            "GET http://{address}/ -> {}, x-ringmail-reason: {reason}",
            reply.status
        ));
        ensure!(
            reply.status == StatusCode::FORBIDDEN && reason == "mtls_required",
            "answered {} with reason {reason}",
            reply.status
        );
        ensure!(!reply.headers.contains_key("x-app"), "the app answered");
    }
    Ok("403, x-ringmail-reason: mtls_required, over IPv4 and IPv6".to_owned())
}

pub(super) fn self_signed_is_refused(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let refused = |stage: &Stage<'_>| {
        let metrics = stage.cart.sidecar.metrics(stage.node)?;
        let labels = [("direction", "inbound"), ("result", "peer_identity")];
        anyhow::Ok(sum(&metrics, "ringmail_handshakes_total", &labels))
    };
    let before = refused(stage)?;
    let name = stage.front.spiffe_id();
    let address = SocketAddr::new(stage.cart.pod.v4.into(), PEER_PORT);
    let mut tries = 0;
    for (what, shown) in [
        (format!("self-signed {name}"), Some(name)),
        ("no certificate".to_owned(), None),
    ] {
        let config = Arc::new(client(shown)?);
        let ended = stage.intruder.namespace.run(|| dial(address, config))??;
        stage
            .teller
            .say(format_args!("TLS to {address}, {what} -> {ended}"));
        tries += 1;
    }
    let counted = || refused(stage).is_ok_and(|now| now >= before + tries);
    stage
        .interrupt
        .until(LIMIT, counted)
        .context("cart's proxy did not count the refusals")?;
    Ok(format!(
        "{tries} of {tries} handshakes refused; cart's proxy counts result=\"peer_identity\""
    ))
}

/// Shakes hands and speaks; how the other side ended it. An error if it did not.
fn dial(address: SocketAddr, config: Arc<ClientConfig>) -> anyhow::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, LIMIT)?;
    socket.set_read_timeout(Some(LIMIT))?;
    let mut tls = ClientConnection::new(config, ServerName::try_from("cart")?)?;
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    // In TLS 1.3 a client is done before the server has judged it: the verdict is what is read.
    let spoken = stream
        .write_all(b"let me in")
        .and_then(|()| stream.read(&mut [0; 1]));
    match spoken {
        Ok(0) => Ok("closed".to_owned()),
        Ok(_) => bail!("the proxy answered the intruder"),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("the proxy kept the intruder's connection")
        }
        Err(error) => Ok(error.to_string()),
    }
}

/// A client that trusts everybody, with a certificate of its own making if it is to have a name.
fn client(name: Option<String>) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustsEverybody));
    let mut config = match name {
        Some(name) => {
            // All that a good one has, but for who signed it.
            let mut made = CertificateParams::default();
            made.distinguished_name = DistinguishedName::new();
            made.subject_alt_names = vec![SanType::URI(name.try_into()?)];
            made.is_ca = IsCa::ExplicitNoCa;
            made.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            made.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ];
            let key = KeyPair::generate()?;
            let certificate = made.self_signed(&key)?.der().clone();
            let key = PrivateKeyDer::try_from(key.serialize_der());
            let key = key.map_err(|error| anyhow::anyhow!("{error}"))?;
            builder.with_client_auth_cert(vec![certificate], key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"ringmail/1".to_vec()];
    Ok(config)
}

/// The intruder has nothing to lose.
#[derive(Debug)]
struct TrustsEverybody;

impl ServerCertVerifier for TrustsEverybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
