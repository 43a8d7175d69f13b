//! What both sides are told: from the objects of a directory, or from the controller, which tells it as it tells proxies.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioExecutor;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use prost::Message;
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use ringmail_proto::pb;
use ringmail_proto::policy::{AUTHORIZATION_BYTES_MAX, Authorization};
use serde::Deserialize;
use tokio::time::timeout;

use super::Question;
use crate::cli::fleet;
use crate::cluster::client;
use crate::model::{Defaults, Mesh};
use crate::source;

/// The label of the controller's pods, and where they tell of themselves.
const CONTROLLER_PODS: &str =
    "app.kubernetes.io/name=ringmail,app.kubernetes.io/component=controller";
const CONTROLLER_PORT: u16 = 15014;
/// For a page of the controller's.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// All that one workload is told, as text.
const PAGE_BYTES_MAX: usize = 2 * AUTHORIZATION_BYTES_MAX;

/// Who is asked.
pub(super) enum Known {
    Objects(Box<Mesh>, TrustDomain),
    Page(Uri),
    Cluster {
        client: Client,
        system: String,
        pod: String,
    },
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
        if let Some(controller) = &question.controller {
            return Ok(Self::Page(controller.clone()));
        }
        let client = client::infer().await?;
        let api = Api::<Pod>::namespaced(client.clone(), system);
        let pods = api
            .list(&ListParams::default().labels(CONTROLLER_PODS))
            .await;
        let pods = pods.context("cannot list the controller's pods")?;
        let name = pods.items.into_iter().find_map(|pod| pod.metadata.name);
        Ok(Self::Cluster {
            client,
            system: system.to_owned(),
            pod: name.with_context(|| format!("no controller runs in namespace {system}"))?,
        })
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
            Self::Page(at) => {
                let at = at.to_string();
                let url = format!("{}/{path}", at.trim_end_matches('/')).parse()?;
                get(url).await?
            }
            Self::Cluster {
                client,
                system,
                pod,
            } => {
                let page = fleet::page(client, system, pod, CONTROLLER_PORT, &path).await;
                page.map_err(|problem| anyhow::anyhow!("the controller says: {problem}"))?
            }
        };
        serde_json::from_str(&page).context("the answer is none of a controller")
    }
}

/// A page over plain HTTP.
async fn get(url: Uri) -> anyhow::Result<String> {
    let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .build_http::<Empty<Bytes>>();
    let exchange = async {
        let response = client.get(url).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), PAGE_BYTES_MAX);
        let body = body.collect().await.map_err(|e| anyhow::anyhow!(e))?;
        let text = String::from_utf8(body.to_bytes().to_vec())?;
        match status.is_success() {
            true => Ok(text),
            false => bail!("the controller answers {status}: {}", text.trim_end()),
        }
    };
    let answered = timeout(PAGE_TIMEOUT, exchange).await;
    answered.context("the controller does not answer")?
}

fn unknown(name: &WorkloadName) -> String {
    format!("there is no pod and no Service {name}, or nothing is behind it")
}
