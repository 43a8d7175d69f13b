//! The checked types as they travel. A rule that this version does not understand is part of its policy, which then
//! denies; what names a policy or says what is targeted has to be right.

use std::num::NonZeroU16;

use ipnet::IpNet;

use super::external::External;
use super::{
    ALTERNATIVES_MAX, AUTHENTICATIONS_MAX, Action, Authorization, CONDITIONS_MAX, Condition,
    Expression, Host, Mode, POLICIES_MAX, Path, Policy, Posture, RULES_MAX, Rule, TEXT_BYTES_MAX,
    Template, Text, VALUES_MAX,
};
use crate::limit::LIMITS_MAX;
use crate::{Invalid, pb, target, workload};

impl TryFrom<pb::Authorization> for Authorization {
    type Error = Invalid;

    fn try_from(wire: pb::Authorization) -> Result<Self, Invalid> {
        let posture = match wire.posture() {
            pb::Posture::Unspecified => return Err(unknown("posture")),
            pb::Posture::Deny => Posture::Deny,
            pb::Posture::Mesh => Posture::Mesh,
            pb::Posture::Cluster => Posture::Cluster,
            pb::Posture::Open => Posture::Open,
        };
        at_most("policies", wire.policies.len(), POLICIES_MAX)?;
        let policies = wire.policies.into_iter().map(Policy::try_from);
        let authentications = wire.authentications;
        at_most(
            "authentications",
            authentications.len(),
            AUTHENTICATIONS_MAX,
        )?;
        let authentications = authentications.into_iter().map(TryInto::try_into);
        at_most("limits", wire.limits.len(), LIMITS_MAX)?;
        let limits = wire.limits.into_iter().map(TryInto::try_into);
        Ok(Self {
            posture,
            cluster_networks: networks("cluster_networks", &wire.cluster_networks)?,
            policies: policies.collect::<Result<_, _>>()?,
            authentications: authentications.collect::<Result<_, _>>()?,
            limits: limits.collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Authorization> for pb::Authorization {
    fn from(checked: &Authorization) -> Self {
        let posture = match checked.posture {
            Posture::Deny => pb::Posture::Deny,
            Posture::Mesh => pb::Posture::Mesh,
            Posture::Cluster => pb::Posture::Cluster,
            Posture::Open => pb::Posture::Open,
        };
        Self {
            posture: posture.into(),
            cluster_networks: checked
                .cluster_networks
                .iter()
                .map(ToString::to_string)
                .collect(),
            policies: checked.policies.iter().map(Into::into).collect(),
            authentications: checked.authentications.iter().map(Into::into).collect(),
            limits: checked.limits.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::AuthorizationPolicy> for Policy {
    type Error = Invalid;

    fn try_from(wire: pb::AuthorizationPolicy) -> Result<Self, Invalid> {
        let inside = |error: Invalid| error.inside("policies");
        let (action, mode) = (wire.action(), wire.mode());
        let (action, understood) = match action {
            pb::PolicyAction::Allow => (Action::Allow, Ok(())),
            pb::PolicyAction::Deny => (Action::Deny, Ok(())),
            pb::PolicyAction::External => match external(wire.external, mode) {
                Ok(external) => (Action::External(external.into()), Ok(())),
                Err(invalid) => (Action::Deny, Err(invalid)),
            },
            pb::PolicyAction::Unspecified => (Action::Deny, Err(unknown("action"))),
        };
        let (mode, understood) = match mode {
            pb::PolicyMode::Enforce => (Mode::Enforce, understood),
            pb::PolicyMode::Shadow => (Mode::Shadow, understood),
            pb::PolicyMode::Unspecified => (Mode::Enforce, Err(unknown("mode"))),
        };
        let ports = ports("ports", &wire.ports).map_err(inside)?;
        let rules = understood.and_then(|()| rules(wire.rules));
        Ok(Self {
            name: short("name", wire.name).map_err(inside)?.into(),
            action,
            mode,
            ports,
            rules,
        })
    }
}

impl From<&Policy> for pb::AuthorizationPolicy {
    fn from(checked: &Policy) -> Self {
        let (action, external) = match (&checked.rules, &checked.action) {
            (Err(_), _) => (pb::PolicyAction::Unspecified, None),
            (Ok(_), Action::Allow) => (pb::PolicyAction::Allow, None),
            (Ok(_), Action::Deny) => (pb::PolicyAction::Deny, None),
            (Ok(_), Action::External(external)) => {
                (pb::PolicyAction::External, Some((&**external).into()))
            }
        };
        let mode = match checked.mode {
            Mode::Enforce => pb::PolicyMode::Enforce,
            Mode::Shadow => pb::PolicyMode::Shadow,
        };
        Self {
            name: checked.name.to_string(),
            action: action.into(),
            mode: mode.into(),
            ports: numbers(&checked.ports),
            rules: checked.rules.iter().flatten().map(Into::into).collect(),
            external,
        }
    }
}

fn external(
    wire: Option<pb::ExternalAuthorizer>,
    mode: pb::PolicyMode,
) -> Result<External, Invalid> {
    if mode == pb::PolicyMode::Shadow {
        let problem = "is shadow, and nobody is asked for an answer that counts for nothing";
        return Err(Invalid::new("mode", problem));
    }
    let wire = wire.ok_or_else(|| unknown("external"))?;
    wire.try_into().map_err(|e: Invalid| e.inside("external"))
}

fn rules(wire: Vec<pb::AuthorizationRule>) -> Result<Vec<Rule>, Invalid> {
    at_most("rules", wire.len(), RULES_MAX)?;
    let all = wire.into_iter().enumerate();
    all.map(|(n, rule)| {
        rule.try_into()
            .map_err(|e: Invalid| e.inside(&format!("rules[{n}]")))
    })
    .collect()
}

impl TryFrom<pb::AuthorizationRule> for Rule {
    type Error = Invalid;

    fn try_from(wire: pb::AuthorizationRule) -> Result<Self, Invalid> {
        let alternatives = |field: &str, wire: Vec<pb::Conditions>| -> Result<_, Invalid> {
            at_most(field, wire.len(), ALTERNATIVES_MAX)?;
            let all = wire.into_iter();
            all.map(|one| conditions(field, one.all))
                .collect::<Result<_, Invalid>>()
        };
        Ok(Self {
            from: alternatives("from", wire.from)?,
            to: alternatives("to", wire.to)?,
            when: conditions("when", wire.when)?,
        })
    }
}

impl From<&Rule> for pb::AuthorizationRule {
    fn from(checked: &Rule) -> Self {
        let conditions = |all: &[Condition]| all.iter().map(Into::into).collect();
        let alternatives = |all: &[Vec<Condition>]| {
            let all = all.iter().map(|one| pb::Conditions {
                all: conditions(one),
            });
            all.collect()
        };
        Self {
            from: alternatives(&checked.from),
            to: alternatives(&checked.to),
            when: conditions(&checked.when),
        }
    }
}

pub(crate) fn conditions(field: &str, wire: Vec<pb::Condition>) -> Result<Vec<Condition>, Invalid> {
    at_most(field, wire.len(), CONDITIONS_MAX)?;
    let all = wire.into_iter();
    all.map(|one| one.try_into().map_err(|e: Invalid| e.inside(field)))
        .collect()
}

impl TryFrom<pb::Condition> for Condition {
    type Error = Invalid;

    fn try_from(wire: pb::Condition) -> Result<Self, Invalid> {
        use pb::condition::Kind;
        Ok(match wire.kind.ok_or_else(|| unknown("condition"))? {
            Kind::Identities(set) => Self::Identities(some("identities", texts(set.any)?)?),
            Kind::Namespaces(set) => Self::Namespaces(names("namespaces", set)?),
            Kind::ServiceAccounts(set) => Self::ServiceAccounts(names("service_accounts", set)?),
            Kind::TrustDomains(set) => Self::TrustDomains(names("trust_domains", set)?),
            Kind::Networks(set) => {
                Self::Networks(some("networks", networks("networks", &set.any)?)?)
            }
            Kind::Unauthenticated(wanted) => Self::Unauthenticated(wanted),
            Kind::Ports(set) => Self::Ports(some("ports", ports("ports", &set.any)?)?),
            Kind::Methods(set) => Self::Methods(names("methods", set)?),
            Kind::Paths(set) => Self::Paths(some("paths", paths(set.any)?)?),
            Kind::Hosts(set) => Self::Hosts(some("hosts", hosts(set)?)?),
            Kind::Header(header) => Self::Header(header_name(header.name)?, texts(header.any)?),
            Kind::Claim(claim) => Self::Claim(claim_name(&claim.name)?, texts(claim.any)?),
            Kind::Expression(text) => Self::Expression(Expression::new(&text)?),
        })
    }
}

impl From<&Condition> for pb::Condition {
    fn from(checked: &Condition) -> Self {
        use pb::condition::Kind;
        let names = |any: &[String]| pb::NameSet { any: any.to_vec() };
        let texts = |any: &[Text]| any.iter().map(pb::TextMatch::from).collect();
        let kind = match checked {
            Condition::Identities(any) => Kind::Identities(pb::TextSet { any: texts(any) }),
            Condition::Namespaces(any) => Kind::Namespaces(names(any)),
            Condition::ServiceAccounts(any) => Kind::ServiceAccounts(names(any)),
            Condition::TrustDomains(any) => Kind::TrustDomains(names(any)),
            Condition::Networks(any) => Kind::Networks(pb::NameSet {
                any: any.iter().map(ToString::to_string).collect(),
            }),
            Condition::Unauthenticated(wanted) => Kind::Unauthenticated(*wanted),
            Condition::Ports(any) => Kind::Ports(pb::PortSet { any: numbers(any) }),
            Condition::Methods(any) => Kind::Methods(names(any)),
            Condition::Paths(any) => Kind::Paths(pb::PathSet {
                any: any.iter().map(Into::into).collect(),
            }),
            Condition::Hosts(any) => Kind::Hosts(pb::NameSet {
                any: any.iter().map(ToString::to_string).collect(),
            }),
            Condition::Header(name, any) => Kind::Header(pb::HeaderCondition {
                name: name.clone(),
                any: texts(any),
            }),
            Condition::Expression(expression) => Kind::Expression(expression.as_str().to_owned()),
            Condition::Claim(name, any) => Kind::Claim(pb::ClaimCondition {
                name: name.join("."),
                any: texts(any),
            }),
        };
        Self { kind: Some(kind) }
    }
}

fn texts(wire: Vec<pb::TextMatch>) -> Result<Vec<Text>, Invalid> {
    use pb::text_match::Kind;
    at_most("any", wire.len(), VALUES_MAX)?;
    let text = |one: pb::TextMatch| match one.kind {
        Some(Kind::Exact(text)) => short("any", text).map(Text::Exact),
        Some(Kind::Prefix(text)) => short("any", text).map(Text::Prefix),
        None => Err(unknown("any")),
    };
    wire.into_iter().map(text).collect()
}

impl From<&Text> for pb::TextMatch {
    fn from(checked: &Text) -> Self {
        use pb::text_match::Kind;
        let kind = match checked {
            Text::Exact(text) => Kind::Exact(text.clone()),
            Text::Prefix(text) => Kind::Prefix(text.clone()),
        };
        Self { kind: Some(kind) }
    }
}

pub(crate) fn paths(wire: Vec<pb::PathTemplate>) -> Result<Vec<Path>, Invalid> {
    at_most("paths", wire.len(), VALUES_MAX)?;
    wire.into_iter().map(Path::try_from).collect()
}

impl TryFrom<pb::PathTemplate> for Path {
    type Error = Invalid;

    fn try_from(wire: pb::PathTemplate) -> Result<Self, Invalid> {
        use pb::path_template::Kind;
        match wire.kind.ok_or_else(|| unknown("paths"))? {
            Kind::Exact(exact) => normal_path(exact).map(Self::Exact),
            Kind::Prefix(prefix) if prefix == "/" => Ok(Self::Prefix(String::new())),
            Kind::Prefix(prefix) if prefix.ends_with('/') => {
                Err(Invalid::new("paths", "is a prefix with a slash at its end"))
            }
            Kind::Prefix(prefix) => normal_path(prefix).map(Self::Prefix),
            Kind::Template(template) => Template::parse(&template).map(Self::Template),
        }
    }
}

impl From<&Path> for pb::PathTemplate {
    fn from(checked: &Path) -> Self {
        use pb::path_template::Kind;
        let kind = match checked {
            Path::Exact(exact) => Kind::Exact(exact.clone()),
            Path::Prefix(prefix) if prefix.is_empty() => Kind::Prefix("/".to_owned()),
            Path::Prefix(prefix) => Kind::Prefix(prefix.clone()),
            Path::Template(template) => Kind::Template(template.to_string()),
        };
        Self { kind: Some(kind) }
    }
}

impl Template {
    /// `/orders/{id}/items`, `/files/**`.
    fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |problem: &str| Invalid::new("paths", format!("{text}: {problem}"));
        let (elements, open) = match text.strip_suffix("/**") {
            Some(elements) => (elements, true),
            None => (text, false),
        };
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let element = |element: &str| match element
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
        {
            Some(name) if is_name(name) => Ok(None),
            None if !element.contains(['{', '}', '*']) => Ok(Some(element.to_owned())),
            Some(_) | None => Err(refuse("an element is neither literal nor `{name}`")),
        };
        let relative = match (elements, open) {
            ("", true) => None,
            _ => Some(
                elements
                    .strip_prefix('/')
                    .ok_or_else(|| refuse("begins with no slash"))?,
            ),
        };
        let template = Self {
            elements: relative
                .into_iter()
                .flat_map(|relative| relative.split('/'))
                .map(element)
                .collect::<Result<_, _>>()?,
            open,
        };
        // The literal elements have to be in normal form, with something in the place of the others.
        normal_path(template.filled("x"))?;
        short("paths", text.to_owned())?;
        Ok(template)
    }

    fn filled(&self, name: &str) -> String {
        let elements = self.elements.iter();
        let mut path = String::new();
        for element in elements {
            path.push('/');
            path.push_str(element.as_deref().unwrap_or(name));
        }
        if path.is_empty() {
            path.push('/');
        }
        path
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.elements.is_empty(), self.open) {
            (true, true) => f.write_str("/**"),
            (_, open) => {
                f.write_str(&self.filled("{x}"))?;
                f.write_str(if open { "/**" } else { "" })
            }
        }
    }
}

fn hosts(wire: pb::NameSet) -> Result<Vec<Host>, Invalid> {
    let host = |text: String| {
        let (name, below) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text.as_str(), false),
        };
        let normal = target::host(name.as_bytes()).map_err(|rule| Invalid::new("hosts", rule))?;
        if normal != name || super::condition::without_port(name) != name {
            let problem = format!("{text} has a port, or is not in normal form");
            return Err(Invalid::new("hosts", problem));
        }
        Ok(match below {
            true => Host::Below(format!(".{name}")),
            false => Host::Exact(text),
        })
    };
    names("hosts", wire)?.into_iter().map(host).collect()
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(below) => write!(f, "*{below}"),
        }
    }
}

/// Without a query, and in the form that requests' paths have when they are decided on: no other would ever match.
fn normal_path(path: String) -> Result<String, Invalid> {
    if path.contains('?') {
        return Err(Invalid::new(
            "paths",
            "is no path: it holds a question mark",
        ));
    }
    let normal = target::origin(&path).map_err(|rule| Invalid::new("paths", rule))?;
    if normal != path {
        return Err(Invalid::new("paths", format!("is in normal form {normal}")));
    }
    short("paths", path)
}

/// RFC 9110 section 5.6.2, in lower case.
pub(crate) fn header_name(name: String) -> Result<String, Invalid> {
    let is_token =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(Invalid::new(
            "header.name",
            "is no header name in lower case",
        ));
    }
    short("header.name", name)
}

