//! One file's text to objects, or a refusal with line and field. Documents are cut apart first, so that each is parsed
//! on its own and a line can be told; aliases and depth are on a budget, and the text is at most 1 MiB (the caller's
//! cap), which bounds every string.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use ringmail_proto::Invalid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Options;

use super::annotations;
use super::authentication;
use super::check::check;
use super::directory::Refusal;
use super::limit;
use super::lines::line_at;
use super::objects::{Key, Kind, Object};
use super::policy::{self, Meant};
use super::revocation;
use super::route::{self, Route};

/// Group and version of the Gateway API's routes.
const ROUTES: &str = "gateway.networking.k8s.io/v1";
/// Group and version of our own kinds.
const POLICIES: &str = "ringmail.io/v1alpha1";
/// Bytes of a problem as shown: it may quote the file.
const PROBLEM_BYTES_MAX: usize = 512;
/// YAML nodes of one document.
const NODES_MAX: usize = 200_000;
/// YAML aliases of one document.
const ALIASES_MAX: usize = 64;
/// YAML nesting.
const DEPTH_MAX: usize = 64;

/// What one file holds.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) objects: Vec<(Key, Object)>,
    pub(super) warnings: Vec<String>,
    /// Why it is not to be taken. Then only those of its objects are here that close what would be open without them.
    pub(super) refused: Option<Refusal>,
}

/// One YAML document and the line of the file it begins on.
struct Document<'a> {
    text: &'a str,
    line: u64,
    /// What it says. Kinds are read from this as from an API server's JSON, so that both mean the same, and the program
    /// does not hold a reader of every kind for each of the two.
    content: Value,
}

/// Whatever else it says.
#[derive(Deserialize)]
struct Named {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let text = std::str::from_utf8(bytes).unwrap_or_else(|e| {
        let (good, _) = bytes.split_at(e.valid_up_to());
        let line = good.iter().filter(|b| **b == b'\n').count() as u64 + 1;
        parsed.refused = Some(refusal(line, "", "is not UTF-8"));
        str::from_utf8(good).unwrap_or_default()
    });
    for (text, line) in documents(text) {
        if let Err(refusal) = parsed.take(text, line) {
            parsed.refused.get_or_insert(refusal);
        }
    }
    if parsed.refused.is_some() {
        parsed.objects.retain(|(key, _)| closes(key.kind));
    }
    parsed
}

/// Whether without such an object more may be let in than its author wants.
fn closes(kind: Kind) -> bool {
    match kind {
        Kind::Namespace
        | Kind::AuthorizationPolicy
        | Kind::RequestAuthentication
        | Kind::RateLimitPolicy
        | Kind::IdentityRevocation => true,
        Kind::ServiceAccount
        | Kind::Service
        | Kind::Pod
        | Kind::EndpointSlice
        | Kind::HTTPRoute
        | Kind::GRPCRoute
        | Kind::TLSRoute => false,
    }
}

impl Parsed {
    fn take(&mut self, text: &str, line: u64) -> Result<(), Refusal> {
        let document = Document::read(text, line)?;
        let found = one(&document, &mut self.warnings);
        if found.is_err()
            && let Some(instead) = cautious(&document)
            && self.objects.iter().all(|(key, _)| *key != instead.0)
        {
            self.objects.push(instead);
        }
        let Some((key, object)) = found? else {
            return Ok(());
        };
        if self.objects.iter().any(|(other, _)| *other == key) {
            let problem = format!("{key} is in this file twice");
            return Err(refusal(document.line, "metadata.name", &problem));
        }
        self.objects.push((key, object));
        Ok(())
    }
}

/// Each document and its first line. Cuts at document markers, which YAML allows nowhere else at the start of a line (YAML 1.2, section 9.1.2).
fn documents(text: &str) -> Vec<(&str, u64)> {
    let mut found = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let marker = |mark: &str| {
            line.strip_prefix(mark)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        };
        if marker("---") || marker("...") {
            found.push((&text[start..offset], start_line));
            // What follows the marker on its own line belongs to the new document.
            start = offset + 3;
            start_line = index as u64 + 1;
        }
        offset += line.len();
    }
    found.push((&text[start..], start_line));
    let blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
    found.retain(|(text, _)| !text.lines().all(blank));
    found
}

