//! What has to be right once the mesh is there: controller, webhooks, certificates, every proxy, every pod.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::Finding;
use crate::cli::report::{now, span};
use crate::cli::{coverage, fleet, proxies};

/// The controller's Deployment, and the label of its pods.
const CONTROLLER: &str = "ringmail-controller";
const CONTROLLER_PODS: &str =
    "app.kubernetes.io/name=ringmail,app.kubernetes.io/component=controller";
/// Where a controller tells of itself.
const CONTROLLER_PORT: u16 = 15014;
/// Certificates that end sooner are worth a word: a root in thirty days, an issuer in seven.
const ROOT_WARN_SECONDS: i64 = 30 * 86_400;
const ISSUER_WARN_SECONDS: f64 = 7.0 * 86_400.0;
/// Names that are shown of many.
const SHOWN: usize = 3;

pub(super) async fn look(client: &Client, system: &str) -> Vec<Finding> {
    let mut findings = vec![deployment(client, system).await];
    findings.extend(controllers(client, system).await);
    for (kind, plural, name) in [
        (
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            "ringmail-injector",
        ),
        (
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            "ringmail-validator",
        ),
    ] {
        findings.push(webhooks(client, kind, plural, name).await);
    }
    findings.push(roots(client, system).await);
    findings.push(sidecars(client).await);
    findings.push(covered(client, system).await);
    findings
}

async fn deployment(client: &Client, system: &str) -> Finding {
    const CHECK: &str = "controller";
    let api = Api::<Deployment>::namespaced(client.clone(), system);
    let advice = format!("kubectl -n {system} describe deployment {CONTROLLER}");
    match api.get_opt(CONTROLLER).await {
        Err(e) => Finding::fail(CHECK, format!("cannot read its Deployment: {e}"), advice),
        Ok(None) => Finding::fail(
            CHECK,
            format!("there is none in namespace {system}"),
            "helm install ringmail, or say --system-namespace",
        ),
        Ok(Some(found)) => {
            let wanted = found.spec.replicas.unwrap_or(1);
            let there = found
                .status
                .and_then(|status| status.available_replicas)
                .unwrap_or(0);
            let text = format!("{there} of {wanted} replicas are available");
            match there {
                0 => Finding::fail(CHECK, text, advice),
                _ if there < wanted => Finding::warn(CHECK, text, advice),
                _ => Finding::ok(CHECK, text),
            }
        }
    }
}

/// Each replica by its own metrics.
async fn controllers(client: &Client, system: &str) -> Vec<Finding> {
    let api = Api::<Pod>::namespaced(client.clone(), system);
    let asked = ListParams::default().labels(CONTROLLER_PODS);
    let Ok(pods) = api.list(&asked).await else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for pod in pods {
        let name = pod.metadata.name.unwrap_or_default();
        let page = fleet::page(client, system, &name, CONTROLLER_PORT, "metrics").await;
        findings.push(replica(&name, page.map(|page| fleet::unlabelled(&page))));
    }
    findings
}

fn replica(name: &str, metrics: Result<std::collections::HashMap<String, f64>, String>) -> Finding {
    const CHECK: &str = "controller replica";
    let metrics = match metrics {
        Ok(metrics) => metrics,
        Err(problem) => {
            let found = format!("{name} tells nothing: {problem}");
            return Finding::fail(CHECK, found, format!("kubectl logs {name}"));
        }
    };
    let metric = |name: &str| metrics.get(name).copied().unwrap_or_default();
    let left = metric("ringmail_controller_issuer_expiry_timestamp_seconds") - now() as f64;
    let refused = metric("ringmail_controller_source_objects_refused");
    let nacks = metric("ringmail_controller_watch_nacks_total");
    let proxies = metric("ringmail_controller_watch_streams");
    if left < ISSUER_WARN_SECONDS {
        let found = format!("{name}: its issuer ends soon, or it refused a new one");
        return Finding::warn(CHECK, found, "see the events of the controller's namespace");
    }
    if refused > 0.0 {
        let found =
            format!("{name}: {refused} objects are refused, and their older values in force");
        return Finding::warn(CHECK, found, "kubectl get events -A, or its /status");
    }
    if nacks > 0.0 {
        let found = format!("{name}: proxies refused {nacks} updates");
        return Finding::warn(
            CHECK,
            found,
            "see the controller's log for what they refused",
        );
    }
    Finding::ok(CHECK, format!("{name} has {proxies} proxies"))
}

async fn webhooks(client: &Client, kind: &str, plural: &str, name: &str) -> Finding {
    const CHECK: &str = "webhooks";
    let resource = ApiResource {
        group: "admissionregistration.k8s.io".into(),
        version: "v1".into(),
        api_version: "admissionregistration.k8s.io/v1".into(),
        kind: kind.into(),
        plural: plural.into(),
    };
    let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
    match api.get_opt(name).await {
        Err(e) => Finding::fail(CHECK, format!("cannot read {name}: {e}"), ""),
        Ok(None) => Finding::fail(
            CHECK,
            format!("{name} is not there"),
            "helm upgrade ringmail",
        ),
        Ok(Some(found)) => judge_webhooks(name, &found.data["webhooks"]),
    }
}

