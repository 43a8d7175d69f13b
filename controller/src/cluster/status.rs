//! Status of routes: the entries of `status.parents` that are this controller's, as the model found them; entries of
//! other controllers are left as they are. A time changes only when a status does, and what says the same already is not
//! written. Each write names the version it is based on, so that nobody's entry is lost between reading and writing.

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tracing::warn;

use super::lead::{Desk, FIELD_MANAGER, RESYNC};
use super::rounds::{Round, Rounds};
use crate::metrics::Written;
use crate::model::{Condition, RouteStatus};
use crate::source::cluster::{is_service, resource};
use crate::source::objects::{Key, Kind};
use crate::source::{ObjectStatus, Refusal};

/// Whose entries are ours.
const CONTROLLER: &str = "ringmail.io/controller";
/// Rounds of `RESYNC` after which every status is looked at again.
const LOOK_AGAIN: u32 = 10;
/// What the API server says to a status that no route may have: one for more than 32 parents, say.
const INVALID: u16 = 422;
/// Characters of a message, as the Gateway API takes them.
const MESSAGE_CHARS_MAX: usize = 1024;

/// What is to be said of one route.
#[derive(Debug, Clone, PartialEq)]
enum Verdict {
    /// The model has it.
    Read(RouteStatus),
    /// It could not be read.
    Refused(String, Refusal),
    /// It has no Service as parent any more.
    NotOurs,
}

pub(super) struct Statuses {
    desk: Desk,
}

impl Statuses {
    pub(super) fn new(desk: &Desk) -> Self {
        Self { desk: desk.clone() }
    }

    pub(super) async fn run(mut self) {
        let mut written: HashMap<Key, Verdict> = HashMap::new();
        let mut rounds = Rounds::new(LOOK_AGAIN * RESYNC);
        loop {
            let routes = self.desk.snapshots.borrow_and_update().mesh.clone();
            let state = self.desk.states.borrow_and_update().clone();
            let noted = state.iter().flat_map(|state| &state.noted);
            let mut verdicts = verdicts(routes.routes(), noted);
            for key in written.keys() {
                verdicts.entry(key.clone()).or_insert(Verdict::NotOurs);
            }
            let mut round = Round::Done;
            for (key, verdict) in verdicts {
                if written.get(&key) == Some(&verdict) {
                    continue;
                }
                match self.write(&key, &verdict).await {
                    Ok(true) if verdict == Verdict::NotOurs => {
                        written.remove(&key);
                    }
                    Ok(true) => {
                        written.insert(key, verdict);
                    }
                    // A newer route, or a status that another changed meanwhile.
                    Ok(false) => round = Round::Failed,
                    Err(e) => {
                        warn!("cannot write the status of {key}: {e}");
                        match refusal(&e) {
                            // It would be refused again, until somebody changes the route or all are looked at.
                            Some(INVALID) => {
                                written.insert(key, verdict);
                            }
                            Some(_) => round = Round::Failed,
                            // The others would fail too: they wait for the next round.
                            None => {
                                round = Round::Failed;
                                break;
                            }
                        }
                    }
                }
            }
            if rounds.next(round, self.desk.changed()).await {
                written.clear();
            }
        }
    }

    /// False when it is to be tried again with newer objects.
    async fn write(&self, key: &Key, verdict: &Verdict) -> Result<bool, kube::Error> {
        let resource = resource(key.kind);
        let api = Api::<DynamicObject>::namespaced_with(
            self.desk.client.clone(),
            &key.namespace,
            &resource,
        );
        let Some(live) = api.get_opt(&key.name).await? else {
            return Ok(true);
        };
        let Some(entries) = entries(&live, verdict) else {
            return Ok(false);
        };
        let generation = live.metadata.generation;
        let before = live.data.pointer("/status/parents");
        let before = before
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let Some(parents) = merged(&before, entries, generation, Timestamp::now()) else {
            return Ok(true);
        };
        let patch = json!({
            "metadata": {"resourceVersion": live.metadata.resource_version},
            "status": {"parents": parents},
        });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        let outcome = api
            .patch_status(&key.name, &params, &Patch::Merge(&patch))
            .await;
        self.desk.count(Written::Status, &outcome);
        match outcome {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
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

/// What is to be said, by route. A refusal counts: what the model has then is an older value.
fn verdicts<'a>(
    routes: &[RouteStatus],
    noted: impl Iterator<Item = &'a ObjectStatus>,
) -> HashMap<Key, Verdict> {
    let read = routes.iter().map(|route| {
        let kind = match route.kind {
            "GRPCRoute" => Kind::GRPCRoute,
            "TLSRoute" => Kind::TLSRoute,
            _ => Kind::HTTPRoute,
        };
        let key = Key {
            kind,
            namespace: route.namespace.as_str().into(),
            name: route.name.as_str().into(),
        };
        (key, Verdict::Read(route.clone()))
    });
    let refused = noted.filter_map(|one| {
        let is_route = Kind::ROUTES.contains(&one.object.kind);
        let refusal = one.refused.clone().filter(|_| is_route)?;
        Some((
            one.object.clone(),
            Verdict::Refused(one.uid.clone(), refusal),
        ))
    });
    read.chain(refused).collect()
}

/// Our entries: each parent reference as its author wrote it, and its conditions. None when the verdict is about another
/// generation of the route.
fn entries(live: &DynamicObject, verdict: &Verdict) -> Option<Vec<(Value, Vec<Condition>)>> {
    let references = live.data.pointer("/spec/parentRefs");
    let references = references.and_then(Value::as_array);
    let references = references.map_or(&[][..], Vec::as_slice);
    let conditions: Vec<Vec<Condition>> = match verdict {
        Verdict::Read(route) => {
            if route.generation != live.metadata.generation
                || route.parents.len() != references.len()
            {
                return None;
            }
            let parents = route.parents.iter();
            parents.map(|one| one.conditions.clone()).collect()
        }
        Verdict::Refused(uid, refusal) => {
            if live.metadata.uid.as_ref() != Some(uid) {
                return None;
            }
            let message = format!("{}: {}", refusal.field, refusal.problem);
            let refused = vec![Condition::refused(message)];
            references.iter().map(|_| refused.clone()).collect()
        }
        // Unless it is ours again; then there is a newer verdict soon.
        Verdict::NotOurs if references.iter().any(is_service) => return None,
        Verdict::NotOurs => Vec::new(),
    };
    let all = references.iter().cloned().zip(conditions);
    Some(all.filter(|(reference, _)| is_service(reference)).collect())
}

/// All entries as they are to be; none when they are so already.
fn merged(
    before: &[Value],
    entries: Vec<(Value, Vec<Condition>)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Option<Vec<Value>> {
    let is_ours = |entry: &&Value| entry.get("controllerName") == Some(&json!(CONTROLLER));
    let others = before.iter().filter(|entry| !is_ours(entry)).cloned();
    let ours = entries.into_iter().map(|(reference, conditions)| {
        let known = before
            .iter()
            .filter(is_ours)
            .find(|entry| entry.get("parentRef") == Some(&reference));
        let known = known.and_then(|entry| entry.get("conditions"));
        let known = known
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|one| condition(one, known, generation, now))
            .collect();
        json!({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
    });
    let merged: Vec<Value> = others.chain(ours).collect();
    (merged != before).then_some(merged)
}

pub(super) fn condition(
    one: &Condition,
    known: &[Value],
    generation: Option<i64>,
    now: Timestamp,
) -> Value {
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

#[cfg(test)]
mod tests;
