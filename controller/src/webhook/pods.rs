//! `/pods`: what becomes of a pod that is created. The door to the injector.

use k8s_openapi::api::core::v1::Namespace;

use super::review::{Answer, Question};

/// The patch of that pod, by its own annotations and those of its namespace as we know it; none changes nothing.
pub(super) fn answer(_pod: &Question, _namespace: Option<&Namespace>) -> Answer {
    Answer::allow()
}
