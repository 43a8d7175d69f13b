//! A review as it travels (`admission.k8s.io/v1`): a question in, an answer out.

use bytes::Bytes;
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::metrics::Reviewed;

/// Characters of one warning, and warnings of one answer: kubectl prints them, the API server cuts them.
const WARNING_CHARS_MAX: usize = 250;
const WARNINGS_MAX: usize = 15;

/// What is to be done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// Which kind of object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct GroupKind {
    pub(super) group: String,
    pub(super) kind: String,
}

/// What is asked about.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question {
    pub(super) uid: String,
    #[serde(default)]
    pub(super) kind: GroupKind,
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) operation: Operation,
    /// As it is to be.
    #[serde(default)]
    pub(super) object: Value,
    /// As it is.
    #[serde(default)]
    pub(super) old_object: Value,
}

#[derive(Deserialize)]
struct Review {
    request: Question,
}

impl Question {
    pub(super) fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(serde_json::from_slice::<Review>(body)?.request)
    }
}

/// What is answered.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// Why not, when the object is refused.
    pub(super) denied: Option<String>,
    pub(super) warnings: Vec<String>,
    /// Operations of RFC 6902.
    pub(super) patch: Vec<Value>,
}

impl Answer {
    pub(super) fn allow() -> Self {
        Self::default()
    }

    pub(super) fn deny(why: String) -> Self {
        Self {
            denied: Some(why),
            ..Self::default()
        }
    }

    pub(super) fn outcome(&self) -> Reviewed {
        if self.denied.is_some() {
            Reviewed::Denied
        } else if !self.patch.is_empty() {
            Reviewed::Patched
        } else if !self.warnings.is_empty() {
            Reviewed::Warned
        } else {
            Reviewed::Allowed
        }
    }

    pub(super) fn write(self, uid: &str) -> Bytes {
        let warnings: Vec<String> = self
            .warnings
            .iter()
            .take(WARNINGS_MAX)
            .map(|one| one.chars().take(WARNING_CHARS_MAX).collect())
            .collect();
        let mut response = json!({"uid": uid, "allowed": self.denied.is_none()});
        if !warnings.is_empty() {
            response["warnings"] = json!(warnings);
        }
        if let Some(reason) = self.denied {
            response["status"] = json!({"code": 403, "message": reason});
        } else if !self.patch.is_empty() {
            let patch = Value::from(self.patch).to_string();
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(ByteString(patch.into_bytes()));
        }
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        });
        review.to_string().into()
    }
}
