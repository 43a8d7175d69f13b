//! What injection makes of a pod: an init container that programs the capture, a native sidecar that is the proxy, and
//! the two volumes they need. Pure: the same for the webhook, `ringmail inject` and the tests; the same again for a pod
//! that has it.
//!
//! Of the pod's own containers it touches nothing but probes that the proxy has to make for the kubelet. A pod that would
//! not be captured, or in which somebody else would be taken for the proxy, is refused with the field, or left alone with a
//! reason: it is never half meshed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringmail_proto::Invalid;
use ringmail_proto::identity::TrustDomain;
use ringmail_proto::records::Collector;
use serde_json::{Value, json};

use crate::source::annotations::{INJECT, INJECTED, unknown};

/// What annotations ask of the sidecar.
mod options;

/// Of what a pod is one.
mod owner;

/// Probes that the proxy makes.
mod probes;

/// The containers and volumes.
mod sidecar;

/// Documents with a pod in them, whole files of them.
pub mod manifest;

pub use options::is_quantity;
use options::{Options, exceeds};
use sidecar::Said;
pub use sidecar::{INIT, PROXY};

/// The user that the proxy runs as, and nobody else in the pod.
pub const PROXY_UID: i64 = 1337;
/// Ports of the proxy: see DESIGN section 10.
const PROXY_PORTS: [u16; 5] = [15000, 15001, 15006, 15008, 15020];

/// On what the kubelet tells the API server of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What is the same for every pod.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The proxy's image.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
    /// The mesh's.
    pub trust_domain: TrustDomain,
    /// The controller's namespace.
    pub namespace: String,
    /// What a sidecar gets that asks for nothing else.
    pub resources: Resources,
    /// What it tells whom.
    pub telemetry: Telemetry,
}

/// Who collects what of all sidecars.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Who collects traces, if somebody does.
    pub collector: Option<Collector>,
    /// Whether they have the audit as well.
    pub audit: bool,
    /// Of requests without a trace, the part that begins one, where annotations say nothing else.
    pub trace_sample: String,
}

/// Where a pod is made.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The annotations of its namespace.
    pub inherited: BTreeMap<String, String>,
    /// What pods of this template are called, where it is one.
    pub owner: Option<String>,
    /// The address of the controller's Service, where that is known.
    pub controller: Option<IpAddr>,
}

/// Kubernetes quantities; none where absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Resources {
    pub cpu_request: Option<String>,
    pub memory_request: Option<String>,
    pub cpu_limit: Option<String>,
    pub memory_limit: Option<String>,
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It has a sidecar now: the changes, as JSON Patch (RFC 6902); none if it had the same one.
    Injected(Vec<Value>),
    /// It is left as it is, for this reason.
    Skipped(&'static str),
}

/// What people are told, whatever became of it.
pub type Warnings = Vec<String>;

/// Puts a sidecar into `pod`: an object with `metadata` and `spec`, such as a Pod or a pod template.
///
/// # Errors
/// The field for which this pod cannot have one.
pub fn inject(
    pod: &mut Value,
    around: &Surroundings,
    settings: &Settings,
) -> Result<(Outcome, Warnings), Invalid> {
    let own = annotations(pod)?;
    let mut warnings: Warnings = unknown(Some(&own))
        .map(|key| format!("annotation {key} is unknown"))
        .collect();
    if own.get(INJECT).is_some_and(|value| value == "disabled") {
        return Ok((Outcome::Skipped("disabled"), warnings));
    }
    let spec = pod
        .get("spec")
        .filter(|spec| spec.is_object())
        .ok_or_else(|| Invalid::new("spec", "is missing"))?;
    if spec["hostNetwork"] == true {
        warnings.push("the pod has its node's network: it gets no sidecar".to_owned());
        return Ok((Outcome::Skipped("host_network"), warnings));
    }
    // The kubelet runs a static pod whatever the API server has of it; what is there only mirrors it.
    if own.contains_key(MIRROR) {
        return Ok((Outcome::Skipped("mirror"), warnings));
    }
    if spec["os"]["name"] == "windows" {
        return Ok((Outcome::Skipped("windows"), warnings));
    }
    check(spec)?;
    let options = Options::read(&own, &around.inherited, &settings.resources).map_err(|e| {
        if own.contains_key(&e.field) {
            return e;
        }
        Invalid::new(format!("{} of the namespace", e.field), e.problem)
    })?;
    let (containers, inits, taken) = probed(spec);
    let owner = around.owner.as_deref().or_else(|| owner::owner(pod));
    let said = Said {
        options: &options,
        owner,
        grace: spec["terminationGracePeriodSeconds"].as_u64(),
        probes: &taken,
        controller: around.controller.filter(|_| !resolves(spec)),
    };
    if said.controller.is_none() && !resolves(spec) {
        let policy = spec["dnsPolicy"].as_str().unwrap_or_default();
        warnings.push(format!(
            "dnsPolicy is {policy}: the sidecar waits until the name of the controller's Service resolves"
        ));
    }
    let parts = sidecar::parts(settings, &said);

    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();

    let mut patch = Vec::new();
    let mut put = |pod: &mut Value, path: &str, new: Value| {
        if pod.pointer(path) == Some(&new) {
            return;
        }
        patch.push(json!({"op": "add", "path": path, "value": new}));
        set(pod, path, new);
    };
    for (key, kind) in [("annotations", "version"), ("labels", "true")] {
        let path = format!("/metadata/{key}");
        let mut all = pod.pointer(&path).cloned().unwrap_or_default();
        if !all.is_object() {
            all = json!({});
        }
        all[INJECTED] = match kind {
            "version" => env!("CARGO_PKG_VERSION").into(),
            other => other.into(),
        };
        put(pod, &path, all);
    }
    for (path, (existing, ours)) in [
        ("/spec/initContainers", (in_front(inits), parts.containers)),
        ("/spec/volumes", (volumes, parts.volumes)),
    ] {
        put(pod, path, merged(existing, ours));
    }
    put(pod, "/spec/containers", containers.into());
    Ok((Outcome::Injected(patch), warnings))
}

