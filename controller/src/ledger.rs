//! The ledger of rate limits, in memory: one task that hears what all sessions say, and answers all of them at once. It is
//! kept by whoever leads; what another kept before, proxies tell.
//!
//! Limits: [`EVENTS_MAX`] events on their way, [`RESPONSES_MAX`] responses on the way to one session; those of the ledger.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::identity::WorkloadName;
use ringmail_proto::limit::home::Memory;
use ringmail_proto::limit::ledger::{Ledger, SessionId};
use ringmail_proto::limit::{Pace, RESYNC_TIME, Scope};
use ringmail_proto::pb;
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep_until};
use tonic::Status;

use crate::metrics::Metrics;
use crate::model::Mesh;
use crate::publish::Snapshots;
use crate::stop::Stop;

/// Events that were not heard yet; whoever has more to say waits.
const EVENTS_MAX: usize = 4096;
/// Responses that a session has not read.
pub(crate) const RESPONSES_MAX: usize = 256;
/// How often silence is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// How often buckets that are full again are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// Responses to one session, or why it is over.
pub(crate) type Out = mpsc::Sender<Result<pb::LeaseResponse, Status>>;

/// What happens to sessions.
#[derive(Debug)]
pub(crate) enum Event {
    /// It begins, of that pod.
    Opened(SessionId, WorkloadName, Out),
    /// It says something.
    Said(SessionId, pb::LeaseRequest),
    /// It is over.
    Closed(SessionId),
}

/// Where events go.
pub(crate) type Events = mpsc::Sender<Event>;

/// The ledger's one task.
#[derive(Debug)]
pub(crate) struct Keeper {
    events: mpsc::Receiver<Event>,
    snapshots: Snapshots,
    /// Whether it is ours to keep.
    leads: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
}

/// One ledger, from when we lead to when we lead no more.
struct Kept {
    ledger: Ledger,
    memory: Memory,
    sessions: HashMap<SessionId, (WorkloadName, Out)>,
    metrics: Arc<Metrics>,
}

impl Keeper {
    pub(crate) fn new(
        snapshots: Snapshots,
        leads: watch::Receiver<bool>,
        metrics: Arc<Metrics>,
    ) -> (Self, Events) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let keeper = Self {
            events,
            snapshots,
            leads,
            metrics,
        };
        (keeper, sender)
    }

    pub(crate) async fn run(mut self, mut stop: Stop) {
        loop {
            tokio::select! {
                () = stop.stopped() => return,
                kept = self.keep() => if kept.is_none() {
                    return;
                },
            }
        }
    }

    /// Refuses sessions until we lead, then serves them until we lead no more. None: nobody is left to say anything.
    async fn keep(&mut self) -> Option<()> {
        while !*self.leads.borrow_and_update() {
            tokio::select! {
                () = changed(&mut self.leads) => {}
                event = self.events.recv() => if let Event::Opened(_, _, out) = event? {
                    // Nobody may be left to hear it.
                    let _ = out.try_send(Err(not_ours()));
                },
            }
        }
        let mut kept = Kept::new(self.metrics.clone());
        let mut events = Vec::new();
        let (mut look, mut sweep) = (interval(LOOK), interval(SWEEP));
        while *self.leads.borrow_and_update() {
            let due = kept.ledger.next_due();
            let far = Instant::now() + SWEEP;
            tokio::select! {
                () = changed(&mut self.leads) => {}
                count = self.events.recv_many(&mut events, EVENTS_MAX) => if count == 0 {
                    return None;
                },
                () = sleep_until(due.unwrap_or(far).into()) => {}
                _ = look.tick() => kept.end_silent(Instant::now()),
                _ = sweep.tick() => kept.sweep(Instant::now(), &self.snapshots.borrow().mesh),
            }
            let mesh = self.snapshots.borrow().mesh.clone();
            let now = Instant::now();
            for event in events.drain(..) {
                kept.hear(event, &mesh, now);
            }
            kept.answer(now);
        }
        for (_, out) in kept.sessions.into_values() {
            let _ = out.try_send(Err(not_ours()));
        }
        Some(())
    }
}

/// Until another leads, or we do. Who is alone leads for ever.
async fn changed(leads: &mut watch::Receiver<bool>) {
    if leads.changed().await.is_err() {
        std::future::pending().await
    }
}

fn not_ours() -> Status {
    Status::unavailable("this replica does not keep the ledger; another does")
}

impl Kept {
    fn new(metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        Self {
            ledger: Ledger::new(now),
            memory: Memory::new(now + RESYNC_TIME),
            sessions: HashMap::new(),
            metrics,
        }
    }

    fn hear(&mut self, event: Event, mesh: &Mesh, now: Instant) {
        match event {
            Event::Opened(id, workload, out) => {
                self.ledger.open(id, now);
                self.sessions.insert(id, (workload, out));
            }
            Event::Closed(id) => self.end(id, None),
            Event::Said(id, request) => {
                let Some((workload, _)) = self.sessions.get(&id) else {
                    return;
                };
                let own = mesh.authorization(workload);
                let pace = |limit: &str| pace(own.as_deref()?, limit);
                if let Err(invalid) = self.ledger.hear(id, &request, pace, now) {
                    self.end(id, Some(Status::invalid_argument(invalid.to_string())));
                }
            }
        }
        self.count();
    }

    fn end(&mut self, id: SessionId, why: Option<Status>) {
        self.ledger.close(id);
        if let (Some((_, out)), Some(why)) = (self.sessions.remove(&id), why) {
            let _ = out.try_send(Err(why));
        }
    }

    /// Those whose leases have to be taken for spent.
    fn end_silent(&mut self, now: Instant) {
        for id in self.ledger.expire(now) {
            self.end(
                id,
                Some(Status::deadline_exceeded("nothing was heard in time")),
            );
        }
        self.count();
    }

    fn sweep(&mut self, now: Instant, mesh: &Mesh) {
        let limits = mesh.limits();
        self.memory.sweep(now, |limit| limits.get(limit).copied());
    }

    fn answer(&mut self, now: Instant) {
        for (at, name, terms, order) in self.ledger.orders(now) {
            let answer = self.memory.carry_out(name, terms, &order, now);
            self.metrics.ledger_leased.inc_by(answer.leased);
            self.metrics.ledger_returned.inc_by(order.returned);
            self.ledger.deal(at, answer, now);
        }
        for (id, response) in self.ledger.responses(now) {
            let Some((_, out)) = self.sessions.get(&id) else {
                continue;
            };
            if out.try_send(Ok(response)).is_err() {
                // It is gone, or does not read: its leases end by themselves.
                self.end(id, None);
            }
        }
    }

    fn count(&self) {
        let sessions = i64::try_from(self.sessions.len()).unwrap_or(i64::MAX);
        self.metrics.ledger_sessions.set(sessions);
    }
}

/// Of a limit that is for a workload.
fn pace(own: &ringmail_proto::policy::Authorization, limit: &str) -> Option<Pace> {
    let found = own.limits.iter().find(|one| &*one.name == limit)?;
    let terms = found.terms.as_ref().ok()?;
    (terms.scope == Scope::Global).then_some(terms.pace)
}
