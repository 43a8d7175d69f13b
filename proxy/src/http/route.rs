//! What the routes of a service make of one request: where it goes, what changes in it and in its answer, or what it is
//! answered at once. Pure; a service without routes costs nothing.

use std::borrow::Cow;

use ringmail_proto::destination::Service;
use ringmail_proto::route::{Asked, HeaderEdits, Match, Mirror, Policy, RequestEdits, Rule};

use super::neutral::{Fields, Request, Response, Version, put_field};
use super::target;
use crate::error::{Error, Reason};

/// What holds where no route says anything.
pub(crate) static DEFAULT: Policy = Policy {
    request_timeout: None,
    backend_timeout: None,
    retry: None,
};

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Routed<'a> {
    /// It goes to a service.
    Forward(Forward<'a>),
    /// It is answered: with a head in neutral form, and nothing else.
    Answer(Vec<u8>),
}

/// How a request goes on.
#[derive(Debug)]
pub(crate) struct Forward<'a> {
    pub(crate) service: &'a Service,
    /// Its head in neutral form, with what the route changes.
    pub(crate) head: Vec<u8>,
    pub(crate) policy: &'a Policy,
    pub(crate) response: ResponseEdits<'a>,
    pub(crate) mirrors: &'a [Mirror],
    /// `namespace/name` of the route; empty without one.
    pub(crate) route: &'a str,
}

/// What changes in each head of the answer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ResponseEdits<'a> {
    /// The backend's own, and then the rule's.
    steps: [Option<&'a HeaderEdits>; 2],
}

/// Routes a request to `service`, whose head is in neutral form; `random` is evenly spread.
pub(crate) fn route(service: &Service, head: Vec<u8>, random: u32) -> Result<Routed<'_>, Error> {
    let Some(routes) = &service.routes else {
        return Ok(Routed::Forward(Forward {
            service,
            head,
            policy: &DEFAULT,
            response: ResponseEdits::default(),
            mirrors: &[],
            route: "",
        }));
    };
    let (request, fields) = Request::decode(&head).map_err(|e| Reason::Internal.because(e))?;
    let asked = Asked {
        method: request.method,
        target: request.target,
    };
    let (rule, matched) = routes.pick(asked, fields).ok_or(Reason::NoRoute)?;
    if let Some(to) = &rule.redirect {
        if !request.target.starts_with('/') {
            // A CONNECT or an OPTIONS * has no path to send elsewhere.
            return Err(Reason::NoRoute.into());
        }
        let named = to.host.as_ref().map(|_| &b""[..]);
        let host = fields.first("host").or(named).ok_or(Reason::NoRoute)?;
        let host = std::str::from_utf8(host).map_err(|e| Reason::MalformedRequest.because(e))?;
        let location = to.location(host, service.port, request.target, &matched.path);
        return Ok(Routed::Answer(redirect(
            to.status,
            &location,
            &rule.response,
        )));
    }
    let weighted = rule.backend(random).ok_or(Reason::NoBackend)?;
    let backend = weighted
        .backend
        .and_then(|index| service.backends.get(index));
    let backend = backend.ok_or(Reason::NoBackend)?;
    let is_edited = !rule.request.is_empty() || !weighted.request.is_empty();
    let edited = is_edited.then(|| edited((request, fields), (rule, matched), &weighted.request));
    let steps = [&weighted.response, &rule.response];
    Ok(Routed::Forward(Forward {
        service: backend,
        head: edited.transpose()?.unwrap_or(head),
        policy: &rule.policy,
        response: ResponseEdits {
            steps: steps.map(|one| Some(one).filter(|one| !one.is_empty())),
        },
        mirrors: &rule.mirrors,
        // Behind the last slash is which of its rules.
        route: rule.name.rsplit_once('/').map_or("", |(route, _)| route),
    }))
}

/// The head with the rule's changes, and then the backend's.
fn edited(
    (request, fields): (Request<'_>, Fields<'_>),
    (rule, matched): (&Rule, &Match),
    backend: &HeaderEdits,
) -> Result<Vec<u8>, Error> {
    let RequestEdits {
        headers,
        host,
        path,
    } = &rule.request;
    let target = match path {
        // The target of a CONNECT or an OPTIONS * is no path.
        Some(edit) if request.target.starts_with('/') => edit.apply(request.target, &matched.path),
        Some(_) | None => request.target.to_owned(),
    };
    let target = match target.starts_with('/') {
        // Edited or not, there is one form in which paths are decided on.
        true => target::origin(&target).map_err(|rule| Reason::NoBackend.rule(rule))?,
        false => Cow::Borrowed(&*target),
    };
    let mut out = Vec::with_capacity(1024);
    Request {
        target: &target,
        ..request
    }
    .encode(&mut out);
    for (name, value) in fields {
        match host {
            Some(host) if name.eq_ignore_ascii_case(b"host") => {
                put_field(&mut out, name, host.as_bytes());
            }
            Some(_) | None if headers.keeps(name) && backend.keeps(name) => {
                put_field(&mut out, name, value);
            }
            Some(_) | None => {}
        }
    }
    let coming = headers
        .coming()
        .filter(|(name, _)| backend.keeps(name.as_bytes()));
    for (name, value) in coming.chain(backend.coming()) {
        put_field(&mut out, name.as_bytes(), value.as_bytes());
    }
    Ok(out)
}

impl ResponseEdits<'_> {
    /// A response's head in neutral form with the changes; one that cannot be read stays as it is, for whoever refuses
    /// it. Informational heads do not change.
    pub(crate) fn apply<'b>(&self, head: &'b [u8]) -> Cow<'b, [u8]> {
        let mut current = Cow::Borrowed(head);
        for edits in self.steps.into_iter().flatten() {
            let Ok((response, fields)) = Response::decode(&current) else {
                return current;
            };
            if response.status < 200 {
                return current;
            }
            let mut out = Vec::with_capacity(current.len() + 256);
            response.encode(&mut out);
            let kept = fields.into_iter().filter(|(name, _)| edits.keeps(name));
            kept.for_each(|(name, value)| put_field(&mut out, name, value));
            for (name, value) in edits.coming() {
                put_field(&mut out, name.as_bytes(), value.as_bytes());
            }
            current = Cow::Owned(out);
        }
        current
    }
}

/// An answer as if a pod had given it.
fn redirect(status: u16, location: &str, edits: &HeaderEdits) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    Response {
        version: Version::Http2,
        upgrade: false,
        status,
        phrase: b"",
    }
    .encode(&mut out);
    for (name, value) in [("location", location), ("content-length", "0")] {
        if edits.keeps(name.as_bytes()) {
            put_field(&mut out, name.as_bytes(), value.as_bytes());
        }
    }
    for (name, value) in edits.coming() {
        put_field(&mut out, name.as_bytes(), value.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests;
