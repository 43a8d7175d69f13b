//! One request on its way to a service, until the head of its response can be read: the endpoint that was chosen, the
//! time it has, and the next endpoint if the first one fails.
//!
//! Nobody who sends the body or reads the response notices a retry: the stream stays the same, its place changes.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::{sleep, sleep_until, timeout_at};

use super::endpoint::{Answer, Try};
use super::health::Cause;
use super::local::Local;
use super::mirror;
use super::retry::{self, Again, Asked, Failure};
use super::services::{Resolved, Tried};
use crate::error::{Blame, Error, Reason};
use crate::http::exchange::{Exchange, grpc_status};
use crate::http::fields::EXHAUSTED;
use crate::http::neutral::{Request, Response};
use crate::http::route::{DEFAULT, ResponseEdits};
use crate::limits::Admitted;
use crate::limits::exhausted::Exhausted;
use crate::metrics::{Protocol, Traffic};
use crate::peer::frame::Kind;
use crate::peer::stream::{Reader, Stream};
use crate::peer::streams::Streams;
use crate::worker::Worker;
use ringmail_proto::identity::SpiffeId;
use ringmail_proto::route::{Mirror, Policy};

/// A request that is under way. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    worker: &'a Rc<Worker>,
    terms: Terms<'a>,
    protocol: Protocol,
    service: Rc<Resolved>,
    begun: Instant,
    /// The try under way.
    current: RefCell<Option<Try>>,
    /// Places of the endpoints that were tried and are not to be tried again.
    tried: RefCell<Tried>,
    tries: Cell<u32>,
    is_mirrored: Cell<bool>,
    /// When all must be over, and what has run out then.
    deadline: Cell<Option<(Instant, Reason)>>,
    /// It goes to our own app, once.
    local: Option<Rc<Local>>,
    /// What comes back once it is over.
    _admitted: Admitted,
}

/// What a route says of a request.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    /// `namespace/name`; empty without one.
    pub(super) route: &'a str,
    pub(super) policy: &'a Policy,
    pub(super) response: ResponseEdits<'a>,
    pub(super) mirrors: &'a [Mirror],
}

impl Terms<'_> {
    /// No route says anything.
    pub(super) fn none() -> Self {
        Self {
            route: "",
            policy: &DEFAULT,
            response: ResponseEdits::default(),
            mirrors: &[],
        }
    }
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The request's head in neutral form.
    pub(crate) head: Vec<u8>,
    /// The head is all there is.
    pub(crate) end: bool,
    pub(crate) protocol: Protocol,
    /// How long the client will wait, if it said so (gRPC).
    pub(crate) patience: Option<Duration>,
}

impl<'a> Call<'a> {
    /// Chooses an endpoint of the service and sends it the request's head, which was complete when it `begun`.
    pub(super) async fn open(
        worker: &'a Rc<Worker>,
        (service, begun): (Rc<Resolved>, Instant),
        terms: Terms<'a>,
        outgoing: Outgoing,
    ) -> Result<(Self, Stream), Error> {
        service.budget.earn(begun);
        let patience = [terms.policy.request_timeout, outgoing.patience];
        let patience = patience.into_iter().flatten().min();
        let deadline = patience.and_then(|time| begun.checked_add(time));
        let call = Self {
            worker,
            terms,
            protocol: outgoing.protocol,
            service,
            begun,
            current: RefCell::default(),
            tried: RefCell::default(),
            tries: Cell::new(1),
            is_mirrored: Cell::new(false),
            deadline: Cell::new(deadline.map(|at| (at, Reason::RequestTimeout))),
            local: None,
            _admitted: Admitted::default(),
        };
        let stream = Stream::request(outgoing.head, outgoing.end);
        call.in_time(pin!(call.place(&stream, begun))).await?;
        Ok((call, stream))
    }

