//! Talking to the controller: our certificate, and what it tells us. Runs on a thread of its own; the data path only
//! reads the snapshots this makes. Limits: [`BACKOFF_MAX`] between attempts, [`CALL_TIMEOUT`].

/// A gRPC channel to the controller over our own TLS.
mod channel;

/// Our certificate: the first, and its successors.
mod certify;

/// The stream of configuration.
mod watch;

/// The stream of leases.
mod lease;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::config::Config;
use crate::error::Error;
use crate::limits::buckets::{Buckets, Key};
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

/// Between attempts to reach the controller.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// For one name of the controller while there is another, which has its time within a call's.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// For one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What both tasks need.
#[derive(Debug)]
struct Control {
    config: Arc<Config>,
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    /// The controller does not take our certificate: another is needed before its time.
    refused: Notify,
}

/// Keeps us certified and informed for as long as the process lives.
pub(crate) async fn run(
    config: Arc<Config>,
    snapshot: Arc<Snapshot>,
    metrics: Arc<Metrics>,
    wanted: mpsc::Receiver<std::net::SocketAddr>,
    (buckets, news): (Arc<Buckets>, mpsc::Receiver<Arc<Key>>),
) {
    let control = Control {
        config,
        snapshot,
        metrics,
        refused: Notify::new(),
    };
    tokio::join!(
        certify::run(&control),
        watch::run(&control, wanted),
        lease::run(&control, &buckets, news)
    );
}

/// Exponential, with full jitter: a fleet that lost its controller does not come back all at once.
#[derive(Debug)]
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(BACKOFF_MIN)
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.0.mul_f64(rand::random_range(0.0..1.0))).await;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
    }
}

/// Whether a call failed as one does when the caller's certificate is not taken: by a status that says so; or, since TLS
/// 1.3 tells a client after its handshake, by a connection that stood and broke.
fn is_refusal(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    let status = source.and_then(|source| source.downcast_ref::<tonic::Status>());
    status.is_some_and(|status| {
        let is_said = matches!(
            status.code(),
            tonic::Code::Unauthenticated | tonic::Code::PermissionDenied
        );
        // What the controller answers has no source.
        is_said || std::error::Error::source(status).is_some()
    })
}

/// TCP to the controller, or to whoever else is named, tried at each address that each of its names has.
pub(crate) async fn dial(names: &[String], mark: Option<u32>) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for (index, name) in names.iter().enumerate() {
        let is_last = index + 1 == names.len();
        let limit = if is_last { CALL_TIMEOUT } else { DIAL_TIMEOUT };
        match timeout(limit, dial_one(name, mark)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}

async fn dial_one(name: &str, mark: Option<u32>) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host(name).await? {
        match crate::listen::connect(address, crate::listen::Party::Mesh, mark).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_controller_is_found_at_its_second_address() {
        let there = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = |one: &std::net::TcpListener| one.local_addr().expect("bound").to_string();
        let (there_at, gone_at) = (at(&there), at(&gone));
        drop(gone);
        let rows = [
            (vec![there_at.clone()], true),
            (vec![gone_at.clone(), there_at.clone()], true),
            (vec!["nowhere.invalid:1".to_owned(), there_at], true),
            (vec![gone_at], false),
        ];
        for (addresses, wanted) in rows {
            let found = dial(&addresses, None).await;
            assert_eq!(found.is_ok(), wanted, "{addresses:?}: {found:?}");
        }
    }
}
