//! `ringmail proxies`: every sidecar as it tells of itself.

use serde::Serialize;

use super::fleet::{self, Sidecar};
use super::report::{self, Format, now, span};
use crate::cluster::client;

/// A proxy that heard nothing from the controller for so long is not in sync; it hears something every few seconds.
const SYNC_SECONDS: f64 = 30.0;

/// One row.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    namespace: String,
    pod: String,
    version: Option<String>,
    /// `in sync`, or why not.
    pub(super) sync: String,
    /// How long ago the controller confirmed what is in force.
    heard: Option<String>,
    /// How long the certificate is valid.
    expires: Option<String>,
    memory_mib: Option<f64>,
}

pub(super) async fn run(format: Format, namespace: Option<String>) -> anyhow::Result<bool> {
    let client = client::infer().await?;
    let pods = fleet::pods(&client, namespace.as_deref()).await?;
    let rows: Vec<Row> = fleet::ask(&client, &pods).await.iter().map(row).collect();
    let columns = [
        "namespace",
        "pod",
        "version",
        "sync",
        "heard",
        "expires",
        "memory_mib",
    ];
    report::print(format, &rows, &columns, "no pod has a sidecar")?;
    Ok(rows.iter().all(|row| row.sync == IN_SYNC))
}

pub(super) const IN_SYNC: &str = "in sync";

pub(super) fn row(sidecar: &Sidecar) -> Row {
    let Sidecar {
        namespace,
        pod,
        metrics,
        ..
    } = sidecar;
    let metric = |name: &str| metrics.as_ref().ok()?.get(name).copied();
    let now = now() as f64;
    let heard = metric("ringmail_control_heard_timestamp_seconds").map(|at| now - at);
    let expires = metric("ringmail_certificate_expiry_timestamp_seconds").map(|at| at - now);
    let is_connected = metric("ringmail_control_connected") == Some(1.0);
    let sync = match (metrics, expires, heard) {
        (Err(problem), _, _) => problem.clone(),
        (Ok(_), Some(left), _) if left <= 0.0 => "no valid certificate".to_owned(),
        (Ok(_), _, _) if !is_connected => "no controller".to_owned(),
        (Ok(_), _, Some(heard)) if heard <= SYNC_SECONDS => IN_SYNC.to_owned(),
        (Ok(_), _, _) => "heard nothing lately".to_owned(),
    };
    #[allow(clippy::cast_possible_truncation, reason = "seconds of some years")]
    let shown = |seconds: Option<f64>| seconds.map(|seconds| span(seconds as i64));
    let memory = metric("process_resident_memory_bytes");
    Row {
        namespace: namespace.clone(),
        pod: pod.clone(),
        version: sidecar
            .version
            .clone()
            .or_else(|| sidecar.injected_by.clone()),
        sync,
        heard: shown(heard),
        expires: shown(expires),
        memory_mib: memory.map(|bytes| (bytes / 1_048_576.0 * 10.0).round() / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_in_sync_says_why() {
        let fresh = now() as f64;
        let of = |connected: f64, heard: f64, expires: f64| {
            Ok([
                ("ringmail_control_connected", connected),
                ("ringmail_control_heard_timestamp_seconds", fresh + heard),
                (
                    "ringmail_certificate_expiry_timestamp_seconds",
                    fresh + expires,
                ),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into())
        };
        let rows = [
            (of(1.0, -2.0, 600.0), IN_SYNC),
            (of(0.0, -2.0, 600.0), "no controller"),
            (of(1.0, -100.0, 600.0), "heard nothing lately"),
            (of(1.0, -2.0, -1.0), "no valid certificate"),
            (Err("gone".to_owned()), "gone"),
        ];
        for (metrics, expected) in rows {
            let sidecar = Sidecar {
                namespace: "shop".into(),
                pod: "cart-0".into(),
                injected_by: None,
                metrics,
                version: None,
            };
            assert_eq!(row(&sidecar).sync, expected);
        }
    }
}
