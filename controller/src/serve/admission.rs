//! How many watch streams, how fast: a fleet that reconnects at once is let in at a pace that leaves time to answer
//! those already in. What is refused names why, and the proxy comes back after a random while.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use crate::pace::{Bucket, Pace};

/// Watch streams at once.
pub(super) const STREAMS_MAX: usize = 20_000;
/// New watch streams: 2000 at once, then 1000 a second.
const NEW_STREAMS: Pace = Pace {
    burst: 2000,
    refill: Duration::from_millis(1),
};

/// The gate before new streams.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    bucket: Arc<Mutex<Bucket>>,
}

impl Admission {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
            bucket: Arc::new(Mutex::new(Bucket::full(now))),
        }
    }

    /// A place, given back when it is dropped.
    pub(super) fn admit(&self, now: Instant) -> Result<OwnedSemaphorePermit, Status> {
        let place = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("20000 watch streams are open here"))?;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket
            .take(NEW_STREAMS, now)
            .map_err(|_| Status::unavailable("too many new watch streams at once"))?;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back_and_speed_is_bounded() {
        let start = Instant::now();
        let admission = Admission::new(start);
        let mut held = Vec::new();
        for _ in 0..NEW_STREAMS.burst {
            held.push(admission.admit(start).expect("within the burst"));
        }
        let refused = admission.admit(start).expect_err("beyond the burst");
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        let later = start + Duration::from_secs(60);
        while held.len() < STREAMS_MAX {
            let now = later + NEW_STREAMS.refill * u32::try_from(held.len()).expect("small");
            held.push(admission.admit(now).expect("at its pace"));
        }
        let later = later + Duration::from_secs(600);
        let refused = admission.admit(later).expect_err("all places are taken");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        held.pop();
        assert!(admission.admit(later).is_ok());
    }
}