    /// Sends the request's head to our own app.
    pub(super) fn local(
        worker: &'a Rc<Worker>,
        local: &Rc<Local>,
        outgoing: Outgoing,
    ) -> Result<(Self, Stream), Error> {
        let begun = Instant::now();
        let call = Self {
            worker,
            terms: Terms::none(),
            protocol: outgoing.protocol,
            service: Resolved::none(local.destination(), begun),
            begun,
            current: RefCell::default(),
            tried: RefCell::default(),
            // There is nobody else to try.
            tries: Cell::new(u32::MAX),
            is_mirrored: Cell::new(false),
            deadline: Cell::default(),
            local: Some(local.clone()),
            _admitted: Admitted::default(),
        };
        let stream = Stream::request(outgoing.head, outgoing.end);
        local.place(&stream)?;
        Ok((call, stream))
    }

    /// Keeps what was taken for it until it is over.
    pub(super) fn hold(&mut self, admitted: Admitted) {
        self._admitted = admitted;
    }

    /// A head of the response, with what the route changes in it.
    pub(crate) fn edited<'b>(&self, head: &'b [u8]) -> Cow<'b, [u8]> {
        self.terms.response.apply(head)
    }

    /// When the request's head was complete.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// The handles of the peer that is asked now.
    pub(crate) fn traffic(&self) -> Result<Rc<Traffic>, Error> {
        if let Some(local) = &self.local {
            return Ok(local.traffic());
        }
        let current = self.current.borrow();
        let current = current.as_ref().ok_or(Reason::Internal)?;
        let to = (&*current.endpoint().peer, self.terms.route);
        Ok(self.service.traffic(self.worker, to, self.protocol))
    }

    /// Who is asked now; none without an identity.
    pub(super) fn peer(&self) -> Option<SpiffeId> {
        let current = self.current.borrow();
        current.as_ref()?.endpoint().peer.spiffe_id().cloned()
    }

    /// Runs the whole exchange, or as much of it as there is time for. Without a limit it costs nothing.
    pub(crate) async fn in_time<T>(
        &self,
        mut exchange: Pin<&mut impl Future<Output = Result<T, Error>>>,
    ) -> Result<T, Error> {
        let mut alarm: Option<(Instant, Pin<Box<tokio::time::Sleep>>)> = None;
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = exchange.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            let Some((at, reason)) = self.deadline.get() else {
                return Poll::Pending;
            };
            // The time of a try joins that of the request once it is answered.
            if alarm.as_ref().is_some_and(|(set, _)| *set != at) {
                alarm = None;
            }
            let (_, alarm) = alarm.get_or_insert_with(|| (at, Box::pin(sleep_until(at.into()))));
            alarm.as_mut().poll(cx).map(|()| Err(reason.into()))
        })
        .await
    }

    /// Waits until a head of the response can be read, after as many tries as it takes, and says when that was. To be
    /// called before each head; afterwards the request stays where it is.
    pub(crate) async fn head(
        &self,
        stream: &Stream,
        reader: &mut Reader,
        exchange: &mut Exchange,
    ) -> Result<Instant, Error> {
        loop {
            let waited = self.wait(stream, reader).await;
            let now = Instant::now();
            let (failure, reason) = match waited {
                Ok(()) => match self.judge(reader, now) {
                    Some(failure) => (Some(failure), None),
                    None => break self.settle(stream, now),
                },
                Err(reason) => {
                    self.failed(Cause::Broken, reason, now);
                    (retry::failure(reason), Some(reason))
                }
            };
            let again = failure.and_then(|failure| self.again(failure, stream, now));
            match (again, reason) {
                (Some(again), _) => {
                    stream.detach(reason.unwrap_or(Reason::ClientGone));
                    *reader = Reader::default();
                    let retried = Box::pin(self.retry(again, stream)).await;
                    // Where nobody is left to ask, what there was to say stands.
                    retried.map_err(|error| reason.map_or(error, Error::from))?;
                    exchange.moved_to(self.traffic()?);
                    if let Some(record) = exchange.record() {
                        record.is_with(self.peer());
                    }
                }
                (None, Some(reason)) => return Err(Error::from(reason).decided(stream.decision())),
                // An answer, if not a good one.
                (None, None) => break self.settle(stream, now),
            }
        }
    }

    /// No more tries: what is left is the response.
    fn settle(&self, stream: &Stream, now: Instant) -> Result<Instant, Error> {
        let record = stream.forget();
        if !self.terms.mirrors.is_empty() && !self.is_mirrored.replace(true) {
            let (source, destination) = (self.service.source, &self.service.destination);
            mirror::send(self.worker, source, destination, self.terms.mirrors, record);
        }
        if let Some(end) = self.try_end() {
            let late = (end, Reason::BackendTimeout);
            let sooner = self.deadline.get().filter(|(at, _)| *at <= end);
            self.deadline.set(Some(sooner.unwrap_or(late)));
        }
        Ok(now)
    }

    /// When the time of the try under way ends.
    fn try_end(&self) -> Option<Instant> {
        let begun = self.current.borrow().as_ref()?.begun();
        begun.checked_add(self.terms.policy.backend_timeout?)
    }

    async fn wait(&self, stream: &Stream, reader: &mut Reader) -> Result<(), Reason> {
        let receivable = poll_fn(|cx| stream.poll_receivable(cx, reader));
        // Boxed: a timer is large, and few services want one.
        match (self.try_end(), self.service.timeouts.response_head) {
            (None, None) => receivable.await,
            (None, Some(limit)) => Box::pin(in_head_time(stream, limit, receivable)).await,
            (Some(end), None) => Box::pin(timeout_at(end.into(), receivable))
                .await
                .unwrap_or(Err(Reason::BackendTimeout)),
            (Some(end), Some(limit)) => {
                let in_time = in_head_time(stream, limit, receivable);
                Box::pin(timeout_at(end.into(), in_time))
                    .await
                    .unwrap_or(Err(Reason::BackendTimeout))
            }
        }
    }

    /// Tells the endpoint's books what its answer is worth; a failure where it might be worth another try.
    fn judge(&self, reader: &Reader, now: Instant) -> Option<Failure> {
        let received = reader
            .peek()
            .filter(|received| received.kind == Kind::Head)?;
        let status = Response::status_of(received.payload)?;
        if status < 200 && status != 101 {
            return None;
        }
        let fields = || Some(Response::decode(received.payload).ok()?.1);
        let grpc_status = match self.protocol {
            Protocol::Http2 if received.end => fields().and_then(grpc_status),
            Protocol::Http1 | Protocol::Http2 | Protocol::Tcp => None,
        };
        if let Some(current) = &*self.current.borrow() {
            let answer = Answer {
                status,
                grpc_status,
            };
            current.answered(answer, &self.worker.metrics, now);
            if answer.is_limited()
                && let Some(told) = fields().and_then(|fields| fields.first(EXHAUSTED))
                && let Some(exhausted) = Exhausted::parse(told)
            {
                current.endpoint().exhaust(exhausted.begin(now));
            }
        }
        let listed = self.terms.policy.retry.as_ref()?.statuses.contains(&status);
        listed.then(|| Failure::Status {
            status,
            retry_after: fields()
                .and_then(|fields| fields.first("retry-after"))
                .and_then(retry::retry_after),
        })
    }

    /// Whether and how to try again.
    fn again(&self, failure: Failure, stream: &Stream, now: Instant) -> Option<Again> {
        let is_idempotent = stream.recorded(|head| {
            Request::decode(head).is_ok_and(|(request, _)| request.is_idempotent())
        })?;
        let asked = Asked {
            tries: self.tries.get(),
            is_idempotent,
            retry: self.terms.policy.retry.as_ref(),
        };
        let again = retry::decide(failure, asked, rand::random_range(0.0..1.0))?;
        if again.is_paid && !self.service.budget.spend(now) {
            self.worker.metrics.retried(again.cause, "over_budget");
            return None;
        }
        Some(again)
    }

    async fn retry(&self, again: Again, stream: &Stream) -> Result<(), Error> {
        self.current.take();
        self.tries.set(self.tries.get() + 1);
        if !again.after.is_zero() {
            sleep(again.after).await;
        }
        let now = Instant::now();
        let mut placed = self.place(stream, now).await;
        let is_nobody_left = |error: &Error| error.reason == Reason::NoEndpoints;
        if placed.as_ref().is_err_and(is_nobody_left) && !again.is_elsewhere {
            // The one there is may be better by now.
            self.tried.take();
            placed = self.place(stream, now).await;
        }
        let result = if placed.is_ok() { "sent" } else { "nowhere" };
        self.worker.metrics.retried(again.cause, result);
        placed
    }

    /// Places the stream at an endpoint that can be connected to.
    async fn place(&self, stream: &Stream, now: Instant) -> Result<(), Error> {
        let (current, streams) = begin(self.worker, &self.service, &self.tried, now).await?;
        let port = current.endpoint().port;
        *self.current.borrow_mut() = Some(current);
        stream.place(&streams, port)?;
        stream.limit_idle(self.service.timeouts.idle, now);
        Ok(())
    }

    fn failed(&self, cause: Cause, reason: Reason, now: Instant) {
        if let Some(current) = &*self.current.borrow() {
            current.failed(cause, reason, &self.worker.metrics, now);
        }
    }
}

