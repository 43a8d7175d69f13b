//! Roots that nobody signs under any more: trusted while a leaf under them may live, and not longer. Pure.

use std::collections::HashMap;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::signing::validity;

/// Beside the life of a leaf: for clocks that differ, and for replicas that heard of the successor later.
const MARGIN: Duration = Duration::from_secs(3600);

/// When each stops being trusted, seconds since the Unix epoch.
#[derive(Debug, Default)]
pub(super) struct Former(HashMap<CertificateDer<'static>, u64>);

impl Former {
    /// Nobody signs under this root from now on; false when it is worth nothing any more. One that is known to be so
    /// keeps its time.
    pub(super) fn add(
        &mut self,
        root: &CertificateDer<'static>,
        leaf_lifetime: Duration,
        now: UnixTime,
    ) -> bool {
        let end = validity("former root", root).map_or(0, |(_, end)| end);
        if end <= now.as_secs() {
            return false;
        }
        let until = now.as_secs() + (leaf_lifetime + MARGIN).as_secs();
        self.0.entry(root.clone()).or_insert(until.min(end));
        true
    }

    /// Somebody signs under it again.
    pub(super) fn remove(&mut self, root: &CertificateDer<'static>) {
        self.0.remove(root);
    }

    /// Those of `roots` that are still to be trusted.
    pub(super) fn current(
        &self,
        roots: &[CertificateDer<'static>],
        now: UnixTime,
    ) -> Vec<CertificateDer<'static>> {
        let is_over = |root: &&CertificateDer<'_>| {
            let until = self.0.get(*root);
            until.is_some_and(|until| *until <= now.as_secs())
        };
        let current = roots.iter().filter(|root| !is_over(root));
        current.cloned().collect()
    }

    /// Leaves out the former ones that end first, until there are `most`.
    pub(super) fn fit(&self, roots: &mut Vec<CertificateDer<'static>>, most: usize) {
        while roots.len() > most {
            let until = |root: &CertificateDer<'_>| self.0.get(root).copied();
            let former = roots.iter().enumerate();
            let former = former.filter_map(|(index, root)| Some((until(root)?, index)));
            let Some((_, first)) = former.min() else {
                return;
            };
            roots.remove(first);
        }
    }
}
