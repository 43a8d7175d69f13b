//! `RequestAuthentication` as it is written, and what it means. The schema in the chart is made from these types, and what
//! an object means is checked by the code of the proxies.
//!
//! As with policies nothing is weaker in silence: an object that cannot be read refuses every request for what it targets,
//! or for its whole namespace where even that cannot be read.
//!
//! Limits: `MAX_AGE_MIN` and `MAX_AGE_MAX` for the age of keys, `URI_BYTES_MAX` bytes of where they are.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, KubeSchema};
use ringmail_proto::policy::authentication::{Authentication, Issuer};
use ringmail_proto::{Invalid, pb};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::milliseconds;
use super::policy::{PolicyStatus, Target, TargetRef, everything, full_name, targets};

/// The youngest age at which keys are too old.
pub const MAX_AGE_MIN: Duration = Duration::from_secs(1);
/// The oldest.
pub const MAX_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Where nobody says it.
const MAX_AGE_DEFAULT: Duration = Duration::from_secs(3600);
/// Bytes of a URI.
pub const URI_BYTES_MAX: usize = 2048;

/// Whose JSON web tokens the workloads it targets know. A request with a token that none of the issuers vouches for is
/// refused; one without a token goes on without claims, and policies decide.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ringmail.io",
    version = "v1alpha1",
    kind = "RequestAuthentication",
    namespaced,
    shortname = "reqauth",
    category = "ringmail",
    status = "PolicyStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Issuers",
        type_ = "string",
        json_path = ".spec.issuers[*].issuer"
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "Applied", type_ = "string", json_path = ".status.applied"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestAuthenticationSpec {
    /// What it is for; all of them.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Whose tokens are good; each issuer once.
    #[schemars(length(min = 1, max = 16))]
    pub issuers: Vec<JwtIssuer>,
}

/// Somebody whose tokens are good.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtIssuer {
    /// `iss`, exactly.
    #[schemars(length(min = 1, max = 2048))]
    pub issuer: String,
    /// One of these has to be in `aud`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 2048)))]
    pub audiences: Vec<String>,
    /// Its keys.
    pub jwks: Jwks,
    /// Which algorithms are good: RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA. What each key is for, if
    /// absent: what it says, else RS256, ES256, ES384 or EdDSA.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), inner(length(min = 5, max = 5)))]
    pub algorithms: Vec<String>,
    /// Where a token may be. In `Authorization`, behind `Bearer`, if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub from: Vec<TokenPlace>,
    /// Whether the app sees the token.
    #[serde(default)]
    pub forward: bool,
    /// Headers that are made of claims, and of nothing else: what clients send under these names is taken away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub claims_to_headers: Vec<ClaimToHeader>,
    /// How long keys that were fetched stay in force when they can be fetched no more: 1s to 168h; 1h, if absent. Then no
    /// token of this issuer is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub jwks_max_age: Option<String>,
}

/// A JSON Web Key Set (RFC 7517): one of these.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = "has(self.uri) != has(self.inline)")]
pub struct Jwks {
    /// An https URL. The controller fetches it, again and again; no redirect is followed, and no address of the
    /// controller's own machine or link dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^https?://"))]
    pub uri: Option<String>,
    /// The set itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub inline: Option<String>,
}

/// Where a token may be: one of these.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = "[has(self.header), has(self.cookie), has(self.queryParameter)].filter(one, one).size() == 1"
)]
pub struct TokenPlace {
    /// In a header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<TokenHeader>,
    /// In the cookie of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cookie: Option<String>,
    /// In the query parameter of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub query_parameter: Option<String>,
}

/// A header that holds a token.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenHeader {
    /// In any case.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// What is before the token, in any case: `Bearer `, with its space. Nothing, if absent.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub prefix: String,
}

/// A header that is made of a claim.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimToHeader {
    /// With dots where it is inside others.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,
    /// In any case.
    #[schemars(length(min = 1, max = 256))]
    pub header: String,
}

/// What is said of tokens, as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Meant {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// `namespace/name`.
    pub name: Arc<str>,
    /// What it is for, in its own namespace.
    pub targets: Vec<Target>,
    /// Whose tokens are good; or why everything is refused instead.
    pub issuers: Result<Vec<MeantIssuer>, Invalid>,
}

/// Somebody whose tokens are good.
#[derive(Debug, Clone, PartialEq)]
pub struct MeantIssuer {
    /// Without keys, unless they are in the object itself.
    pub issuer: Issuer,
    /// Where they are otherwise.
    pub remote: Option<Remote>,
}

/// Keys that have to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remote {
    /// From here.
    pub uri: Uri,
    /// And again before they are as old.
    pub max_age: Duration,
}

