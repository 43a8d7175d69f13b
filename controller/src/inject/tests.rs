//! Pods before and after, whole: what is expected is in `golden/`, as `RINGMAIL_WRITE_GOLDEN=1 cargo test` wrote it and
//! somebody read it.

use std::fs;
use std::path::Path;

use super::manifest::inject_all;
use super::*;

fn settings() -> Settings {
    Settings {
        image: "ringmail/ringmail:1.2.3".into(),
        pull_policy: "IfNotPresent".into(),
        trust_domain: "cluster.local".parse().expect("valid"),
        namespace: "ringmail-system".into(),
        telemetry: Default::default(),
        resources: Resources {
            cpu_request: Some("10m".into()),
            memory_request: Some("24Mi".into()),
            ..Resources::default()
        },
    }
}

fn into(pod: &mut Value) -> Result<(Outcome, Warnings), Invalid> {
    inject(pod, &Surroundings::default(), &settings())
}

/// A pod with one container and what else its spec says.
fn pod(spec: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": "cart-0", "namespace": "shop"},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    });
    for (key, value) in spec.as_object().expect("an object") {
        pod["spec"][key] = value.clone();
    }
    pod
}

/// What a JSON Patch makes of a document, for the one operation that is used here.
fn patched(mut pod: Value, patch: &[Value]) -> Value {
    for one in patch {
        assert_eq!(one["op"], "add");
        let path = one["path"].as_str().expect("a path");
        let (parent, key) = path.rsplit_once('/').expect("absolute");
        let parent = pod.pointer_mut(parent).expect("its parent is there");
        parent[key] = one["value"].clone();
    }
    pod
}