/// In place of a namespace that is refused.
fn cautious(document: &Document<'_>) -> Option<(Key, Object)> {
    let header: Header = read(document).ok()?;
    if (header.api_version.as_str(), header.kind.as_str()) != ("v1", "Namespace") {
        return None;
    }
    let named: Named = read(document).ok()?;
    let namespace = Namespace {
        metadata: annotations::cautious(named.metadata),
        ..Namespace::default()
    };
    let key = check(Kind::Namespace, &namespace.metadata).ok()?;
    Some((key, Object::Namespace(Arc::new(namespace))))
}

fn one(
    document: &Document<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<(Key, Object)>, Refusal> {
    let header: Header = read(document)?;
    let (kind, object) = match (header.api_version.as_str(), header.kind.as_str()) {
        ("v1", "Namespace") => (
            Kind::Namespace,
            Object::Namespace(Arc::new(read(document)?)),
        ),
        ("v1", "ServiceAccount") => (
            Kind::ServiceAccount,
            Object::ServiceAccount(Arc::new(read(document)?)),
        ),
        ("v1", "Service") => (Kind::Service, Object::Service(Arc::new(read(document)?))),
        ("v1", "Pod") => (Kind::Pod, Object::Pod(Arc::new(read(document)?))),
        ("discovery.k8s.io/v1", "EndpointSlice") => (
            Kind::EndpointSlice,
            Object::EndpointSlice(Arc::new(read(document)?)),
        ),
        (ROUTES, "HTTPRoute") => {
            let route = route::of_http(read(document)?);
            (Kind::HTTPRoute, meant(document, route)?)
        }
        (ROUTES, "GRPCRoute") => {
            let route = route::of_grpc(read(document)?);
            (Kind::GRPCRoute, meant(document, route)?)
        }
        (ROUTES, "TLSRoute") => {
            let route = route::of_tls(read(document)?);
            (Kind::TLSRoute, meant(document, route)?)
        }
        (POLICIES, "AuthorizationPolicy") => {
            let policy = policy(document, warnings)?;
            (Kind::AuthorizationPolicy, Object::Policy(Arc::new(policy)))
        }
        (POLICIES, "RequestAuthentication") => {
            let one = authentication(document, warnings)?;
            (
                Kind::RequestAuthentication,
                Object::Authentication(Arc::new(one)),
            )
        }
        (POLICIES, "RateLimitPolicy") => {
            let one = limits(document, warnings)?;
            (Kind::RateLimitPolicy, Object::Limits(Arc::new(one)))
        }
        (POLICIES, "IdentityRevocation") => {
            let revoked = revocation::meant(read(document)?);
            let revoked = revoked.map_err(|e| invalid(document, &e))?;
            if let Some(broken) = &revoked.broken {
                let line = document.line;
                warnings.push(format!(
                    "line {line}: a revocation is in force but for what cannot be read: {broken}"
                ));
            }
            (
                Kind::IdentityRevocation,
                Object::Revocation(Arc::new(revoked)),
            )
        }
        (_, "") => return Err(refusal(document.line, "kind", "is missing")),
        ("", _) => return Err(refusal(document.line, "apiVersion", "is missing")),
        (group, kind) if group.contains("ringmail.io") => {
            // A rule that is not understood must not be passed over in silence.
            let problem = format!("{group} {kind} is none this version knows");
            return Err(refusal(line_of(document, "kind:"), "kind", &problem));
        }
        (group, kind) => {
            let (line, group, kind) = (document.line, shown(group), shown(kind));
            warnings.push(format!("line {line}: {group} {kind} is not read"));
            return Ok(None);
        }
    };
    let key = check(kind, object.metadata()).map_err(|e| invalid(document, &e))?;
    for unknown in annotations::unknown(object.metadata().annotations.as_ref()) {
        let line = line_of(document, unknown);
        let unknown = shown(unknown);
        warnings.push(format!(
            "line {line}: {key}: annotation {unknown} is unknown"
        ));
    }
    Ok(Some((key, object)))
}

/// A policy that says nothing that is understood denies, which is said.
fn policy(document: &Document<'_>, warnings: &mut Vec<String>) -> Result<Meant, Refusal> {
    let meant = match read(document) {
        Ok(written) => policy::meant(written),
        Err(refused) => {
            let named: Named = read(document)?;
            let mode = policy::Mode::of_unread(&named.spec);
            let invalid = Invalid::new(&refused.field, &refused.problem);
            policy::unreadable(named.metadata, mode, invalid)
        }
    };
    if let Err(invalid) = &meant.policy.rules {
        let (line, name) = (document.line, &meant.policy.name);
        warnings.push(format!(
            "line {line}: policy {name} denies what it targets, or would: {invalid}"
        ));
    }
    Ok(meant)
}

/// The same of what is said of tokens: it refuses.
fn authentication(
    document: &Document<'_>,
    warnings: &mut Vec<String>,
) -> Result<authentication::Meant, Refusal> {
    let meant = match read(document) {
        Ok(written) => authentication::meant(written),
        Err(refused) => {
            let named: Named = read(document)?;
            let invalid = Invalid::new(&refused.field, &refused.problem);
            authentication::unreadable(named.metadata, invalid)
        }
    };
    if let Err(invalid) = &meant.issuers {
        let (line, name) = (document.line, &meant.name);
        warnings.push(format!(
            "line {line}: authentication {name} refuses every request for what it targets: {invalid}"
        ));
    }
    Ok(meant)
}

/// The same of rate limits: they refuse.
fn limits(document: &Document<'_>, warnings: &mut Vec<String>) -> Result<limit::Meant, Refusal> {
    let meant = match read(document) {
        Ok(written) => limit::meant(written),
        Err(refused) => {
            let named: Named = read(document)?;
            let invalid = Invalid::new(&refused.field, &refused.problem);
            limit::unreadable(named.metadata, invalid)
        }
    };
    if let Some(invalid) = meant.broken() {
        let line = document.line;
        warnings.push(format!(
            "line {line}: a rate limit refuses every request for what it targets: {invalid}"
        ));
    }
    Ok(meant)
}

fn meant(document: &Document<'_>, route: Result<Route, Invalid>) -> Result<Object, Refusal> {
    let route = route.map_err(|e| invalid(document, &e))?;
    Ok(Object::Route(Arc::new(route)))
}

/// A refusal at the line that first says the field's last name.
fn invalid(document: &Document<'_>, e: &Invalid) -> Refusal {
    let needle = match e.field.contains('/') {
        true => &e.field,
        false => e.field.rsplit('.').next().unwrap_or_default(),
    };
    refusal(line_of(document, needle), &e.field, &e.problem)
}

impl<'a> Document<'a> {
    fn read(text: &'a str, line: u64) -> Result<Self, Refusal> {
        let content = serde_saphyr::from_str_with_options(text, options());
        let content = content.map_err(|e| {
            let at = e.location().map_or(1, |location| location.line());
            let problem = e.without_snippet().to_string();
            // Our line says it better: the document's own count begins anew at each marker.
            let problem = problem.split(" at line ").next().unwrap_or_default();
            refusal(line + at.max(1) - 1, "", problem)
        })?;
        Ok(Self {
            text,
            line,
            content,
        })
    }
}

fn read<T: DeserializeOwned>(document: &Document<'_>) -> Result<T, Refusal> {
    serde_path_to_error::deserialize(document.content.clone()).map_err(|e| {
        let line = line_at(document.text, options(), e.path());
        let (field, problem) = (e.path().to_string(), e.inner().to_string());
        refusal(document.line + line - 1, &field, &problem)
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        with_snippet: false,
        // A label may be `y`.
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_nodes: NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_depth: DEPTH_MAX,
        },
    }
}

/// The line on which `needle` is first said.
fn line_of(document: &Document<'_>, needle: &str) -> u64 {
    let found = document.text.lines().position(|line| line.contains(needle));
    document.line + found.unwrap_or_default() as u64
}

fn refusal(line: u64, field: &str, problem: &str) -> Refusal {
    Refusal {
        line,
        field: shown(field).into(),
        problem: shown(problem).into(),
    }
}

/// The part that is shown of a text that somebody else wrote.
fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(PROBLEM_BYTES_MAX)]
}
