//! The thread that writes the audit, as one chain for the whole proxy ([`ringmail_proto::audit`]): to standard output or to
//! the end of a file, which it continues, and to the collector.
//!
//! What could not be told, for whatever reason, is told as a number in the chain itself as soon as that can be written.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use ringmail_proto::audit::{Chain, EVENT_BEGIN, EVENT_END, EVENT_LOST, Hash, TAIL_BYTES};
use tokio::sync::mpsc;

use super::export::Parcel;
use super::object::Object;
use super::otlp::Line;
use super::queue::BATCHES_MAX;
use super::scribe::{Sink, tail};
use super::trail::{Event, What};
use crate::config::{Config, Destination};
use crate::metrics::Counts;

/// How long a loss may go untold.
const LOST_INTERVAL: Duration = Duration::from_secs(1);

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Leaf {
    Events(Vec<Event>),
    /// The chain ends; who is told when that is written.
    End(SyncSender<()>),
}

/// Where lines go that a collector is to have.
type Collected = mpsc::Sender<Parcel<Vec<Line>>>;

/// A chain on its way to wherever it is kept.
struct Audit {
    chain: Chain,
    to: Sink,
    /// Whoever collects them.
    lines: Option<Collected>,
    workload: String,
    counts: Counts,
    unsent: Vec<Line>,
    /// Of what is lost, what the chain says.
    told_lost: u64,
}

/// Begins a chain, and a thread that writes it.
pub(super) fn start(
    config: &Config,
    (to, lines): (Sink, Option<Collected>),
    counts: &Counts,
) -> io::Result<SyncSender<Leaf>> {
    let continued = match &config.records.audit_to {
        Destination::Stdout => None,
        Destination::File(path) => Hash::last_of(&tail(path, TAIL_BYTES)?),
    };
    let audit = Audit {
        chain: Chain::new(rand::random(), continued),
        to,
        lines,
        workload: config.workload.to_string(),
        counts: counts.clone(),
        unsent: Vec::new(),
        told_lost: 0,
    };
    let (to, leaves) = sync_channel(BATCHES_MAX);
    std::thread::Builder::new()
        .name("audit".to_owned())
        .spawn(move || audit.write(&leaves))?;
    Ok(to)
}

impl Audit {
    /// Until the chain ends, or nobody is left to tell anything.
    fn write(mut self, leaves: &Receiver<Leaf>) {
        let workload = self.workload.clone();
        self.tell(EVENT_BEGIN, |object| {
            object.text("message", "the audit begins");
            object.text("workload", &workload);
            object.text("version", env!("CARGO_PKG_VERSION"));
        });
        loop {
            match leaves.recv_timeout(LOST_INTERVAL) {
                Ok(Leaf::Events(events)) => {
                    self.tell_lost();
                    for event in events {
                        self.put(&event);
                    }
                    self.send();
                }
                Ok(Leaf::End(done)) => {
                    self.tell_lost();
                    self.tell(EVENT_END, |object| object.text("message", "the audit ends"));
                    // It may have given up.
                    let _ = done.try_send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => self.tell_lost(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tell_lost(&mut self) {
        let lost = self.counts.audit_lost.sum();
        let untold = lost - self.told_lost;
        if untold == 0 {
            return;
        }
        let is_told = self.tell(EVENT_LOST, |object| {
            object.text("message", "there was more than could be told");
            object.number("count", untold);
        });
        if is_told {
            self.told_lost = lost;
        }
    }

    /// What the chain says of itself; whether it could.
    fn tell(&mut self, event: &str, members: impl FnOnce(&mut Object<'_>)) -> bool {
        let mut fields = Vec::new();
        let mut object = Object::begin(&mut fields);
        object.text("event", event);
        members(&mut object);
        object.end();
        let is_told = self.append(SystemTime::now(), (&fields, event == EVENT_LOST));
        self.send();
        is_told
    }

    fn put(&mut self, event: &Event) {
        let is_warning = event.what != What::Use;
        let is_kept = self.append(event.at, (&event.fields, is_warning));
        let counted = match (is_kept, event.what) {
            (true, What::Refusal) => &self.counts.refusals,
            (true, What::Use | What::Unanswered) => &self.counts.uses,
            (false, _) => &self.counts.audit_lost,
        };
        counted.add(1);
    }

    /// A line that cannot be written is no part of the chain.
    fn append(&mut self, at: SystemTime, (fields, is_warning): (&[u8], bool)) -> bool {
        let seal = self.chain.seal(at, &String::from_utf8_lossy(fields));
        let line = format!("{}\n", seal.line);
        let written = self.to.put(line.as_bytes());
        if let Err(error) = &written {
            tracing::debug!(%error, "the audit could not be written");
            return false;
        }
        if self.lines.is_some() {
            self.unsent.push(Line {
                at,
                text: seal.line.clone(),
                is_warning,
            });
        }
        self.chain.keep(seal);
        true
    }

    /// Hands over what was written to whoever collects it; never waits.
    fn send(&mut self) {
        let lines = std::mem::take(&mut self.unsent);
        let count = lines.len();
        if let Some(to) = self.lines.as_ref().filter(|_| count > 0)
            && to.try_send(Parcel::Some(lines)).is_err()
        {
            self.counts.lines_lost.add(count as u64);
        }
    }
}
