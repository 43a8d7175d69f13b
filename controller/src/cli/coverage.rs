//! `ringmail coverage`: which pods are in the mesh, and which should be and are not.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

use super::fleet;
use super::report::{self, Format};
use crate::cluster::client;
use crate::cluster::hooks::INJECTOR;
use crate::cluster::labels::{ENABLED, EXEMPT};
use crate::source::annotations::INJECT;

/// One pod, as far as the mesh goes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) meshed: bool,
    /// Whether it is as somebody said that it should be.
    pub(super) as_asked: bool,
    /// Why it is not in the mesh, or what is to be done.
    pub(super) note: &'static str,
}

pub(super) async fn run(
    format: Format,
    system: &str,
    namespace: Option<String>,
) -> anyhow::Result<bool> {
    let client = client::infer().await?;
    let rows = rows(&client, system, namespace.as_deref()).await?;
    let nothing = "no namespace and no pod has the annotation ringmail.io/inject";
    let columns = ["namespace", "pod", "meshed", "note"];
    report::print(format, &rows, &columns, nothing)?;
    Ok(rows.iter().all(|row| row.as_asked))
}

/// Every pod that is in the mesh, or whose namespace or own annotation says something of it.
pub(super) async fn rows(
    client: &Client,
    system: &str,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Row>> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let namespaces = namespaces.list(&ListParams::default()).await;
    let enabled: BTreeMap<String, bool> = namespaces
        .context("cannot list namespaces")?
        .into_iter()
        .filter_map(|one| Some((one.metadata.name.clone()?, is_enabled(&one))))
        .collect();
    let excluded = excluded(client).await;
    let pods = fleet::pods(client, namespace).await?;
    let rows = pods
        .iter()
        // What is being deleted needs no advice.
        .filter(|pod| !fleet::is_over(pod) && pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| {
            let namespace = pod.metadata.namespace.as_deref()?;
            let is_exempt = namespace == system
                || EXEMPT.contains(&namespace)
                || excluded.iter().any(|one| one == namespace);
            row(pod, !is_exempt && *enabled.get(namespace)?)
        });
    Ok(rows.collect())
}

/// Namespaces that the injector is not called for, as its configuration says; none where that may not be read.
async fn excluded(client: &Client) -> Vec<String> {
    let all = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let found = all.get_opt(INJECTOR).await.ok().flatten();
    let webhooks = found.and_then(|one| one.webhooks).unwrap_or_default();
    let selectors = webhooks
        .into_iter()
        .filter_map(|one| one.namespace_selector);
    selectors
        .flat_map(|one| one.match_expressions.unwrap_or_default())
        .filter(|one| one.key == "kubernetes.io/metadata.name" && one.operator == "NotIn")
        .flat_map(|one| one.values.unwrap_or_default())
        .collect()
}

fn is_enabled(namespace: &Namespace) -> bool {
    let said = |all: &Option<BTreeMap<String, String>>| {
        all.as_ref()
            .is_some_and(|all| all.get(INJECT).is_some_and(|value| value == ENABLED))
    };
    said(&namespace.metadata.annotations) || said(&namespace.metadata.labels)
}

fn row(pod: &Pod, inherited: bool) -> Option<Row> {
    let annotations = pod.metadata.annotations.as_ref();
    let own = annotations
        .and_then(|all| all.get(INJECT))
        .map(String::as_str);
    let meshed = fleet::has_sidecar(pod);
    let asked = match own {
        Some(ENABLED) => true,
        Some("disabled") => false,
        Some(_) | None => inherited,
    };
    let has_nodes_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let (as_asked, note) = match (meshed, asked) {
        (true, true) => (true, ""),
        (true, false) => (
            false,
            "it has a sidecar that nobody asks for: restart it to lose it",
        ),
        (false, true) if has_nodes_network => {
            (true, "it has its node's network: it cannot have one")
        }
        (false, true) => (false, "it has no sidecar: restart it to get one"),
        (false, false) if own.is_some() || inherited => (true, "disabled"),
        (false, false) => return None,
    };
    Some(Row {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        meshed,
        as_asked,
        note,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn who_should_be_in_the_mesh_and_is_not() {
        let pod = |annotation: Option<&str>, sidecar: bool, more: Value| {
            let mut pod = json!({
                "metadata": {"name": "cart-0", "namespace": "shop"},
                "spec": {"containers": []},
            });
            if let Some(value) = annotation {
                pod["metadata"]["annotations"] = json!({INJECT: value});
            }
            if sidecar {
                pod["spec"]["initContainers"] = json!([{"name": "ringmail-proxy"}]);
            }
            if more == "host" {
                pod["spec"]["hostNetwork"] = json!(true);
            }
            serde_json::from_value::<Pod>(pod).expect("a pod")
        };
        let none = Value::Null;
        let rows = [
            (pod(None, true, none.clone()), true, Some((true, true))),
            (pod(None, false, none.clone()), true, Some((false, false))),
            (pod(None, false, "host".into()), true, Some((false, true))),
            (
                pod(Some("disabled"), false, none.clone()),
                true,
                Some((false, true)),
            ),
            (
                pod(Some("disabled"), true, none.clone()),
                true,
                Some((true, false)),
            ),
            (
                pod(Some("enabled"), false, none.clone()),
                false,
                Some((false, false)),
            ),
            (
                pod(Some("enabled"), true, none.clone()),
                false,
                Some((true, true)),
            ),
            (pod(None, false, none), false, None),
        ];
        for (index, (pod, inherited, expected)) in rows.into_iter().enumerate() {
            let found = row(&pod, inherited).map(|row| (row.meshed, row.as_asked));
            assert_eq!(found, expected, "{index}");
        }
    }
}
