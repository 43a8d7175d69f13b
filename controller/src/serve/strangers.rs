//! How many callers without a certificate one address has at a time: anybody in the cluster may call, and none of them may
//! take the places of proxies.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ANONYMOUS_PER_SOURCE_MAX;

/// Those who are here, by address.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<HashMap<IpAddr, usize>>);

/// One of them; its drop says that it has gone.
#[derive(Debug)]
pub(super) struct Stranger {
    all: Arc<Strangers>,
    from: IpAddr,
}

impl Strangers {
    /// None when that address has all that it may.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Stranger> {
        let mut here = self.here();
        let count = here.entry(from).or_default();
        if *count >= ANONYMOUS_PER_SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(Stranger {
            all: self.clone(),
            from,
        })
    }

    fn here(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut here = self.all.here();
        let count = here.get_mut(&self.from).map(|count| {
            *count -= 1;
            *count
        });
        if count == Some(0) {
            here.remove(&self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let strangers = Arc::new(Strangers::default());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut here: Vec<_> = (0..ANONYMOUS_PER_SOURCE_MAX)
            .map(|_| strangers.admit(one).expect("within its share"))
            .collect();
        assert!(strangers.admit(one).is_none());
        assert!(strangers.admit(other).is_some());
        here.pop();
        assert!(strangers.admit(one).is_some());
        drop(here);
        assert!(strangers.here().is_empty());
    }
}
