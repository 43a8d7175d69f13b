//! The stream of configuration: we say what our app calls, the controller says what is behind it, then what changes.
//!
//! Each resource of a response is checked before it is put in force; one that does not pass is refused with its reason, and
//! what was in force in its place stays. A policy that this version cannot act on is in force as a denial, and refused all
//! the same. Limits: [`REQUESTS_MAX`] requests on their way, [`RESPONSE_BYTES_MAX`] a response.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::bundle::TrustBundle;
use ringmail_proto::destination::{BYTES_MAX, Destination, destination_name};
use ringmail_proto::limit::denied_name;
use ringmail_proto::pb::discovery_service_client::DiscoveryServiceClient;
use ringmail_proto::pb::resource::Resource;
use ringmail_proto::pb::watch_request::Request;
use ringmail_proto::policy::{Action, Authorization, Authorizer, DENIED_MAX, authentication};
use ringmail_proto::revocation::Revocations;
use ringmail_proto::version::Version;
use ringmail_proto::workload::Workload;
use ringmail_proto::{Invalid, pb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::channel::Show;
use super::{BACKOFF_MAX, Backoff, Control, is_refusal};
use crate::error::{Error, Reason};
use crate::snapshot::Authorized;
use crate::tls::identity::unix_now;

/// Requests on their way to the controller.
const REQUESTS_MAX: usize = 256;
/// Bytes of a response: the controller ends one at 1 MiB, and its last destination may be as large as any.
const RESPONSE_BYTES_MAX: usize = BYTES_MAX + 4 * 1024 * 1024;
/// Names in one subscription.
const NAMES_MAX: usize = 500;
/// Addresses asked for and not answered; beyond, look-ups time out.
const ASKED_MAX: usize = 1024;
/// Streams in a row that our certificate was refused, until another is asked for.
const REFUSALS_MAX: u32 = 3;
/// Characters of a policy's reason, as the controller is told.
const REASON_CHARS_MAX: usize = 256;
/// How often a live stream is noted: its pings say that the controller is there.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);

/// Stays subscribed for as long as the process lives.
pub(super) async fn run(control: &Control, mut wanted: mpsc::Receiver<SocketAddr>) {
    let mut backoff = Backoff::new();
    let mut changes = control.snapshot.changes();
    let mut asked = BTreeSet::new();
    let mut refusals = 0;
    loop {
        while control.snapshot.identity().is_err() {
            // Only this process' end stops the changes.
            let _ = changes.changed().await;
        }
        let begun = Instant::now();
        let mut version = None;
        let ended = watch(control, &mut wanted, &mut asked, &mut version).await;
        control.metrics.control_connected.set(0);
        let is_refused = version.is_none() && ended.as_ref().is_err_and(is_refusal);
        refusals = if is_refused { refusals + 1 } else { 0 };
        if refusals == REFUSALS_MAX {
            refusals = 0;
            control.refused.notify_one();
        }
        // A stream that ends as soon as it begins is no reason to hurry.
        if begun.elapsed() > BACKOFF_MAX {
            backoff = Backoff::new();
        }
        tracing::warn!(error = ?ended, "configuration stream ended; what was learnt stays in force");
        backoff.wait().await;
    }
}

/// One stream, to its end. `asked` are the addresses that were asked for and not answered yet; `version` is what the
/// stream has led to.
async fn watch(
    control: &Control,
    wanted: &mut mpsc::Receiver<SocketAddr>,
    asked: &mut BTreeSet<SocketAddr>,
    version: &mut Option<Version>,
) -> Result<(), Error> {
    let gone = |status: tonic::Status| Reason::UnknownDestination.because(status);
    let mut client = DiscoveryServiceClient::new(control.channel(Show::Certificate).await?)
        .max_decoding_message_size(RESPONSE_BYTES_MAX);
    let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
    let hello = pb::Hello {
        workload: Some((&control.config.workload).into()),
        proxy_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    send(&requests, Request::Hello(hello))?;
    let known = control.snapshot.known_addresses();
    let names: Vec<_> = known
        .iter()
        .chain(asked.iter())
        .map(|address| destination_name(*address))
        .collect();
    for names in names.chunks(NAMES_MAX) {
        send(&requests, Request::Subscribe(subscription(names.to_vec())))?;
    }
    let stream = client
        .watch(ReceiverStream::new(outgoing))
        .await
        .map_err(gone)?;
    let mut responses: Streaming<pb::WatchResponse> = stream.into_inner();
    let mut note = tokio::time::interval(NOTE_INTERVAL);
    loop {
        tokio::select! {
            response = responses.message() => {
                let response = response.map_err(gone)?.ok_or(Reason::UnknownDestination)?;
                control.metrics.control_connected.set(1);
                let (answer, forgotten) = control.receive(response, version);
                send(&requests, answer)?;
                if !forgotten.is_empty() {
                    let names = forgotten.iter().map(|address| destination_name(*address)).collect();
                    send(&requests, Request::Unsubscribe(subscription(names)))?;
                }
                asked.retain(|address| !control.snapshot.knows(*address));
            }
            Some(address) = wanted.recv() => {
                let is_new = asked.len() < ASKED_MAX && !control.snapshot.knows(address) && asked.insert(address);
                if is_new {
                    let name = destination_name(address);
                    send(&requests, Request::Subscribe(subscription(vec![name])))?;
                }
            }
            _ = note.tick() => if version.is_some() {
                control.metrics.control_heard.set(unix_now());
            }
        }
    }
}

fn subscription(destinations: Vec<String>) -> pb::Subscription {
    pb::Subscription { destinations }
}

/// A controller that does not take requests is as good as gone.
fn send(requests: &mpsc::Sender<pb::WatchRequest>, request: Request) -> Result<(), Error> {
    let request = pb::WatchRequest {
        request: Some(request),
    };
    requests
        .try_send(request)
        .map_err(|error| Reason::UnknownDestination.because(error))
}

/// One response, checked.
#[derive(Debug, Default)]
struct Update {
    bundle: Option<TrustBundle>,
    workload: Option<Workload>,
    authorization: Option<Authorization>,
    revocations: Option<Revocations>,
    destinations: Vec<Destination>,
    /// The first that was not understood: what is in force under its name stays.
    refused: Option<Invalid>,
}

/// What came of it.
#[derive(Debug)]
struct Applied {
    /// Addresses that had to make room.
    forgotten: Vec<SocketAddr>,
    /// Policies that are in force only as a denial.
    denied: Vec<pb::DeniedPolicy>,
    refused: Option<Invalid>,
}

impl Control {
    /// Puts a response in force, as far as it is understood. Says also which addresses were forgotten to make room.
    fn receive(
        &self,
        response: pb::WatchResponse,
        version: &mut Option<Version>,
    ) -> (Request, Vec<SocketAddr>) {
        let nonce = response.nonce.clone();
        let received = check(response, *version)
            .and_then(|(update, next)| Ok((self.apply(update, next)?, next)));
        let (forgotten, refused, denied) = match received {
            Ok((applied, next)) => {
                *version = Some(next);
                let refused = applied.refused.map(|invalid| invalid.to_string());
                let first = applied.denied.first();
                let denied = first.map(|one| format!("policy {}: {}", one.name, one.reason));
                (applied.forgotten, refused.or(denied), applied.denied)
            }
            Err(invalid) => (Vec::new(), Some(invalid.to_string()), Vec::new()),
        };
        let answer = match refused {
            None => {
                self.metrics.updated("ack");
                Request::Ack(pb::Ack { nonce })
            }
            Some(reason) => {
                tracing::error!(reason, "configuration refused; what was in force stays");
                self.metrics.updated("nack");
                Request::Nack(pb::Nack {
                    nonce,
                    reason,
                    denied,
                })
            }
        };
        (answer, forgotten)
    }

    fn apply(&self, update: Update, version: Version) -> Result<Applied, Invalid> {
        if let Some(workload) = &update.workload
            && workload.name != self.config.workload
        {
            return Err(Invalid::new(
                "workload",
                format!("is {}, not us", workload.name),
            ));
        }
        let mut refused = update.refused;
        if let Some(bundle) = update.bundle
            && let Err(invalid) = self.apply_bundle(bundle)
        {
            refused.get_or_insert(invalid);
        }
        if let Some(workload) = update.workload {
            self.snapshot.put_workload(workload);
        }
        if let Some(revocations) = update.revocations {
            self.snapshot.put_revocations(revocations);
        }
        let denied = update
            .authorization
            .map(|authorization| self.apply_authorization(authorization, version))
            .unwrap_or_default();
        let forgotten = match update.destinations.is_empty() {
            true => Vec::new(),
            false => self.snapshot.put_destinations(update.destinations),
        };
        Ok(Applied {
            forgotten,
            denied,
            refused,
        })
    }

    /// Puts all policies in force. Those that this version cannot act on deny what they are for; the controller learns
    /// of the first `DENIED_MAX`.
    fn apply_authorization(
        &self,
        mut authorization: Authorization,
        version: Version,
    ) -> Vec<pb::DeniedPolicy> {
        let mut authentications = std::mem::take(&mut authorization.authentications);
        if let Some(before) = self.snapshot.authorization() {
            authentication::keep_keys(&mut authentications, &before.authentications);
        }
        let limits = std::mem::take(&mut authorization.limits);
        let authorizer = Authorizer::new(authorization);
        let told = |name: String, invalid: &Invalid| pb::DeniedPolicy {
            name,
            reason: invalid.to_string().chars().take(REASON_CHARS_MAX).collect(),
        };
        let policies = authorizer.policies().iter().filter_map(|policy| {
            let invalid = policy.rules.as_ref().err()?;
            Some(told(policy.name.to_string(), invalid))
        });
        let authentications_denied = authentications.iter().filter_map(|one| {
            let invalid = one.issuers.as_ref().err()?;
            Some(told(authentication::denied_name(&one.name), invalid))
        });
        let limits_denied = limits.iter().filter_map(|limit| {
            let invalid = limit.terms.as_ref().err()?;
            Some(told(denied_name(&limit.name), invalid))
        });
        let denied = policies.chain(authentications_denied).chain(limits_denied);
        let denied: Vec<_> = denied.take(DENIED_MAX).collect();
        for one in &denied {
            let (policy, reason) = (&one.name, &one.reason);
            tracing::error!(%policy, %reason, "it cannot be acted on and denies what it is for");
        }
        for policy in authorizer.policies() {
            if let Action::External(external) = &policy.action
                && let Some(address) = external.address
            {
                self.snapshot.expect(address);
            }
        }
        self.snapshot.put_authorization(Authorized {
            authorizer,
            authentications,
            limits,
            version,
        });
        denied
    }

    fn apply_bundle(&self, bundle: TrustBundle) -> Result<(), Invalid> {
        let Some(current) = self.snapshot.last_identity() else {
            return Ok(());
        };
        if bundle.certificates(&self.config.trust_domain).is_empty() {
            return Err(Invalid::new(
                "trust_bundle",
                "has no root for our own trust domain",
            ));
        }
        if **current.bundle() != bundle {
            let identity = current.with_bundle(Arc::new(bundle));
            self.snapshot
                .put_identity(identity.map_err(|error| Invalid::new("trust_bundle", error))?);
        }
        Ok(())
    }
}

/// A response as checked types, and the version it leads to.
fn check(
    response: pb::WatchResponse,
    current: Option<Version>,
) -> Result<(Update, Version), Invalid> {
    let next = Version::try_from(response.version)?;
    let in_order = response.full || current.is_some_and(|current| current.admits_delta(next));
    if !in_order {
        return Err(Invalid::new(
            "version",
            format!("{next} does not follow what is in force"),
        ));
    }
    let mut update = Update::default();
    for resource in response.resources {
        // One that is not understood holds up no other: what it came with may be a policy.
        if let Err(invalid) = update.take(resource.resource) {
            update.refused.get_or_insert(invalid);
        }
    }
    Ok((update, next))
}

impl Update {
    fn take(&mut self, resource: Option<Resource>) -> Result<(), Invalid> {
        let inside = |name: &'static str| move |invalid: Invalid| invalid.inside(name);
        match resource {
            Some(Resource::TrustBundle(wire)) => {
                self.bundle = Some(wire.try_into().map_err(inside("trust_bundle"))?);
            }
            Some(Resource::Workload(wire)) => {
                self.workload = Some(wire.try_into().map_err(inside("workload"))?);
            }
            Some(Resource::Revocations(wire)) => {
                self.revocations = Some(wire.try_into().map_err(inside("revocations"))?);
            }
            Some(Resource::Authorization(wire)) => {
                self.authorization = Some(wire.try_into().map_err(inside("authorization"))?);
            }
            Some(Resource::Destination(wire)) => {
                let name = format!("destination {}", wire.name);
                let checked = wire.try_into().map_err(|e: Invalid| e.inside(&name));
                self.destinations.push(checked?);
            }
            None => {
                let problem = "is of a kind this version does not know";
                return Err(Invalid::new("resource", problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(full: bool, sequence: u64, resource: Option<Resource>) -> pb::WatchResponse {
        pb::WatchResponse {
            nonce: "n".to_owned(),
            version: Some(pb::Version { epoch: 7, sequence }),
            full,
            resources: vec![pb::Resource { resource }],
        }
    }

    fn external(name: &str) -> Option<Resource> {
        use pb::destination::Kind;
        let kind = Some(Kind::External(pb::External {}));
        Some(Resource::Destination(pb::Destination {
            name: name.to_owned(),
            kind,
        }))
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_field() {
        let at = Some(Version {
            epoch: 7,
            sequence: 5,
        });
        let refused = |response, current| match check(response, current) {
            Ok((update, _)) => update.refused.map(|invalid| invalid.field),
            Err(invalid) => Some(invalid.field),
        };
        assert_eq!(
            refused(response(true, 1, external("10.0.0.1:80")), None),
            None
        );
        assert_eq!(
            refused(response(false, 6, external("10.0.0.1:80")), at),
            None
        );
        assert_eq!(
            refused(response(false, 4, external("10.0.0.1:80")), at).as_deref(),
            Some("version")
        );
        assert_eq!(
            refused(response(false, 6, external("10.0.0.1:80")), None).as_deref(),
            Some("version")
        );
        assert_eq!(
            refused(response(true, 1, None), None).as_deref(),
            Some("resource")
        );
        assert_eq!(
            refused(response(true, 1, external("cart:80")), None).as_deref(),
            Some("destination cart:80.name")
        );
        let mut no_epoch = response(true, 1, external("10.0.0.1:80"));
        no_epoch.version = Some(pb::Version {
            epoch: 0,
            sequence: 1,
        });
        assert_eq!(refused(no_epoch, None).as_deref(), Some("version.epoch"));
    }

    #[test]
    fn what_is_not_understood_holds_up_nothing_else() {
        let mut mixed = response(true, 1, None);
        mixed.resources.extend(
            [
                external("cart:80"),
                external("10.0.0.1:80"),
                Some(Resource::Revocations(pb::Revocations::default())),
                Some(Resource::Authorization(pb::Authorization {
                    posture: pb::Posture::Deny.into(),
                    ..pb::Authorization::default()
                })),
            ]
            .map(|resource| pb::Resource { resource }),
        );
        let (update, _) = check(mixed, None).expect("a response");
        assert_eq!(
            update.refused.map(|invalid| invalid.field).as_deref(),
            Some("resource")
        );
        assert_eq!(update.destinations.len(), 1);
        assert!(update.revocations.is_some() && update.authorization.is_some());
    }
}
