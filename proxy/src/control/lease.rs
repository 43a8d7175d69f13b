//! The stream to the ledger of rate limits: what our workers need, in exchange for what it grants. There is one as long as
//! a limit that holds for all proxies is in use. Limit: [`REQUESTS_MAX`] requests on their way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ringmail_proto::limit::LEASE_TIME;
use ringmail_proto::limit::session::{Memory, Session};
use ringmail_proto::pb;
use ringmail_proto::pb::lease_service_client::LeaseServiceClient;
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::channel::Show;
use super::{Backoff, CALL_TIMEOUT, Control};
use crate::error::{Error, Reason};
use crate::limits::buckets::{Buckets, Key};

/// Requests on their way to the ledger.
const REQUESTS_MAX: usize = 64;
/// Between two requests, unless somebody waits.
const TICK: Duration = Duration::from_millis(10);
/// A ledger that answers nothing for so long is gone.
const SILENCE_MAX: Duration = LEASE_TIME.saturating_mul(2);
/// After this, a session was one that worked.
const WORKED: Duration = Duration::from_secs(1);

/// A key without a session, and what is known of it.
type Known = Vec<(Arc<Key>, Option<Memory>)>;

/// Leases for as long as the process lives.
pub(super) async fn run(control: &Control, buckets: &Buckets, mut news: mpsc::Receiver<Arc<Key>>) {
    let mut known = Known::new();
    let mut backoff = Backoff::new();
    loop {
        if known.is_empty() {
            // Only this process' end stops the news.
            let Some(first) = news.recv().await else {
                return;
            };
            known.push((first, None));
        }
        let begun = Instant::now();
        control.metrics.rate_limit_fallback.set(1);
        let mut leasing = Leasing {
            buckets,
            session: Session::new(),
            keys: BTreeMap::new(),
        };
        let ended = leasing.run(control, known, &mut news).await;
        known = leasing.end(control);
        let is_needed = !known.is_empty();
        control.metrics.rate_limit_fallback.set(is_needed.into());
        tracing::warn!(error = ?ended, "lease stream ended; until there is another, limits do as their onUnavailable says");
        if begun.elapsed() > WORKED {
            backoff = Backoff::new();
        }
        backoff.wait().await;
    }
}

/// One session.
struct Leasing<'a> {
    buckets: &'a Buckets,
    session: Session,
    keys: BTreeMap<u32, Arc<Key>>,
}

