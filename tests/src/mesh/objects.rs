//! Kubernetes objects as a cluster would show them, as YAML. Pure. Names and values are the scenarios' own and need no
//! quoting but that of YAML's double quotes.

use std::{fmt::Write, net::IpAddr};

/// A pod, as far as the mesh knows it.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Its service account.
    pub service_account: String,
    /// Its annotations.
    pub annotations: Vec<(String, String)>,
    /// More lines of its container, such as `livenessProbe: {httpGet: {path: /healthz, port: 8080}}`.
    pub container: Vec<String>,
    /// More settings for its proxy.
    pub environment: Vec<(String, String)>,
}

impl Workload {
    /// A pod whose service account has its name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            service_account: name.into(),
            annotations: Vec::new(),
            container: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With an annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.into(), value.into()));
        self
    }

    /// With another line in its container.
    #[must_use]
    pub fn containing(mut self, line: &str) -> Self {
        self.container.push(line.into());
        self
    }

    /// With a setting for its proxy; an empty one takes away what the bed would set.
    #[must_use]
    pub fn set(mut self, variable: &str, value: &str) -> Self {
        self.environment.push((variable.into(), value.into()));
        self
    }
}

/// A Service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses, the first being the main one.
    pub cluster_ips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// A port of a Service.
#[derive(Debug, Clone)]
pub struct ServicePort {
    /// Its name: also a declaration of the protocol, such as `http-web`.
    pub name: String,
    /// What clients dial.
    pub port: u16,
    /// What the pods listen on.
    pub target: u16,
    /// A declared protocol, such as `kubernetes.io/h2c`.
    pub app_protocol: Option<String>,
}

/// A Namespace.
pub fn namespace(name: &str, is_meshed: bool) -> String {
    let inject = if is_meshed { "enabled" } else { "disabled" };
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: \"{name}\"\n  annotations:\n    ringmail.io/inject: {inject}\n"
    )
}

/// A ServiceAccount.
pub fn service_account(namespace: &str, name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: \"{name}\"\n  namespace: \"{namespace}\"\n"
    )
}

/// A running Pod.
pub fn pod(workload: &Workload, addresses: &[IpAddr]) -> String {
    let Workload {
        namespace,
        name,
        service_account,
        ..
    } = workload;
    let mut yaml = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: \"{name}\"\n  namespace: \"{namespace}\"\n"
    );
    if !workload.annotations.is_empty() {
        yaml += "  annotations:\n";
    }
    for (key, value) in &workload.annotations {
        line(&mut yaml, format_args!("    {key}: \"{value}\""));
    }
    line(
        &mut yaml,
        format_args!("spec:\n  serviceAccountName: \"{service_account}\""),
    );
    line(&mut yaml, format_args!("  containers:\n  - name: app"));
    for text in &workload.container {
        line(&mut yaml, format_args!("    {text}"));
    }
    line(&mut yaml, format_args!("status:\n  phase: Running"));
    if let Some(first) = addresses.first() {
        line(&mut yaml, format_args!("  podIP: \"{first}\"\n  podIPs:"));
    }
    for address in addresses {
        line(&mut yaml, format_args!("  - ip: \"{address}\""));
    }
    yaml
}

/// A Service.
pub fn service(service: &Service) -> String {
    let Service {
        namespace,
        name,
        cluster_ips,
        ports,
    } = service;
    let mut yaml = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: \"{name}\"\n  namespace: \"{namespace}\"\nspec:\n"
    );
    if let Some(first) = cluster_ips.first() {
        line(
            &mut yaml,
            format_args!("  clusterIP: \"{first}\"\n  clusterIPs:"),
        );
    }
    for address in cluster_ips {
        line(&mut yaml, format_args!("  - \"{address}\""));
    }
    line(&mut yaml, format_args!("  ports:"));
    for ServicePort {
        name,
        port,
        target,
        app_protocol,
    } in ports
    {
        line(
            &mut yaml,
            format_args!(
                "  - name: \"{name}\"\n    protocol: TCP\n    port: {port}\n    targetPort: {target}"
            ),
        );
        if let Some(protocol) = app_protocol {
            line(&mut yaml, format_args!("    appProtocol: \"{protocol}\""));
        }
    }
    yaml
}

/// The EndpointSlices of a Service, one for each IP version; backends are pods by name.
pub fn endpoint_slices(service: &Service, backends: &[(&str, [IpAddr; 2])]) -> String {
    let Service {
        namespace,
        name,
        ports,
        ..
    } = service;
    let mut yaml = String::new();
    for (kind, is_kind) in [
        ("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        ("IPv6", IpAddr::is_ipv6),
    ] {
        line(
            &mut yaml,
            format_args!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {kind}"
            ),
        );
        let slice = kind.to_lowercase();
        line(
            &mut yaml,
            format_args!("metadata:\n  name: \"{name}-{slice}\"\n  namespace: \"{namespace}\""),
        );
        line(
            &mut yaml,
            format_args!("  labels:\n    kubernetes.io/service-name: \"{name}\"\nports:"),
        );
        for ServicePort {
            name,
            target,
            app_protocol,
            ..
        } in ports
        {
            line(
                &mut yaml,
                format_args!("- name: \"{name}\"\n  protocol: TCP\n  port: {target}"),
            );
            if let Some(protocol) = app_protocol {
                line(&mut yaml, format_args!("  appProtocol: \"{protocol}\""));
            }
        }
        yaml += if backends.is_empty() {
            "endpoints: []\n"
        } else {
            "endpoints:\n"
        };
        for (pod, addresses) in backends {
            for address in addresses.iter().filter(|address| is_kind(address)) {
                line(
                    &mut yaml,
                    format_args!("- addresses: [\"{address}\"]\n  conditions: {{ready: true}}"),
                );
                line(
                    &mut yaml,
                    format_args!(
                        "  targetRef: {{kind: Pod, namespace: \"{namespace}\", name: \"{pod}\"}}"
                    ),
                );
            }
        }
    }
    yaml
}

fn line(yaml: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(yaml, "{text}").expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod() {
        let workload = Workload::new("shop", "cart").annotated("ringmail.io/inbound", "permissive");
        let expected = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: \"cart\"\n  namespace: \"shop\"\n  annotations:\n    \
                        ringmail.io/inbound: \"permissive\"\nspec:\n  serviceAccountName: \"cart\"\n  containers:\n  - name: app\n\
                        status:\n  phase: Running\n  podIP: \"10.77.0.2\"\n  podIPs:\n  - ip: \"10.77.0.2\"\n";
        assert_eq!(
            pod(&workload, &["10.77.0.2".parse().expect("an address")]),
            expected
        );
    }
}
