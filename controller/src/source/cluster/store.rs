//! What the watches have told so far. Pure: changes in, states out.
//!
//! An object that is refused keeps its last good value, unless it is another object under the same name. An object that
//! a new list does not show is gone.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::read::Found;
use crate::source::objects::{Key, Kind, OBJECTS_MAX, Object};
use crate::source::{ObjectStatus, Refusal, State};

/// Refusals and warnings that are shown.
const NOTED_MAX: usize = 1000;

/// What a watch says.
#[derive(Debug)]
pub(super) enum Change {
    /// A list of that kind begins.
    Begun(Kind),
    /// This is how an object looks now.
    Seen(Found),
    /// An object is gone.
    Gone(Key),
    /// The list is complete.
    Listed(Kind),
    /// The watch does not work at the moment.
    Broken(Kind, String),
}

#[derive(Debug, Default)]
pub(super) struct Store {
    held: BTreeMap<Key, Held>,
    /// Kinds that were never listed.
    missing: BTreeSet<Kind>,
    /// Objects of the list that is under way.
    listing: BTreeMap<Kind, HashSet<Key>>,
    broken: BTreeMap<Kind, String>,
}

#[derive(Debug, PartialEq)]
struct Held {
    uid: String,
    object: Option<Object>,
    refused: Option<Refusal>,
    warnings: Vec<String>,
}

impl Store {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        Self {
            missing: kinds.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// Whether every kind was listed once.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether all but routes were listed once: without one of those nobody could be told anything, while routes are
    /// of somebody else's definition, which may be broken by itself.
    pub(super) fn is_usable(&self) -> bool {
        self.missing.iter().all(|kind| Kind::ROUTES.contains(kind))
    }

    /// True when the state is another now.
    pub(super) fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Begun(kind) => {
                self.listing.insert(kind, HashSet::new());
                false
            }
            Change::Seen(found) => {
                let healed = self.broken.remove(&found.key.kind).is_some();
                if let Some(listing) = self.listing.get_mut(&found.key.kind) {
                    listing.insert(found.key.clone());
                }
                self.see(found) || healed
            }
            Change::Gone(key) => {
                let healed = self.broken.remove(&key.kind).is_some();
                self.held.remove(&key).is_some() || healed
            }
            Change::Listed(kind) => {
                let healed = self.broken.remove(&kind).is_some();
                let first = self.missing.remove(&kind);
                let seen = self.listing.remove(&kind).unwrap_or_default();
                let before = self.held.len();
                self.held
                    .retain(|key, _| key.kind != kind || seen.contains(key));
                self.held.len() != before || first || healed
            }
            Change::Broken(kind, problem) => {
                self.broken.insert(kind, problem.clone()) != Some(problem)
            }
        }
    }

    fn see(&mut self, found: Found) -> bool {
        let before = self.held.get(&found.key);
        // What others make must not keep out what says who may do what.
        let is_counted = !Kind::OURS.contains(&found.key.kind);
        if before.is_none() && is_counted && self.held.len() >= OBJECTS_MAX {
            return false;
        }
        let (object, refused) = match found.object {
            Ok(object) => (Some(object), None),
            Err(refusal) => {
                let same = before.filter(|before| before.uid == found.uid);
                let kept = same.and_then(|before| before.object.clone());
                (kept.or(found.instead), Some(refusal))
            }
        };
        let now = Held {
            uid: found.uid,
            object,
            refused,
            warnings: found.warnings,
        };
        let changed = before != Some(&now);
        if changed {
            self.held.insert(found.key, now);
        }
        changed
    }

    pub(super) fn state(&self) -> State {
        let objects = self
            .held
            .iter()
            .filter_map(|(key, held)| Some((key.clone(), held.object.clone()?)))
            .collect();
        let noted = self
            .held
            .iter()
            .filter(|(_, held)| held.refused.is_some() || !held.warnings.is_empty())
            .take(NOTED_MAX)
            .map(|(key, held)| ObjectStatus {
                object: key.clone(),
                uid: held.uid.clone(),
                refused: held.refused.clone(),
                warnings: held.warnings.clone(),
            });
        let mut unreadable: Vec<String> = self
            .broken
            .iter()
            .map(|(kind, problem)| format!("watch of {kind:?}: {problem}"))
            .collect();
        let unheard = self.missing.iter();
        let unheard = unheard.filter(|kind| !self.broken.contains_key(kind));
        unreadable.extend(unheard.map(|kind| format!("watch of {kind:?}: nothing was listed yet")));
        if self.held.len() >= OBJECTS_MAX {
            unreadable.push(format!(
                "there are {OBJECTS_MAX} objects or more; what is new is not taken"
            ));
        }
        State {
            objects,
            files: Vec::new(),
            noted: noted.collect(),
            unreadable: (!unreadable.is_empty()).then(|| unreadable.join("; ")),
        }
    }
}
