//! The checked types as they travel. A limit that this version does not understand refuses what it is for; what names it
//! or says what is targeted has to be right.

use std::time::Duration;

use super::{
    BURST_MAX, Counts, Direction, KEY_PARTS_MAX, KeyPart, Limit, MATCHES_MAX, Pace, Scope, Terms,
    Unavailable,
};
use crate::policy::Mode;
use crate::policy::wire::{
    at_most, claim_name, conditions, header_name, numbers, paths, ports, short, some, unknown,
};
use crate::{Invalid, pb};

/// Periods that users count in: a second, a minute, an hour, a day.
const PERIODS: [u32; 4] = [1, 60, 3600, 86_400];

impl TryFrom<pb::RateLimit> for Limit {
    type Error = Invalid;

    fn try_from(wire: pb::RateLimit) -> Result<Self, Invalid> {
        let inside = |error: Invalid| error.inside("limits");
        let (mode, understood) = match wire.mode() {
            pb::PolicyMode::Enforce => (Mode::Enforce, Ok(())),
            pb::PolicyMode::Shadow => (Mode::Shadow, Ok(())),
            pb::PolicyMode::Unspecified => (Mode::Enforce, Err(unknown("mode"))),
        };
        let (direction, known) = match pb::LimitDirection::try_from(wire.direction) {
            Ok(pb::LimitDirection::Inbound) => (Direction::Inbound, Ok(())),
            Ok(pb::LimitDirection::Outbound) => (Direction::Outbound, Ok(())),
            Err(_) => (Direction::Inbound, Err(unknown("direction"))),
        };
        Ok(Self {
            name: short("name", wire.name.clone()).map_err(inside)?.into(),
            mode,
            direction,
            ports: ports("ports", &wire.ports).map_err(inside)?,
            terms: understood.and(known).and_then(|()| wire.try_into()),
        })
    }
}

impl TryFrom<pb::RateLimit> for Terms {
    type Error = Invalid;

    fn try_from(wire: pb::RateLimit) -> Result<Self, Invalid> {
        let counts = match wire.counts() {
            pb::LimitCounts::Requests => Counts::Requests,
            pb::LimitCounts::Connections => Counts::Connections,
            pb::LimitCounts::Unspecified => return Err(unknown("counts")),
        };
        let scope = match wire.scope() {
            pb::LimitScope::Global => Scope::Global,
            pb::LimitScope::Local => Scope::Local,
            pb::LimitScope::Unspecified => return Err(unknown("scope")),
        };
        let unavailable = match wire.on_unavailable() {
            pb::LimitUnavailable::LocalShare => Unavailable::LocalShare,
            pb::LimitUnavailable::Allow => Unavailable::Allow,
            pb::LimitUnavailable::Deny => Unavailable::Deny,
            pb::LimitUnavailable::Unspecified => return Err(unknown("on_unavailable")),
        };
        let direction = wire.direction();
        at_most("match", wire.r#match.len(), MATCHES_MAX)?;
        let matches = wire.r#match.into_iter();
        at_most("key", wire.key.len(), KEY_PARTS_MAX)?;
        let cost = wire.cost.unwrap_or(pb::LimitCost {
            tokens: 1,
            header: String::new(),
        });
        let pace = Pace::try_from(wire.rate.ok_or_else(|| unknown("rate"))?)?;
        if cost.tokens == 0 || cost.tokens > pace.burst {
            return Err(Invalid::new(
                "cost.tokens",
                "are none, or more than the burst",
            ));
        }
        let cost_header = (!cost.header.is_empty()).then_some(cost.header);
        let terms = Self {
            counts,
            matches: matches
                .map(|one| some("match", conditions("match", one.all)?))
                .collect::<Result<_, _>>()?,
            pace,
            key: wire
                .key
                .into_iter()
                .map(KeyPart::try_from)
                .collect::<Result<_, _>>()?,
            cost: cost.tokens,
            cost_header: cost_header.map(header_name).transpose()?,
            scope,
            unavailable,
            proxies: wire.proxies.max(1),
        };
        terms.check(direction)?;
        Ok(terms)
    }
}

impl Terms {
    /// What is of a request cannot be told of an opaque connection. A server's proxy does not know which route its client's
    /// took, and would have to believe it; a client's proxy verifies no token.
    fn check(&self, direction: pb::LimitDirection) -> Result<(), Invalid> {
        let has = |is: fn(&KeyPart) -> bool| self.key.iter().any(is);
        match direction {
            pb::LimitDirection::Inbound if has(|part| *part == KeyPart::Route) => {
                let problem = "is of a route, which is known of outbound requests only";
                return Err(Invalid::new("key", problem));
            }
            pb::LimitDirection::Outbound if has(|part| matches!(part, KeyPart::Claim(_))) => {
                let problem = "is of a claim, which is known of inbound requests only";
                return Err(Invalid::new("key", problem));
            }
            _ => {}
        }
        let of_http = |part: &KeyPart| part.needs_http();
        if self.counts == Counts::Connections {
            if self.key.iter().any(of_http) {
                return Err(Invalid::new(
                    "key",
                    "is of requests, and connections are counted",
                ));
            }
            if self
                .matches
                .iter()
                .flatten()
                .any(super::Condition::needs_http)
            {
                return Err(Invalid::new(
                    "match",
                    "is of requests, and connections are counted",
                ));
            }
            if self.cost_header.is_some() {
                return Err(Invalid::new(
                    "cost.header",
                    "is of requests, and connections are counted",
                ));
            }
        }
        Ok(())
    }
}

impl TryFrom<pb::LimitRate> for Pace {
    type Error = Invalid;

