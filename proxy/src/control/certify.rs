//! Our certificate: the first, by a credential, and its successors, by their predecessors and, where there is one, by a
//! token as it is now, which says that our pod is still there. A new key each time; renewed at half its life give or take
//! a tenth; a failure keeps the valid one. Where the predecessor is refused, the credential alone proves us again: the
//! mesh may have got another root while we were away.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use ringmail_proto::pb;
use ringmail_proto::pb::certificate_service_client::CertificateServiceClient;
use ringmail_proto::pb::certify_request::Credential as WireCredential;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::timeout;

use super::channel::Show;
use super::{Backoff, CALL_TIMEOUT, Control, is_refusal};
use crate::config::Credential;
use crate::error::{Error, Reason};
use crate::tls::identity::{Identity, unix_now};

/// Part of its life after which a certificate is renewed.
const RENEW_AT: std::ops::Range<f64> = 0.4..0.6;

/// Keeps our certificate fresh for as long as the process lives.
pub(super) async fn run(control: &Control) {
    let mut backoff = Backoff::new();
    let mut by = Show::Certificate;
    loop {
        let certified = timeout(CALL_TIMEOUT, certify(control, by)).await;
        let tried = std::mem::replace(&mut by, Show::Certificate);
        match certified {
            Ok(Ok(valid_for)) => {
                backoff = Backoff::new();
                control.metrics.renewed("ok");
                // By the monotonic clock: a step of the wall clock makes no busy loop.
                let wait = valid_for.mul_f64(rand::random_range(RENEW_AT));
                if timeout(wait, control.refused.notified()).await.is_ok() {
                    tracing::warn!(
                        "the controller does not take our certificate; asking for another"
                    );
                    by = Show::Nothing;
                }
            }
            Ok(Err(error)) => {
                if tried == Show::Certificate && is_refusal(&error) {
                    by = Show::Nothing;
                }
                control.metrics.renewed("failed");
                tracing::warn!(?error, "no certificate from the controller");
                backoff.wait().await;
            }
            Err(_) => {
                control.metrics.renewed("timeout");
                tracing::warn!("the controller did not answer in time");
                backoff.wait().await;
            }
        }
    }
}

/// Gets one certificate and puts it in force, by the one before while that lasts, unless told to show none. Returns how
/// long it is valid.
async fn certify(control: &Control, by: Show) -> Result<Duration, Error> {
    let current = control.snapshot.last_identity();
    let renewable = current
        .as_ref()
        .is_some_and(|current| current.check_lifetime().is_ok());
    let (show, credential) = match by {
        Show::Certificate if renewable => (Show::Certificate, beside(&control.config.credential)),
        Show::Certificate | Show::Nothing => {
            (Show::Nothing, Some(credential(&control.config.credential)?))
        }
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|error| Reason::Internal.because(error))?;
    let request = CertificateParams::default().serialize_request(&key);
    let request = request.map_err(|error| Reason::Internal.because(error))?;
    let mut client = CertificateServiceClient::new(control.channel(show).await?);
    let answer = client
        .certify(pb::CertifyRequest {
            certificate_signing_request: request.der().to_vec(),
            workload: Some((&control.config.workload).into()),
            credential,
        })
        .await
        .map_err(|status| Reason::NotReady.because(status))?
        .into_inner();
    let bundle = answer.trust_bundle.unwrap_or_default().try_into();
    let bundle =
        Arc::new(bundle.map_err(|error: ringmail_proto::Invalid| Reason::NotReady.because(error))?);
    let signer = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = any_ecdsa_type(&signer).map_err(|error| Reason::Internal.because(error))?;
    let chain = answer
        .certificate_chain
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    // The stream may have brought a newer bundle while we waited: that one stays.
    let latest = control.snapshot.last_identity();
    let newer = latest.as_ref().filter(|latest| {
        current
            .as_ref()
            .is_none_or(|current| latest.generation > current.generation)
    });
    let bundle = newer.map_or(bundle, |latest| latest.bundle().clone());
    let generation = latest.as_ref().map_or(1, |latest| latest.generation + 1);
    let identity = Identity::new(chain, signer, bundle, generation)?;
    tracing::info!(identity = %identity.svid.id, serial = identity.svid.serial, "certificate in force");
    control.metrics.identified(identity.svid.id.as_str());
    // Its own beginning is back-dated.
    control.metrics.certificate_issued.set(unix_now());
    let expiry = &control.metrics.certificate_expiry;
    expiry.set(identity.svid.not_after);
    control.snapshot.put_identity(identity);
    Ok(Duration::from_secs(answer.valid_for_seconds.into()))
}

/// What is shown beside a certificate: a join token is used up, and a file that cannot be read proves nothing.
fn beside(config: &Credential) -> Option<WireCredential> {
    match config {
        Credential::JoinToken(_) => None,
        Credential::Jwt(_) => credential(config)
            .inspect_err(|error| tracing::warn!(?error, "renewing without the token"))
            .ok(),
    }
}

fn credential(credential: &Credential) -> Result<WireCredential, Error> {
    let read = |path: &std::path::Path| match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(Reason::NotReady.because(format!("{}: {error}", path.display()))),
    };
    Ok(match credential {
        Credential::JoinToken(path) => WireCredential::JoinToken(read(path)?),
        Credential::Jwt(path) => WireCredential::Jwt(read(path)?),
    })
}
