//! Sending spans, and lines of the audit where that is wanted, to a collector: OTLP over gRPC, in plaintext and as the pod's own
//! traffic. Runs beside control, where nobody waits for it.
//!
//! Limits: what is gathered for [`GATHER`], or [`AT_ONCE`] of it, goes in one call; each has [`CALL_TIMEOUT`] and
//! [`TRIES_MAX`] tries. What is given up, and what finds no room meanwhile, is lost, and counted.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use ringmail_proto::otlp::collector::logs::v1::logs_service_client::LogsServiceClient;
use ringmail_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use ringmail_proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient;
use ringmail_proto::otlp::resource::v1::Resource;
use ringmail_proto::records::Collector;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::otlp::{self, Line};
use super::queue::{BATCHES_MAX, Batch};
use super::told::Told;
use crate::config::Config;
use crate::control::dial;
use crate::metrics::Counts;
use crate::snapshot::Snapshot;

/// How long what was told waits for more.
const GATHER: Duration = Duration::from_secs(1);
/// Spans or lines of one call.
const AT_ONCE: usize = 512;
/// For one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often one is tried.
const TRIES_MAX: u32 = 5;
/// Before the second try; twice as long before each later one.
const PAUSE: Duration = Duration::from_millis(200);
/// For what is there when the process ends to be sent.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// What is to be sent.
#[derive(Debug)]
pub(crate) enum Parcel<What> {
    Some(What),
    /// Who is told that all that came before was sent, or given up.
    Flush(oneshot::Sender<()>),
}

/// Where parcels are put.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) spans: mpsc::Sender<Parcel<Batch>>,
    pub(crate) lines: mpsc::Sender<Parcel<Vec<Line>>>,
}

/// Where they come out.
#[derive(Debug)]
pub(crate) struct Export {
    spans: mpsc::Receiver<Parcel<Batch>>,
    lines: mpsc::Receiver<Parcel<Vec<Line>>>,
}

/// A way to a collector.
pub(super) fn post() -> (Post, Export) {
    let (spans, to_spans) = mpsc::channel(BATCHES_MAX);
    let (lines, to_lines) = mpsc::channel(BATCHES_MAX);
    let export = Export {
        spans: to_spans,
        lines: to_lines,
    };
    (Post { spans, lines }, export)
}

impl Post {
    /// Waits until all is sent, for a moment.
    pub(super) async fn flush(&self) {
        let (one, sent_spans) = oneshot::channel();
        let (other, sent_lines) = oneshot::channel();
        let flushing = async {
            // Whether or not: the process ends.
            let _ = self.spans.send(Parcel::Flush(one)).await;
            let _ = self.lines.send(Parcel::Flush(other)).await;
            let _ = sent_spans.await;
            let _ = sent_lines.await;
        };
        let _ = timeout(LAST_CALLS, flushing).await;
    }
}

impl Export {
    /// For as long as the process lives.
    pub(crate) async fn run(self, config: Arc<Config>, snapshot: Arc<Snapshot>, counts: Counts) {
        let Some(collector) = config.records.collector.clone() else {
            return;
        };
        let Ok(channel) = channel(&collector, config.socket_mark) else {
            return tracing::error!(%collector, "cannot be the address of a collector");
        };
        let resource = otlp::resource(&config);
        let Self { spans, lines } = self;
        let spans = send_spans(spans, (channel.clone(), &resource), &snapshot, &counts);
        let lines = send_lines(lines, (channel, &resource), &counts);
        tokio::join!(spans, lines);
    }
}

async fn send_spans(
    mut from: mpsc::Receiver<Parcel<Batch>>,
    (channel, resource): (Channel, &Resource),
    snapshot: &Snapshot,
    counts: &Counts,
) {
    let client = TraceServiceClient::new(channel);
    let mut away = Away::default();
    while let Some((batches, _flushed)) = gather(&mut from, |batch| batch.len()).await {
        for request in requests(resource, &batches, snapshot) {
            let count = request.resource_spans[0].scope_spans[0].spans.len();
            let sent = insist(|| {
                let (mut client, request) = (client.clone(), request.clone());
                async move { client.export(request).await }
            });
            let rejected = sent.await.map(|answer| {
                let some = answer.partial_success.unwrap_or_default();
                some.rejected_spans
            });
            let lost = away.note(rejected, count);
            counts.spans_exported.add((count - lost) as u64);
            counts.spans_lost.add(lost as u64);
        }
    }
}

