//! One simulated proxy: the stream of configuration, with the backoff of a real one. What it is told is acknowledged and
//! thrown away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use ringmail_proto::pb;
use ringmail_proto::pb::certify_request::Credential;
use ringmail_proto::pb::discovery_service_client::DiscoveryServiceClient;
use ringmail_proto::pb::resource::Resource;
use ringmail_proto::pb::watch_request::Request as Message;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

use crate::dial::{Controller, Identity, Pod, certify, connect, origin};

/// Between attempts to reach the controller, as a proxy does it.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// What a proxy was told about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// The Service that it calls.
    Destination,
    /// Who may do what with its own app.
    Authorization,
}

/// A proxy was told something.
pub(crate) struct Told {
    pub(crate) about: About,
    /// A whole picture, as after each connection, or a change of it.
    pub(crate) is_full: bool,
    pub(crate) at: Instant,
}

/// Gets a certificate with `token`, then follows `service` for ever, over as many connections as it takes.
pub(crate) async fn run(
    controller: Arc<Controller>,
    number: usize,
    token: String,
    service: &'static str,
    told: mpsc::Sender<Told>,
) {
    let mut wait = BACKOFF_MIN;
    let pod = Pod::new(number);
    let identity = loop {
        match certify(&controller, &pod, Credential::Jwt(token.clone())).await {
            Ok(identity) => break identity,
            Err(_) => backoff(&mut wait).await,
        }
    };
    wait = BACKOFF_MIN;
    loop {
        // It never ends but by a failure.
        let _ = watch(&controller, &identity, &pod, service, &told, &mut wait).await;
        backoff(&mut wait).await;
    }
}

async fn backoff(wait: &mut Duration) {
    sleep(wait.mul_f64(rand::random_range(0.0..1.0))).await;
    *wait = (*wait * 2).min(BACKOFF_MAX);
}

async fn watch(
    controller: &Controller,
    identity: &Identity,
    pod: &Pod,
    service: &str,
    told: &mpsc::Sender<Told>,
    wait: &mut Duration,
) -> anyhow::Result<()> {
    let channel = connect(controller, pod, Some(identity)).await?;
    let (requests, outbound) = mpsc::channel(8);
    let say = |message| {
        requests.send(pb::WatchRequest {
            request: Some(message),
        })
    };
    let mut responses = DiscoveryServiceClient::with_origin(channel, origin())
        .watch(ReceiverStream::new(outbound))
        .await?
        .into_inner();
    say(Message::Hello(pb::Hello {
        workload: Some(pod.workload()),
        proxy_version: env!("CARGO_PKG_VERSION").into(),
    }))
    .await?;
    say(Message::Subscribe(pb::Subscription {
        destinations: vec![service.to_owned()],
    }))
    .await?;
    while let Some(response) = responses.message().await? {
        let at = Instant::now();
        *wait = BACKOFF_MIN;
        let about = response
            .resources
            .iter()
            .filter_map(|one| match one.resource {
                Some(Resource::Destination(_)) => Some(About::Destination),
                Some(Resource::Authorization(_)) => Some(About::Authorization),
                _ => None,
            });
        let about: Vec<_> = about.collect();
        say(Message::Ack(pb::Ack {
            nonce: response.nonce,
        }))
        .await?;
        for about in about {
            let is_full = response.full;
            told.send(Told { about, is_full, at }).await?;
        }
    }
    bail!("the controller ended the stream")
}
