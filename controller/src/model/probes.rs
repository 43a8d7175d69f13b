//! Probes of the kubelet and hooks that it calls: the plaintext requests that a strict pod lets through, exactly as its
//! spec declares them.

use std::num::NonZeroU16;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, PodSpec, Probe as Declared};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ringmail_proto::target;
use ringmail_proto::workload::{PROBE_PATH_BYTES_MAX, PROBES_MAX, Probe};

/// The first 64 distinct probes and hooks; one that cannot be understood lets nothing through.
pub(super) fn of(spec: &PodSpec) -> Vec<Probe> {
    let sidecars = spec.init_containers.iter().flatten();
    let mut probes: Vec<Probe> = Vec::new();
    for container in spec.containers.iter().chain(sidecars) {
        let all = [
            &container.liveness_probe,
            &container.readiness_probe,
            &container.startup_probe,
        ];
        let probed = all.into_iter().flatten();
        let probed = probed.filter_map(|declared| read(declared, container));
        let hooks = container.lifecycle.iter();
        let hooks = hooks.flat_map(|one| [&one.post_start, &one.pre_stop]);
        // A hook is asked for in plaintext, or let through as nothing.
        let called = hooks.flatten().filter_map(|hook| {
            let get = hook.http_get.as_ref()?;
            requested(get, container).filter(|one| one.path.is_some())
        });
        for probe in probed.chain(called) {
            if !probes.contains(&probe) && probes.len() < PROBES_MAX {
                probes.push(probe);
            }
        }
    }
    probes
}

fn requested(get: &HTTPGetAction, container: &Container) -> Option<Probe> {
    let path = match get.path.as_deref() {
        None | Some("") => "/",
        Some(path) => path,
    };
    // What is encrypted is opaque bytes to the proxy.
    let plain = get.scheme.as_deref().is_none_or(|scheme| scheme == "HTTP");
    // Requests are compared in normal form.
    let normal = target::origin(path).ok()?.into_owned();
    if normal.len() > PROBE_PATH_BYTES_MAX {
        return None;
    }
    Some(Probe {
        port: number(&get.port, container)?,
        path: plain.then_some(normal),
    })
}

fn read(declared: &Declared, container: &Container) -> Option<Probe> {
    if let Some(get) = &declared.http_get {
        return requested(get, container);
    }
    let tcp = declared.tcp_socket.as_ref()?;
    Some(Probe {
        port: number(&tcp.port, container)?,
        path: None,
    })
}

fn number(port: &IntOrString, container: &Container) -> Option<NonZeroU16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|one| one.name.as_deref() == Some(name))
            .map(|one| one.container_port)
            .or_else(|| name.parse().ok())?,
    };
    u16::try_from(number).ok().and_then(NonZeroU16::new)
}
