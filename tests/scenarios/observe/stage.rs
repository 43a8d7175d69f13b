//! Who plays: besides the shop's client and server a workload that takes plaintext, one that does nothing, an authorizer, and
//! somebody without a sidecar; policies and a route for each kind of figure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Context;
use ringmail_tests::apps::{self, Authorizer};
use ringmail_tests::mesh::{Service, ServicePort, Sidecar, Workload};
use ringmail_tests::netns::Pod;
use ringmail_tests::wait;

use crate::outage::JwtIssuer;
use crate::shop::{LIMIT, Shop};

/// The service of who takes plaintext, and of the authorizer.
pub(super) const OPEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 30)), 80);
const AUTHORIZER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 31)), 80);

/// Of `limited`, a second.
pub(super) const LIMITED: f64 = 5.0;

/// Fields are dropped in order: sidecars before their pods.
pub(super) struct Stage {
    _open_sidecar: Sidecar,
    pub(super) idle_sidecar: Sidecar,
    _opa_sidecar: Sidecar,
    _authorizer: Authorizer,
    pub(super) open: Pod,
    pub(super) idle: Pod,
    opa: Pod,
    pub(super) outside: Pod,
}

impl Stage {
    pub(super) fn set(shop: &Shop<'_>, issuer: &JwtIssuer) -> anyhow::Result<Self> {
        let pod = |name| shop.node.pod(name);
        let (open, idle, opa, outside) = (pod("open")?, pod("idle")?, pod("opa")?, pod("outside")?);
        let workload = |name| issuer.vouch(Workload::new("shop", name));
        let lenient = workload("open")?.annotated("ringmail.io/inbound", "permissive");
        let (idler, asked) = (workload("idle")?, workload("opa")?);
        apps::serve_web(&open.namespace, "open", 8080)?;
        let authorizer = Authorizer::start(&opa.namespace, 9191)?;
        let sidecar = |pod: &Pod, workload: &Workload| {
            shop.mesh.put_workload(pod, workload)?;
            shop.mesh.sidecar(pod, workload)
        };
        let _open_sidecar = sidecar(&open, &lenient)?;
        let idle_sidecar = sidecar(&idle, &idler)?;
        let opa_sidecar = sidecar(&opa, &asked)?;
        shop.announce(&service("open", OPEN, 8080), &[(&lenient, &open)])?;
        shop.announce(&service("opa", AUTHORIZER, 9191), &[(&asked, &opa)])?;
        put_objects(shop)?;
        Ok(Self {
            _open_sidecar,
            idle_sidecar,
            _opa_sidecar: opa_sidecar,
            _authorizer: authorizer,
            open,
            idle,
            opa,
            outside,
        })
    }

    /// Those that are meshed.
    pub(super) fn pods(&self) -> [&Pod; 3] {
        [&self.open, &self.idle, &self.opa]
    }
}

fn service(name: &str, address: SocketAddr, target: u16) -> Service {
    Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        cluster_ips: vec![address.ip()],
        ports: vec![ServicePort {
            name: "web".to_owned(),
            port: address.port(),
            target,
            app_protocol: None,
        }],
    }
}

/// A policy of a namespace.
pub(super) fn authorization(name: &str, target: &str, rest: &str) -> String {
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{target}]\n  {rest}\n"
    )
}

fn limit(name: &str, rest: &str) -> String {
    format!(
        "apiVersion: ringmail.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  targetRefs: [{{kind: Service, name: server, port: 80}}]\n{rest}\n"
    )
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: server, port: 80}]
  rules:
  - name: mirrored
    matches: [{path: {value: /mirrored}}]
    filters: [{type: RequestMirror, requestMirror: {backendRef: {name: open, port: 80}}}]
    backendRefs: [{name: server, port: 80}]
  - name: tried-again
    matches: [{path: {value: /status/503}}]
    retry: {codes: [503], attempts: 2, backoff: 1ms}
    backendRefs: [{name: open, port: 80}]
  - name: rest
    backendRefs: [{name: server, port: 80}]
";

fn put_objects(shop: &Shop<'_>) -> anyhow::Result<()> {
    // Of its web port: no rule about paths lets bytes pass.
    let server = "{kind: Service, name: server, port: 80}";
    let put = |name: &str, yaml: &str| shop.mesh.put(name, yaml);
    put(
        "secret",
        &authorization(
            "secret",
            server,
            "action: deny\n  rules: [{to: [{paths: [{prefix: /secret}]}]}]",
        ),
    )?;
    put(
        "would-deny",
        &authorization(
            "would-deny",
            server,
            "action: deny\n  mode: shadow\n  rules: [{to: [{paths: [{prefix: /bytes}]}]}]",
        ),
    )?;
    put(
        "asks",
        &authorization(
            "asks",
            "{kind: Service, name: open}",
            "action: external\n  external: {service: {namespace: shop, name: opa, port: 80}}",
        ),
    )?;
    put(
        "limited",
        &limit(
            "limited",
            &format!(
                "  limits: [{{requests: {LIMITED}, per: second, match: [{{to: {{paths: [{{prefix: /limited}}]}}}}]}}]"
            ),
        ),
    )?;
    put(
        "would-limit",
        &limit(
            "would-limit",
            "  mode: shadow\n  limits: [{requests: 10, per: second, match: [{to: {paths: [{prefix: /bytes}]}}]}]",
        ),
    )?;
    put("route", ROUTE)?;
    wait::until(LIMIT, || is_settled(shop).unwrap_or(false)).with_context(|| {
        let page = shop.mesh.controller_page("/status");
        format!(
            "not in force: {}",
            page.map_or_else(|error| error.to_string(), |page| page.text())
        )
    })
}

/// Whether every policy is applied, and the route accepted.
fn is_settled(shop: &Shop<'_>) -> anyhow::Result<bool> {
    let page = shop.mesh.controller_page("/status")?;
    let status: serde_json::Value = serde_json::from_slice(&page.body)?;
    let policies = status["policies"].as_array().context("no policies")?;
    let is_applied = |one: &serde_json::Value| {
        let mut conditions = one["conditions"].as_array().into_iter().flatten();
        conditions.any(|one| one["type"] == "Applied" && one["status"] == "True")
    };
    let route = &status["routes"][0]["parents"][0]["conditions"][0]["reason"];
    Ok(policies.len() == 5 && policies.iter().all(is_applied) && route == "Accepted")
}
