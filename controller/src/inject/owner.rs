//! Of what a pod is one: the name under which its figures are found, whichever pods come and go. Pure.

use serde_json::Value;

/// Digits at the end of the name of a CronJob's Job: the minute it is of.
const MINUTE_DIGITS: usize = 8;

/// The name of what made the pod, or of what made that: a Deployment, a CronJob. None if nothing did.
pub(super) fn owner(pod: &Value) -> Option<&str> {
    let owners = pod["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    let name = owner["name"].as_str()?;
    let maker = match owner["kind"].as_str()? {
        "ReplicaSet" => pod["metadata"]["labels"]["pod-template-hash"]
            .as_str()
            .and_then(|hash| name.strip_suffix(hash)?.strip_suffix('-')),
        "Job" => name.rsplit_once('-').and_then(|(cron, minute)| {
            let is_minute = minute.len() >= MINUTE_DIGITS && minute.parse::<u64>().is_ok();
            is_minute.then_some(cron)
        }),
        _ => None,
    };
    Some(maker.unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_made_it() {
        let pod = |kind: &str, name: &str, controller: bool| {
            json!({"metadata": {
                "labels": {"pod-template-hash": "5d4f8c7b9"},
                "ownerReferences": [{"kind": kind, "name": name, "controller": controller}],
            }})
        };
        let rows = [
            ("ReplicaSet", "cart-5d4f8c7b9", true, Some("cart")),
            ("ReplicaSet", "alone", true, Some("alone")),
            ("StatefulSet", "db", true, Some("db")),
            ("DaemonSet", "log-28391021", true, Some("log-28391021")),
            ("Job", "sweep-28391021", true, Some("sweep")),
            ("Job", "migrate-7", true, Some("migrate-7")),
            ("Node", "worker-1", false, None),
        ];
        for (kind, name, controller, expected) in rows {
            assert_eq!(
                owner(&pod(kind, name, controller)),
                expected,
                "{kind} {name}"
            );
        }
        assert_eq!(owner(&json!({"metadata": {"name": "cart-0"}})), None);
    }
}
