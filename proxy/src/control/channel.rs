//! A gRPC channel to the controller over our own TLS.
//!
//! Whom we believe to be the controller: whoever the streamed bundle vouches for, and whoever the roots vouch for that we
//! were installed with, as their file is now. Somebody keeps that file up to date when the mesh got another root while we
//! were away, and the stream cannot say so any more. Peers are never verified by it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ringmail_proto::bundle::{ROOTS_MAX, TrustBundle};
use ringmail_proto::tls::{ALPN_H2, client_config};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::{CALL_TIMEOUT, Control, dial};
use crate::error::{Error, Reason};

/// A controller that does not answer pings is gone.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// The name in requests; the connection's identity is what counts.
const AUTHORITY: &str = "http://ringmail-controller";

/// Whether the caller can show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    /// It has none, or it is over: the call carries a credential.
    Nothing,
    /// The current one.
    Certificate,
}

impl Control {
    /// Connects to one controller replica, which must prove the controller's identity.
    pub(super) async fn channel(&self, show: Show) -> Result<Channel, Error> {
        let config = self.client_config(show)?;
        let connector = TlsConnector::from(config);
        let target = self.config.clone();
        let connect = tower::service_fn(move |_| {
            let (connector, target) = (connector.clone(), target.clone());
            async move {
                let socket = dial(&target.controller_addresses, target.socket_mark).await?;
                let name = ServerName::IpAddress(socket.peer_addr()?.ip().into());
                let stream: TlsStream<_> = connector.connect(name, socket).await?;
                io::Result::Ok(TokioIo::new(stream))
            }
        });
        Endpoint::from_static(AUTHORITY)
            .connect_timeout(CALL_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector(connect)
            .await
            .map_err(|error| Reason::UnknownDestination.because(error))
    }

    fn client_config(&self, show: Show) -> Result<Arc<ClientConfig>, Error> {
        let ourselves = self.snapshot.last_identity();
        let bundle = match (&ourselves, self.bootstrap_bundle()) {
            (None, installed) => installed?,
            (Some(ourselves), Ok(installed)) => self.either(ourselves.bundle(), &installed)?,
            (Some(ourselves), Err(error)) => {
                tracing::debug!(?error, "the roots we were installed with cannot be read");
                (**ourselves.bundle()).clone()
            }
        };
        let expected = self.config.controller_identity.clone();
        let shown = ourselves.filter(|_| show == Show::Certificate);
        let shown = shown.map(|ourselves| ourselves.certified_key().clone());
        client_config(Arc::new(bundle), expected, shown, ALPN_H2)
            .map(Arc::new)
            .map_err(|error| Reason::Internal.because(error))
    }

    /// The roots of both for our own trust domain. Should they be too many, the last of those streamed are left out.
    fn either(
        &self,
        streamed: &TrustBundle,
        installed: &TrustBundle,
    ) -> Result<TrustBundle, Error> {
        let domain = &self.config.trust_domain;
        let mut roots = installed.certificates(domain).to_vec();
        for root in streamed.certificates(domain) {
            if !roots.contains(root) && roots.len() < ROOTS_MAX {
                roots.push(root.clone());
            }
        }
        TrustBundle::single(domain.clone(), roots).map_err(|error| Reason::NotReady.because(error))
    }

    /// The roots we were installed with, as their file is now.
    fn bootstrap_bundle(&self) -> Result<TrustBundle, Error> {
        let unreadable = |error| Reason::NotReady.because(error);
        let roots =
            CertificateDer::pem_file_iter(&self.config.bootstrap_roots).map_err(unreadable)?;
        let roots = roots.collect::<Result<_, _>>().map_err(unreadable)?;
        TrustBundle::single(self.config.trust_domain.clone(), roots)
            .map_err(|error| Reason::NotReady.because(error))
    }
}
