//! Status of policies: whether each is accepted, and on how many proxies of how many it is in force.

use std::collections::HashMap;

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::json;

use super::lead::Desk;
use super::looks::{self, Looks};
use super::patch::{LOOK_AGAIN, Statuses, Wanted, conditions};
use super::rounds::Rounds;
use crate::applied::PolicyState;
use crate::metrics::Written;
use crate::source::objects::Key;

/// Writes them for ever.
pub(super) async fn run(desk: &Desk, mut looks: Looks) {
    let mut statuses = Statuses::new(desk, Written::PolicyStatus);
    let mut rounds = Rounds::new(LOOK_AGAIN);
    loop {
        let found = looks.borrow_and_update().clone();
        let found: HashMap<Key, PolicyState> = found
            .policies
            .iter()
            .map(|state| (state.key.clone(), state.clone()))
            .collect();
        statuses.forget(|key, _| !found.contains_key(key));
        let round = statuses.write(found, wanted).await;
        if rounds.next(round, looks::changed(&mut looks)).await {
            statuses.forget(|_, _| true);
        }
    }
}

fn wanted(live: &DynamicObject, state: &PolicyState, now: Timestamp) -> Wanted {
    if live.metadata.generation != state.generation {
        return Wanted::Unknown;
    }
    let before = live.data.get("status").cloned().unwrap_or_default();
    let known = before.get("conditions");
    let conditions = conditions(&state.conditions, known, state.generation, now);
    let status = json!({"applied": state.applied, "conditions": conditions});
    match status == before {
        true => Wanted::Same,
        false => Wanted::New(status),
    }
}
