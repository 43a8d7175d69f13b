//! The ledger of rate limits: one task that hears what all sessions say, and answers all of them at once. Its buckets are in
//! memory, and it is kept by whoever leads; or in a Redis, and each controller has one. What another kept before, proxies
//! tell. Without its home there is no ledger, and no session.
//!
//! Limits: [`EVENTS_MAX`] events on their way, [`RESPONSES_MAX`] responses on the way to one session; those of the ledger.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmail_proto::identity::WorkloadName;
use ringmail_proto::limit::home::{Answer, Memory};
use ringmail_proto::limit::ledger::{Ledger, SessionId};
use ringmail_proto::limit::{Limit, Pace, RESYNC_TIME, Scope};
use ringmail_proto::pb;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{interval, sleep_until};
use tonic::Status;
use tracing::warn;

use crate::metrics::Metrics;
use crate::model::Mesh;
use crate::publish::Snapshots;
use crate::stop::Stop;

/// Where its buckets are.
mod home;

/// Buckets in a server that controllers share.
mod redis;

/// What people are shown of it.
pub(crate) mod shown;

use home::{Asked, Home};
use redis::Lost;
pub(crate) use redis::Server;
use shown::{Shown, Surveyor};

/// Events that were not heard yet; whoever has more to say waits.
const EVENTS_MAX: usize = 4096;
/// Responses that a session has not read.
pub(crate) const RESPONSES_MAX: usize = 256;
/// How often silence is noticed.
const LOOK: Duration = Duration::from_millis(100);
/// How often buckets that are full again are forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// How often it is looked up what is used of each limit.
const SURVEY: Duration = Duration::from_secs(1);

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
    place: Place,
    surveyor: Surveyor,
    metrics: Arc<Metrics>,
}

/// Where the ledger's home can be had.
#[derive(Debug)]
pub(crate) enum Place {
    /// In our memory, while we lead.
    Memory(watch::Receiver<bool>),
    /// In a server that all replicas share.
    Redis(Box<Server>),
}

/// One ledger, from when its home is opened to when it is lost.
struct Kept {
    ledger: Ledger,
    home: Home,
    opens: Instant,
    sessions: HashMap<SessionId, (WorkloadName, Out)>,
    metrics: Arc<Metrics>,
}

impl Place {
    /// The home, as soon as it can be had, and when it opens.
    async fn open(&mut self) -> (Home, Instant) {
        match self {
            Self::Memory(leads) => {
                until(leads, true).await;
                let opens = Instant::now() + RESYNC_TIME;
                (Home::Memory(Memory::new(opens)), opens)
            }
            Self::Redis(server) => {
                let (redis, opens_in) = server.open().await;
                (Home::Redis(Box::new(redis)), Instant::now() + opens_in)
            }
        }
    }

    /// Until the home is no more ours. That of Redis ends when an exchange fails.
    async fn lost(&mut self) {
        match self {
            Self::Memory(leads) => until(leads, false).await,
            Self::Redis(_) => pending().await,
        }
    }

    /// Why sessions are refused, or over.
    fn away(&self) -> Status {
        Status::unavailable(match self {
            Self::Memory(_) => "this replica does not keep the ledger; another does",
            Self::Redis(_) => "the home of the ledger is away",
        })
    }
}

/// Until we lead, or another does. Who is alone leads for ever.
async fn until(leads: &mut watch::Receiver<bool>, expected: bool) {
    if leads.wait_for(|leads| *leads == expected).await.is_err() {
        pending().await
    }
}

impl Keeper {
    pub(crate) fn new(
        snapshots: Snapshots,
        place: Place,
        shown: watch::Sender<Shown>,
        metrics: Arc<Metrics>,
    ) -> (Self, Events) {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let keeper = Self {
            events,
            snapshots,
            place,
            surveyor: Surveyor::new(shown, metrics.clone()),
            metrics,
        };
        (keeper, sender)
    }

