//! What users must act on, as Events on the object it is about: an object that is refused, an issuer that is not taken.
//! Each is said when it is new; kube's recorder makes one series of what repeats. At most `AT_ONCE` for one state.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::api::Api;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::sleep;
use tracing::warn;

use super::lead::{Desk, FIELD_MANAGER, RETRY};
use crate::metrics::Written;
use crate::model::PolicyReport;
use crate::source::ObjectStatus;
use crate::source::cluster::resource;
use crate::source::objects::{Key, Kind};

/// Events for one state; the rest waits for the next look.
const AT_ONCE: usize = 50;
/// Bytes of an event's note.
const NOTE_BYTES_MAX: usize = 1000;

pub(super) struct Events {
    desk: Desk,
    voice: Voice,
}

/// Writes events.
pub(super) struct Voice {
    desk: Desk,
    recorder: Recorder,
}

impl Voice {
    pub(super) fn new(desk: &Desk) -> Self {
        let reporter = Reporter {
            controller: format!("ringmail.io/{FIELD_MANAGER}"),
            instance: Some(desk.pod.clone()),
        };
        Self {
            desk: desk.clone(),
            recorder: Recorder::new(desk.client.clone(), reporter),
        }
    }

    /// False when it is to be tried again.
    pub(super) async fn say(&self, about: &ObjectReference, reason: &str, note: &str) -> bool {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.into(),
            note: Some(note[..note.floor_char_boundary(NOTE_BYTES_MAX)].into()),
            action: "Read".into(),
            secondary: None,
        };
        let outcome = self.recorder.publish(&event, about).await;
        self.desk.count(Written::Event, &outcome);
        if let Err(e) = &outcome {
            warn!("cannot write an event: {e}");
        }
        // What the API server will not have is not tried for ever.
        !matches!(outcome, Err(e) if !matches!(e, kube::Error::Api(_)))
    }
}

impl Events {
    pub(super) fn new(desk: &Desk) -> Self {
        Self {
            desk: desk.clone(),
            voice: Voice::new(desk),
        }
    }

    pub(super) async fn run(mut self) {
        let mut said: BTreeMap<Key, String> = BTreeMap::new();
        let mut issuer_said = None;
        loop {
            let state = self.desk.states.borrow_and_update().clone();
            let noted = state.map(|state| state.noted.clone()).unwrap_or_default();
            let mesh = self.desk.snapshots.borrow_and_update().mesh.clone();
            let refused = noted
                .iter()
                .filter_map(|one| Some((&one.object, (&*one.uid, "Refused", note(one)?))));
            let policies = mesh.policies().iter().filter_map(|report| {
                let (reason, note) = policy_note(report)?;
                Some((&report.key, (&*report.uid, reason, note)))
            });
            let now: BTreeMap<_, _> = policies.chain(refused).collect();
            said.retain(|key, _| now.contains_key(key));
            let mut is_behind = false;
            let new = now
                .iter()
                .filter(|(key, (_, _, note))| said.get(key) != Some(note));
            let new: Vec<_> = new.map(|(key, new)| ((*key).clone(), new)).collect();
            for (index, (key, (uid, reason, note))) in new.into_iter().enumerate() {
                let about = reference(&key, uid);
                if index >= AT_ONCE || !self.voice.say(&about, reason, note).await {
                    is_behind = true;
                    break;
                }
                said.insert(key, note.clone());
            }
            let trouble = self.desk.issuer_trouble.borrow_and_update().clone();
            if trouble != issuer_said {
                is_behind |= !self.issuer(trouble.as_deref()).await;
                issuer_said = trouble;
            }
            tokio::select! {
                Ok(()) = self.desk.states.changed() => {}
                Ok(()) = self.desk.snapshots.changed() => {}
                Ok(()) = self.desk.issuer_trouble.changed() => {}
                () = sleep(RETRY), if is_behind => {}
                else => return,
            }
        }
    }

    async fn issuer(&self, trouble: Option<&str>) -> bool {
        let Some(trouble) = trouble else {
            return true;
        };
        let name = &self.desk.issuer_secret;
        let api = Api::<Secret>::namespaced(self.desk.client.clone(), &self.desk.namespace);
        let uid = api
            .get_metadata(name)
            .await
            .ok()
            .and_then(|one| one.metadata.uid);
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Secret".into()),
            name: Some(name.clone()),
            namespace: Some(self.desk.namespace.clone()),
            uid,
            ..ObjectReference::default()
        };
        self.voice.say(&about, "IssuerRefused", trouble).await
    }
}

/// What is said of a refused object.
fn note(one: &ObjectStatus) -> Option<String> {
    let refused = one.refused.as_ref()?;
    Some(format!(
        "{}: {}; what it held before stays in force",
        refused.field, refused.problem
    ))
}

/// What is said of a policy that does not do what it says.
fn policy_note(report: &PolicyReport) -> Option<(&'static str, String)> {
    if let Some(broken) = &report.broken {
        let note = broken.clone();
        return Some(("Invalid", note));
    }
    let missing = report.missing.first()?;
    Some(("TargetNotFound", format!("there is no {missing}")))
}

fn reference(key: &Key, uid: &str) -> ObjectReference {
    let api_version = match key.kind {
        Kind::Namespace | Kind::ServiceAccount | Kind::Service | Kind::Pod => "v1".into(),
        Kind::EndpointSlice => "discovery.k8s.io/v1".into(),
        Kind::HTTPRoute
        | Kind::GRPCRoute
        | Kind::TLSRoute
        | Kind::AuthorizationPolicy
        | Kind::RequestAuthentication
        | Kind::RateLimitPolicy
        | Kind::IdentityRevocation => resource(key.kind).api_version,
    };
    ObjectReference {
        api_version: Some(api_version),
        kind: Some(format!("{:?}", key.kind)),
        name: Some(key.name.to_string()),
        // Events about what has no namespace are in this one.
        namespace: Some(match &*key.namespace {
            "" => "default".into(),
            namespace => namespace.into(),
        }),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
