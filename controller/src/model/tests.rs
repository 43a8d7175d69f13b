use super::*;
use crate::source::objects::Objects;
use ringmail_proto::workload::{InboundMode, Protocol};

/// A model of YAML as a user writes it.
fn mesh(yaml: &str) -> Mesh {
    let objects: Objects = crate::source::parse_text(yaml).into_iter().collect();
    Mesh::build(&objects, &Defaults::of_tests())
}

fn pod(name: &str, ip: &str, more: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: cart}}}}\nspec: {{serviceAccountName: cart, containers: [{{name: app, ports: [{{containerPort: 8080, name: web}}]}}]}}\nstatus: {{podIP: {ip}{more}}}\n"
    )
}

const MESHED: &str = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {ringmail.io/inject: enabled}}\n";

fn service(spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn slice(endpoint: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: cart-x, namespace: shop, labels: {{kubernetes.io/service-name: cart}}}}\naddressType: IPv4\nports: [{{name: web, port: 8080}}]\nendpoints: [{endpoint}]\n"
    )
}

const SELECTED: &str =
    "clusterIP: 10.96.0.5, selector: {app: cart}, ports: [{port: 80, targetPort: web, name: web}]";

/// `External`, or name, protocol and endpoints with the last part of their identity.
fn show(mesh: &Mesh, address: &str) -> String {
    let address = address.parse().expect("address");
    match mesh
        .answer(address, &"shop".into())
        .destination(address)
        .kind
    {
        DestinationKind::External => "external".into(),
        DestinationKind::Service(service) => {
            let endpoint = |one: &Endpoint| {
                let id = one
                    .identity
                    .as_ref()
                    .map_or("plain", |id| id.service_account());
                format!(" {}={}@{id}", one.workload.name, one.address)
            };
            let endpoints: String = service.endpoints.iter().map(endpoint).collect();
            format!("{} {:?}{endpoints}", service.name.name, service.protocol)
        }
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn who_answers_at_an_address() {
    let two = pod("a", "10.1.0.1", "") + &pod("b", "10.1.0.2", "");
    let by_name = "{addresses: [10.1.0.1], targetRef: {kind: Pod, name: a}}";
    let rows: Vec<(&str, String, &str, &str)> = vec![
        ("nothing", String::new(), "1.2.3.4:80", "external"),
        (
            "by selector",
            service(SELECTED) + &two,
            "10.96.0.5:80",
            "cart Detect a=10.1.0.1:8080@plain b=10.1.0.2:8080@plain",
        ),
        (
            "another port",
            service(SELECTED) + &two,
            "10.96.0.5:81",
            "external",
        ),
        (
            "meshed",
            format!("{MESHED}{}{two}", service(SELECTED)),
            "10.96.0.5:80",
            "cart Detect a=10.1.0.1:8080@cart b=10.1.0.2:8080@cart",
        ),
        (
            "by slice: the slice decides",
            format!("{MESHED}{}{two}{}", service(SELECTED), slice(by_name)),
            "10.96.0.5:80",
            "cart Detect a=10.1.0.1:8080@cart",
        ),
        (
            "not ready",
            format!(
                "{MESHED}{}{two}{}",
                service(SELECTED),
                slice(
                    "{addresses: [10.1.0.1], conditions: {ready: false}, targetRef: {kind: Pod, name: a}}"
                )
            ),
            "10.96.0.5:80",
            "cart Detect",
        ),
        (
            "a pod that is gone",
            format!(
                "{MESHED}{}{two}{}",
                service(SELECTED),
                slice("{addresses: [10.1.0.9], targetRef: {kind: Pod, name: gone}}")
            ),
            "10.96.0.5:80",
            "cart Detect",
        ),
        (
            "an address that is another pod's now",
            format!(
                "{MESHED}{}{two}{}",
                service(SELECTED),
                slice("{addresses: [10.1.0.2], targetRef: {kind: Pod, name: a}}")
            ),
            "10.96.0.5:80",
            "cart Detect",
        ),
        (
            "without a reference the pod is found by its address, with its identity",
            format!(
                "{MESHED}{}{two}{}",
                service(SELECTED),
                slice("{addresses: [10.1.0.2]}")
            ),
            "10.96.0.5:80",
            "cart Detect b=10.1.0.2:8080@cart",
        ),
        (
            "a server outside",
            format!(
                "{MESHED}{}{}",
                service(SELECTED),
                slice("{addresses: [192.0.2.1]}")
            ),
            "10.96.0.5:80",
            "cart Detect cart=192.0.2.1:8080@plain",
        ),
        (
            "a pod directly",
            format!("{MESHED}{two}"),
            "10.1.0.1:9999",
            "a Detect a=10.1.0.1:9999@cart",
        ),
        (
            "headless, with the service's protocol",
            format!(
                "{MESHED}{}{two}",
                service(
                    "clusterIP: None, selector: {app: cart}, ports: [{port: 8080, name: grpc}]"
                )
            ),
            "10.1.0.2:8080",
            "b Http2 b=10.1.0.2:8080@cart",
        ),
        (
            "ended",
            format!("{MESHED}{}", pod("a", "10.1.0.1", ", phase: Succeeded")),
            "10.1.0.1:80",
            "external",
        ),
        (
            "opaque by number",
            service(
                "clusterIP: 10.96.0.5, selector: {app: cart}, ports: [{port: 3306, targetPort: 8080}]",
            ) + &two,
            "10.96.0.5:3306",
            "cart Tcp a=10.1.0.1:8080@plain b=10.1.0.2:8080@plain",
        ),
        (
            "and the pod's port with it",
            service(
                "clusterIP: 10.96.0.5, selector: {app: cart}, ports: [{port: 3306, targetPort: 8080}]",
            ) + &two,
            "10.1.0.1:8080",
            "a Tcp a=10.1.0.1:8080@plain",
        ),
        (
            "UDP is not ours",
            service(
                "clusterIP: 10.96.0.5, selector: {app: cart}, ports: [{port: 53, protocol: UDP}]",
            ) + &two,
            "10.96.0.5:53",
            "external",
        ),
        (
            "the newer of two pods has the address",
            format!(
                "{MESHED}{}{}{}",
                pod("new", "10.1.0.1", "").replace(
                    "labels:",
                    "creationTimestamp: 2026-01-02T00:00:00Z, labels:"
                ),
                pod("old", "10.1.0.1", "").replace(
                    "labels:",
                    "creationTimestamp: 2026-01-01T00:00:00Z, labels:"
                ),
                service(SELECTED)
            ),
            "10.96.0.5:80",
            "cart Detect new=10.1.0.1:8080@cart",
        ),
        (
            "the pod's annotation wins",
            format!(
                "{MESHED}{}",
                pod("a", "10.1.0.1", "").replace(
                    "labels:",
                    "annotations: {ringmail.io/inject: disabled}, labels:"
                )
            ),
            "10.1.0.1:80",
            "a Detect a=10.1.0.1:80@plain",
        ),
        (
            "opaque by annotation",
            format!(
                "{MESHED}{}{}",
                service(&SELECTED.replace("name: web}]", "name: web, appProtocol: http}]")),
                pod("a", "10.1.0.1", "").replace(
                    "labels:",
                    "annotations: {config.ringmail.io/opaque-ports: '8080'}, labels:"
                )
            ),
            "10.96.0.5:80",
            "cart Tcp a=10.1.0.1:8080@cart",
        ),
        (
            "the node's address is no pod",
            format!(
                "{MESHED}{}",
                pod("a", "10.1.0.1", "").replace("spec: {", "spec: {hostNetwork: true, ")
            ),
            "10.1.0.1:80",
            "external",
        ),
        (
            "by family",
            format!(
                "{MESHED}{}{}",
                service(
                    "clusterIP: 10.96.0.5, clusterIPs: [10.96.0.5, 'fd00::5'], selector: {app: cart}, ports: [{port: 80}]"
                ),
                pod(
                    "a",
                    "10.1.0.1",
                    ", podIPs: [{ip: 10.1.0.1}, {ip: 'fd00:1::1'}]"
                )
            ),
            "[fd00::5]:80",
            "cart Detect a=[fd00:1::1]:80@cart",
        ),
    ];
    for (what, yaml, address, expected) in rows {
        assert_eq!(show(&mesh(&yaml), address), expected, "{what}");
    }
}

#[test]
fn contradictions_are_reported() {
    let yaml = pod("a", "10.1.0.1", "") + &pod("b", "10.1.0.1", "");
    let problems = mesh(&yaml).problems().join("\n");
    assert!(
        problems.contains("pods shop/a and shop/b both have address 10.1.0.1"),
        "{problems}"
    );
}

#[test]
fn a_workload_says_its_mode_ports_and_probes() {
    let yaml = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {ringmail.io/inbound: permissive}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: shop}
spec:
  containers:
  - name: app
    ports: [{containerPort: 8080, name: http-web}, {containerPort: 9000, name: admin}, {containerPort: 5432}]
    livenessProbe: {httpGet: {path: /live, port: http-web}}
    readinessProbe: {httpGet: {port: 9000}}
    startupProbe: {tcpSocket: {port: admin}}
  - name: other
    livenessProbe: {httpGet: {path: //./li%76e, port: 8080}}
    readinessProbe: {httpGet: {path: no-slash, port: 8080}}
    startupProbe: {exec: {command: [ls]}}
    lifecycle:
      postStart: {httpGet: {path: /started, port: 8081}}
      preStop: {httpGet: {path: /live, port: 8080}}
  - name: third
    lifecycle:
      postStart: {exec: {command: [ls]}}
      preStop: {httpGet: {path: /stop, port: 8443, scheme: HTTPS}}
status: {podIP: 10.1.0.1}
";
    let workload = mesh(yaml)
        .workload(&"shop/a".parse().expect("name"))
        .expect("known");
    assert_eq!(workload.service_account, "default");
    assert_eq!(workload.inbound_mode, InboundMode::Permissive);
    assert_eq!(workload.protocol(8080), Protocol::Http1);
    assert_eq!(workload.protocol(9000), Protocol::Detect);
    assert_eq!(workload.protocol(5432), Protocol::Tcp);
    let probes: Vec<String> = workload
        .probes
        .iter()
        .map(|probe| {
            format!(
                "{}{}",
                probe.port,
                probe.path.as_deref().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(probes, ["8080/live", "9000/", "9000", "8081/started"]);
}

#[test]
fn what_is_told_is_accepted() {
    let yaml = format!(
        "{MESHED}{}{}{}",
        service(SELECTED),
        pod("a", "10.1.0.1", ""),
        slice("{addresses: [10.1.0.1]}, {addresses: [192.0.2.1]}")
    );
    let mesh = mesh(&yaml);
    for address in ["10.96.0.5:80", "10.1.0.1:8080", "1.2.3.4:5"] {
        let address: SocketAddr = address.parse().expect("address");
        let told = mesh.answer(address, &"shop".into()).destination(address);
        let wire = ringmail_proto::pb::Destination::from(&told);
        assert_eq!(Destination::try_from(wire), Ok(told));
    }
}

#[test]
fn the_same_objects_share_what_did_not_change() {
    let yaml = format!("{MESHED}{}{}", service(SELECTED), pod("a", "10.1.0.1", ""));
    let (old, mut new) = (mesh(&yaml), mesh(&yaml));
    assert_eq!(old, new);
    new.share(&old);
    let address = "10.96.0.5:80".parse().expect("address");
    let (Answer::Service(a), Answer::Service(b)) = (
        old.answer(address, &"shop".into()),
        new.answer(address, &"shop".into()),
    ) else {
        unreachable!("a service answers");
    };
    assert!(Arc::ptr_eq(&a, &b));
}

#[test]
fn zones_of_pods_and_hints_of_endpoints() {
    let labelled = pod("a", "10.1.0.1", "").replace(
        "labels: {app: cart}",
        "labels: {app: cart, topology.kubernetes.io/zone: x}",
    );
    let endpoint = |name: &str, ip: &str, hints: &str| {
        format!(
            "{{addresses: [{ip}], zone: y, hints: {{forZones: [{hints}]}}, targetRef: {{kind: Pod, name: {name}}}}}"
        )
    };
    let endpoints = [
        endpoint("a", "10.1.0.1", "{name: x}, {name: y}"),
        endpoint("b", "10.1.0.2", ""),
    ];
    let mesh = mesh(
        &(service(SELECTED)
            + &labelled
            + &pod("b", "10.1.0.2", "")
            + &slice(&endpoints.join(", "))),
    );
    let zone = |name| {
        let name = WorkloadName::new("shop", name).expect("valid");
        mesh.workload(&name).expect("alive").zone.clone()
    };
    // The pod's own label, else what a slice says of it.
    assert_eq!(zone("a").as_deref(), Some("x"));
    assert_eq!(zone("b").as_deref(), Some("y"));
    let address = "10.96.0.5:80".parse().expect("address");
    let service = match mesh.answer(address, &"shop".into()) {
        Answer::Service(dialled) => Some(dialled.service.clone()),
        Answer::Pod(_) | Answer::External => None,
    };
    let service = service.expect("a service");
    let hints: Vec<_> = service
        .endpoints
        .iter()
        .map(|one| one.zone_hints.join(" "))
        .collect();
    assert_eq!(hints, ["x y", ""]);
    // And they cross.
    for endpoint in &service.endpoints {
        let wire = ringmail_proto::pb::Endpoint::from(endpoint);
        assert_eq!(Endpoint::try_from(wire).as_ref(), Ok(endpoint));
    }
    let b = WorkloadName::new("shop", "b").expect("valid");
    let workload = mesh.workload(&b).expect("alive");
    let wire = ringmail_proto::pb::Workload::from(&*workload);
    assert_eq!(Workload::try_from(wire).as_ref(), Ok(&*workload));
}
