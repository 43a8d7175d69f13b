//! `RateLimitPolicy` as it is written, and what it means. The schema in the chart is made from these types, and what a
//! policy means is checked by the code of the proxies.
//!
//! As with other policies nothing is weaker in silence: one that cannot be read refuses what it targets, or its whole
//! namespace where even that cannot be read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, KubeSchema};
use ringmail_proto::limit::{self, Limit, Terms};
use ringmail_proto::{Invalid, pb};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{
    Mode, Operation, PathMatch, PolicyStatus, Source, Target, TargetRef, When, conditions,
    everything, full_name, path_templates, targets,
};

/// How often the workloads it targets may be asked. A request needs a token of every limit that is for it; authorization
/// comes first.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, CustomResource, KubeSchema)]
#[kube(
    group = "ringmail.io",
    version = "v1alpha1",
    kind = "RateLimitPolicy",
    plural = "ratelimitpolicies",
    namespaced,
    shortname = "ratelimit",
    category = "ringmail",
    doc = "How often the workloads it targets may be asked.",
    status = "PolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
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
#[x_kube(
    validation = "!has(self.direction) || self.direction != 'outbound' || !self.targetRefs.exists(one, has(one.port))"
)]
pub struct RateLimitPolicySpec {
    /// What it is for; all of them.
    #[schemars(length(min = 1, max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// `shadow`: counted as it would decide, and nothing else.
    #[serde(default)]
    pub mode: Mode,
    /// Of whom it says how often.
    #[serde(default)]
    pub direction: Direction,
    /// All of them.
    #[schemars(length(min = 1, max = 16))]
    pub limits: Vec<RateLimit>,
}

/// Which way goes what is limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// What others ask of the workloads; their proxies verify who asks.
    #[default]
    Inbound,
    /// What the workloads ask of others, the quota of a third party say; ports, hosts and paths are those of whom they ask.
    Outbound,
}

/// A token bucket for each value of its key.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = "has(self.requests) != has(self.connections)")]
pub struct RateLimit {
    /// So many HTTP requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub requests: Option<u32>,
    /// So many opaque connections, as they begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub connections: Option<u32>,
    /// In each of these.
    pub per: Period,
    /// So many at once. As many as in a period, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub burst: Option<u32>,
    /// A bucket for each combination of values. One bucket, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub key: Vec<KeyPart>,
    /// What it is for: any of them. Everything, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "match")]
    #[schemars(length(max = 64))]
    pub matches: Vec<LimitMatch>,
    /// What a request costs; one token, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// `global`: all pods together. `local`: each by itself.
    #[serde(default)]
    pub scope: Scope,
    /// What becomes of requests while no ledger can be asked.
    #[serde(default)]
    pub on_unavailable: OnUnavailable,
}

/// What is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "see RateLimit::per")]
pub enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

/// For whom a limit holds together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "see RateLimit::scope")]
pub enum Scope {
    #[default]
    Global,
    Local,
}

/// Without a ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnUnavailable {
    /// Each pod admits its share of the rate.
    #[default]
    LocalShare,
    /// All are admitted.
    Allow,
    /// None is.
    Deny,
}

/// What a request costs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cost {
    /// Tokens, where no header says it.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub tokens: u32,
    /// The header that says how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
}

/// What buckets are told apart by.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = "(self.by == 'Header' || self.by == 'Claim') == has(self.name)")]
#[x_kube(validation = "(self.by == 'Path') == has(self.paths)")]
pub struct KeyPart {
    /// Of the caller: its SPIFFE ID, namespace, service account, or network. Of the request: method, host, path, a header,
    /// a claim of its JSON web token (inbound), or the route that it takes (outbound).
    pub by: KeyKind,
    /// Of the header in any case, or of the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// Paths that have buckets of their own; all others share one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub paths: Vec<PathMatch>,
    /// Bits of an IPv4 address that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 32))]
    pub ipv4_prefix: Option<u8>,
    /// Bits of an IPv6 address that count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub ipv6_prefix: Option<u8>,
}

/// Of the caller or of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "see KeyPart::by")]
pub enum KeyKind {
    Identity,
    Namespace,
    ServiceAccount,
    Network,
    Method,
    Host,
    Path,
    Header,
    Claim,
    Route,
}

/// Holds when all that is given does.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitMatch {
    /// Who asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Source>,
    /// For what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Operation>,
    /// And how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
}

/// A policy as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Meant {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// What it is for, in its own namespace.
    pub targets: Vec<Target>,
    /// What it says; ports and the number of proxies follow from `targets`.
    pub limits: Vec<Limit>,
}

impl Meant {
    /// What cannot be acted on.
    #[must_use]
    pub fn broken(&self) -> Option<&Invalid> {
        self.limits.iter().find_map(|one| one.terms.as_ref().err())
    }
}

