//! The roots, for the API server: `caBundle` of our webhook configurations. The chart renders none, so that two renders
//! are the same; whoever applies the chart again takes nothing away, and if something does, it is put back at once. What
//! keeps us from it is said in an Event, once: without, nobody would hear why pods cannot be made, or lack their sidecars.

use std::fmt::{self, Display, Formatter};
use std::pin::pin;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_stream::StreamExt;
use tracing::{info, warn};

use super::events::Voice;
use super::lead::{Desk, FIELD_MANAGER, RETRY};
use crate::metrics::Written;

/// The configuration by which pods get their sidecars.
pub(crate) const INJECTOR: &str = "ringmail-injector";

/// Our configurations, each of its kind.
pub(super) const CONFIGURATIONS: [Configuration; 2] = [
    Configuration {
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        name: INJECTOR,
    },
    Configuration {
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        name: "ringmail-validator",
    },
];

/// What is said when there is none.
const MISSING: &str =
    "pods get no sidecars: the configuration is gone; install or upgrade the chart again";

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Configuration {
    kind: &'static str,
    plural: &'static str,
    name: &'static str,
}

impl Configuration {
    pub(super) fn api(self, client: &Client) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "admissionregistration.k8s.io".into(),
            version: "v1".into(),
            api_version: "admissionregistration.k8s.io/v1".into(),
            kind: self.kind.into(),
            plural: self.plural.into(),
        };
        Api::all_with(client.clone(), &resource)
    }

    /// As events are about it.
    fn reference(self) -> ObjectReference {
        ObjectReference {
            api_version: Some("admissionregistration.k8s.io/v1".into()),
            kind: Some(self.kind.into()),
            name: Some(self.name.into()),
            ..ObjectReference::default()
        }
    }

    /// It alone.
    pub(super) fn selected(self) -> Config {
        Config::default().fields(&format!("metadata.name={}", self.name))
    }
}

impl Display for Configuration {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.kind, self.name)
    }
}

pub(super) struct Hooks {
    desk: Desk,
    voice: Voice,
}

impl Hooks {
    pub(super) fn new(desk: &Desk) -> Self {
        Self {
            desk: desk.clone(),
            voice: Voice::new(desk),
        }
    }

    pub(super) async fn run(self) {
        let [mutating, validating] = CONFIGURATIONS;
        tokio::join!(self.keep(mutating), self.keep(validating));
    }

    async fn keep(&self, which: Configuration) {
        let api = which.api(&self.desk.client);
        let mut events = pin!(watcher(api, which.selected()).default_backoff());
        let mut snapshots = self.desk.snapshots.clone();
        let mut latest: Option<DynamicObject> = None;
        let mut is_listed = false;
        let mut said: Option<(&str, String)> = None;
        loop {
            let patch = latest
                .as_ref()
                .and_then(|one| corrected(one, &self.roots()));
            let written = match patch {
                Some(patch) => self.write(which, patch).await.map(Some),
                None => Ok(None),
            };
            let failed = written.is_err();
            let trouble = match written {
                Err(e) => Some(("CaBundleNotWritten", e.to_string())),
                Ok(_) if latest.is_none() && is_listed => Some(("Missing", MISSING.to_owned())),
                Ok(None) => None,
                Ok(written) => {
                    latest = written;
                    None
                }
            };
            if trouble != said {
                if let Some((reason, note)) = &trouble {
                    self.voice.say(&which.reference(), reason, note).await;
                }
                said = trouble;
            }
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(one) | Event::InitApply(one))) => latest = Some(one),
                    Some(Ok(Event::Delete(_))) => latest = None,
                    Some(Ok(Event::Init)) => {}
                    Some(Ok(Event::InitDone)) => is_listed = true,
                    Some(Err(e)) => warn!("watch of {which} broken: {e}"),
                    None => return,
                },
                Ok(()) = snapshots.changed() => {}
                () = sleep(RETRY), if failed => {}
            }
        }
    }

    async fn write(&self, which: Configuration, patch: Value) -> kube::Result<DynamicObject> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let api = which.api(&self.desk.client);
        let outcome = api
            .patch(which.name, &params, &Patch::Strategic(patch))
            .await;
        self.desk.count(Written::CaBundle, &outcome);
        match &outcome {
            Ok(_) => info!("caBundle of {which} written"),
            Err(e) => warn!("cannot write caBundle of {which}: {e}"),
        }
        outcome
    }

    /// As a configuration holds it.
    fn roots(&self) -> Value {
        json!(ByteString(self.desk.roots().into_bytes()))
    }
}

/// A patch that names only the webhooks that are wrong; none when all are right.
fn corrected(configuration: &DynamicObject, roots: &Value) -> Option<Value> {
    let webhooks = configuration.data.get("webhooks")?.as_array()?;
    let wrong: Vec<Value> = webhooks
        .iter()
        .filter(|one| one.pointer("/clientConfig/caBundle") != Some(roots))
        .filter_map(|one| one.get("name"))
        .map(|name| json!({"name": name, "clientConfig": {"caBundle": roots}}))
        .collect();
    (!wrong.is_empty()).then(|| json!({"webhooks": wrong}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_is_written() {
        let rows = [
            (
                json!([{"name": "a", "clientConfig": {"caBundle": "cm9vdA=="}}]),
                None,
            ),
            (
                json!([{"name": "a", "clientConfig": {"caBundle": "cm9vdA=="}},
                       {"name": "b", "clientConfig": {}}, {"name": "c", "clientConfig": {"caBundle": "b2xk"}}]),
                Some(json!(["b", "c"])),
            ),
            (json!([]), None),
            (Value::Null, None),
        ];
        for (webhooks, wanted) in rows {
            let one: DynamicObject =
                serde_json::from_value(json!({"metadata": {}, "webhooks": webhooks}))
                    .expect("good");
            let patch = corrected(&one, &json!(ByteString(b"root".to_vec())));
            let names = patch.map(|patch| {
                let webhooks = patch["webhooks"].as_array().cloned().unwrap_or_default();
                webhooks.iter().map(|one| one["name"].clone()).collect()
            });
            assert_eq!(names, wanted);
        }
    }
}
