//! What both sides are told: from the objects of a directory, or from the controller, which tells it as it tells proxies.

use anyhow::{Context, bail};
use k8s_openapi::ByteString;
use prost::Message;
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use ringmail_proto::pb;
use ringmail_proto::policy::Authorization;
use serde::Deserialize;

use super::Question;
use crate::cli::controller::Controller;
use crate::model::{Defaults, Mesh};
use crate::source;

/// Who is asked.
pub(super) enum Known {
    Objects(Box<Mesh>, TrustDomain),
    Controller(Controller),
}

/// A workload that something is asked of.
pub(super) struct Target {
    pub(super) port: u16,
    pub(super) authorization: Authorization,
}

/// As the controller's page tells it.
#[derive(Deserialize)]
struct Told {
    /// None of a pod without a sidecar.
    identity: Option<String>,
    port: u16,
    authorization: ByteString,
}

impl Known {
    pub(super) async fn new(question: &Question, system: &str) -> anyhow::Result<Self> {
        if let Some(directory) = &question.source_dir {
            let state = source::read_once(directory);
            if let Some(problem) = state.unreadable {
                bail!("cannot read {}: {problem}", directory.display());
            }
            for file in state.files.iter().filter(|file| file.refused.is_some()) {
                if let Some(refused) = &file.refused {
                    let (line, problem) = (refused.line, &refused.problem);
                    bail!("{}:{line}: {}: {problem}", file.file, refused.field);
                }
            }
            let defaults = Defaults {
                trust_domain: question.trust_domain.clone(),
                posture: question.defaults.default_policy,
                cluster_networks: question.defaults.cluster_networks.clone(),
            };
            let mesh = Mesh::build(&state.objects, &defaults);
            return Ok(Self::Objects(Box::new(mesh), defaults.trust_domain));
        }
        let controller = Controller::find(question.controller.as_ref(), system).await?;
        Ok(Self::Controller(controller))
    }

    /// `namespace/name:port` of a pod, or of a Service.
    pub(super) async fn target(&self, text: &str) -> anyhow::Result<Target> {
        let (name, port) = text
            .rsplit_once(':')
            .context("--to is not namespace/name:port")?;
        let name: WorkloadName = name.parse().context("--to")?;
        let port: u16 = port.parse().context("--to has no port")?;
        if let Self::Objects(mesh, _) = self {
            let found = mesh.behind(&name, port).with_context(|| unknown(&name))?;
            let authorization = mesh.authorization(&found.0);
            let authorization = authorization.with_context(|| unknown(&name))?;
            return Ok(Target {
                port: found.1,
                authorization: Authorization::clone(&authorization),
            });
        }
        let told = self.told(&name, port).await?;
        let wire = pb::Authorization::decode(told.authorization.0.as_slice())?;
        Ok(Target {
            port: told.port,
            authorization: wire.try_into()?,
        })
    }

    /// Of a pod; one without a sidecar has none.
    pub(super) async fn identity(&self, pod: &str) -> anyhow::Result<Option<SpiffeId>> {
        let name: WorkloadName = pod.parse().context("--from")?;
        if let Self::Objects(mesh, trust_domain) = self {
            let pod = mesh.workload(&name).with_context(|| unknown(&name))?;
            let id = SpiffeId::new(trust_domain, &name.namespace, &pod.service_account)?;
            return Ok(Some(id).filter(|_| mesh.is_meshed(&name)));
        }
        let told = self.told(&name, 0).await?.identity;
        Ok(told.map(|id| id.parse()).transpose()?)
    }

    async fn told(&self, name: &WorkloadName, port: u16) -> anyhow::Result<Told> {
        let path = format!("workloads/{name}?port={port}");
        let page = match self {
            Self::Objects(..) => bail!("there is no controller"),
            Self::Controller(controller) => controller.page(&path).await?,
        };
        serde_json::from_str(&page).context("the answer is none of a controller")
    }
}

fn unknown(name: &WorkloadName) -> String {
    format!("there is no pod and no Service {name}, or nothing is behind it")
}