pub(crate) fn claim_name(name: &str) -> Result<Vec<String>, Invalid> {
    if name.len() > TEXT_BYTES_MAX || name.split('.').any(str::is_empty) {
        return Err(Invalid::new("claim.name", "is not names joined by dots"));
    }
    Ok(name.split('.').map(ToOwned::to_owned).collect())
}

fn names(field: &str, wire: pb::NameSet) -> Result<Vec<String>, Invalid> {
    at_most(field, wire.any.len(), VALUES_MAX)?;
    let all = wire.any.into_iter().map(|one| short(field, one));
    some(field, all.collect::<Result<_, _>>()?)
}

fn networks(field: &str, wire: &[String]) -> Result<Vec<IpNet>, Invalid> {
    at_most(field, wire.len(), VALUES_MAX)?;
    let network = |text: &String| {
        let parsed = text.parse::<IpNet>().ok();
        parsed.ok_or_else(|| {
            Invalid::new(field, format!("{text:.64} is no network in CIDR notation"))
        })
    };
    wire.iter().map(network).collect()
}

pub(crate) fn ports(field: &str, wire: &[u32]) -> Result<Vec<NonZeroU16>, Invalid> {
    at_most(field, wire.len(), VALUES_MAX)?;
    wire.iter().map(|one| workload::port(field, *one)).collect()
}

pub(crate) fn numbers(ports: &[NonZeroU16]) -> Vec<u32> {
    ports.iter().map(|port| port.get().into()).collect()
}

/// A condition without values would hold for nobody: more likely a mistake than meant.
pub(crate) fn some<T>(field: &str, values: Vec<T>) -> Result<Vec<T>, Invalid> {
    if values.is_empty() {
        return Err(Invalid::new(field, "are none"));
    }
    Ok(values)
}

pub(crate) fn short(field: &str, text: String) -> Result<String, Invalid> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Invalid::new(
            field,
            format!("is longer than {TEXT_BYTES_MAX} bytes"),
        ));
    }
    Ok(text)
}

pub(crate) fn at_most(field: &str, count: usize, max: usize) -> Result<(), Invalid> {
    if count > max {
        return Err(Invalid::new(field, format!("are more than {max}")));
    }
    Ok(())
}

pub(crate) fn unknown(field: &str) -> Invalid {
    Invalid::new(field, "is missing, or one this version does not know")
}
