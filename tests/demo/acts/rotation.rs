//! Certificates are replaced several times, each with a new key, and no request notices.

use std::collections::HashSet;

use anyhow::Context;

use crate::figures::certificate;
use crate::stage::{LEAF_LIFETIME, Stage};
use crate::traffic::Traffic;

/// How often each proxy's certificate is seen to change.
const ROTATIONS: usize = 3;

pub(super) fn under_load(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let traffic = Traffic::start(stage);
    let rotated = watch_rotations(stage, ROTATIONS);
    let totals = traffic.finish(stage)?;
    let certificates = rotated?;
    Ok(format!(
        "{ROTATIONS} rotations of each proxy ({certificates} certificates); {totals}"
    ))
}

/// Waits until every proxy has had so many new certificates; how many serials were seen in all.
pub(super) fn watch_rotations(stage: &Stage<'_>, rotations: usize) -> anyhow::Result<usize> {
    let mut seen = [(); 3].map(|()| HashSet::new());
    let limit = LEAF_LIFETIME * u32::try_from(rotations + 1)?;
    let look = || {
        for (member, serials) in stage.members().into_iter().zip(&mut seen) {
            let Ok(certificate) = certificate(&member.pod) else {
                continue;
            };
            let is_first = serials.is_empty();
            if serials.insert(certificate.serial.clone()) && !is_first {
                let (name, number) = (&member.pod.name, serials.len() - 1);
                let serial = certificate.serial;
                stage
                    .teller
                    .say(format_args!("{name:9} new certificate {number}: {serial}"));
            }
        }
        seen.iter().all(|serials| serials.len() > rotations)
    };
    let waited = stage.interrupt.until(limit, look);
    let counts: Vec<_> = seen.iter().map(HashSet::len).collect();
    waited.with_context(|| format!("certificates seen by proxy: {counts:?}"))?;
    Ok(counts.iter().sum())
}
