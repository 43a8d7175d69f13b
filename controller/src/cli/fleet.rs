//! Sidecars as they tell of themselves, asked through the API server's proxy to pods: whoever may read that, may ask.
//!
//! Limits: [`ASKED_AT_ONCE`], [`PAGE_TIMEOUT`] for each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::asked::Pages;
use super::sample::Sample;
use crate::inject::PROXY;
use crate::source::annotations::INJECTED;

/// Pods asked at the same time.
const ASKED_AT_ONCE: usize = 32;
/// For the page of one pod.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pods in one answer of the API server.
const PAGE_PODS: u32 = 500;
/// Where a sidecar tells of itself.
const STATUS_PORT: u16 = 15020;

/// One pod that has a sidecar.
#[derive(Debug, Clone)]
pub(super) struct Sidecar {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// The version it was injected by.
    pub(super) injected_by: Option<String>,
    /// Its metrics by name, those without labels; or why there are none.
    pub(super) metrics: Result<HashMap<String, f64>, String>,
    /// The version that it says it is.
    pub(super) version: Option<String>,
}

/// Every pod of a namespace, or of all.
pub(super) async fn pods(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Pod>> {
    let api: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut found = Vec::new();
    let mut asked = ListParams::default().limit(PAGE_PODS);
    loop {
        let page = api.list(&asked).await.context("cannot list pods")?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => asked = asked.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Whether the pod has a sidecar, whatever it or its namespace says.
pub(super) fn has_sidecar(pod: &Pod) -> bool {
    let init = pod
        .spec
        .iter()
        .flat_map(|spec| spec.init_containers.iter().flatten());
    init.into_iter().any(|one| one.name == PROXY)
}

/// Whether it is over: its sidecar tells nothing any more, and need not.
pub(super) fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What the sidecars of `pods` tell, in the order of the pods.
pub(super) async fn ask(client: &Client, pods: &[Pod]) -> Vec<Sidecar> {
    let told = all(client, pods, "metrics").await.into_iter();
    let sidecar = |(pod, page): (&Pod, Result<String, String>)| {
        let annotations = pod.metadata.annotations.as_ref();
        Sidecar {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            pod: pod.metadata.name.clone().unwrap_or_default(),
            injected_by: annotations.and_then(|all| all.get(INJECTED)).cloned(),
            version: page.as_ref().ok().and_then(|page| version(page)),
            metrics: page.map(|page| unlabelled(&page)),
        }
    };
    told.map(sidecar).collect()
}

/// A page of each sidecar, by `namespace/pod`.
pub(super) async fn pages(client: &Client, pods: &[Pod], path: &'static str) -> Pages {
    let told = all(client, pods, path).await.into_iter();
    let named = |(pod, page): (&Pod, _)| {
        let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
        let part = |one: &Option<String>| one.clone().unwrap_or_default();
        (format!("{}/{}", part(namespace), part(name)), page)
    };
    told.map(named).collect()
}

/// A page of each pod that has a sidecar and is not over.
async fn all<'a>(
    client: &Client,
    pods: &'a [Pod],
    path: &'static str,
) -> Vec<(&'a Pod, Result<String, String>)> {
    let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    let mut asked = JoinSet::new();
    let meshed = pods.iter().filter(|pod| has_sidecar(pod) && !is_over(pod));
    let meshed: Vec<&Pod> = meshed.collect();
    for (index, pod) in meshed.iter().enumerate() {
        let (client, places) = (client.clone(), places.clone());
        let (namespace, name) = (
            pod.metadata.namespace.clone().unwrap_or_default(),
            pod.metadata.name.clone().unwrap_or_default(),
        );
        asked.spawn(async move {
            let _place = places.acquire().await;
            let page = page(&client, &namespace, &name, STATUS_PORT, path).await;
            (index, page)
        });
    }
    let mut found = asked.join_all().await;
    found.sort_by_key(|(index, _)| *index);
    let pod = |(index, page)| Some((*meshed.get(index)?, page));
    found.into_iter().filter_map(pod).collect()
}

/// A page that a pod serves.
pub(super) async fn page(
    client: &Client,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> Result<String, String> {
    let uri = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/{path}");
    let request = Request::get(uri)
        .body(Vec::new())
        .map_err(|e| e.to_string())?;
    match timeout(PAGE_TIMEOUT, client.request_text(request)).await {
        Ok(Ok(page)) => Ok(page),
        Ok(Err(kube::Error::Api(status))) => Err(status.message.clone()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {PAGE_TIMEOUT:?}")),
    }
}

/// Samples without labels but those that say whose they are.
pub(super) fn unlabelled(page: &str) -> HashMap<String, f64> {
    let sample = |line: &str| {
        let sample = Sample::parse(line)?;
        let is_alone = |(name, _): &(&str, _)| matches!(*name, "namespace" | "workload");
        let value = sample.labels.iter().all(is_alone).then_some(sample.value)?;
        Some((sample.name.to_owned(), value))
    };
    page.lines().filter_map(sample).collect()
}

fn version(page: &str) -> Option<String> {
    let build = |sample: &Sample<'_>| sample.name == "ringmail_build_info";
    let build = page.lines().filter_map(Sample::parse).find(build)?;
    build.label("version").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read() {
        let page = "# HELP a b\n# TYPE a gauge\na{workload=\"w\"} 1.5\nb{c=\"d\"} 2\nringmail_build_info{version=\"1.2.3\"} 1\ne 3 17\n# EOF\n";
        let found = unlabelled(page);
        assert_eq!(found.len(), 2);
        assert_eq!((found["a"], found["e"]), (1.5, 3.0));
        assert_eq!(version(page).as_deref(), Some("1.2.3"));
        assert_eq!(version(""), None);
    }
}
