//! `/pods`: what becomes of a pod that is created. The door to the injector.

use std::collections::BTreeMap;

use super::review::{Answer, Question};
use crate::inject::{self, Outcome, Settings};

/// The patch of that pod, by its own annotations and those of its namespace.
pub(super) fn answer(
    question: &Question,
    inherited: &BTreeMap<String, String>,
    settings: &Settings,
) -> Answer {
    let mut pod = question.object.clone();
    let said = |text: String| format!("ringmail: {text}");
    match inject::inject(&mut pod, inherited, settings) {
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