fn judge_webhooks(name: &str, webhooks: &Value) -> Finding {
    const CHECK: &str = "webhooks";
    let all = || webhooks.as_array().into_iter().flatten();
    let without = all().filter(|one| {
        one["clientConfig"]["caBundle"]
            .as_str()
            .is_none_or(str::is_empty)
    });
    match without.count() {
        0 => Finding::ok(
            CHECK,
            format!("{name} is in place, {} entries", all().count()),
        ),
        count => Finding::fail(
            CHECK,
            format!("{name}: {count} entries have no caBundle, so the API server cannot call"),
            "the elected controller writes it: see its log",
        ),
    }
}

/// The bundle that every new pod begins with.
async fn roots(client: &Client, system: &str) -> Finding {
    const CHECK: &str = "trust bundle";
    const NAME: &str = "ringmail-trust-bundle";
    let api = Api::<ConfigMap>::namespaced(client.clone(), system);
    let text = match api.get_opt(NAME).await {
        Ok(found) => found.and_then(|map| map.data?.remove("root.pem")),
        Err(e) => return Finding::fail(CHECK, format!("cannot read ConfigMap {NAME}: {e}"), ""),
    };
    let Some(text) = text else {
        let advice = "the elected controller writes it: see its log";
        return Finding::fail(CHECK, format!("ConfigMap {NAME} is not there"), advice);
    };
    let ends: Vec<i64> = CertificateDer::pem_slice_iter(text.as_bytes())
        .filter_map(Result::ok)
        .filter_map(|der| {
            let (_, root) = x509_parser::parse_x509_certificate(&der).ok()?;
            Some(root.validity().not_after.timestamp())
        })
        .collect();
    let Some(first) = ends.iter().min() else {
        return Finding::fail(CHECK, "it holds no certificate", "");
    };
    let left = first - now();
    let found = format!("{} roots, the first ends in {}", ends.len(), span(left));
    match left {
        ..0 => Finding::fail(CHECK, found, "replace the root"),
        0..ROOT_WARN_SECONDS => Finding::warn(CHECK, found, "replace the root soon"),
        _ => Finding::ok(CHECK, found),
    }
}

async fn sidecars(client: &Client) -> Finding {
    const CHECK: &str = "proxies";
    let pods = match fleet::pods(client, None).await {
        Ok(pods) => pods,
        Err(e) => return Finding::fail(CHECK, format!("{e:#}"), ""),
    };
    let all = fleet::ask(client, &pods).await;
    let out: Vec<String> = all
        .iter()
        .filter(|one| proxies::row(one).sync != proxies::IN_SYNC)
        .map(|one| format!("{}/{}", one.namespace, one.pod))
        .collect();
    match out.len() {
        0 => Finding::ok(CHECK, format!("all {} are in sync", all.len())),
        count => Finding::fail(
            CHECK,
            format!("{count} of {} are not in sync: {}", all.len(), some(&out)),
            "ringmail proxies",
        ),
    }
}

async fn covered(client: &Client, system: &str) -> Finding {
    const CHECK: &str = "coverage";
    match coverage::rows(client, system, None).await {
        Err(e) => Finding::fail(CHECK, format!("{e:#}"), ""),
        Ok(rows) => {
            let wrong = rows.iter().filter(|row| !row.as_asked);
            let wrong: Vec<String> = wrong
                .map(|row| format!("{}/{}", row.namespace, row.pod))
                .collect();
            let meshed = rows.iter().filter(|row| row.meshed).count();
            match wrong.len() {
                0 => Finding::ok(
                    CHECK,
                    format!("{meshed} pods are in the mesh, none is missing"),
                ),
                count => Finding::warn(
                    CHECK,
                    format!(
                        "{count} pods are not as their annotations say: {}",
                        some(&wrong)
                    ),
                    "ringmail coverage",
                ),
            }
        }
    }
}

fn some(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let more = if names.len() > SHOWN { ", …" } else { "" };
    shown + more
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Verdict;
    use serde_json::json;

    #[test]
    fn what_is_found_of_replicas_and_webhooks() {
        let metrics = |all: &[(&str, f64)]| {
            let mut found: std::collections::HashMap<String, f64> = [(
                "ringmail_controller_issuer_expiry_timestamp_seconds".to_owned(),
                now() as f64 + 1e7,
            )]
            .into();
            found.extend(all.iter().map(|(name, value)| ((*name).to_owned(), *value)));
            Ok(found)
        };
        let rows = [
            (metrics(&[]), Verdict::Ok),
            (
                metrics(&[("ringmail_controller_issuer_expiry_timestamp_seconds", 0.0)]),
                Verdict::Warn,
            ),
            (
                metrics(&[("ringmail_controller_source_objects_refused", 1.0)]),
                Verdict::Warn,
            ),
            (
                metrics(&[("ringmail_controller_watch_nacks_total", 2.0)]),
                Verdict::Warn,
            ),
            (Err("gone".to_owned()), Verdict::Fail),
        ];
        for (index, (metrics, expected)) in rows.into_iter().enumerate() {
            assert_eq!(replica("c-0", metrics).verdict, expected, "{index}");
        }
        let good = json!([{"clientConfig": {"caBundle": "Zm9v"}}]);
        let bad = json!([{"clientConfig": {"caBundle": "Zm9v"}}, {"clientConfig": {}}]);
        assert_eq!(judge_webhooks("w", &good).verdict, Verdict::Ok);
        assert_eq!(judge_webhooks("w", &bad).verdict, Verdict::Fail);
    }
}
