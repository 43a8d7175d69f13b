//! What is recorded of exchanges and opaque connections: lines of the access log, and spans of traces.
//!
//! A [`Record`] hangs on what it is of, from the beginning to the end; where nobody wants one there is none, and that is
//! all it costs. The end puts it into its worker's queue (`queue`), which is handed over to a thread that writes
//! (`scribe`) and to a task that sends (`export`) a few times a second: no request takes a lock, makes a system call or wakes
//! anybody for it, and none waits for a disk. What those cannot keep up with is lost, and counted.
//!
//! Limits: those of `queue`, [`PATH_BYTES_MAX`] of a path, [`VALUE_BYTES_MAX`] of any other text of a client's.

/// The context of a trace.
pub(crate) mod trace;

/// What one record tells.
mod told;

/// Records of one worker on their way.
mod queue;

/// The thread that writes.
mod scribe;

/// Lines of the access log.
mod access;

/// What a worker tells the audit.
mod trail;

/// The thread that writes the audit.
mod audit;

/// JSON.
mod object;

/// What a collector is told.
mod otlp;

/// The task that sends.
mod export;

use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringmail_proto::identity::SpiffeId;
use ringmail_proto::records::{AccessLog, Share};

use crate::config::Config;
use crate::metrics::{Direction, Protocol};

pub(crate) use object::Object;
pub(crate) use queue::Hands;
use queue::Queue;
pub(crate) use scribe::Scribes;
pub(crate) use told::Told;
use trace::{Parent, Span};
pub(crate) use trail::{Trail, What};

/// Of a path that is recorded; queries never are.
const PATH_BYTES_MAX: usize = 1024;
/// Of a host, a header's value or a request's id.
const VALUE_BYTES_MAX: usize = 256;

/// What is recorded on one worker.
#[derive(Debug)]
pub(crate) struct Records {
    is_on: bool,
    access: Option<Share>,
    /// Of requests without a trace; none where nobody collects traces.
    traces: Option<Share>,
    headers: Arc<[String]>,
    queue: Rc<Queue>,
}

/// An exchange or an opaque connection as it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a, Fields> {
    pub(crate) direction: Direction,
    pub(crate) protocol: Protocol,
    pub(crate) begun: Instant,
    /// Where it comes from.
    pub(crate) source: IpAddr,
    /// Where it goes, as it was dialled.
    pub(crate) destination: SocketAddr,
    /// Who is at the other end, if that is known yet.
    pub(crate) peer: Option<&'a SpiffeId>,
    /// None of an opaque connection.
    pub(crate) request: Option<Asked<'a, Fields>>,
}

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a, Fields> {
    /// `1.0`, `1.1` or `2`.
    pub(crate) version: &'static str,
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) fields: Fields,
}

impl Records {
    pub(crate) fn new(config: &Config, hands: Hands) -> Self {
        let records = &config.records;
        let access = (records.access_log != AccessLog::Off).then_some(records.access_log_sample);
        let traces = records.collector.as_ref().map(|_| records.trace_sample);
        Self {
            is_on: access.is_some() || traces.is_some(),
            access,
            traces,
            headers: records.access_log_headers.names().into(),
            queue: Rc::new(Queue::new(hands)),
        }
    }

    /// A record of what begins now, if one is wanted.
    pub(crate) fn begin<'a, Fields>(
        &self,
        seen: impl FnOnce() -> Option<Seen<'a, Fields>>,
    ) -> Option<Record>
    where
        Fields: IntoIterator<Item = (&'a [u8], &'a [u8])> + Copy,
    {
        match self.is_on {
            true => self.take(seen()?),
            false => None,
        }
    }

    fn take<'a, Fields>(&self, seen: Seen<'a, Fields>) -> Option<Record>
    where
        Fields: IntoIterator<Item = (&'a [u8], &'a [u8])> + Copy,
    {
        let parent = seen
            .request
            .as_ref()
            .and_then(|asked| Parent::of(asked.fields));
        let is_logged = self
            .access
            .is_some_and(|share| share == Share::ALL || share.takes(rand::random()));
        let span = match (self.traces, &seen.request) {
            (Some(share), Some(_)) => Span::begin(parent.as_ref(), || share.takes(rand::random())),
            (_, _) => None,
        };
        if !is_logged && span.is_none() {
            return None;
        }
        let headers: &[String] = if is_logged { &self.headers } else { &[] };
        let told = Told::begin(seen, headers, is_logged, (parent, span));
        Some(Record {
            to: self.queue.clone(),
            told: Some(Box::new(told)),
        })
    }

    /// The way to the audit.
    pub(crate) fn trail(&self, config: &Config) -> Trail {
        Trail::new(config.records.audit, self.queue.clone())
    }

    /// Hands over what was recorded, for as long as the worker lives.
    pub(crate) async fn hand_over(&self) {
        self.queue.hand_over().await;
    }
}

/// The line of what is seen and over at once, for the bench.
#[cfg(feature = "bench")]
pub(crate) fn line<'a, Fields>(seen: Seen<'a, Fields>, out: &mut Vec<u8>)
where
    Fields: IntoIterator<Item = (&'a [u8], &'a [u8])> + Copy,
{
    let mut told = Told::begin(seen, &[], true, (None, None));
    told.end(Instant::now());
    access::json(&told, None, out);
}

/// What is recorded of one exchange or opaque connection. Its drop is the end of that, as far as it is recorded.
#[derive(Debug)]
pub(crate) struct Record {
    to: Rc<Queue>,
    /// Until the end.
    told: Option<Box<Told>>,
}

impl Deref for Record {
    type Target = Told;

    fn deref(&self) -> &Told {
        self.told.as_deref().expect("it is taken by the drop alone")
    }
}

impl DerefMut for Record {
    fn deref_mut(&mut self) -> &mut Told {
        self.told
            .as_deref_mut()
            .expect("it is taken by the drop alone")
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(mut told) = self.told.take() {
            told.end(Instant::now());
            self.to.put(*told);
        }
    }
}
