//! `/pods`: what becomes of a pod that is created. The door to the injector.

use super::review::{Answer, Question};
use crate::inject::{self, Outcome, Settings, Surroundings};

/// The patch of that pod, by its own annotations and those of its namespace. While that is not known the pod is refused:
/// whoever makes it tries again, and then it has the sidecar that the namespace asks for.
pub(super) fn answer(
    question: &Question,
    around: Option<&Surroundings>,
    settings: &Settings,
) -> Answer {
    let said = |text: String| format!("ringmail: {text}");
    let Some(around) = around else {
        let namespace = &question.namespace;
        let why = format!(
            "namespace {namespace} is not known here: it is a moment old, or its annotations are refused"
        );
        return Answer {
            denied: Some(said(why)),
            ..Answer::allow()
        };
    };
    let mut pod = question.object.clone();
    match inject::inject(&mut pod, around, settings) {
        Ok((outcome, warnings)) => Answer {
            denied: None,
            warnings: warnings.into_iter().map(said).collect(),
            patch: match outcome {
                Outcome::Injected(patch) => patch,
                Outcome::Skipped(_) => Vec::new(),
            },
        },
        Err(refused) => Answer {
            denied: Some(said(refused.to_string())),
            ..Answer::allow()
        },
    }
}
