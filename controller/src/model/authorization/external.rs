//! Whom policies ask: where it is dialled, and whether it would be asked about itself.

use std::borrow::Cow;
use std::num::NonZeroU16;

use ringmail_proto::identity::WorkloadName;
use ringmail_proto::policy::external::External;
use ringmail_proto::policy::{Action, Policy};

use super::targets::{Looking, On};
use crate::model::pods::PodEntry;
use crate::model::services::Port;

impl Looking<'_> {
    /// The policy, with the address of whom it asks; and pods among `found`, which it is for, that are asked themselves.
    pub(super) fn authorizer<'p>(
        &self,
        policy: &'p Policy,
        found: &[(&PodEntry, On)],
        missing: &mut Vec<String>,
    ) -> (Cow<'p, Policy>, Vec<WorkloadName>) {
        let Action::External(external) = &policy.action else {
            return (Cow::Borrowed(policy), Vec::new());
        };
        let port = self.named(&external.service);
        let address = port.and_then(|port| Some((*port.addresses.first()?, port.number.get())));
        if address.is_none() {
            missing.push(format!("Service {} with a cluster IP", external.service));
        }
        let external = External {
            address: address.map(Into::into),
            ..External::clone(external)
        };
        let policy = Policy {
            action: Action::External(external.into()),
            ..policy.clone()
        };
        let asks_itself = |(pod, on): &&(&PodEntry, On)| {
            let mut served = port.into_iter().flat_map(Port::served_by);
            served.any(|(name, port)| *name == pod.name && on.has(port))
        };
        let itself = found.iter().filter(asks_itself);
        let itself = itself.map(|(pod, _)| pod.name.clone()).collect();
        (Cow::Owned(policy), itself)
    }

    /// `namespace/name:port`.
    fn named(&self, service: &str) -> Option<&Port> {
        let (name, port) = service.rsplit_once(':')?;
        let number: NonZeroU16 = port.parse().ok()?;
        let name: WorkloadName = name.parse().ok()?;
        let mut ports = self.ports.get(&name)?.iter();
        ports.find(|port| port.number == number).copied()
    }
}

impl On {
    fn has(&self, port: NonZeroU16) -> bool {
        match self {
            Self::All => true,
            Self::Some(ports) => ports.contains(&port),
        }
    }
}