#[test]
fn what_becomes_of_pods() {
    let cases = [
        ("plain", pod(json!({}))),
        (
            "init_containers_and_volumes",
            pod(json!({
                "initContainers": [
                    {"name": "migrate", "image": "app:1"},
                    {"name": "logger", "image": "logger:1", "restartPolicy": "Always"},
                ],
                "volumes": [{"name": "data", "emptyDir": {}}],
                "securityContext": {"runAsNonRoot": true, "fsGroup": 2000},
            })),
        ),
        (
            "probes_and_grace",
            pod(json!({
                "terminationGracePeriodSeconds": 90,
                "containers": [{
                    "name": "app",
                    "image": "app:1",
                    "ports": [{"containerPort": 8080, "name": "http"}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                    "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 3},
                    "startupProbe": {"grpc": {"port": 9000}},
                }],
            })),
        ),
    ];
    for (name, before) in cases {
        let mut after = before.clone();
        let (outcome, warnings) = into(&mut after).expect("injected");
        assert_eq!(warnings, Warnings::new(), "{name}");
        let patch = match outcome {
            Outcome::Injected(patch) => patch,
            Outcome::Skipped(_) => Vec::new(),
        };
        assert_eq!(
            patched(before, &patch),
            after,
            "{name}: the patch says the same"
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/inject/golden")
            .join(format!("{name}.json"));
        let found = serde_json::to_string_pretty(&after).expect("JSON") + "\n";
        if std::env::var_os("RINGMAIL_WRITE_GOLDEN").is_some() {
            fs::write(&path, &found).expect("written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, expected, "{name}");

        let again = into(&mut after).expect("injected").0;
        assert_eq!(again, Outcome::Injected(Vec::new()), "{name}: again");
    }
}

#[test]
fn others_may_come_before_or_after() {
    let mut pod = pod(json!({}));
    into(&mut pod).expect("injected");
    let stranger = json!({"name": "other-init", "image": "other:1"});
    for index in [0, 1, 2] {
        let mut pod = pod.clone();
        let containers = pod["spec"]["initContainers"]
            .as_array_mut()
            .expect("a list");
        containers.insert(index, stranger.clone());
        into(&mut pod).expect("injected");
        let names = pod["spec"]["initContainers"].as_array().expect("a list");
        let names: Vec<_> = names.iter().map(|one| one["name"].as_str()).collect();
        assert_eq!(names[..2], [Some(INIT), Some(PROXY)], "uncaptured");
        assert_eq!(names[2], Some("other-init"), "from {index}");
        assert_eq!(
            into(&mut pod).expect("injected").0,
            Outcome::Injected(Vec::new()),
            "again"
        );
    }
}

#[test]
fn who_does_not_ask_the_cluster_s_dns_is_told_the_address() {
    let known = Surroundings {
        controller: Some("10.96.0.7".parse().expect("an address")),
        ..Surroundings::default()
    };
    let name = "ringmail-controller.ringmail-system.svc:15012";
    let both = format!("10.96.0.7:15012,{name}");
    let rows = [
        (json!({}), &known, name, 0),
        (json!({"dnsPolicy": "ClusterFirst"}), &known, name, 0),
        (json!({"dnsPolicy": "Default"}), &known, &both, 0),
        (json!({"dnsPolicy": "None"}), &known, &both, 0),
        (
            json!({"dnsPolicy": "None"}),
            &Surroundings::default(),
            name,
            1,
        ),
    ];
    for (spec, around, wanted, warned) in rows {
        let mut pod = pod(spec);
        let (_, warnings) = inject(&mut pod, around, &settings()).expect("injected");
        assert_eq!(warnings.len(), warned, "{warnings:?}");
        let variables = pod["spec"]["initContainers"][1]["env"].as_array();
        let mut all = variables.expect("a list").iter();
        let address = all.find(|one| one["name"] == "RINGMAIL_CONTROLLER_ADDRESS");
        assert_eq!(address.expect("there")["value"], wanted);
    }
}

#[test]
fn who_names_a_container_like_ours_does_not_become_the_proxy() {
    let mut pod = pod(json!({
        "initContainers": [{"name": PROXY, "image": "evil:1", "securityContext": {"runAsUser": 1337}}],
    }));
    into(&mut pod).expect("injected");
    let containers = pod["spec"]["initContainers"].as_array().expect("a list");
    let named: Vec<_> = containers
        .iter()
        .filter(|one| one["name"] == PROXY)
        .collect();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0]["image"], "ringmail/ringmail:1.2.3");
}

#[test]
fn what_a_limit_range_gave_the_sidecar_stays_and_a_mounted_token_does_not() {
    let mut pod = pod(json!({}));
    into(&mut pod).expect("injected");
    let before = pod.clone();
    let given = json!({
        "requests": {"cpu": "10m", "memory": "24Mi", "ephemeral-storage": "1Mi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    });
    let containers = pod["spec"]["initContainers"].as_array_mut();
    for container in containers.expect("a list") {
        container["resources"] = given.clone();
    }
    assert_eq!(
        into(&mut pod).expect("injected").0,
        Outcome::Injected(Vec::new()),
        "limits alone are no reason for a patch"
    );
    let proxy = &mut pod["spec"]["initContainers"][1];
    proxy["resources"]["requests"]["memory"] = "1Mi".into();
    let token = json!({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io"});
    let mounts = proxy["volumeMounts"].as_array_mut();
    mounts.expect("a list").push(token);
    proxy["envFrom"] = json!([{"secretRef": {"name": "x"}}]);
    into(&mut pod).expect("injected");
    for (index, name) in [(0, INIT), (1, PROXY)] {
        let mut expected = before["spec"]["initContainers"][index].clone();
        expected["resources"] = given.clone();
        assert_eq!(pod["spec"]["initContainers"][index], expected, "{name}");
    }
}

#[test]
fn a_limit_of_a_limit_range_is_more_than_our_request() {
    let mut pod = pod(json!({}));
    into(&mut pod).expect("injected");
    for container in pod["spec"]["initContainers"]
        .as_array_mut()
        .expect("a list")
    {
        container["resources"]["limits"] = json!({"cpu": "5m", "memory": "1Gi"});
    }
    into(&mut pod).expect("injected");
    let wanted = json!({
        "requests": {"cpu": "5m", "memory": "24Mi"},
        "limits": {"cpu": "5m", "memory": "1Gi"},
    });
    assert_eq!(pod["spec"]["initContainers"][1]["resources"], wanted);
}

#[test]
fn pods_that_are_left_alone() {
    let annotated =
        |key: &str, value: &str| json!({"metadata": {"annotations": {key: value}}, "spec": {}});
    let disabled = annotated(INJECT, "disabled");
    let rows = [
        (annotated(MIRROR, "5f0c"), "mirror", 0),
        (disabled, "disabled", 0),
        (pod(json!({"hostNetwork": true})), "host_network", 1),
        (pod(json!({"os": {"name": "windows"}})), "windows", 0),
    ];
    for (before, reason, warned) in rows {
        let mut after = before.clone();
        let (outcome, warnings) = into(&mut after).expect("no refusal");
        assert_eq!(
            (outcome, warnings.len()),
            (Outcome::Skipped(reason), warned)
        );
        assert_eq!(before, after);
    }
}

#[test]
fn pods_that_could_not_be_captured_are_refused_by_field() {
    let container = |more: Value| {
        let mut container = json!({"name": "app", "image": "app:1"});
        for (key, value) in more.as_object().expect("an object") {
            container[key] = value.clone();
        }
        pod(json!({"containers": [container]}))
    };
    let mut annotated = pod(json!({}));
    annotated["metadata"]["annotations"] = json!({"config.ringmail.io/log-level": "loud"});
    let rows = [
        (
            pod(json!({"securityContext": {"runAsUser": 1337}})),
            "spec.securityContext.runAsUser",
        ),
        (
            container(json!({"securityContext": {"runAsUser": 1337}})),
            "spec.containers[app].securityContext.runAsUser",
        ),
        (
            container(json!({"ports": [{"containerPort": 15001}]})),
            "spec.containers[app].ports.containerPort",
        ),
        (annotated, "config.ringmail.io/log-level"),
        (json!({"metadata": {}}), "spec"),
        (
            json!({"metadata": {"annotations": {"a": 1}}, "spec": {}}),
            "metadata.annotations",
        ),
    ];
    for (mut pod, field) in rows {
        let refused = into(&mut pod).expect_err("refused");
        assert_eq!(refused.field, field);
    }
}

#[test]
fn what_the_namespace_got_wrong_is_said_to_be_its_own() {
    let inherited = BTreeMap::from([("config.ringmail.io/log-level".into(), "loud".into())]);
    let around = Surroundings {
        owner: None,
        inherited,
        controller: None,
    };
    let refused = inject(&mut pod(json!({})), &around, &settings()).expect_err("refused");
    assert_eq!(
        refused.field,
        "config.ringmail.io/log-level of the namespace"
    );
}

#[test]
fn unknown_keys_of_ours_are_warned_of() {
    let mut pod = pod(json!({}));
    pod["metadata"]["annotations"] = json!({"config.ringmail.io/skip-ports": "1", "other": "x"});
    let (_, warnings) = into(&mut pod).expect("injected");
    assert_eq!(
        warnings,
        ["annotation config.ringmail.io/skip-ports is unknown"]
    );
}

#[test]
fn templates_of_workloads_and_namespaces_beside_them() {
    let template = json!({"spec": {"containers": []}});
    let mut objects = [
        json!({"kind": "Namespace", "metadata": {"name": "shop", "annotations": {
            "config.ringmail.io/log-level": "debug",
        }}}),
        json!({"kind": "List", "items": [
            {"kind": "Deployment", "metadata": {"name": "cart", "namespace": "shop"},
             "spec": {"template": template}},
            {"kind": "CronJob", "metadata": {"name": "tidy"},
             "spec": {"jobTemplate": {"spec": {"template": template}}}},
        ]}),
        json!({"kind": "Service", "metadata": {"name": "cart"}}),
    ];
    let found = inject_all(&mut objects, &settings()).expect("injected");
    let names: Vec<_> = found.iter().map(|one| one.object.as_str()).collect();
    assert_eq!(names, ["Deployment shop/cart", "CronJob /tidy"]);
    let levels = |object: &Value, path: &str| {
        let containers =
            object.pointer(path).expect("a template")["spec"]["initContainers"].to_string();
        containers.matches("RINGMAIL_LOG").count()
    };
    assert_eq!(levels(&objects[1]["items"][0], "/spec/template"), 2);
    assert_eq!(
        levels(&objects[1]["items"][1], "/spec/jobTemplate/spec/template"),
        0
    );
    let mut broken = [json!({"kind": "Job", "metadata": {"name": "x"}})];
    let refused = inject_all(&mut broken, &settings()).expect_err("no template");
    assert_eq!(refused.field, "Job /x");
}

#[test]
fn sidecars_are_told_who_collects_unless_the_pod_says_otherwise() {
    let settings = Settings {
        telemetry: Telemetry {
            collector: Some("http://otel:4317".parse().expect("valid")),
            audit: true,
            trace_sample: "0.01".to_owned(),
        },
        ..settings()
    };
    for (own, sample) in [(None, "0.01"), (Some("1"), "1")] {
        let mut pod = pod(json!({}));
        if let Some(own) = own {
            pod["metadata"]["annotations"] = json!({"config.ringmail.io/trace-sample": own});
        }
        inject(&mut pod, &Surroundings::default(), &settings).expect("injected");
        let proxy = &pod["spec"]["initContainers"][1]["env"];
        let variables = proxy.as_array().expect("variables").iter();
        let value = |name: &str| {
            let mut said = variables.clone().filter(|one| one["name"] == name);
            let value = said.next().map(|one| one["value"].clone());
            assert_eq!(said.next(), None, "{name} is said twice");
            value.unwrap_or_default()
        };
        assert_eq!(value("RINGMAIL_OTLP_ENDPOINT"), "http://otel:4317");
        assert_eq!(value("RINGMAIL_AUDIT_OTLP"), "on");
        assert_eq!(value("RINGMAIL_TRACE_SAMPLE"), sample);
    }
}
