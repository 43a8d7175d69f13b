//! `ringmail why`: would this be allowed, and by which rule of which object? Decided here by the proxies' own code, over
//! the objects of a directory or what the controller tells its proxies. And of a refusal that was: which one it was.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use http::Uri;
use ringmail_proto::identity::{SpiffeId, TrustDomain};
use ringmail_proto::policy::{
    Action, Asked, Authorization, Authorizer, By, Caller, Claims, Finding, Http, Mode, Verdict,
};
use ringmail_proto::target;
use serde::Serialize;

use super::report::{self, Format};
use crate::config::PolicyFlags;

/// What both sides are told, from objects or from the controller.
mod known;

/// Refusals that were.
mod refusal;

use known::Known;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Question {
    /// The decision id of a refusal (`x-ringmail-decision`): finds its line in the logs of proxies.
    #[arg(conflicts_with_all = ["from", "to"], required_unless_present = "to")]
    id: Option<String>,
    /// Who asks: a pod as namespace/name, a SPIFFE ID, or none for a client outside the mesh.
    #[arg(long, default_value = "none")]
    from: String,
    /// What is asked: namespace/name:port of a pod, or of a Service as its clients dial it.
    #[arg(long)]
    to: Option<String>,
    /// The method of a request; without one, an opaque connection is meant.
    #[arg(long)]
    method: Option<String>,
    /// The path of a request.
    #[arg(long, default_value = "/")]
    path: String,
    /// The host of a request.
    #[arg(long)]
    host: Option<String>,
    /// A header of a request, as name: value.
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The claims of a request's token, as JSON.
    #[arg(long, value_parser = claims)]
    jwt: Option<Claims>,
    /// Where the connection comes from.
    #[arg(long, default_value = "0.0.0.0")]
    address: IpAddr,
    /// Objects, in place of those that the controller knows.
    #[arg(long, env = "RINGMAIL_SOURCE_DIR")]
    source_dir: Option<PathBuf>,
    /// With --source-dir: the mesh's trust domain.
    #[arg(long, env = "RINGMAIL_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// With --source-dir: what holds where no object says otherwise.
    #[command(flatten)]
    defaults: PolicyFlags,
    /// The controller's pages, such as http://127.0.0.1:15014; in a cluster they are found.
    #[arg(long, conflicts_with = "source_dir")]
    controller: Option<Uri>,
    /// Logs of proxies to look for a refusal in; in a cluster, those of its pods are.
    #[arg(long = "log")]
    logs: Vec<PathBuf>,
    /// The namespace whose pods' logs are looked at; all, if none is said.
    #[arg(long, short)]
    namespace: Option<String>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("is not name: value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn claims(text: &str) -> Result<Claims, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

/// One rule.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    policy: String,
    action: &'static str,
    mode: &'static str,
    rule: Option<usize>,
    holds: bool,
    because: Option<String>,
}

/// The answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answer {
    allowed: bool,
    because: String,
    /// Who can still refuse, and for which policy.
    asks: Vec<String>,
    /// If policies in shadow mode were enforced.
    shadow: Option<String>,
    rules: Vec<Row>,
}

pub(super) async fn run(format: Format, system: &str, question: Question) -> anyhow::Result<bool> {
    if let Some(id) = &question.id {
        let namespace = question.namespace.as_deref();
        return refusal::find(format, id, &question.logs, namespace).await;
    }
    let to = question.to.as_deref().context("--to is missing")?;
    let known = Known::new(&question, system).await?;
    let target = known.target(to).await?;
    let caller = match question.from.as_str() {
        "none" => None,
        id if id.starts_with("spiffe://") => Some(id.parse::<SpiffeId>()?),
        pod => known.identity(pod).await?,
    };
    let answer = answer(
        &question,
        caller.as_ref(),
        target.port,
        target.authorization,
    )?;
    show(format, &answer)?;
    Ok(answer.allowed)
}

