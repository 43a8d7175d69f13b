//! Connections that did not prove who they are yet, of one worker. Each holds a buffer or a handshake for whoever it is, so
//! there are [`PLACES_MAX`] of a kind; more wait for their turn, in order. Nobody has more than [`PLACES_OF_ONE`] by one
//! address, whatever it opens: it waits behind itself.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::error::{Error, Reason};

/// Places of one kind.
const PLACES_MAX: usize = 256;
/// Of these, places of one address.
const PLACES_OF_ONE: usize = 32;

/// The places of one kind: a flood of one kind holds up no other.
#[derive(Debug)]
pub(crate) struct Strangers {
    places: Semaphore,
    /// Those who have places or wait for them.
    sources: RefCell<HashMap<IpAddr, Arc<Semaphore>>>,
}

/// A place. Dropping it gives it to who waits.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    _of_all: SemaphorePermit<'a>,
    _of_one: OwnedSemaphorePermit,
    // Behind its permit: a source is forgotten by who leaves last.
    _source: Source<'a>,
}

/// That somebody at an address has a place or waits. Dropping the last of an address forgets it.
#[derive(Debug)]
struct Source<'a> {
    strangers: &'a Strangers,
    address: IpAddr,
    places: Arc<Semaphore>,
}

impl Default for Strangers {
    fn default() -> Self {
        Self {
            places: Semaphore::new(PLACES_MAX),
            sources: RefCell::default(),
        }
    }
}

impl Strangers {
    /// A place for somebody at `address`, when there is one. A future that is dropped has none.
    pub(crate) async fn place(&self, address: IpAddr) -> Result<Place<'_>, Error> {
        let source = self.source(address.to_canonical());
        let places = source.places.clone();
        let of_one = places.acquire_owned().await;
        let of_all = self.places.acquire().await;
        let closed = |closed| Reason::Draining.because(closed);
        Ok(Place {
            _of_all: of_all.map_err(closed)?,
            _of_one: of_one.map_err(closed)?,
            _source: source,
        })
    }

    fn source(&self, address: IpAddr) -> Source<'_> {
        let mut sources = self.sources.borrow_mut();
        let new = || Arc::new(Semaphore::new(PLACES_OF_ONE));
        Source {
            strangers: self,
            address,
            places: sources.entry(address).or_insert_with(new).clone(),
        }
    }
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        let mut sources = self.strangers.sources.borrow_mut();
        // Held by the map and by us.
        if Arc::strong_count(&self.places) == 2 {
            sources.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// None when it would have to wait.
    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_address_waits_behind_itself_and_all_for_the_whole() {
        let strangers = Strangers::default();
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let take = |n| now(strangers.place(address(n))).map(|place| place.expect("never closed"));
        let mut first: Vec<_> = (0..PLACES_OF_ONE).filter_map(|_| take(1)).collect();
        assert_eq!(first.len(), PLACES_OF_ONE);
        assert!(take(1).is_none(), "one address has them all");
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().expect("an address");
        assert!(
            now(strangers.place(mapped)).is_none(),
            "by another spelling"
        );
        assert!(take(2).is_some(), "a neighbour waits");
        first.pop();
        first.push(take(1).expect("a place is free again"));

        let others = PLACES_MAX / PLACES_OF_ONE - 1;
        let others = (2..).take(others).flat_map(|n| [n; PLACES_OF_ONE]);
        let others: Vec<_> = others.filter_map(take).collect();
        assert_eq!(first.len() + others.len(), PLACES_MAX);
        assert!(take(200).is_none(), "more than all");
        drop((first, others));
        assert!(strangers.sources.borrow().is_empty(), "who left is kept");
    }
}