/// Waits as long as a response may take to begin once the request is complete.
async fn in_head_time(
    stream: &Stream,
    limit: Duration,
    receivable: impl Future<Output = Result<(), Reason>>,
) -> Result<(), Reason> {
    let mut receivable = pin!(receivable);
    let mut alarm = None;
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = receivable.as_mut().poll(cx) {
            return Poll::Ready(outcome);
        }
        // Whoever sends the body is part of the same task: when it ends, this is polled.
        if !stream.has_ended() {
            return Poll::Pending;
        }
        let alarm = alarm.get_or_insert_with(|| Box::pin(sleep(limit)));
        let late = alarm.as_mut().poll(cx);
        late.map(|()| Err(Reason::ResponseHeadTimeout))
    })
    .await
}

/// A try with an endpoint to which there is a connection, or the last reason why there is none. At most
/// [`retry::TRIES_MAX`] are tried.
pub(super) async fn begin(
    worker: &Rc<Worker>,
    service: &Resolved,
    tried: &RefCell<Tried>,
    now: Instant,
) -> Result<(Try, Rc<Streams>), Error> {
    let random = worker.services.roll();
    let first = service.begin(&mut tried.borrow_mut(), random, now);
    let first = first.ok_or(Reason::NoEndpoints)?;
    match first.endpoint().peer.ready(worker)? {
        Some(streams) => Ok((first, streams)),
        // Boxed: it is seldom, and every idle connection of the app would hold room for it.
        None => Box::pin(connect(worker, service, tried, first)).await,
    }
}

/// Makes a connection for the try, or turns to other endpoints.
async fn connect(
    worker: &Rc<Worker>,
    service: &Resolved,
    tried: &RefCell<Tried>,
    mut one: Try,
) -> Result<(Try, Rc<Streams>), Error> {
    let mut tries = 1;
    loop {
        let error = match one.endpoint().peer.connection(worker).await {
            Ok(streams) => return Ok((one, streams)),
            Err(error) => error,
        };
        let now = Instant::now();
        match error.reason.row().blame {
            Blame::Peer => one.failed(Cause::Connect, error.reason, &worker.metrics, now),
            // It has all that we give it.
            Blame::Us if error.reason == Reason::Overloaded => {}
            Blame::Us | Blame::App | Blame::Client | Blame::Controller => return Err(error),
        }
        if tries == retry::TRIES_MAX {
            return Err(error);
        }
        let random = worker.services.roll();
        let next = service.begin(&mut tried.borrow_mut(), random, now);
        let Some(next) = next else {
            return Err(error);
        };
        one = next;
        tries += 1;
    }
}

#[cfg(test)]
mod tests;
