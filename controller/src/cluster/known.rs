//! Whether the API server knows us: a replica is ready only once the webhook configurations carry a root under which its
//! certificate verifies, so that whoever waited for a ready replica may make pods. Looked at until then, never after: a
//! caBundle that somebody breaks later must not take proxies their controller.

use std::pin::pin;
use std::time::Duration;

use k8s_openapi::ByteString;
use kube::Client;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Event, watcher};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use serde_json::Value;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tracing::warn;

use super::hooks::{CONFIGURATIONS, Configuration};
use crate::authority::Authority;

/// Longer than Helm waits for an install (5 min), so that one which cannot work fails; then proxies are let in all the same.
const PATIENCE: Duration = Duration::from_secs(600);

/// Until the API server knows us, or nothing is to be hoped for any more.
pub(crate) async fn wait(client: &Client, authority: &Authority) {
    let [injector, validator] = CONFIGURATIONS;
    let both = async {
        tokio::join!(
            carries(client, authority, injector),
            carries(client, authority, validator)
        )
    };
    if timeout(PATIENCE, both).await.is_err() {
        warn!(
            "after {PATIENCE:?} the webhook configurations do not carry our root; ready without, but pods of meshed \
             namespaces cannot be made"
        );
    }
}

async fn carries(client: &Client, authority: &Authority, which: Configuration) {
    let mut successions = authority.successions();
    let mut events = pin!(watcher(which.api(client), which.selected()).default_backoff());
    let mut latest: Option<DynamicObject> = None;
    loop {
        if let Some(found) = &latest
            && is_known(found, |roots| {
                authority.verifies_under(roots, UnixTime::now())
            })
        {
            return;
        }
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Apply(one) | Event::InitApply(one))) => latest = Some(one),
                Some(Ok(Event::Delete(_))) => latest = None,
                Some(Ok(Event::Init | Event::InitDone)) => {}
                Some(Err(e)) => warn!("watch of {which} broken: {e}"),
                None => return,
            },
            Ok(()) = successions.changed() => {}
        }
    }
}

/// Whether every webhook has roots that are enough.
fn is_known(
    configuration: &DynamicObject,
    is_enough: impl Fn(Vec<CertificateDer<'static>>) -> bool,
) -> bool {
    let webhooks = configuration.data.get("webhooks").and_then(Value::as_array);
    webhooks.into_iter().flatten().all(|one| {
        let bundle = one.pointer("/clientConfig/caBundle").cloned();
        let pem = bundle.and_then(|bundle| serde_json::from_value::<ByteString>(bundle).ok());
        let roots = pem.and_then(|pem| {
            CertificateDer::pem_slice_iter(&pem.0)
                .collect::<Result<_, _>>()
                .ok()
        });
        roots.is_some_and(&is_enough)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_webhook_must_know_us() {
        let pem = |der: &[u8]| {
            let text = crate::authority::to_pem(&[CertificateDer::from(der.to_vec())]);
            json!({"clientConfig": {"caBundle": ByteString(text.into_bytes())}})
        };
        let rows = [
            (json!([pem(b"ours"), pem(b"ours")]), true),
            (json!([pem(b"ours"), pem(b"other")]), false),
            (json!([pem(b"ours"), {"clientConfig": {}}]), false),
            (json!([{"clientConfig": {"caBundle": "bm8gUEVN"}}]), false),
            (json!([{"clientConfig": {"caBundle": "?"}}]), false),
            (json!([]), true),
        ];
        for (webhooks, wanted) in rows {
            let one = serde_json::from_value(json!({"metadata": {}, "webhooks": webhooks}));
            let is_enough = |roots: Vec<_>| roots.contains(&CertificateDer::from(&b"ours"[..]));
            let found = is_known(&one.expect("good"), is_enough);
            assert_eq!(found, wanted, "{webhooks}");
        }
    }
}