    /// One ledger after the other, until told to stop.
    pub(crate) async fn run(mut self, mut stop: Stop) {
        let keep = async {
            while let Some(mut kept) = self.open().await {
                self.metrics.ledger_home_up.set(1);
                let served = self.serve(&mut kept).await;
                self.metrics.ledger_home_up.set(0);
                self.surveyor.end();
                kept.end_all(&self.place.away());
                if served.is_none() {
                    return;
                }
            }
        };
        tokio::select! {
            () = stop.stopped() => {}
            () = keep => {}
        }
    }

    /// Refuses sessions until there is a home. None: nobody is left to say anything.
    async fn open(&mut self) -> Option<Kept> {
        let away = self.place.away();
        let opening = self.place.open();
        tokio::pin!(opening);
        loop {
            tokio::select! {
                (home, opens) = &mut opening => {
                    return Some(Kept::new(home, opens, self.metrics.clone()));
                }
                event = self.events.recv() => if let Event::Opened(_, _, out) = event? {
                    // Nobody may be left to hear it.
                    let _ = out.try_send(Err(away.clone()));
                },
            }
        }
    }

    /// Serves sessions until the home is lost. None: nobody is left to say anything.
    async fn serve(&mut self, kept: &mut Kept) -> Option<()> {
        let mut events = Vec::new();
        let (mut look, mut sweep, mut survey) = (interval(LOOK), interval(SWEEP), interval(SURVEY));
        loop {
            kept.home.rest().await;
            let due = kept.ledger.next_due();
            let far = Instant::now() + SWEEP;
            tokio::select! {
                () = self.place.lost() => return Some(()),
                count = self.events.recv_many(&mut events, EVENTS_MAX) => if count == 0 {
                    return None;
                },
                () = sleep_until(due.unwrap_or(far).into()) => {}
                _ = look.tick() => kept.end_silent(Instant::now()),
                _ = survey.tick() => self.surveyor.begin(),
                // A long one goes on below, after whoever has something to say.
                () = yield_now(), if self.surveyor.is_looking() => {}
                _ = sweep.tick() => kept.home.sweep(Instant::now(), &self.snapshots.borrow().mesh),
            }
            let mesh = self.snapshots.borrow().mesh.clone();
            let now = Instant::now();
            for event in events.drain(..) {
                kept.hear(event, &mesh, now);
            }
            if let Err(lost) = kept.answer(now).await {
                warn!("the home of the ledger is lost: {lost}");
                return Some(());
            }
            self.surveyor.look(kept, mesh.limits(), now);
        }
    }
}

impl Kept {
    fn new(home: Home, opens: Instant, metrics: Arc<Metrics>) -> Self {
        Self {
            ledger: Ledger::reopened(opens),
            home,
            opens,
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
                let pace = |limit: &str| pace_of(own.as_deref()?, limit);
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

    fn end_all(&mut self, why: &Status) {
        for (_, (_, out)) in self.sessions.drain() {
            let _ = out.try_send(Err(why.clone()));
        }
        self.count();
    }

    /// Tells sessions that they were heard, and what they were granted, once the home knows of both.
    async fn answer(&mut self, now: Instant) -> Result<(), Lost> {
        let orders = self.ledger.orders(now);
        if !orders.is_empty() || self.ledger.has_answers() || self.home.is_due(now) {
            let answers = self.home.exchange(&orders, now).await?;
            self.deal(&orders, answers, Instant::now());
        }
        self.tell(Instant::now());
        Ok(())
    }

    fn deal(&mut self, orders: &[Asked], answers: Vec<Answer>, now: Instant) {
        for ((at, _, _, order), answer) in orders.iter().zip(answers) {
            self.metrics.ledger_leased.inc_by(answer.leased);
            self.metrics.ledger_returned.inc_by(order.returned);
            self.ledger.deal(*at, answer, now);
        }
    }

    fn tell(&mut self, now: Instant) {
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
fn pace_of(own: &ringmail_proto::policy::Authorization, limit: &str) -> Option<Pace> {
    pace(own.limits.iter().find(|one| &*one.name == limit)?)
}

/// Of a limit that holds for all proxies together.
fn pace(limit: &Limit) -> Option<Pace> {
    let terms = limit.terms.as_ref().ok()?;
    (terms.scope == Scope::Global).then_some(terms.pace)
}
