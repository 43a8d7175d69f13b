//! Probes of the kubelet that would not reach the app, or would be answered by the proxy in its place: the proxy makes
//! them. A plain HTTP probe is let through as it is declared, one that runs a command never leaves its container.
//!
//! A connection to a captured port is accepted whoever listens behind it, so a TCP probe would always be happy; gRPC and
//! TLS from the kubelet have no identity, so a strict pod would refuse them.

use serde_json::{Value, json};

/// The kinds of probe that a container has.
const KINDS: [&str; 3] = ["startupProbe", "livenessProbe", "readinessProbe"];
/// Where the proxy takes them.
const STATUS_PORT: u16 = 15020;
const PATH: &str = "/probe/";
/// As many as a proxy takes.
const PROBES_MAX: usize = 64;

/// Sends the probes of `container` to the proxy, and adds what they asked to `taken`; they are told by their number
/// there.
pub(super) fn take(container: &mut Value, taken: &mut Vec<Value>) {
    for kind in KINDS {
        let asks = container.get(kind).and_then(|probe| asks(probe, container));
        let Some(asks) = asks.filter(|_| taken.len() < PROBES_MAX) else {
            continue;
        };
        let Some(Value::Object(probe)) = container.get_mut(kind) else {
            continue;
        };
        for field in ["tcpSocket", "grpc", "httpGet"] {
            probe.remove(field);
        }
        let path = format!("{PATH}{}", taken.len());
        probe.insert(
            "httpGet".to_owned(),
            json!({"path": path, "port": STATUS_PORT}),
        );
        taken.push(asks);
    }
}

/// What the probe asks, with its port by number; none for one that is left as it is.
fn asks(probe: &Value, container: &Value) -> Option<Value> {
    let (kind, of) = ["tcpSocket", "grpc", "httpGet"]
        .into_iter()
        .find_map(|kind| Some((kind, probe.get(kind)?)))?;
    let is_https = of["scheme"]
        .as_str()
        .is_some_and(|scheme| scheme == "HTTPS");
    if kind == "httpGet" && !is_https || of["host"].as_str().is_some_and(|host| !host.is_empty()) {
        return None;
    }
    let mut of = of.clone();
    of["port"] = number(&of["port"], container)?.into();
    let seconds = probe["timeoutSeconds"].as_u64().unwrap_or(1);
    Some(json!({kind: of, "timeoutSeconds": seconds}))
}

fn number(port: &Value, container: &Value) -> Option<u16> {
    let number = match port {
        Value::String(name) => {
            let ports = container["ports"].as_array().into_iter().flatten();
            let mut named = ports.filter(|one| one["name"] == name.as_str());
            let found = named.next().and_then(|one| one["containerPort"].as_u64());
            found.or_else(|| name.parse().ok())?
        }
        other => other.as_u64()?,
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_that_need_it_are_taken() {
        let mut container = json!({
            "ports": [{"name": "web", "containerPort": 8080}],
            "startupProbe": {"tcpSocket": {"port": "web"}, "periodSeconds": 1, "timeoutSeconds": 5},
            "livenessProbe": {"grpc": {"port": 9000, "service": "s"}},
            "readinessProbe": {"httpGet": {"path": "/ok", "port": "web"}},
        });
        let mut taken = vec![json!({})];
        take(&mut container, &mut taken);
        let expected = json!({
            "ports": [{"name": "web", "containerPort": 8080}],
            "startupProbe": {"httpGet": {"path": "/probe/1", "port": 15020}, "periodSeconds": 1, "timeoutSeconds": 5},
            "livenessProbe": {"httpGet": {"path": "/probe/2", "port": 15020}},
            "readinessProbe": {"httpGet": {"path": "/ok", "port": "web"}},
        });
        assert_eq!(container, expected);
        let asked = json!([
            {"tcpSocket": {"port": 8080}, "timeoutSeconds": 5},
            {"grpc": {"port": 9000, "service": "s"}, "timeoutSeconds": 1},
        ]);
        assert_eq!(taken[1..], *asked.as_array().expect("a list"));
        // Again: nothing is left to take.
        take(&mut container, &mut taken);
        assert_eq!((container, taken.len()), (expected, 3));
    }

    #[test]
    fn probes_of_others_and_of_nothing_stay() {
        for probe in [
            json!({"exec": {"command": ["ls"]}}),
            json!({"tcpSocket": {"port": 80, "host": "10.0.0.1"}}),
            json!({"tcpSocket": {"port": "unknown"}}),
            json!({"tcpSocket": {"port": 0}}),
            json!({"httpGet": {"port": 80, "scheme": "HTTP"}}),
        ] {
            let mut container = json!({"livenessProbe": probe});
            let before = container.clone();
            take(&mut container, &mut Vec::new());
            assert_eq!(container, before);
        }
        let mut tls = json!({"livenessProbe": {"httpGet": {"port": 443, "scheme": "HTTPS"}}});
        let mut taken = Vec::new();
        take(&mut tls, &mut taken);
        assert_eq!(taken.len(), 1);
    }
}
