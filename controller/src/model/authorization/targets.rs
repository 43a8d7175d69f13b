//! Which pods, and which of their ports, a policy is for: those of its namespace, those with some labels, or those behind a
//! Service as it has them now and as its selector names them.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU16;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use ringmail_proto::identity::WorkloadName;

use crate::model::pods::{PodEntry, Pods};
use crate::model::services::Port;
use crate::source::Objects;
use crate::source::objects::{Key, Kind, Object};
use crate::source::policy::{Selected, Target};

/// Ports of a pod that a policy is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum On {
    All,
    Some(BTreeSet<NonZeroU16>),
}

impl On {
    /// As they are told: none are all.
    pub(super) fn ports(&self) -> Vec<NonZeroU16> {
        match self {
            Self::All => Vec::new(),
            Self::Some(ports) => ports.iter().copied().collect(),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
            (Self::Some(ports), Self::Some(more)) => ports.extend(more),
        }
    }
}

/// Where targets are looked for.
pub(super) struct Looking<'a> {
    pub(super) objects: &'a Objects,
    pub(super) pods: &'a Pods,
    pub(super) ports: HashMap<&'a WorkloadName, Vec<&'a Port>>,
}

impl<'a> Looking<'a> {
    pub(super) fn new(objects: &'a Objects, pods: &'a Pods, ports: &'a [Port]) -> Self {
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for port in ports {
            by_service.entry(&port.service).or_default().push(port);
        }
        Self {
            objects,
            pods,
            ports: by_service,
        }
    }

    /// The pods a policy is for, and what it names that is not there.
    pub(super) fn targets(
        &self,
        namespace: &str,
        targets: &[Target],
    ) -> (Vec<(&'a PodEntry, On)>, Vec<String>) {
        let namespace: Arc<str> = namespace.into();
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for target in targets {
            let on = target
                .port
                .map_or(On::All, |port| On::Some(BTreeSet::from([port])));
            match &target.pods {
                Selected::All => {
                    let all = self.pods.all();
                    let own = all.filter(|pod| pod.name.namespace == namespace);
                    found.extend(own.map(|pod| (pod, on.clone())));
                }
                Selected::Labels(labels) => {
                    let pods = self.pods.labelled(&namespace, labels);
                    found.extend(pods.map(|pod| (pod, on.clone())));
                }
                Selected::Service(name) => {
                    if !self.service(&namespace, name, target, &mut found) {
                        let port = target.port.map(|port| format!(":{port}"));
                        let port = port.unwrap_or_default();
                        missing.push(format!("Service {namespace}/{name}{port}"));
                    }
                }
            }
        }
        (found, missing)
    }

    /// False when there is no such port. Pods behind a service's ports: those that it has now, and those that its selector names, ready or not.
    fn service(
        &self,
        namespace: &Arc<str>,
        name: &str,
        target: &Target,
        found: &mut Vec<(&'a PodEntry, On)>,
    ) -> bool {
        let key = Key {
            kind: Kind::Service,
            namespace: namespace.clone(),
            name: name.into(),
        };
        let Some(Object::Service(service)) = self.objects.get(&key) else {
            return false;
        };
        let is_meant = |number: i32| {
            target
                .port
                .is_none_or(|port| i32::from(port.get()) == number)
        };
        let Ok(full_name) = WorkloadName::new(namespace, name) else {
            return false;
        };
        let ports = self.ports.get(&full_name).into_iter().flatten();
        for port in ports.filter(|port| is_meant(port.number.get().into())) {
            for (pod, number) in port.served_by() {
                let pod = self.pods.named(pod);
                found.extend(pod.map(|pod| (pod, On::Some(BTreeSet::from([number])))));
            }
        }
        let spec = service.spec.as_ref();
        let declared = spec.and_then(|spec| spec.ports.as_deref());
        let declared = declared.into_iter().flatten();
        let mut meant = declared.filter(|port| is_meant(port.port)).peekable();
        let is_there = meant.peek().is_some();
        for port in meant {
            found.extend(self.selected(namespace, service, port));
        }
        is_there
    }

    fn selected(
        &self,
        namespace: &Arc<str>,
        service: &Service,
        port: &ServicePort,
    ) -> Vec<(&'a PodEntry, On)> {
        let spec = service.spec.as_ref();
        let selector = spec.and_then(|spec| spec.selector.as_ref());
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            return Vec::new();
        };
        let number = |number: i32| u16::try_from(number).ok().and_then(NonZeroU16::new);
        let pods = self.pods.labelled(namespace, selector);
        let on = |pod: &PodEntry| match &port.target_port {
            None => number(port.port),
            Some(IntOrString::Int(own)) => number(*own),
            Some(IntOrString::String(name)) => pod.named_port(name),
        };
        pods.filter_map(|pod| Some((pod, On::Some(BTreeSet::from([on(pod)?])))))
            .collect()
    }
}
