//! Status of routes: the entries of `status.parents` that are this controller's, as the model and the proxies have them;
//! entries of other controllers are left as they are.

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::lead::Desk;
use super::looks::{self, Looks};
use super::patch::{self, LOOK_AGAIN, Statuses, Wanted};
use super::rounds::Rounds;
use crate::metrics::Written;
use crate::model::{Condition, RouteStatus};
use crate::source::cluster::is_service;
use crate::source::objects::{Key, Kind};
use crate::source::{ObjectStatus, Refusal};

/// Whose entries are ours.
const CONTROLLER: &str = "ringmail.io/controller";

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

/// Writes them for ever.
pub(super) async fn run(mut desk: Desk, mut looks: Looks) {
    let mut statuses = Statuses::new(&desk, Written::Status);
    let mut rounds = Rounds::new(LOOK_AGAIN);
    loop {
        let found = looks.borrow_and_update().clone();
        let state = desk.states.borrow_and_update().clone();
        let noted = state.iter().flat_map(|state| &state.noted);
        let mut verdicts = verdicts(&found.routes, noted);
        for key in statuses.keys() {
            verdicts.entry(key.clone()).or_insert(Verdict::NotOurs);
        }
        let round = statuses.write(verdicts, wanted).await;
        statuses.forget(|_, verdict| *verdict == Verdict::NotOurs);
        let changed = async {
            tokio::select! {
                Ok(()) = desk.states.changed() => {}
                () = looks::changed(&mut looks) => {}
            }
        };
        if rounds.next(round, changed).await {
            statuses.forget(|_, _| true);
        }
    }
}

fn wanted(live: &DynamicObject, verdict: &Verdict, now: Timestamp) -> Wanted {
    let Some(entries) = entries(live, verdict) else {
        return Wanted::Unknown;
    };
    let before = live.data.pointer("/status/parents");
    let before = before.and_then(Value::as_array);
    let before = before.map_or(&[][..], Vec::as_slice);
    match merged(before, entries, live.metadata.generation, now) {
        Some(parents) => Wanted::New(json!({"parents": parents})),
        None => Wanted::Same,
    }
}

/// What is to be said, by route. A refusal counts: what the model has then is an older value.
fn verdicts<'a>(
    routes: &[RouteStatus],
    noted: impl Iterator<Item = &'a ObjectStatus>,
) -> HashMap<Key, Verdict> {
    let read = routes
        .iter()
        .map(|route| (route.key(), Verdict::Read(route.clone())));
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
        let conditions = patch::conditions(&conditions, known, generation, now);
        json!({"parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions})
    });
    let merged: Vec<Value> = others.chain(ours).collect();
    (merged != before).then_some(merged)
}

#[cfg(test)]
mod tests;
