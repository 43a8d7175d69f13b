//! The containers and volumes of a sidecar, as Kubernetes takes them.
//!
//! The init container alone is root and has `NET_ADMIN`: it programs the capture and proves that it works, or the pod
//! does not start. The proxy has no privilege at all, and no token but one of our audience.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};

use super::{PROXY_UID, Resources, Settings, Telemetry};
use crate::inject::options::Options;

/// The init container.
pub const INIT: &str = "ringmail-init";
/// The native sidecar.
pub const PROXY: &str = "ringmail-proxy";
const TOKEN: &str = "ringmail-token";
const BUNDLE: &str = "ringmail-bundle";
/// Kept by the controller in each namespace that has a sidecar.
const BUNDLE_CONFIG_MAP: &str = "ringmail-trust-bundle";
const TOKEN_PATH: &str = "/var/run/secrets/ringmail.io/token";
const BUNDLE_PATH: &str = "/var/run/secrets/ringmail.io/bundle";
/// Seconds of life of a token; the kubelet renews it at four fifths.
const TOKEN_SECONDS: u32 = 3600;
/// Kubernetes' own default.
const GRACE_SECONDS: u64 = 30;
/// Seconds that a proxy may take to get its certificate, before it is started again: an outage of the controller is
/// waited for, since a restart helps nobody and the pauses between restarts grow to minutes.
const STARTUP_SECONDS: u32 = 3600;
/// Where the controller answers.
const CONTROLLER_PORT: u16 = 15012;

/// The port that Prometheus and the kubelet ask; Kubernetes takes names of 15 characters at most.
const STATUS_PORT: &str = "ringmail-status";
/// The variable with the probes that the proxy makes.
const PROBES: &str = "RINGMAIL_PROBES";

/// What is added to a pod.
pub(super) struct Parts {
    pub(super) containers: Vec<Value>,
    pub(super) volumes: Vec<Value>,
}

/// Whether a container is one of these.
pub(super) fn is_ours(container: &Value) -> bool {
    container["name"] == INIT || container["name"] == PROXY
}

/// The probes that a proxy there already makes.
pub(super) fn probes(inits: &[Value]) -> Vec<Value> {
    let proxy = inits.iter().find(|one| one["name"] == PROXY);
    let variables = proxy.and_then(|proxy| proxy["env"].as_array());
    let mut probes = variables
        .into_iter()
        .flatten()
        .filter(|one| one["name"] == PROBES);
    let text = probes.next().and_then(|one| one["value"].as_str());
    let text = text.map(|text| text.replace("$$", "$"));
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// What a pod says, as far as it is for its sidecar.
pub(super) struct Said<'a> {
    pub(super) options: &'a Options,
    pub(super) owner: Option<&'a str>,
    pub(super) grace: Option<u64>,
    /// Those that the proxy makes.
    pub(super) probes: &'a [Value],
    /// The address of the controller's Service, for a pod that cannot resolve its name.
    pub(super) controller: Option<IpAddr>,
}

pub(super) fn parts(settings: &Settings, said: &Said<'_>) -> Parts {
    Parts {
        containers: vec![init(settings, said.options), proxy(settings, said)],
        volumes: vec![
            json!({
                "name": TOKEN,
                "projected": {"sources": [{"serviceAccountToken": {
                    "audience": "ringmail",
                    "expirationSeconds": TOKEN_SECONDS,
                    "path": "token",
                }}]},
            }),
            json!({"name": BUNDLE, "configMap": {"name": BUNDLE_CONFIG_MAP}}),
        ],
    }
}

