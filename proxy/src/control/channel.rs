//! A gRPC channel to the controller over our own TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::tls::{ALPN_H2, client_config};
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
        let config = match (show, self.snapshot.last_identity()) {
            (Show::Certificate, Some(ourselves)) => {
                ourselves.client(self.config.controller_identity.clone(), ALPN_H2)?
            }
            (Show::Nothing, Some(ourselves)) => self.anonymous(ourselves.bundle().clone())?,
            (_, None) => self.anonymous(Arc::new(self.bootstrap_bundle()?))?,
        };
        let connector = TlsConnector::from(config);
        let target = self.config.clone();
        let connect = tower::service_fn(move |_| {
            let (connector, target) = (connector.clone(), target.clone());
            async move {
                let socket = dial(&target).await?;
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

    fn anonymous(&self, bundle: Arc<TrustBundle>) -> Result<Arc<rustls::ClientConfig>, Error> {
        client_config(
            bundle,
            self.config.controller_identity.clone(),
            None,
            ALPN_H2,
        )
        .map(Arc::new)
        .map_err(|error| Reason::Internal.because(error))
    }

    /// The roots we were installed with.
    fn bootstrap_bundle(&self) -> Result<TrustBundle, Error> {
        let unreadable = |error| Reason::NotReady.because(error);
        let roots =
            CertificateDer::pem_file_iter(&self.config.bootstrap_roots).map_err(unreadable)?;
        let roots = roots.collect::<Result<_, _>>().map_err(unreadable)?;
        TrustBundle::single(self.config.trust_domain.clone(), roots)
            .map_err(|error| Reason::NotReady.because(error))
    }
}