/// All spans of these batches, in as many calls as that takes.
fn requests(
    resource: &Resource,
    batches: &[Batch],
    snapshot: &Snapshot,
) -> Vec<ExportTraceServiceRequest> {
    let own = snapshot.last_identity();
    let own = own.as_ref().map(|own| own.svid.id.as_str());
    let told = batches.iter().flat_map(|batch| batch.iter());
    let told: Vec<_> = told.filter(|told| told.span().is_some()).collect();
    let one = |told: &[&Told]| otlp::spans(resource, told.iter().copied(), own);
    told.chunks(AT_ONCE).map(one).collect()
}

async fn send_lines(
    mut from: mpsc::Receiver<Parcel<Vec<Line>>>,
    (channel, resource): (Channel, &Resource),
    counts: &Counts,
) {
    let client = LogsServiceClient::new(channel);
    let mut away = Away::default();
    while let Some((batches, _flushed)) = gather(&mut from, Vec::len).await {
        let count = batches.iter().map(Vec::len).sum();
        if count == 0 {
            continue;
        }
        let request = otlp::lines(resource, batches.into_iter().flatten().collect());
        let sent = insist(|| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.export(request).await }
        });
        let rejected = sent.await.map(|answer| {
            let some = answer.partial_success.unwrap_or_default();
            some.rejected_log_records
        });
        let lost = away.note(rejected, count);
        counts.lines_exported.add((count - lost) as u64);
        counts.lines_lost.add(lost as u64);
    }
}

/// What comes within a while after the first of it, and who waits for it to be sent.
async fn gather<What>(
    from: &mut mpsc::Receiver<Parcel<What>>,
    size: impl Fn(&What) -> usize,
) -> Option<(Vec<What>, Option<oneshot::Sender<()>>)> {
    let mut all = Vec::new();
    let mut count = 0;
    let mut next = from.recv().await?;
    let until = Instant::now() + GATHER;
    loop {
        match next {
            Parcel::Some(what) => {
                count += size(&what);
                all.push(what);
            }
            Parcel::Flush(done) => return Some((all, Some(done))),
        }
        if count >= AT_ONCE {
            return Some((all, None));
        }
        next = match timeout_at(until, from.recv()).await {
            Ok(Some(parcel)) => parcel,
            Ok(None) | Err(_) => return Some((all, None)),
        };
    }
}

/// Calls until the collector takes it, or has said or shown often enough that it does not.
async fn insist<Answer, Calling>(mut call: impl FnMut() -> Calling) -> Result<Answer, Status>
where
    Calling: Future<Output = Result<Response<Answer>, Status>>,
{
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        let late = |_| Err(Status::deadline_exceeded("no answer in time"));
        let status = match timeout(CALL_TIMEOUT, call()).await.unwrap_or_else(late) {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        if tries == TRIES_MAX || !is_for_a_moment(status.code()) {
            return Err(status);
        }
        tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
        pause *= 2;
        tries += 1;
    }
}

/// What the protocol says may be sent again.
fn is_for_a_moment(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
    )
}

/// Whether a collector is away, to say so once.
#[derive(Debug, Default)]
struct Away(bool);

impl Away {
    /// How much of `count` was lost.
    fn note(&mut self, sent: Result<i64, Status>, count: usize) -> usize {
        let was_away = std::mem::replace(&mut self.0, sent.is_err());
        match sent {
            Ok(rejected) => {
                if was_away {
                    tracing::info!("the collector takes what it is sent again");
                }
                usize::try_from(rejected).unwrap_or(0).min(count)
            }
            Err(status) => {
                if !was_away {
                    tracing::warn!(code = ?status.code(), message = status.message(), "the collector takes nothing");
                }
                count
            }
        }
    }
}

/// Connects when it is first used, and again whenever it has to.
fn channel(collector: &Collector, mark: Option<u32>) -> Result<Channel, tonic::transport::Error> {
    let names = Arc::new([collector.address().to_owned()]);
    let connect = tower::service_fn(move |_| {
        let names = names.clone();
        async move { io::Result::Ok(TokioIo::new(dial(&names[..], mark).await?)) }
    });
    let endpoint = Endpoint::from_shared(collector.to_string())?;
    let endpoint = endpoint.connect_timeout(CALL_TIMEOUT);
    Ok(endpoint.connect_with_connector_lazy(connect))
}
