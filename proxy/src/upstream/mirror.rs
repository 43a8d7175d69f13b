//! Copies of requests for services that are to see them too (Gateway API, `HTTPRequestMirrorFilter`). Nobody waits for
//! their answers, and nothing about them changes what the client gets.
//!
//! A copy goes out when the request itself is answered; one whose body was not over by then, or is larger than a
//! stream's record, is not made. Limits: [`COPIES_MAX`] under way on one worker, each for [`COPY_TIMEOUT`].

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::destination::{Destination, DestinationKind, Service};
use ringmail_proto::route::{MILLION, Mirror};
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::call;
use super::health::Cause;
use super::services::Target;
use crate::error::{Error, Reason};
use crate::peer::record::Record;
use crate::peer::stream::{Reader, Stream};
use crate::worker::Worker;

/// Copies under way on one worker.
const COPIES_MAX: usize = 256;
/// For a copy to be answered.
const COPY_TIMEOUT: Duration = Duration::from_secs(30);

/// How many copies are under way.
#[derive(Debug, Default)]
pub(crate) struct Mirroring {
    under_way: Rc<Cell<usize>>,
}

/// A copy under way. Dropping it ends that.
struct UnderWay(Rc<Cell<usize>>);

impl UnderWay {
    fn begin(count: Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Sends what was recorded of a request to the share of mirrors that is its due.
pub(super) fn send(
    worker: &Rc<Worker>,
    source: IpAddr,
    destination: &Arc<Destination>,
    mirrors: &[Mirror],
    record: Option<Record>,
) {
    let DestinationKind::Service(Service { backends, .. }) = &destination.kind else {
        return;
    };
    let is_due = |mirror: &&Mirror| worker.services.roll_u32() % MILLION < mirror.parts_per_million;
    for mirror in mirrors.iter().filter(is_due) {
        let Some(service) = backends.get(mirror.backend).cloned() else {
            continue;
        };
        let under_way = worker.mirroring.under_way.clone();
        let copy = record.as_ref().filter(|record| record.is_whole());
        let Some(copy) = copy.filter(|_| under_way.get() < COPIES_MAX) else {
            worker.metrics.mirrored("skipped");
            continue;
        };
        let (worker, destination, copy) = (worker.clone(), destination.clone(), copy.copy());
        let under_way = UnderWay::begin(under_way);
        spawn_local(async move {
            let _under_way = under_way;
            let target = Target {
                destination: &destination,
                service: &service,
            };
            let sent = timeout(COPY_TIMEOUT, exchange(&worker, source, target, copy)).await;
            let result = if matches!(sent, Ok(Ok(()))) {
                "sent"
            } else {
                "failed"
            };
            worker.metrics.mirrored(result);
        });
    }
}

/// The copy and its answer, of which nothing is kept.
async fn exchange(
    worker: &Rc<Worker>,
    source: IpAddr,
    target: Target<'_>,
    copy: Record,
) -> Result<(), Error> {
    let Worker {
        services,
        snapshot,
        peers,
        ..
    } = &**worker;
    let service = services.resolve(target, source, snapshot, peers);
    let tried = RefCell::default();
    let (current, streams) = call::begin(worker, &service, &tried, Instant::now()).await?;
    let stream = Stream::repeated(copy);
    stream.place(&streams, current.endpoint().port)?;
    let outcome = discard(&stream).await;
    match outcome {
        Ok(()) => current.closed(&worker.metrics),
        Err(reason) => current.failed(Cause::Broken, reason, &worker.metrics, Instant::now()),
    }
    Ok(outcome?)
}

/// Reads the answer to its end.
async fn discard(stream: &Stream) -> Result<(), Reason> {
    let mut reader = Reader::default();
    while !reader.is_ended() {
        stream.receive(&mut reader).await?;
    }
    Ok(())
}
