//! A refusal that was: its line of the audit, from logs of proxies.
//!
//! Limits: the last [`LOG_SECONDS`] and [`LOG_BYTES_MAX`] of each pod, [`ASKED_AT_ONCE`] pods.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cli::fleet;
use crate::cli::report::{self, Format};
use crate::cluster::client;
use crate::inject::PROXY;

/// How far back the logs of pods are looked at.
const LOG_SECONDS: i64 = 24 * 3600;
/// Of one pod.
const LOG_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// Pods asked at the same time.
const ASKED_AT_ONCE: usize = 16;

/// What is shown of a line, in that order.
const COLUMNS: [&str; 12] = [
    "decision", "reason", "by", "policy", "rule", "client", "server", "port", "method", "path",
    "serial", "version",
];

pub(super) async fn find(
    format: Format,
    id: &str,
    logs: &[PathBuf],
    namespace: Option<&str>,
) -> anyhow::Result<bool> {
    if id.len() != 16 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("{id} is no decision id: these have 16 hexadecimal digits");
    }
    let found = match logs.is_empty() {
        true => in_pods(id, namespace).await?,
        false => in_files(id, logs)?,
    };
    report::print(format, &found, &COLUMNS, "No log has that decision.")?;
    Ok(!found.is_empty())
}

/// The decision, if the line is about it.
fn decision(line: &str, id: &str) -> Option<Value> {
    if !line.contains(id) {
        return None;
    }
    let mut line: Value = serde_json::from_str(line).ok()?;
    let fields = line.get_mut("fields")?.take();
    (fields.get("decision")?.as_str()? == id).then_some(fields)
}

fn in_files(id: &str, logs: &[PathBuf]) -> anyhow::Result<Vec<Value>> {
    let mut found = Vec::new();
    for path in logs {
        let input: Box<dyn BufRead> = match path == Path::new("-") {
            true => Box::new(BufReader::new(stdin())),
            false => {
                let file = File::open(path);
                let file = file.with_context(|| format!("cannot read {}", path.display()))?;
                Box::new(BufReader::new(file))
            }
        };
        // What is no text is no line of ours.
        let lines = input.split(b'\n').map_while(Result::ok);
        let lines = lines.filter_map(|line| String::from_utf8(line).ok());
        found.extend(lines.filter_map(|line| decision(&line, id)));
    }
    Ok(found)
}

async fn in_pods(id: &str, namespace: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let client = client::infer().await?;
    let pods = fleet::pods(&client, namespace).await?;
    let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    let mut asked = JoinSet::new();
    for pod in pods.iter().filter(|pod| fleet::has_sidecar(pod)) {
        let (id, places) = (id.to_owned(), places.clone());
        let own = pod.metadata.namespace.as_deref().unwrap_or("default");
        let api = Api::<Pod>::namespaced(client.clone(), own);
        let name = pod.metadata.name.clone().unwrap_or_default();
        asked.spawn(async move {
            let _place = places.acquire().await;
            let params = LogParams {
                container: Some(PROXY.to_owned()),
                since_seconds: Some(LOG_SECONDS),
                limit_bytes: Some(LOG_BYTES_MAX),
                ..LogParams::default()
            };
            // A pod that has no log has no such line.
            let log = api.logs(&name, &params).await.unwrap_or_default();
            let lines = log.lines().filter_map(|line| decision(line, &id));
            lines.collect::<Vec<_>>()
        });
    }
    Ok(asked.join_all().await.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_decision_alone() {
        let id = "0123456789abcdef";
        let line = format!("{{\"fields\":{{\"decision\":\"{id}\",\"policy\":\"shop/p\"}}}}");
        assert_eq!(decision(&line, id).expect("found")["policy"], "shop/p");
        assert_eq!(decision(&line, "0123456789abcdee"), None);
        let other = format!("{{\"fields\":{{\"decision\":\"1\",\"path\":\"/{id}\"}}}}");
        assert_eq!(decision(&other, id), None);
        assert_eq!(decision(&format!("no JSON {id}"), id), None);
    }
}