/// Whether the pod asks the cluster's DNS.
fn resolves(spec: &Value) -> bool {
    !matches!(spec["dnsPolicy"].as_str(), Some("Default" | "None"))
}

/// Whether pods of a namespace with these annotations could have a sidecar, as far as that is for the namespace to say.
///
/// # Errors
/// The annotation for which they could not.
pub(crate) fn check_inherited(annotations: &BTreeMap<String, String>) -> Result<(), Invalid> {
    Options::read(annotations, &BTreeMap::new(), &Resources::default()).map(drop)
}

/// The annotations of an object.
fn annotations(of: &Value) -> Result<BTreeMap<String, String>, Invalid> {
    match of.pointer("/metadata/annotations") {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(all) => serde_json::from_value(all.clone())
            .map_err(|_| Invalid::new("metadata.annotations", "are no strings")),
    }
}

/// Whoever runs as the proxy's user is not captured, and whoever listens on its ports is never reached.
fn check(spec: &Value) -> Result<(), Invalid> {
    let is_ours = |value: &Value| value.as_i64() == Some(PROXY_UID);
    let problem = "is 1337, which is the proxy's user: its connections are not captured";
    if is_ours(&spec["securityContext"]["runAsUser"]) {
        return Err(Invalid::new("spec.securityContext.runAsUser", problem));
    }
    for kind in ["initContainers", "containers"] {
        let all = spec[kind].as_array().into_iter().flatten();
        for container in all.filter(|one| !sidecar::is_ours(one)) {
            let name = container["name"].as_str().unwrap_or_default();
            let field = |rest: &str| format!("spec.{kind}[{name}].{rest}");
            if is_ours(&container["securityContext"]["runAsUser"]) {
                return Err(Invalid::new(field("securityContext.runAsUser"), problem));
            }
            let ports = container["ports"].as_array().into_iter().flatten();
            for port in ports.filter_map(|port| port["containerPort"].as_u64()) {
                if PROXY_PORTS.iter().any(|own| u64::from(*own) == port) {
                    let problem = format!("is {port}, which is one of the proxy's");
                    return Err(Invalid::new(field("ports.containerPort"), problem));
                }
            }
        }
    }
    Ok(())
}

/// The pod's containers and init containers, their probes sent to the proxy where that has to make them, and what those
/// ask; with what was sent there before.
fn probed(spec: &Value) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
    let all = |kind: &str| spec[kind].as_array().cloned().unwrap_or_default();
    let (mut containers, mut inits) = (all("containers"), all("initContainers"));
    let mut taken = sidecar::probes(&inits);
    let own = inits.iter_mut().filter(|one| !sidecar::is_ours(one));
    for container in own.chain(&mut containers) {
        probes::take(container, &mut taken);
    }
    (containers, inits, taken)
}

/// Ours before all others: an init container that another injector put in front would run without capture.
fn in_front(mut inits: Vec<Value>) -> Vec<Value> {
    inits.sort_by_key(|one| {
        let rank = [INIT, PROXY].iter().position(|name| one["name"] == *name);
        rank.unwrap_or(usize::MAX)
    });
    inits
}

/// A list with ours in it, each once by its name: where it is, else in front of all others, for containers start in
/// order. What is there by one of our names becomes exactly ours, so that nobody's variable, mount or privilege gets
/// into the proxy; but a LimitRange's amounts stay, for it refuses pods that have lost them.
fn merged(mut all: Vec<Value>, ours: Vec<Value>) -> Value {
    let mut missing = Vec::new();
    for part in ours {
        match all.iter_mut().find(|one| one["name"] == part["name"]) {
            Some(there) => *there = with_amounts(part, &there["resources"]),
            None => missing.push(part),
        }
    }
    all.splice(0..0, missing);
    Value::Array(all)
}

/// Ours, with what others ask for of which we say nothing; a request that is more than a limit of theirs becomes that.
fn with_amounts(mut part: Value, there: &Value) -> Value {
    for kind in ["requests", "limits"] {
        for (name, amount) in there[kind].as_object().into_iter().flatten() {
            let ours = &mut part["resources"][kind][name];
            if ours.is_null() {
                *ours = amount.clone();
            }
        }
    }
    for name in ["cpu", "memory"] {
        let limit = part.pointer(&format!("/resources/limits/{name}")).cloned();
        let request = part.pointer_mut(&format!("/resources/requests/{name}"));
        if let (Some(request), Some(limit)) = (request, limit)
            && exceeds(request.as_str(), limit.as_str())
        {
            *request = limit;
        }
    }
    part
}

/// Puts a value where `path` says, whose parent is there.
fn set(pod: &mut Value, path: &str, new: Value) {
    let (parent, key) = path.rsplit_once('/').unwrap_or_default();
    if parent == "/metadata" && pod.get("metadata").is_none_or(Value::is_null) {
        pod["metadata"] = json!({});
    }
    if let Some(Value::Object(parent)) = pod.pointer_mut(parent) {
        parent.insert(key.to_owned(), new);
    }
}

#[cfg(test)]
mod tests;
