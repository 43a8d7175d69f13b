//! Writing the status of objects. What says the same already is not written; each write names the version it is based on,
//! so that nothing that another wrote meanwhile is lost; a time changes only when a status does.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tracing::warn;

use super::lead::{Desk, FIELD_MANAGER, RESYNC};
use super::rounds::Round;
use crate::metrics::Written;
use crate::model::Condition;
use crate::source::cluster::resource;
use crate::source::objects::Key;

/// Every status is looked at again so often, for what somebody else undid.
pub(super) const LOOK_AGAIN: Duration = RESYNC.saturating_mul(10);
/// What the API server says to a status that no object may have: one for more than 32 parents, say.
const INVALID: u16 = 422;
/// What it says to a write that is based on an older version.
const CONFLICT: u16 = 409;
/// Characters of a message, as the Gateway API takes them.
const MESSAGE_CHARS_MAX: usize = 1024;

/// What the status of an object is to be.
#[derive(Debug, PartialEq)]
pub(super) enum Wanted {
    /// Another: these fields of it.
    New(Value),
    /// As it is.
    Same,
    /// That is for what is said of a newer version of the object, or of another object of its name.
    Unknown,
}

/// Statuses of one kind, as they were written last; a verdict is what they are made of.
pub(super) struct Statuses<V> {
    desk: Desk,
    counted: Written,
    written: HashMap<Key, V>,
}

impl<V: PartialEq> Statuses<V> {
    pub(super) fn new(desk: &Desk, counted: Written) -> Self {
        Self {
            desk: desk.clone(),
            counted,
            written: HashMap::new(),
        }
    }

    /// Objects about which something was said.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.written.keys()
    }

    /// There is nothing more to be said of it.
    pub(super) fn forget(&mut self, is_over: impl Fn(&Key, &V) -> bool) {
        self.written.retain(|key, verdict| !is_over(key, verdict));
    }

    /// Writes what is new among the verdicts.
    pub(super) async fn write(
        &mut self,
        verdicts: HashMap<Key, V>,
        wanted: impl Fn(&DynamicObject, &V, Timestamp) -> Wanted,
    ) -> Round {
        let mut round = Round::Done;
        for (key, verdict) in verdicts {
            if self.written.get(&key) == Some(&verdict) {
                continue;
            }
            let wanted = |live: &DynamicObject| wanted(live, &verdict, Timestamp::now());
            match self.write_one(&key, wanted).await {
                Ok(true) => drop(self.written.insert(key, verdict)),
                // A newer object, or a status that another changed meanwhile.
                Ok(false) => round = Round::Failed,
                Err(e) => {
                    warn!("cannot write the status of {key}: {e}");
                    match refusal(&e) {
                        // It would be refused again, until somebody changes the object or all are looked at.
                        Some(INVALID) => drop(self.written.insert(key, verdict)),
                        Some(_) => round = Round::Failed,
                        // The others would fail too: they wait for the next round.
                        None => return Round::Failed,
                    }
                }
            }
        }
        round
    }

    /// False when it is to be tried again with newer objects.
    async fn write_one(
        &self,
        key: &Key,
        wanted: impl FnOnce(&DynamicObject) -> Wanted,
    ) -> Result<bool, kube::Error> {
        let resource = resource(key.kind);
        let client = self.desk.client.clone();
        let api = match &*key.namespace {
            "" => Api::<DynamicObject>::all_with(client, &resource),
            namespace => Api::namespaced_with(client, namespace, &resource),
        };
        let Some(live) = api.get_opt(&key.name).await? else {
            return Ok(true);
        };
        let status = match wanted(&live) {
            Wanted::New(status) => status,
            Wanted::Same => return Ok(true),
            Wanted::Unknown => return Ok(false),
        };
        let patch = json!({
            "metadata": {"resourceVersion": live.metadata.resource_version},
            "status": status,
        });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let outcome = api
            .patch_status(&key.name, &params, &Patch::Merge(&patch))
            .await;
        self.desk.count(self.counted, &outcome);
        match outcome {
            Ok(_) => Ok(true),
            Err(e) if refusal(&e) == Some(CONFLICT) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// What the API server said to a write, when it was there to say something.
fn refusal(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Conditions as they are written, beside the `known` ones.
pub(super) fn conditions(
    all: &[Condition],
    known: Option<&Value>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Value> {
    let known = known.and_then(Value::as_array);
    let known = known.map_or(&[][..], Vec::as_slice);
    all.iter()
        .map(|one| condition(one, known, generation, now))
        .collect()
}

fn condition(one: &Condition, known: &[Value], generation: Option<i64>, now: Timestamp) -> Value {
    let same = known
        .iter()
        .find(|other| other.get("type") == Some(&json!(one.kind)))
        .filter(|other| other.get("status") == Some(&json!(one.status)));
    let since = same
        .and_then(|other| other.get("lastTransitionTime"))
        .cloned();
    let message: String = one.message.chars().take(MESSAGE_CHARS_MAX).collect();
    json!({
        "type": one.kind,
        "status": one.status,
        "reason": one.reason,
        "message": message,
        "observedGeneration": generation,
        "lastTransitionTime": since.unwrap_or_else(|| {
            // Seconds, as every client of the API server writes them.
            json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        }),
    })
}
