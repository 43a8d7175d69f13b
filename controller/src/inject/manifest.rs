//! Files of Kubernetes objects: every pod in them, bare or as the template of a workload, gets a sidecar; all else stays
//! as it is. Namespaces in the file lend their annotations to what is in them.

use std::collections::BTreeMap;

use ringmail_proto::Invalid;
use serde_json::Value;

use super::{Outcome, Settings, Surroundings, annotations, inject};

/// What became of one pod of a file, by the object it is in.
#[derive(Debug, Clone, PartialEq)]
pub struct Injection {
    /// `Kind namespace/name`.
    pub object: String,
    /// And of its pod.
    pub outcome: Outcome,
    /// For whoever wrote it.
    pub warnings: Vec<String>,
}

/// Where the pod of a kind is.
fn template(kind: &str) -> Option<&'static str> {
    match kind {
        "Pod" => Some(""),
        "Deployment"
        | "DaemonSet"
        | "StatefulSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => Some("/spec/template"),
        "CronJob" => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// Injects all pods of `objects`, of which a List may hold more.
///
/// # Errors
/// The object and the field for which a pod cannot have a sidecar.
pub fn inject_all(objects: &mut [Value], settings: &Settings) -> Result<Vec<Injection>, Invalid> {
    let mut namespaces = BTreeMap::new();
    for object in &*objects {
        if object["kind"] == "Namespace"
            && let Some(name) = object["metadata"]["name"].as_str()
        {
            namespaces.insert(name.to_owned(), annotations(object)?);
        }
    }
    let mut found = Vec::new();
    for object in objects {
        of(object, &namespaces, settings, &mut found)?;
    }
    Ok(found)
}

fn of(
    object: &mut Value,
    namespaces: &BTreeMap<String, BTreeMap<String, String>>,
    settings: &Settings,
    found: &mut Vec<Injection>,
) -> Result<(), Invalid> {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    if kind == "List" {
        for item in object["items"].as_array_mut().into_iter().flatten() {
            of(item, namespaces, settings, found)?;
        }
    }
    let Some(path) = template(&kind) else {
        return Ok(());
    };
    let metadata = |key: &str| {
        object["metadata"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (namespace, name) = (metadata("namespace"), metadata("name"));
    let owner = (kind != "Pod").then(|| name.clone());
    let name = format!("{kind} {namespace}/{name}");
    let pod = object
        .pointer_mut(path)
        .ok_or_else(|| Invalid::new(&name, "has no pod template"))?;
    let around = Surroundings {
        inherited: namespaces.get(&namespace).cloned().unwrap_or_default(),
        owner,
        // A file may be applied to any cluster.
        controller: None,
    };
    let (outcome, warnings) = inject(pod, &around, settings).map_err(|e| e.inside(&name))?;
    found.push(Injection {
        object: name,
        outcome,
        warnings,
    });
    Ok(())
}