/// What is written, meant. What is wrong with it is kept with it, and refuses.
pub(crate) fn meant(written: RequestAuthentication) -> Meant {
    let spec = written.spec;
    let (targets, issuers) = match targets(&spec.target_refs) {
        Ok(targets) => (targets, issuers(&written.metadata, spec.issuers)),
        Err(invalid) => (everything(), Err(invalid)),
    };
    Meant {
        name: full_name(&written.metadata).into(),
        metadata: written.metadata,
        targets,
        issuers,
    }
}

/// One of which nothing but the name can be read.
pub(crate) fn unreadable(metadata: ObjectMeta, invalid: Invalid) -> Meant {
    Meant {
        name: full_name(&metadata).into(),
        metadata,
        targets: everything(),
        issuers: Err(invalid),
    }
}

fn issuers(metadata: &ObjectMeta, written: Vec<JwtIssuer>) -> Result<Vec<MeantIssuer>, Invalid> {
    let remotes = written.iter().enumerate().map(|(n, one)| {
        let inside = |e: Invalid| e.inside(&format!("spec.issuers[{n}]"));
        one.remote().map_err(inside)
    });
    let remotes: Vec<Option<Remote>> = remotes.collect::<Result<_, _>>()?;
    let checked = Authentication::try_from(pb::RequestAuthentication {
        name: full_name(metadata),
        ports: Vec::new(),
        issuers: written.into_iter().map(JwtIssuer::wire).collect(),
    })?;
    let issuers = checked.issuers.map_err(|e| e.inside("spec"))?;
    let all = issuers.into_iter().zip(remotes);
    Ok(all
        .map(|(issuer, remote)| MeantIssuer { issuer, remote })
        .collect())
}

impl JwtIssuer {
    fn remote(&self) -> Result<Option<Remote>, Invalid> {
        let max_age = match &self.jwks_max_age {
            None => MAX_AGE_DEFAULT,
            Some(text) => Duration::from_millis(
                milliseconds(text).map_err(|e| Invalid::new("jwksMaxAge", e.problem))?,
            ),
        };
        if !(MAX_AGE_MIN..=MAX_AGE_MAX).contains(&max_age) {
            return Err(Invalid::new("jwksMaxAge", "is not between 1s and 168h"));
        }
        match (&self.jwks.uri, &self.jwks.inline) {
            (Some(text), None) => Ok(Some(Remote {
                uri: uri(text)?,
                max_age,
            })),
            (None, Some(inline)) if !inline.is_empty() => Ok(None),
            _ => Err(Invalid::new("jwks", "is neither a uri nor inline")),
        }
    }

    fn wire(self) -> pb::JwtIssuer {
        let headers = self.claims_to_headers.into_iter();
        pb::JwtIssuer {
            issuer: self.issuer,
            audiences: self.audiences,
            jwks: self.jwks.inline.unwrap_or_default().into_bytes(),
            // Whoever fetches them says the rest.
            jwks_uri: String::new(),
            jwks_awaited: false,
            algorithms: self.algorithms,
            places: self.from.into_iter().map(TokenPlace::wire).collect(),
            forward: self.forward,
            claims_to_headers: headers
                .map(|one| pb::ClaimToHeader {
                    claim: one.claim,
                    header: one.header.to_ascii_lowercase(),
                })
                .collect(),
        }
    }
}

/// Whether http will do is for whoever runs the controller to say.
fn uri(text: &str) -> Result<Uri, Invalid> {
    let refuse = |problem: &str| Invalid::new("jwks.uri", problem);
    if text.len() > URI_BYTES_MAX {
        return Err(refuse("is longer than 2048 bytes"));
    }
    let uri: Uri = text.parse().map_err(|_| refuse("is none"))?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    if !has_host || !matches!(uri.scheme_str(), Some("https" | "http")) {
        return Err(refuse("is no https URL"));
    }
    if authority.contains('@') {
        return Err(refuse("holds credentials"));
    }
    Ok(uri)
}

impl TokenPlace {
    fn wire(self) -> pb::TokenPlace {
        use pb::token_place::Kind;
        let kind = match (self.header, self.cookie, self.query_parameter) {
            (Some(header), None, None) => Some(Kind::Header(pb::TokenHeader {
                name: header.name.to_ascii_lowercase(),
                prefix: header.prefix,
            })),
            (None, Some(name), None) => Some(Kind::Cookie(name)),
            (None, None, Some(name)) => Some(Kind::QueryParameter(name)),
            // Refused where it is checked.
            _ => None,
        };
        pb::TokenPlace { kind }
    }
}

#[cfg(test)]
mod tests;
