//! A request as Envoy's `ext_authz` tells of it, so that authorizers written for that need no change. A client's token is
//! told as far as the app would see it; what it says is told in any case, as of Envoy's `jwt_authn`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use ringmail_proto::ext_authz::attribute_context::{HttpRequest, Peer, Request as Asked};
use ringmail_proto::ext_authz::value::Kind;
use ringmail_proto::ext_authz::{
    Address, AttributeContext, CheckRequest, ListValue, Metadata, SocketAddress, Struct, Timestamp,
    Value,
};
use ringmail_proto::policy::Claims;
use ringmail_proto::policy::external::External;
use serde_json::Value as Json;

use super::About;
use crate::http::context::REQUEST_ID;
use crate::http::fields::{Fate, fate};
use crate::http::neutral::{Fields, Request, Version};

/// Where claims are told.
const CLAIMS: (&str, &str) = ("envoy.filters.http.jwt_authn", "jwt_payload");

/// What is told; `now` is since the Unix epoch.
pub(crate) fn question(external: &External, about: About<'_>, now: Duration) -> CheckRequest {
    let client = about.wanted.client;
    let identity = client.svid.as_ref().map(|svid| svid.id.as_str());
    let http = about
        .wanted
        .request
        .map(|(request, fields)| http(external, request, fields, about.body));
    let claims = about.wanted.token.map(|token| metadata(&token.claims));
    let attributes = AttributeContext {
        source: Some(peer(SocketAddr::new(client.address, 0), identity)),
        destination: Some(peer(about.app, about.own)),
        request: Some(Asked {
            time: Some(Timestamp {
                seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(now.subsec_nanos()).unwrap_or_default(),
            }),
            http,
        }),
        context_extensions: external.context_extensions.clone().into_iter().collect(),
        metadata_context: claims,
    };
    CheckRequest {
        attributes: Some(attributes),
    }
}

fn peer(address: SocketAddr, principal: Option<&str>) -> Peer {
    Peer {
        address: Some(Address {
            socket_address: Some(SocketAddress {
                address: address.ip().to_string(),
                port_value: address.port().into(),
            }),
        }),
        principal: principal.unwrap_or_default().to_owned(),
    }
}

fn http(
    external: &External,
    request: Request<'_>,
    fields: Fields<'_>,
    body: Option<&[u8]>,
) -> HttpRequest {
    let first = |name: &str| fields.first(name).map(text).unwrap_or_default();
    let (body, raw_body) = match body.map(std::str::from_utf8) {
        Some(Ok(body)) => (body.to_owned(), Vec::new()),
        Some(Err(_)) => (String::new(), body.unwrap_or_default().to_vec()),
        None => (String::new(), Vec::new()),
    };
    HttpRequest {
        id: first(REQUEST_ID),
        method: request.method.to_owned(),
        headers: headers(external, request, fields),
        path: request.target.to_owned(),
        host: first("host"),
        scheme: "http".to_owned(),
        size: first("content-length").parse().unwrap_or(-1),
        protocol: match request.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
        .to_owned(),
        body,
        raw_body,
    }
}

/// With those that HTTP/2 begins with, by which Envoy knows the host.
fn headers(
    external: &External,
    request: Request<'_>,
    fields: Fields<'_>,
) -> HashMap<String, String> {
    let is_told = |name: &str| {
        let mut wanted = external.headers.iter();
        external.headers.is_empty() || wanted.any(|one| one == name)
    };
    let host = fields.first("host").unwrap_or_default();
    let pseudo = [
        (":method", request.method.as_bytes()),
        (":path", request.target.as_bytes()),
        (":scheme", b"http"),
        (":authority", host),
    ];
    let pseudo = pseudo.map(|(name, value)| (name.as_bytes(), value));
    let own = fields
        .into_iter()
        .filter(|(name, _)| !matches!(fate(name), Fate::Host | Fate::Mesh));
    let mut all: HashMap<String, String> = HashMap::new();
    for (name, value) in pseudo.into_iter().chain(own) {
        let name = text(name).to_ascii_lowercase();
        if !is_told(&name) {
            continue;
        }
        let separator = if name == "cookie" { "; " } else { "," };
        let told = all.entry(name).or_default();
        if !told.is_empty() {
            told.push_str(separator);
        }
        told.push_str(&text(value));
    }
    all
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn metadata(claims: &Claims) -> Metadata {
    let (filter, name) = CLAIMS;
    let claims = Value {
        kind: Some(Kind::StructValue(structure(claims))),
    };
    let fields = Struct {
        fields: [(name.to_owned(), claims)].into(),
    };
    Metadata {
        filter_metadata: [(filter.to_owned(), fields)].into(),
    }
}

fn structure(claims: &Claims) -> Struct {
    let fields = claims.iter();
    Struct {
        fields: fields
            .map(|(name, json)| (name.clone(), value(json)))
            .collect(),
    }
}

/// As deep as JSON that was parsed, which is bounded.
fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(bool) => Kind::BoolValue(*bool),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text.clone()),
        Json::Array(all) => Kind::ListValue(ListValue {
            values: all.iter().map(value).collect(),
        }),
        Json::Object(object) => Kind::StructValue(structure(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests;