    fn try_from(wire: pb::LimitRate) -> Result<Self, Invalid> {
        if wire.tokens == 0 || wire.tokens > BURST_MAX {
            let problem = format!("are none, or more than {BURST_MAX}");
            return Err(Invalid::new("rate.tokens", problem));
        }
        if wire.burst == 0 || wire.burst > BURST_MAX {
            let problem = format!("is none, or more than {BURST_MAX}");
            return Err(Invalid::new("rate.burst", problem));
        }
        if !PERIODS.contains(&wire.period_seconds) {
            let problem = "is no second, minute, hour or day";
            return Err(Invalid::new("rate.period_seconds", problem));
        }
        Ok(Self {
            tokens: wire.tokens,
            period: Duration::from_secs(wire.period_seconds.into()),
            burst: wire.burst,
        })
    }
}

impl TryFrom<pb::LimitKey> for KeyPart {
    type Error = Invalid;

    fn try_from(wire: pb::LimitKey) -> Result<Self, Invalid> {
        use pb::limit_key::Kind;
        let prefix = |bits: u32, most: u8| {
            let bits = u8::try_from(bits).ok().filter(|bits| *bits <= most);
            bits.ok_or_else(|| Invalid::new("key.network", format!("is longer than /{most}")))
        };
        Ok(match wire.kind.ok_or_else(|| unknown("key"))? {
            Kind::Identity(_) => Self::Identity,
            Kind::Namespace(_) => Self::Namespace,
            Kind::ServiceAccount(_) => Self::ServiceAccount,
            Kind::Network(network) => Self::Network {
                ipv4: prefix(network.ipv4_prefix, 32)?,
                ipv6: prefix(network.ipv6_prefix, 128)?,
            },
            Kind::Method(_) => Self::Method,
            Kind::Host(_) => Self::Host,
            Kind::Paths(set) => Self::Paths(some("key.paths", paths(set.any)?)?),
            Kind::Header(name) => Self::Header(header_name(name)?),
            Kind::Claim(name) => Self::Claim(claim_name(&name)?),
            Kind::Route(_) => Self::Route,
        })
    }
}

impl From<&KeyPart> for pb::LimitKey {
    fn from(checked: &KeyPart) -> Self {
        use pb::limit_key::Kind;
        let whole = pb::LimitKeyPart {};
        let kind = match checked {
            KeyPart::Identity => Kind::Identity(whole),
            KeyPart::Namespace => Kind::Namespace(whole),
            KeyPart::ServiceAccount => Kind::ServiceAccount(whole),
            KeyPart::Network { ipv4, ipv6 } => Kind::Network(pb::LimitKeyNetwork {
                ipv4_prefix: (*ipv4).into(),
                ipv6_prefix: (*ipv6).into(),
            }),
            KeyPart::Method => Kind::Method(whole),
            KeyPart::Host => Kind::Host(whole),
            KeyPart::Paths(any) => Kind::Paths(pb::PathSet {
                any: any.iter().map(Into::into).collect(),
            }),
            KeyPart::Header(name) => Kind::Header(name.clone()),
            KeyPart::Claim(name) => Kind::Claim(name.join(".")),
            KeyPart::Route => Kind::Route(whole),
        };
        Self { kind: Some(kind) }
    }
}

impl From<&Limit> for pb::RateLimit {
    fn from(checked: &Limit) -> Self {
        let head = Self {
            name: checked.name.to_string(),
            mode: match checked.mode {
                Mode::Enforce => pb::PolicyMode::Enforce,
                Mode::Shadow => pb::PolicyMode::Shadow,
            }
            .into(),
            direction: match checked.direction {
                Direction::Inbound => pb::LimitDirection::Inbound,
                Direction::Outbound => pb::LimitDirection::Outbound,
            }
            .into(),
            ports: numbers(&checked.ports),
            ..Self::default()
        };
        // One without terms is one that nobody understands.
        let Ok(terms) = &checked.terms else {
            return head;
        };
        let matches = terms.matches.iter().map(|all| pb::Conditions {
            all: all.iter().map(Into::into).collect(),
        });
        Self {
            counts: match terms.counts {
                Counts::Requests => pb::LimitCounts::Requests,
                Counts::Connections => pb::LimitCounts::Connections,
            }
            .into(),
            r#match: matches.collect(),
            rate: Some(pb::LimitRate {
                tokens: terms.pace.tokens,
                period_seconds: u32::try_from(terms.pace.period.as_secs()).unwrap_or(u32::MAX),
                burst: terms.pace.burst,
            }),
            key: terms.key.iter().map(Into::into).collect(),
            cost: Some(pb::LimitCost {
                tokens: terms.cost,
                header: terms.cost_header.clone().unwrap_or_default(),
            }),
            scope: match terms.scope {
                Scope::Global => pb::LimitScope::Global,
                Scope::Local => pb::LimitScope::Local,
            }
            .into(),
            on_unavailable: match terms.unavailable {
                Unavailable::LocalShare => pb::LimitUnavailable::LocalShare,
                Unavailable::Allow => pb::LimitUnavailable::Allow,
                Unavailable::Deny => pb::LimitUnavailable::Deny,
            }
            .into(),
            proxies: terms.proxies,
            ..head
        }
    }
}
