//! What an answer means. Whatever is asked for that is not done here makes it no answer: an authorizer that wants a request
//! changed means the request as it would be then.
//!
//! - A status other than 0 refuses, and so does a response for the client. A status of 0 lets the request go on; where
//!   there is no status at all, it takes a response that says so.
//! - Headers are set, appended and removed, but not those of the mesh, of framing or of the connection, nor the host. What
//!   is to be removed of these is there for a reason, and stays, as Envoy has it.
//!
//! Limits: [`EDITS_MAX`] changes. How long an answer may be is its reader's to say.

use ringmail_proto::ext_authz::check_response::HttpResponse;
use ringmail_proto::ext_authz::{
    AppendAction, CheckResponse, DeniedHttpResponse, HeaderValueOption, OkHttpResponse,
};
use ringmail_proto::policy::external;

use crate::error::Error;
use crate::http::edits::{Edit, Edits, How};
use crate::http::fields::{DECISION, Fate, REASON, fate};
use crate::http::neutral::{Fields, Response, Version, is_token, is_value, put_field};

/// Headers that come or go.
const EDITS_MAX: usize = 128;
/// Of a refusal that says none, or none that a refusal can have.
const STATUS_DEFAULT: u16 = 403;

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It may go on, with these changes of the request and of the response.
    Allowed { request: Edits, response: Edits },
    /// It may not; the authorizer says what the client is told, or leaves that to us.
    Denied(Option<Denial>),
}

impl Answer {
    /// Nothing changes.
    pub(crate) fn allowed() -> Self {
        Self::Allowed {
            request: Edits::default(),
            response: Edits::default(),
        }
    }
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) status: u16,
    headers: Edits,
    pub(crate) body: String,
}

/// What an answer means; or why it is none.
pub(crate) fn read(bytes: &[u8]) -> Result<Answer, &'static str> {
    meaning(external::answer(bytes).ok_or("answered what is no CheckResponse")?)
}

fn meaning(answer: CheckResponse) -> Result<Answer, &'static str> {
    let status = answer.status.map(|status| status.code);
    match answer.http_response {
        Some(HttpResponse::DeniedResponse(said)) => Ok(Answer::Denied(Some(denial(said)))),
        _ if status.is_some_and(|code| code != 0) => Ok(Answer::Denied(None)),
        Some(HttpResponse::OkResponse(said)) => allowed(said),
        None if status.is_some() => Ok(Answer::allowed()),
        None => Err("answered without a status"),
    }
}

fn allowed(said: OkHttpResponse) -> Result<Answer, &'static str> {
    if !said.query_parameters_to_set.is_empty() || !said.query_parameters_to_remove.is_empty() {
        return Err("wants the query changed, which is not done here");
    }
    let removed = said.headers_to_remove.into_iter();
    let request = Edits {
        // What nothing is said of replaces what is there.
        coming: edits(said.headers, How::Set)?,
        removed: removed.filter(|name| is_free(name)).collect(),
    };
    let response = Edits {
        coming: edits(said.response_headers_to_add, How::Append)?,
        removed: Vec::new(),
    };
    if request.coming.len() + request.removed.len() + response.coming.len() > EDITS_MAX {
        return Err("wants more than 128 headers changed");
    }
    Ok(Answer::Allowed { request, response })
}

fn edits(said: Vec<HeaderValueOption>, unsaid: How) -> Result<Vec<Edit>, &'static str> {
    let edit = |one: HeaderValueOption| {
        let edit = edit(one, unsaid)?;
        let may_be = is_free(&edit.name) && is_value(&edit.value);
        may_be
            .then_some(edit)
            .ok_or("wants a header that is not its to set")
    };
    said.into_iter().map(edit).collect()
}

fn edit(said: HeaderValueOption, unsaid: How) -> Result<Edit, &'static str> {
    let action = said.append_action();
    let how = match (said.append, action) {
        (Some(append), _) if append.value => How::Append,
        (Some(_), _) => How::Set,
        (None, AppendAction::AppendIfExistsOrAdd) => unsaid,
        (None, AppendAction::AddIfAbsent) => How::IfAbsent,
        (None, AppendAction::OverwriteIfExistsOrAdd) => How::Set,
        (None, AppendAction::OverwriteIfExists) => How::IfPresent,
    };
    let header = said.header.ok_or("wants a header without a name")?;
    let value = match header.value.is_empty() {
        true => header.raw_value,
        false => header.value.into_bytes(),
    };
    Ok(Edit {
        name: header.key.to_ascii_lowercase(),
        value: value.trim_ascii().to_vec(),
        how,
    })
}

/// Whether it is an authorizer's to change.
fn is_free(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(is_token) && fate(name.as_bytes()) == Fate::Forward
}

/// What a client can be told of what was said.
fn denial(said: DeniedHttpResponse) -> Denial {
    let status = said
        .status
        .and_then(|status| u16::try_from(status.code).ok());
    let mut coming = Vec::new();
    for one in said.headers.into_iter().take(EDITS_MAX) {
        let edit = edit(one, How::Append).ok();
        let edit = edit.filter(|one| is_free(&one.name) && is_value(&one.value));
        // There is nothing to replace, and a name may be there twice: `set-cookie`.
        coming.extend(edit.map(|edit| Edit {
            how: How::Append,
            ..edit
        }));
    }
    let headers = Edits {
        coming,
        removed: Vec::new(),
    };
    Denial {
        status: status
            .filter(|status| (200..600).contains(status))
            .unwrap_or(STATUS_DEFAULT),
        headers,
        body: said.body,
    }
}

impl Denial {
    /// The head of the response in neutral form, and whether the body comes after it. To a client of gRPC all is said in
    /// the head.
    pub(crate) fn head(&self, refused: &Error, is_grpc: bool) -> (Vec<u8>, bool) {
        let may_have_body = !is_grpc && !matches!(self.status, 204 | 304);
        let has_body = may_have_body && !self.body.is_empty();
        let mut headers = self.headers.clone();
        if is_grpc {
            let is_own = |name: &str| name == "content-type" || name.starts_with("grpc-");
            headers.coming.retain(|one| !is_own(&one.name));
        } else if has_body {
            headers.coming.push(Edit {
                name: "content-type".to_owned(),
                value: b"text/plain".to_vec(),
                how: How::IfAbsent,
            });
        }
        let mut head = Vec::with_capacity(256);
        Response {
            version: Version::Http2,
            upgrade: false,
            status: if is_grpc { 200 } else { self.status },
            phrase: b"",
        }
        .encode(&mut head);
        headers.put(Fields::NONE, &mut head);
        let mut put = |name: &str, value: &[u8]| put_field(&mut head, name.as_bytes(), value);
        if is_grpc {
            put("content-type", b"application/grpc");
            put(
                "grpc-status",
                grpc_status(self.status).to_string().as_bytes(),
            );
            put("grpc-message", &grpc_message(&self.body));
        } else if may_have_body {
            put("content-length", self.body.len().to_string().as_bytes());
        }
        put(REASON, refused.reason.row().label.as_bytes());
        if let Some(decision) = refused.decision {
            put(DECISION, decision.to_string().as_bytes());
        }
        (head, has_body)
    }
}

/// As a client of gRPC reads a status of HTTP (gRPC's HTTP status mapping); what is refused never reads as well.
fn grpc_status(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 7,
    }
}

/// Percent-encoded, as gRPC over HTTP/2 has it.
fn grpc_message(text: &str) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | ..0x20 | 0x7f.. => out.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests;
