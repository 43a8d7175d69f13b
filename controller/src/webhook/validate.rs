//! `/validate`: what our own reading says of an object before it is kept. It warns of objects of others, which are not ours
//! to refuse: their status tells what became of them. An object of ours that could not be put in force is denied.

use k8s_openapi::api::core::v1::{Namespace, Service};
use serde::de::DeserializeOwned;

use super::review::{Answer, Operation, Question};
use crate::inject;
use crate::source::cluster::{
    Found, of_namespace, of_service, of_written_authentication, of_written_limits,
    of_written_policy, of_written_revocation, of_written_route,
};
use crate::source::objects::{Kind, Object};

pub(super) fn answer(question: &Question) -> Answer {
    if !matches!(question.operation, Operation::Create | Operation::Update) {
        return Answer::allow();
    }
    if question.kind.group == "ringmail.io" {
        return ours(question);
    }
    let found = match (question.kind.group.as_str(), question.kind.kind.as_str()) {
        ("", "Namespace") => object::<Namespace>(question).map(namespace),
        ("", "Service") => object::<Service>(question).map(of_service),
        ("gateway.networking.k8s.io", "HTTPRoute") => route(question, Kind::HTTPRoute),
        ("gateway.networking.k8s.io", "GRPCRoute") => route(question, Kind::GRPCRoute),
        ("gateway.networking.k8s.io", "TLSRoute") => route(question, Kind::TLSRoute),
        (_, _) => None,
    };
    Answer {
        warnings: found.map(warnings).unwrap_or_default(),
        ..Answer::allow()
    }
}

/// What is ours is in force as it stands, or refused.
fn ours(question: &Question) -> Answer {
    let found = match question.kind.kind.as_str() {
        "AuthorizationPolicy" => of_written_policy(&question.object),
        "RequestAuthentication" => of_written_authentication(&question.object),
        "RateLimitPolicy" => of_written_limits(&question.object),
        "IdentityRevocation" => of_written_revocation(&question.object),
        kind => return Answer::deny(format!("ringmail: {kind} is no kind this version knows")),
    };
    let refused = match found.map(|found| found.object) {
        None => Some("is no object".to_owned()),
        Some(Err(refusal)) => Some(format!("{}: {}", refusal.field, refusal.problem)),
        Some(Ok(Object::Policy(policy))) => {
            let invalid = policy.policy.rules.as_ref().err();
            invalid.map(ToString::to_string)
        }
        Some(Ok(Object::Authentication(one))) => {
            let invalid = one.issuers.as_ref().err();
            invalid.map(ToString::to_string)
        }
        Some(Ok(Object::Limits(policy))) => policy.broken().map(ToString::to_string),
        Some(Ok(Object::Revocation(one))) => one.broken.as_ref().map(ToString::to_string),
        Some(Ok(_)) => None,
    };
    match refused {
        Some(problem) => Answer::deny(format!("ringmail: {problem}")),
        None => Answer::allow(),
    }
}

/// Also what its pods would be refused for, much later and one by one.
fn namespace(namespace: Namespace) -> Found {
    let annotations = namespace.metadata.annotations.clone().unwrap_or_default();
    let mut found = of_namespace(namespace);
    if found.object.is_ok()
        && let Err(e) = inject::check_inherited(&annotations)
    {
        let warning = format!("{e}; no pod can be made that inherits this");
        found.warnings.push(warning);
    }
    found
}

fn warnings(found: Found) -> Vec<String> {
    let refused = found.object.err().map(|refusal| {
        format!(
            "{}: {}; ringmail will not take this, and keeps what it knew of it",
            refusal.field, refusal.problem
        )
    });
    found
        .warnings
        .into_iter()
        .chain(refused)
        .map(|text| format!("ringmail: {text}"))
        .collect()
}

fn route(question: &Question, kind: Kind) -> Option<Found> {
    of_written_route(kind, &question.object)
}

/// None for what is not such an object: the API server checks its own kinds.
fn object<T: DeserializeOwned>(question: &Question) -> Option<T> {
    T::deserialize(&question.object).ok()
}