impl Leasing<'_> {
    async fn run(
        &mut self,
        control: &Control,
        known: Known,
        news: &mut mpsc::Receiver<Arc<Key>>,
    ) -> Result<(), Error> {
        let away = |status: tonic::Status| Reason::UnknownDestination.because(status);
        for (key, memory) in known {
            self.hold(key, memory);
        }
        let mut client = LeaseServiceClient::new(control.channel(Show::Certificate).await?);
        let (requests, outgoing) = mpsc::channel(REQUESTS_MAX);
        let first = pb::LeaseRequest {
            workload: Some((&control.config.workload).into()),
            ..self.session.report(Instant::now()).unwrap_or_default()
        };
        send(&requests, first)?;
        let opened = timeout(CALL_TIMEOUT, client.lease(ReceiverStream::new(outgoing))).await;
        let opened = opened.map_err(|elapsed| Reason::UnknownDestination.because(elapsed))?;
        let mut responses: Streaming<pb::LeaseResponse> = opened.map_err(away)?.into_inner();
        let (mut last_sent, mut is_urgent) = (Instant::now(), false);
        loop {
            let now = Instant::now();
            let silent = self.session.unanswered_since();
            let silence = silent.map(|since| now.saturating_duration_since(since));
            if silence > Some(SILENCE_MAX) {
                return Err(Reason::UnknownDestination.rule("the ledger does not answer"));
            }
            let is_up = self.session.is_open(now) && silence <= Some(LEASE_TIME);
            self.buckets.set(is_up, self.session.spend_until());
            control.metrics.ledger_up.set(is_up.into());
            let is_alone = !is_up && !self.keys.is_empty();
            control.metrics.rate_limit_fallback.set(is_alone.into());
            let is_due = now >= last_sent + TICK;
            if (is_due || is_urgent && silent.is_none())
                && let Some(request) = self.session.report(now)
            {
                send(&requests, request)?;
                self.give_up();
                (last_sent, is_urgent) = (now, false);
            }
            tokio::select! {
                response = responses.message() => {
                    let response = response.map_err(away)?;
                    self.receive(&response.ok_or(Reason::UnknownDestination)?, control)?;
                }
                Some(key) = news.recv() => {
                    self.hold(key, None);
                    is_urgent = true;
                }
                () = self.buckets.needed.notified() => is_urgent = true,
                () = sleep_until((now + TICK).into()), if !self.keys.is_empty() => {}
            }
        }
    }

    /// Speaks of a key from now on.
    fn hold(&mut self, key: Arc<Key>, memory: Option<Memory>) {
        let name = (key.limit.clone(), key.name.clone());
        let lease = key.lease.clone();
        let number = self
            .session
            .hold(lease, name, key.pace, memory, Instant::now());
        self.keys.insert(number, key);
    }

    fn receive(&mut self, response: &pb::LeaseResponse, control: &Control) -> Result<(), Error> {
        let now = Instant::now();
        let before = self.session.spend_until();
        let received = self.session.receive(response, now);
        received.map_err(|invalid| Reason::UnknownDestination.because(invalid))?;
        // First of all: what was granted may be spent.
        let is_open = self.session.is_open(now);
        self.buckets.set(is_open, self.session.spend_until());
        let until = self.session.spend_until();
        if let Some(until) = until.filter(|_| until != before) {
            // Leases hold from when the request was sent that is answered.
            let lag = LEASE_TIME.saturating_sub(until.saturating_duration_since(now));
            control.metrics.rate_limit_lag.observe(lag);
        }
        for grant in &response.grants {
            let outlook = self.session.outlook(grant.number);
            if let (Some(key), Some(outlook)) = (self.keys.get(&grant.number), outlook) {
                key.expect(self.buckets, outlook.wait_until, outlook.sharers);
            }
        }
        Ok(())
    }

    /// Keys that nobody has used of late.
    fn give_up(&mut self) {
        let given_up = self.session.take_given_up();
        let keys = given_up
            .iter()
            .filter_map(|number| self.keys.remove(number));
        let keys: Vec<_> = keys.collect();
        for key in &keys {
            key.is_told.store(false, Relaxed);
        }
        if !keys.is_empty() {
            self.buckets.forget(&keys);
        }
    }

    /// What the next session should speak of, as far as there still are such limits. What is leased may be spent until
    /// its time is over.
    fn end(self, control: &Control) -> Known {
        self.buckets.set(false, self.session.spend_until());
        control.metrics.ledger_up.set(0);
        let mut memories = self.session.memories();
        let authorized = control.snapshot.authorization();
        let limits = authorized.iter().flat_map(|one| &one.limits);
        let names: Vec<_> = limits.map(|limit| limit.name.clone()).collect();
        let now = Instant::now();
        // A session that never was takes nothing: what was there went with the one before.
        let was_heard = self.session.spend_until().is_some();
        let mut known = Known::new();
        for (number, key) in self.keys {
            let memory = memories.remove(&number);
            if memory.is_some() && was_heard {
                key.begin_alone(self.buckets, now);
            }
            if names.contains(&key.limit) {
                known.push((key, memory));
            }
        }
        known
    }
}

/// A ledger that does not take requests is as good as gone.
fn send(requests: &mpsc::Sender<pb::LeaseRequest>, request: pb::LeaseRequest) -> Result<(), Error> {
    let sent = requests.try_send(request);
    sent.map_err(|error| Reason::UnknownDestination.because(error))
}
