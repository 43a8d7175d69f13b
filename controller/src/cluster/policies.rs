//! Status of policies: whether each is accepted, and on how many proxies of how many it is in force. At most one write a
//! policy and `PACE`; each names the version it is based on.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::warn;

use super::lead::{Desk, FIELD_MANAGER, RESYNC};
use super::peers;
use super::rounds::{Round, Rounds};
use super::status::condition;
use crate::applied::{PolicyState, say, states};
use crate::metrics::Written;
use crate::source::cluster::resource;
use crate::source::objects::{Key, Kind};

/// From one look to the next, however fast things change.
const PACE: Duration = Duration::from_secs(1);
/// As long as nothing new is found, others are asked more and more seldom.
const LOOK_MAX: Duration = Duration::from_secs(16);
/// Rounds of `RESYNC` after which every status is looked at again.
const LOOK_AGAIN: u32 = 10;

pub(super) struct Policies {
    desk: Desk,
}

impl Policies {
    pub(super) fn new(desk: &Desk) -> Self {
        Self { desk: desk.clone() }
    }

    pub(super) async fn run(mut self) {
        let mut written: HashMap<Key, PolicyState> = HashMap::new();
        let mut rounds = Rounds::new(LOOK_AGAIN * RESYNC);
        let mut proxies = self.desk.proxies.changes();
        let mut look = PACE;
        loop {
            proxies.borrow_and_update();
            let found = self.look().await;
            written.retain(|key, _| found.contains_key(key));
            let new = found
                .into_iter()
                .filter(|(key, state)| written.get(key) != Some(state));
            let new: Vec<_> = new.collect();
            look = match new.is_empty() {
                true => (look * 2).min(LOOK_MAX),
                false => PACE,
            };
            let mut round = Round::Done;
            for (key, state) in new {
                match self.write(&key, &state).await {
                    Ok(true) => drop(written.insert(key, state)),
                    // A newer policy, or a status that another changed meanwhile.
                    Ok(false) => round = Round::Failed,
                    Err(e) => {
                        warn!("cannot write the status of {key}: {e}");
                        round = Round::Failed;
                    }
                }
            }
            sleep(PACE).await;
            let changed = async {
                tokio::select! {
                    Ok(()) = self.desk.snapshots.changed() => {}
                    Ok(_) = proxies.changed() => {}
                    () = sleep(look) => {}
                }
            };
            if rounds.next(round, changed).await {
                written.clear();
            }
        }
    }

    /// What is to be said of every policy now.
    async fn look(&mut self) -> HashMap<Key, PolicyState> {
        let mesh = self.desk.snapshots.borrow_and_update().mesh.clone();
        let reports = mesh.policies();
        if reports.is_empty() {
            return HashMap::new();
        }
        let (mut said, silent) = peers::ask(&self.desk).await;
        said.push(say(&mesh, &self.desk.proxies));
        let states = states(reports, &said, silent);
        let keys = reports.iter().map(|report| report.key.clone());
        keys.zip(states).collect()
    }

    /// False when it is to be tried again with newer objects.
    async fn write(&self, key: &Key, state: &PolicyState) -> Result<bool, kube::Error> {
        let resource = resource(Kind::AuthorizationPolicy);
        let client = self.desk.client.clone();
        let api = Api::<DynamicObject>::namespaced_with(client, &key.namespace, &resource);
        let Some(live) = api.get_opt(&key.name).await? else {
            return Ok(true);
        };
        if live.metadata.generation != state.generation {
            return Ok(false);
        }
        let Some(status) = merged(&live, state, Timestamp::now()) else {
            return Ok(true);
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
        self.desk.count(Written::PolicyStatus, &outcome);
        match outcome {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// The status as it is to be; none when it is so already.
fn merged(live: &DynamicObject, state: &PolicyState, now: Timestamp) -> Option<Value> {
    let before = live.data.get("status").cloned().unwrap_or_default();
    let known = before.get("conditions").and_then(Value::as_array);
    let known = known.map_or(&[][..], Vec::as_slice);
    let conditions = state.conditions.iter();
    let conditions: Vec<Value> = conditions
        .map(|one| condition(one, known, state.generation, now))
        .collect();
    let status = json!({"applied": state.applied, "conditions": conditions});
    (status != before).then_some(status)
}
