//! Which requests a rule is for, and which of two matches goes first.

use std::borrow::Cow;

use ringmail_proto::pb::path_match::Kind as Path;
use ringmail_proto::route::Pattern;
use ringmail_proto::{Invalid, pb, target};

use crate::source::gateway::{
    GrpcMatch, GrpcMethod, HttpMatch, PathMatch, PathMatchKind, ValueMatch, ValueMatchKind,
};

/// A match's precedence: the greater goes first. For HTTP: kind of path match, its length, method, number of headers,
/// number of parameters; for gRPC: length of the service, of the method, number of headers (Gateway API,
/// `HTTPRouteRule.matches` and `GRPCRouteRule.matches`); for TLS: exact names, then longer ones. Regular expressions stand between exact paths and prefixes.
pub type Rank = [usize; 5];

/// Everything: what a rule without matches is for.
fn any() -> (Rank, pb::RouteMatch) {
    (Rank::default(), pb::RouteMatch::default())
}

pub(super) fn of_http(written: &[HttpMatch]) -> Vec<(Rank, pb::RouteMatch)> {
    if written.is_empty() {
        return vec![any()];
    }
    written.iter().map(http).collect()
}

fn http(written: &HttpMatch) -> (Rank, pb::RouteMatch) {
    let (kind, length, path) = match &written.path {
        None => (0, 1, None),
        Some(PathMatch { kind, value }) => match kind {
            PathMatchKind::Exact => {
                let value = normal_path(value);
                (2, value.len(), Some(Path::Exact(value)))
            }
            PathMatchKind::RegularExpression => (1, value.len(), Some(Path::Regex(value.clone()))),
            PathMatchKind::PathPrefix => {
                let value = normal_path(value);
                match value.strip_suffix('/').unwrap_or(&value) {
                    "" if value == "/" => (0, 1, None),
                    prefix => (0, prefix.len(), Some(Path::Prefix(prefix.to_owned()))),
                }
            }
        },
    };
    let rank = [
        kind,
        length,
        usize::from(written.method.is_some()),
        written.headers.len(),
        written.query_params.len(),
    ];
    let one = pb::RouteMatch {
        rule: 0,
        path: path.map(|kind| pb::PathMatch { kind: Some(kind) }),
        method: written.method.clone().unwrap_or_default(),
        headers: first_of_each(&written.headers, str::eq_ignore_ascii_case),
        query: first_of_each(&written.query_params, |a, b| a == b),
        server_name: String::new(),
    };
    (rank, one)
}

pub(super) fn of_tls(names: &[String]) -> Vec<(Rank, pb::RouteMatch)> {
    let one = |name: &String| {
        let rank = [usize::from(!name.starts_with('*')), name.len(), 0, 0, 0];
        let one = pb::RouteMatch {
            server_name: name.clone(),
            ..pb::RouteMatch::default()
        };
        (rank, one)
    };
    names.iter().map(one).collect()
}

/// As requests' paths are compared and forwarded; what has no such form is left for the check of what travels to refuse.
pub(super) fn normal_path(written: &str) -> String {
    target::origin(written).map_or_else(|_| written.to_owned(), Cow::into_owned)
}

pub(super) fn of_grpc(written: &[GrpcMatch]) -> Result<Vec<(Rank, pb::RouteMatch)>, Invalid> {
    if written.is_empty() {
        return Ok(vec![any()]);
    }
    written.iter().map(grpc).collect()
}

/// A gRPC call is a request for `/service/method` (gRPC over HTTP/2, section Requests).
fn grpc(written: &GrpcMatch) -> Result<(Rank, pb::RouteMatch), Invalid> {
    let method = written.method.clone().unwrap_or_default();
    let (service, called) = (method.service.as_deref(), method.method.as_deref());
    let lengths = [service, called].map(|part| part.map_or(0, str::len));
    let one = pb::RouteMatch {
        rule: 0,
        path: grpc_path(&method)?.map(|kind| pb::PathMatch { kind: Some(kind) }),
        method: String::new(),
        headers: first_of_each(&written.headers, str::eq_ignore_ascii_case),
        ..pb::RouteMatch::default()
    };
    let exact = usize::from(method.kind == ValueMatchKind::Exact);
    let rank = [lengths[0], lengths[1], exact, written.headers.len(), 0];
    Ok((rank, one))
}

fn grpc_path(method: &GrpcMethod) -> Result<Option<Path>, Invalid> {
    let (service, called) = (method.service.as_deref(), method.method.as_deref());
    let name = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b))
    };
    let exact = method.kind == ValueMatchKind::Exact;
    for part in [service, called].into_iter().flatten().filter(|_| !exact) {
        // Alone, so that an unpaired bracket does not pair with one below.
        Pattern::new("matches.method", part)?;
    }
    if exact && ![service, called].into_iter().flatten().all(name) {
        return Err(Invalid::new(
            "matches.method",
            "is no name of a service or a method",
        ));
    }
    Ok(match (exact, service, called) {
        (_, None, None) => None,
        (true, Some(service), Some(called)) => Some(Path::Exact(format!("/{service}/{called}"))),
        (true, Some(service), None) => Some(Path::Prefix(format!("/{service}"))),
        (true, None, Some(called)) => Some(Path::Regex(format!("/[^/]+/{called}"))),
        (false, service, called) => {
            let any = "[^/]+";
            let (service, called) = (service.unwrap_or(any), called.unwrap_or(any));
            Some(Path::Regex(format!("/(?:{service})/(?:{called})")))
        }
    })
}

/// Of several with one name the first counts, the rest does not (Gateway API, `HTTPHeaderMatch.name`).
fn first_of_each(written: &[ValueMatch], same: impl Fn(&str, &str) -> bool) -> Vec<pb::ValueMatch> {
    let mut found: Vec<pb::ValueMatch> = Vec::new();
    for one in written {
        if found.iter().any(|other| same(&other.name, &one.name)) {
            continue;
        }
        let value = one.value.clone();
        found.push(pb::ValueMatch {
            name: one.name.clone(),
            kind: Some(match one.kind {
                ValueMatchKind::Exact => pb::value_match::Kind::Exact(value),
                ValueMatchKind::RegularExpression => pb::value_match::Kind::Regex(value),
            }),
        });
    }
    found
}
