//! Who is connected: so many in all, so many from one address. Nobody who asks nothing keeps others out: when all seats are
//! taken, the one goes that has asked nothing for longest, and before all others one that never asked anything.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Connections.
pub(super) const SEATS_MAX: usize = 256;
/// Connections from one address. An API server opens one for each review that it waits for.
pub(super) const SEATS_PER_SOURCE_MAX: usize = 64;

/// All seats.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    seats: HashMap<u64, Seat>,
}

#[derive(Debug)]
struct Seat {
    from: IpAddr,
    /// Whether a review was answered on it, and since when nothing is asked; none while it is being answered.
    idle: Option<(bool, Instant)>,
    left: Arc<Notify>,
}

/// One connection's seat; its drop leaves it.
#[derive(Debug)]
pub(super) struct Seated {
    all: Arc<Seats>,
    number: u64,
    left: Arc<Notify>,
}

/// A review that is being answered; its drop says that it is over.
#[derive(Debug)]
pub(super) struct Asking<'a>(&'a Seated);

impl Seats {
    /// A seat for a caller from that address; none when it has all that it may have, or everybody is being answered.
    pub(super) fn take(self: &Arc<Self>, from: IpAddr, now: Instant) -> Option<Seated> {
        let mut taken = self.taken();
        let own = taken.seats.values().filter(|seat| seat.from == from);
        if own.count() >= SEATS_PER_SOURCE_MAX {
            return None;
        }
        if taken.seats.len() >= SEATS_MAX {
            let idle = taken.seats.iter();
            let idle = idle.filter_map(|(number, seat)| Some((seat.idle?, *number)));
            let (_, idlest) = idle.min()?;
            let seat = taken.seats.remove(&idlest)?;
            seat.left.notify_one();
        }
        let number = taken.next;
        taken.next += 1;
        let left = Arc::new(Notify::new());
        let seat = Seat {
            from,
            idle: Some((false, now)),
            left: left.clone(),
        };
        taken.seats.insert(number, seat);
        Some(Seated {
            all: self.clone(),
            number,
            left,
        })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seated {
    /// Until the seat is somebody else's.
    pub(super) async fn left(&self) {
        self.left.notified().await;
    }

    /// From now on it is being answered.
    pub(super) fn ask(&self) -> Asking<'_> {
        self.put(None);
        Asking(self)
    }

    fn put(&self, idle: Option<(bool, Instant)>) {
        if let Some(seat) = self.all.taken().seats.get_mut(&self.number) {
            seat.idle = idle;
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.put(Some((true, Instant::now())));
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.all.taken().seats.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn from(number: usize) -> IpAddr {
        IpAddr::from([10, 0, 0, u8::try_from(number).expect("small")])
    }

    #[test]
    fn one_source_has_its_share_and_the_idlest_goes_first() {
        let seats = Arc::new(Seats::default());
        let begun = Instant::now();
        let mut taken: Vec<Seated> = (0..SEATS_MAX)
            .map(|n| {
                let now = begun + Duration::from_millis(n as u64);
                let seat = seats.take(from(n / SEATS_PER_SOURCE_MAX), now);
                seat.expect("free")
            })
            .collect();
        assert!(seats.take(from(0), begun).is_none(), "it has its share");
        // The first has been answered, the second is being answered: the third is idlest.
        drop(taken[0].ask());
        let asking = taken[1].ask();
        let newcomer = seats.take(from(9), Instant::now()).expect("a place");
        let is_there = |one: &Seated| seats.taken().seats.contains_key(&one.number);
        assert!(is_there(&taken[0]) && is_there(&taken[1]) && is_there(&newcomer));
        assert!(!is_there(&taken[2]));
        drop(asking);
        // What is left is left once.
        drop(taken.remove(2));
        assert_eq!(seats.taken().seats.len(), SEATS_MAX);
        drop(taken);
        assert_eq!(seats.taken().seats.len(), 1);
        let all: Vec<_> = (0..SEATS_PER_SOURCE_MAX)
            .map(|_| seats.take(from(1), begun).expect("free"))
            .collect();
        assert!(seats.take(from(1), begun).is_none());
        drop(all);
        assert!(seats.take(from(1), begun).is_some());
    }
}
