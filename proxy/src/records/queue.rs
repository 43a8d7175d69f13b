//! Records of one worker between their end and whoever writes or sends them: gathered without a lock, handed over in
//! batches of [`BATCH_MAX`], or after [`TICK`].
//!
//! Limit: [`BATCHES_MAX`] wait to be written to the access log, as many for the audit, and as many to be sent. Beyond, they are lost, and counted.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::Notify;

use super::audit::Leaf;
use super::export::Parcel;
use super::scribe::Page;
use super::told::Told;
use super::trail::Event;
use crate::metrics::Counts;

/// How long a record waits for others.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Records that are handed over at once, at most.
const BATCH_MAX: usize = 512;
/// Batches that wait, of all workers.
pub(crate) const BATCHES_MAX: usize = 16;

/// What is handed over.
pub(crate) type Batch = Arc<Vec<Told>>;

/// Whoever takes batches.
#[derive(Debug, Clone)]
pub(crate) struct Hands {
    pub(crate) access_log: Option<SyncSender<Page>>,
    pub(crate) audit: Option<SyncSender<Leaf>>,
    pub(crate) spans: Option<tokio::sync::mpsc::Sender<Parcel<Batch>>>,
    pub(crate) counts: Counts,
}

/// Records of one worker.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: RefCell<Vec<Told>>,
    events: RefCell<Vec<Event>>,
    first: Notify,
    hands: Hands,
}

impl Queue {
    pub(super) fn new(hands: Hands) -> Self {
        Self {
            waiting: RefCell::default(),
            events: RefCell::default(),
            first: Notify::new(),
            hands,
        }
    }

    pub(super) fn put(&self, told: Told) {
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(told);
        match waiting.len() {
            1 => self.first.notify_one(),
            BATCH_MAX => self.hands.take(waiting.drain(..).collect()),
            _ => {}
        }
    }

    /// For the audit.
    pub(super) fn put_event(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        events.push(event);
        match events.len() {
            1 => self.first.notify_one(),
            BATCH_MAX => self.hands.tell(events.drain(..).collect()),
            _ => {}
        }
    }

    /// What should have been told to the audit, and is not.
    pub(super) fn lose_event(&self) {
        self.hands.counts.audit_lost.add(1);
    }

    /// Hands over what is there after a while, again and again. A worker that records nothing is not woken.
    pub(super) async fn hand_over(&self) {
        loop {
            self.first.notified().await;
            tokio::time::sleep(TICK).await;
            let (batch, events) = (self.waiting.take(), self.events.take());
            if !batch.is_empty() {
                self.hands.take(batch);
            }
            if !events.is_empty() {
                self.hands.tell(events);
            }
        }
    }
}

impl Hands {
    /// Nobody wants anything.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn none() -> Self {
        Self {
            access_log: None,
            audit: None,
            spans: None,
            counts: Counts::nowhere(),
        }
    }

    /// Never waits.
    fn tell(&self, events: Vec<Event>) {
        let count = events.len();
        if let Some(to) = &self.audit
            && to.try_send(Leaf::Events(events)).is_err()
        {
            self.counts.audit_lost.add(count as u64);
        }
    }

    /// Never waits.
    fn take(&self, batch: Vec<Told>) {
        let batch = Arc::new(batch);
        let logged = batch.iter().filter(|told| told.is_logged).count() as u64;
        let traced = batch.iter().filter(|told| told.span.is_some()).count() as u64;
        if let Some(to) = self.access_log.as_ref().filter(|_| logged > 0)
            && to.try_send(Page::Access(batch.clone())).is_err()
        {
            self.counts.access_log_lost.add(logged);
        }
        if let Some(to) = self.spans.as_ref().filter(|_| traced > 0)
            && to.try_send(Parcel::Some(batch)).is_err()
        {
            self.counts.spans_lost.add(traced);
        }
    }
}