fn answer(
    question: &Question,
    identity: Option<&SpiffeId>,
    port: u16,
    authorization: Authorization,
) -> anyhow::Result<Answer> {
    let refused = |rule| anyhow::anyhow!("the proxy would answer 400: {rule}");
    let target = target::origin(&question.path).map_err(refused)?;
    let host = question.host.as_deref();
    let host = host.map(|host| target::host(host.as_bytes()).map_err(refused));
    let host = host.transpose()?;
    let fields = question.headers.iter();
    let fields: Vec<(&[u8], &[u8])> = fields
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let http = question.method.as_deref().map(|method| Http {
        method,
        path: target.split('?').next().unwrap_or_default(),
        host: host.as_deref(),
        fields: fields.iter().copied(),
        claims: question.jwt.as_ref(),
    });
    if http.is_none() && (question.path != "/" || host.is_some() || !fields.is_empty()) {
        bail!("a request has a method: say --method");
    }
    let authorizer = Authorizer::new(authorization);
    let asked = Asked {
        caller: Caller {
            identity,
            address: question.address,
        },
        port,
        http,
    };
    let decision = authorizer.decide(&asked);
    let policies = authorizer.policies();
    let row = |one: ringmail_proto::policy::Considered| {
        let policy = policies.get(one.policy)?;
        Some(Row {
            policy: policy.name.to_string(),
            action: match &policy.action {
                Action::Allow => "allow",
                Action::Deny => "deny",
                Action::External(_) => "external",
            },
            mode: match policy.mode {
                Mode::Enforce => "enforce",
                Mode::Shadow => "shadow",
            },
            rule: one.rule,
            holds: one.holds,
            because: one.because,
        })
    };
    let is_bytes = asked.http.is_none() && authorizer.requires_http(port);
    let allowed = decision.enforced.verdict == Verdict::Allow && !is_bytes;
    let because = match is_bytes {
        true => "denied: rules about HTTP name the port, and this is none".to_owned(),
        false => said(&authorizer, decision.enforced),
    };
    let asks = match allowed && decision.may_ask {
        true => authorizer.asks(&asked),
        false => Vec::new(),
    };
    let asks = asks.into_iter().filter_map(|at| {
        let policy = policies.get(at)?;
        match &policy.action {
            Action::External(external) => {
                Some(format!("{} asks {}", policy.name, external.service))
            }
            Action::Allow | Action::Deny => None,
        }
    });
    Ok(Answer {
        allowed,
        because,
        asks: asks.collect(),
        shadow: decision.shadow.map(|shadow| said(&authorizer, shadow)),
        rules: authorizer
            .explain(&asked)
            .into_iter()
            .filter_map(row)
            .collect(),
    })
}

/// A finding as a sentence.
fn said(authorizer: &Authorizer, finding: Finding) -> String {
    let verdict = match finding.verdict {
        Verdict::Allow => "allowed",
        Verdict::Deny => "denied",
    };
    let name = |policy: usize| {
        let policy = authorizer.policies().get(policy);
        policy.map_or("", |policy| &policy.name)
    };
    match finding.by {
        By::Rule { policy, rule } => format!("{verdict} by rule {rule} of {}", name(policy)),
        By::Policy { policy } => format!("{verdict} by {}", name(policy)),
        By::NoRule => format!("{verdict}: no rule of the policies that allow holds"),
        By::Posture => format!(
            "{verdict} by the default policy, {:?}",
            authorizer.posture()
        )
        .to_lowercase(),
    }
}

fn show(format: Format, answer: &Answer) -> anyhow::Result<()> {
    if format == Format::Json {
        return report::print(format, std::slice::from_ref(answer), &[], "");
    }
    let columns = ["policy", "action", "mode", "rule", "holds", "because"];
    report::print(format, &answer.rules, &columns, "No policy is for this.")?;
    report::say(&answer.because)?;
    for asks in &answer.asks {
        report::say(&format!("unless who is asked refuses: {asks}"))?;
    }
    match &answer.shadow {
        Some(shadow) => report::say(&format!("with policies in shadow mode enforced: {shadow}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