fn init(settings: &Settings, options: &Options) -> Value {
    json!({
        "name": INIT,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["/ringmail-proxy"],
        "args": ["init", "--verify"],
        "env": variables(options, Vec::new()),
        "resources": resources(&options.resources),
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

fn proxy(settings: &Settings, said: &Said<'_>) -> Value {
    let Said {
        options,
        owner,
        grace,
        probes,
        ..
    } = *said;
    let Settings {
        namespace,
        trust_domain,
        ..
    } = settings;
    let field = |name, path| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let plain = |name, value: String| json!({"name": name, "value": value});
    let mut own = vec![
        field("RINGMAIL_POD_NAMESPACE", "metadata.namespace"),
        field("RINGMAIL_POD_NAME", "metadata.name"),
        plain(
            "RINGMAIL_WORKLOAD",
            "$(RINGMAIL_POD_NAMESPACE)/$(RINGMAIL_POD_NAME)".to_owned(),
        ),
        plain("RINGMAIL_TRUST_DOMAIN", trust_domain.to_string()),
        plain(
            "RINGMAIL_CONTROLLER_ADDRESS",
            controller(namespace, said.controller),
        ),
        plain(
            "RINGMAIL_CONTROLLER_IDENTITY",
            format!("spiffe://{trust_domain}/ns/{namespace}/sa/ringmail-controller"),
        ),
        plain(
            "RINGMAIL_BOOTSTRAP_ROOTS_FILE",
            format!("{BUNDLE_PATH}/root.pem"),
        ),
        plain("RINGMAIL_JWT_FILE", format!("{TOKEN_PATH}/token")),
        plain("RINGMAIL_WORKERS", options.workers.to_string()),
        plain(
            "RINGMAIL_DRAIN_SECONDS",
            grace.unwrap_or(GRACE_SECONDS).to_string(),
        ),
    ];
    own.extend(owner.map(|owner| plain("RINGMAIL_OWNER", owner.to_owned())));
    if !probes.is_empty() {
        own.push(field("RINGMAIL_POD_ADDRESS", "status.podIP"));
        // Kubernetes puts other variables in place of $(NAME), and a dollar in place of two.
        own.push(plain(
            PROBES,
            Value::from(probes).to_string().replace('$', "$$"),
        ));
    }
    own.extend(telemetry(&settings.telemetry, options));
    let get = |path, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": 15020},
            "periodSeconds": period,
            "failureThreshold": failures,
            "timeoutSeconds": 2,
        })
    };
    json!({
        "name": PROXY,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": ["/ringmail-proxy"],
        "args": ["run"],
        "restartPolicy": "Always",
        "env": variables(options, own),
        "ports": [{"name": STATUS_PORT, "containerPort": 15020, "protocol": "TCP"}],
        "startupProbe": get("/ready", 1, STARTUP_SECONDS),
        "readinessProbe": get("/ready", 2, 3),
        "livenessProbe": get("/live", 10, 3),
        "resources": resources(&options.resources),
        "securityContext": {
            "runAsUser": PROXY_UID,
            "runAsGroup": PROXY_UID,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": TOKEN, "mountPath": TOKEN_PATH, "readOnly": true},
            {"name": BUNDLE, "mountPath": BUNDLE_PATH, "readOnly": true},
        ],
    })
}

/// What all sidecars are told of who collects; the pod's own word on a variable counts.
fn telemetry(telemetry: &Telemetry, options: &Options) -> Vec<Value> {
    let Some(collector) = &telemetry.collector else {
        return Vec::new();
    };
    let audit = if telemetry.audit { "on" } else { "off" };
    let all = [
        ("RINGMAIL_OTLP_ENDPOINT", collector.to_string()),
        ("RINGMAIL_AUDIT_OTLP", audit.to_owned()),
        ("RINGMAIL_TRACE_SAMPLE", telemetry.trace_sample.clone()),
    ];
    let is_said = |name: &str| options.variables.iter().any(|(own, _)| *own == name);
    let unsaid = all.into_iter().filter(|(name, _)| !is_said(name));
    unsaid
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect()
}

/// Its name; the address first where a search for the name may last longer than a call.
fn controller(namespace: &str, address: Option<IpAddr>) -> String {
    let name = format!("ringmail-controller.{namespace}.svc:{CONTROLLER_PORT}");
    match address {
        Some(address) => format!("{},{name}", SocketAddr::new(address, CONTROLLER_PORT)),
        None => name,
    }
}

/// Those of one container, then those that both have.
fn variables(options: &Options, mut own: Vec<Value>) -> Value {
    own.push(json!({"name": "RINGMAIL_PROXY_UID", "value": PROXY_UID.to_string()}));
    let asked = options.variables.iter();
    own.extend(asked.map(|(name, value)| json!({"name": name, "value": value})));
    Value::Array(own)
}

fn resources(resources: &Resources) -> Value {
    let of = |cpu: &Option<String>, memory: &Option<String>| {
        let all = [("cpu", cpu), ("memory", memory)];
        let said = all.into_iter().filter_map(|(name, value)| {
            let value = value.clone()?;
            Some((name.to_owned(), value.into()))
        });
        said.collect::<Map<String, Value>>()
    };
    let mut found = Map::new();
    for (name, amounts) in [
        (
            "requests",
            of(&resources.cpu_request, &resources.memory_request),
        ),
        ("limits", of(&resources.cpu_limit, &resources.memory_limit)),
    ] {
        if !amounts.is_empty() {
            found.insert(name.to_owned(), amounts.into());
        }
    }
    Value::Object(found)
}