/// What is written, meant. What is wrong with it is kept with it, and refuses.
pub(crate) fn meant(written: RateLimitPolicy) -> Meant {
    let name = full_name(&written.metadata);
    let namespace = written.metadata.namespace.clone();
    let namespace = namespace.as_deref().unwrap_or("default");
    let mode = written.spec.mode;
    match targets(&written.spec.target_refs) {
        Err(invalid) => unreadable(written.metadata, invalid),
        Ok(_) if written.spec.limits.is_empty() || written.spec.limits.len() > 16 => {
            let invalid = Invalid::new("spec.limits", "are none, or more than 16");
            unreadable(written.metadata, invalid)
        }
        Ok(targets) => {
            let direction = written.spec.direction;
            let names_port = targets.iter().any(|target| target.port.is_some());
            let all = written.spec.limits.into_iter().enumerate();
            let limits = all.map(|(n, one)| {
                let terms = one.wire(namespace, direction).and_then(Terms::try_from);
                let terms = terms.map_err(|e| e.inside(&format!("spec.limits[{n}]")));
                Limit {
                    direction: direction.meant(),
                    terms: match direction {
                        Direction::Outbound if names_port => Err(Invalid::new(
                            "spec.targetRefs",
                            "name a port; of what leaves, match.to says which",
                        )),
                        Direction::Inbound | Direction::Outbound => terms,
                    },
                    ..broken(&format!("{name}/{n}"), mode)
                }
            });
            Meant {
                limits: limits.collect(),
                metadata: written.metadata,
                targets,
            }
        }
    }
}

/// A policy of which nothing but the name can be read.
pub(crate) fn unreadable(metadata: ObjectMeta, invalid: Invalid) -> Meant {
    let mut limit = broken(&format!("{}/0", full_name(&metadata)), Mode::Enforce);
    limit.terms = Err(invalid);
    Meant {
        metadata,
        targets: everything(),
        limits: vec![limit],
    }
}

fn broken(name: &str, mode: Mode) -> Limit {
    Limit {
        name: name.into(),
        mode: match mode {
            Mode::Enforce => ringmail_proto::policy::Mode::Enforce,
            Mode::Shadow => ringmail_proto::policy::Mode::Shadow,
        },
        direction: Direction::Inbound.meant(),
        ports: Vec::new(),
        terms: Err(Invalid::new("spec", "is not read yet")),
    }
}

impl RateLimit {
    fn wire(self, namespace: &str, direction: Direction) -> Result<pb::RateLimit, Invalid> {
        let (counts, tokens) = match (self.requests, self.connections) {
            (Some(tokens), None) => (pb::LimitCounts::Requests, tokens),
            (None, Some(tokens)) => (pb::LimitCounts::Connections, tokens),
            _ => return Err(Invalid::new("requests", "or connections, one of them")),
        };
        let one = |one: LimitMatch| pb::Conditions {
            all: conditions(one.from, one.to, one.when, namespace),
        };
        let key = self.key.into_iter().map(KeyPart::wire);
        Ok(pb::RateLimit {
            counts: counts.into(),
            direction: match direction {
                Direction::Inbound => pb::LimitDirection::Inbound,
                Direction::Outbound => pb::LimitDirection::Outbound,
            }
            .into(),
            rate: Some(pb::LimitRate {
                tokens,
                period_seconds: self.per.seconds(),
                burst: self.burst.unwrap_or(tokens),
            }),
            key: key.collect::<Result<_, _>>()?,
            r#match: self.matches.into_iter().map(one).collect(),
            cost: self.cost.map(|cost| pb::LimitCost {
                tokens: cost.tokens,
                header: cost.header.unwrap_or_default().to_ascii_lowercase(),
            }),
            scope: match self.scope {
                Scope::Global => pb::LimitScope::Global,
                Scope::Local => pb::LimitScope::Local,
            }
            .into(),
            on_unavailable: match self.on_unavailable {
                OnUnavailable::LocalShare => pb::LimitUnavailable::LocalShare,
                OnUnavailable::Allow => pb::LimitUnavailable::Allow,
                OnUnavailable::Deny => pb::LimitUnavailable::Deny,
            }
            .into(),
            ..pb::RateLimit::default()
        })
    }
}

impl Direction {
    fn meant(self) -> limit::Direction {
        match self {
            Self::Inbound => limit::Direction::Inbound,
            Self::Outbound => limit::Direction::Outbound,
        }
    }
}

impl Period {
    fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }
}

impl KeyPart {
    fn wire(self) -> Result<pb::LimitKey, Invalid> {
        use pb::limit_key::Kind;
        let whole = pb::LimitKeyPart {};
        let name = || {
            let missing = || Invalid::new("key.name", "is missing");
            self.name.clone().ok_or_else(missing)
        };
        let kind = match self.by {
            KeyKind::Identity => Kind::Identity(whole),
            KeyKind::Namespace => Kind::Namespace(whole),
            KeyKind::ServiceAccount => Kind::ServiceAccount(whole),
            KeyKind::Network => Kind::Network(pb::LimitKeyNetwork {
                ipv4_prefix: self.ipv4_prefix.unwrap_or(32).into(),
                ipv6_prefix: self.ipv6_prefix.unwrap_or(64).into(),
            }),
            KeyKind::Method => Kind::Method(whole),
            KeyKind::Host => Kind::Host(whole),
            KeyKind::Path => Kind::Paths(pb::PathSet {
                any: path_templates(self.paths),
            }),
            KeyKind::Header => Kind::Header(name()?.to_ascii_lowercase()),
            KeyKind::Claim => Kind::Claim(name()?),
            KeyKind::Route => Kind::Route(whole),
        };
        Ok(pb::LimitKey { kind: Some(kind) })
    }
}
