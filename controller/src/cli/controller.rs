//! What the controller tells of itself: found in a cluster, through the API server; elsewhere where it is said to be.
//!
//! Limits: [`PAGE_TIMEOUT`] and [`PAGE_BYTES_MAX`] for a page.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use ringmail_proto::policy::AUTHORIZATION_BYTES_MAX;
use tokio::time::timeout;

use super::fleet;
use crate::cluster::client;

/// The label of the controller's pods, and where they tell of themselves.
const CONTROLLER_PODS: &str =
    "app.kubernetes.io/name=ringmail,app.kubernetes.io/component=controller";
const CONTROLLER_PORT: u16 = 15014;
/// For a page of the controller's.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// All that one workload is told, as text.
const PAGE_BYTES_MAX: usize = 2 * AUTHORIZATION_BYTES_MAX;

/// Where pages are.
pub(super) enum Controller {
    At(Uri),
    Cluster {
        client: Client,
        system: String,
        /// All replicas; one at least.
        pods: Vec<String>,
    },
}

impl Controller {
    pub(super) async fn find(at: Option<&Uri>, system: &str) -> anyhow::Result<Self> {
        if let Some(at) = at {
            return Ok(Self::At(at.clone()));
        }
        let client = client::infer().await?;
        let api = Api::<Pod>::namespaced(client.clone(), system);
        let pods = api
            .list(&ListParams::default().labels(CONTROLLER_PODS))
            .await;
        let pods = pods.context("cannot list the controller's pods")?.items;
        let pods: Vec<_> = pods
            .into_iter()
            .filter_map(|pod| pod.metadata.name)
            .collect();
        if pods.is_empty() {
            bail!("no controller runs in namespace {system}");
        }
        Ok(Self::Cluster {
            client,
            system: system.to_owned(),
            pods,
        })
    }

    /// A page on which all replicas say the same.
    pub(super) async fn page(&self, path: &str) -> anyhow::Result<String> {
        let first = match self {
            Self::At(_) => "",
            Self::Cluster { pods, .. } => pods.first().map_or("", String::as_str),
        };
        self.page_of(first, path).await
    }

    /// A page as each replica has it, by the replica's name.
    pub(super) async fn pages(&self, path: &str) -> Vec<(String, anyhow::Result<String>)> {
        let replicas = match self {
            Self::At(at) => vec![at.to_string()],
            Self::Cluster { pods, .. } => pods.clone(),
        };
        let mut pages = Vec::new();
        for replica in replicas {
            let page = self.page_of(&replica, path).await;
            pages.push((replica, page));
        }
        pages
    }

    async fn page_of(&self, pod: &str, path: &str) -> anyhow::Result<String> {
        match self {
            Self::At(at) => {
                let at = at.to_string();
                let url = format!("{}/{path}", at.trim_end_matches('/')).parse()?;
                get(url)
                    .await
                    .context("the controller does not answer well")
            }
            Self::Cluster { client, system, .. } => {
                let page = fleet::page(client, system, pod, CONTROLLER_PORT, path).await;
                page.map_err(|problem| anyhow::anyhow!("the controller says: {problem}"))
            }
        }
    }
}

/// A page over plain HTTP.
pub(super) async fn get(url: Uri) -> anyhow::Result<String> {
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
            false => bail!("the answer is {status}: {}", text.trim_end()),
        }
    };
    let answered = timeout(PAGE_TIMEOUT, exchange).await;
    answered.with_context(|| format!("no answer within {PAGE_TIMEOUT:?}"))?
}
