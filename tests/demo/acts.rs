//! What is checked. Each act returns its evidence in a line, or why the check did not hold.

use crate::stage::Stage;

/// Who everybody is.
mod identities;

/// Somebody who is not meshed.
mod intruder;

/// Who may ask whom for what.
mod policy;

/// How often they may.
mod limit;

/// New certificates under load.
mod rotation;

/// The controller dies and comes back.
mod restart;

/// What could be read between the pods.
mod wire;

/// What it costs.
mod latency;

type Act = fn(&mut Stage<'_>) -> anyhow::Result<String>;

/// Every act, in order: the wire is judged when all traffic but the measured is over.
pub(crate) const ACTS: &[(&str, Act)] = &[
    ("every identity issued", identities::issued),
    ("intruder: plaintext", intruder::plaintext_is_refused),
    ("intruder: self-signed", intruder::self_signed_is_refused),
    ("meshed, without a right", policy::without_a_right),
    ("shadow policy promoted", policy::shadow_is_promoted),
    ("one limit for three pods", limit::is_shared),
    ("identity revoked", policy::identity_is_revoked),
    ("certificates rotate", rotation::under_load),
    ("controller killed, restarted", restart::under_load),
    ("only TLS 1.3 on the wire", wire::nothing_is_readable),
    ("latency, direct and meshed", latency::compared),
];
