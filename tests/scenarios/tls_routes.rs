//! The apps' own TLS: it passes untouched, to whom its server name says where a TLSRoute is for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, ensure};
use rcgen::CertifiedKey;
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::{Service, ServicePort, Workload};
use ringmail_tests::netns::Pod;
use ringmail_tests::wait;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use crate::Scenario;
use crate::raw::{App, dial, read_rest};
use crate::shop::{LIMIT, Plan, Shop, play};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("tls_routes::by_server_name", by_server_name),
    (
        "tls_routes::what_no_route_is_for_is_cut",
        what_no_route_is_for_is_cut,
    ),
];

/// What the client dials.
const DIALLED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(FRONT), 443);
const FRONT: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 96, 0, 40);
/// The alert unrecognized_name, fatal, as a record.
const UNRECOGNIZED_NAME: &str = "\u{15}\u{3}\u{3}\u{0}\u{2}\u{2}\u{70}";

const ROUTES: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: one, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: front, port: 443}]
  hostnames: [one.example]
  rules: [{backendRefs: [{name: one, port: 443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: rest, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: front, port: 443}]
  hostnames: ['*.example']
  rules: [{backendRefs: [{name: two, port: 443}, {name: one, port: 443, weight: 0}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: lost, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: front, port: 443}]
  hostnames: [lost.test]
  rules: [{backendRefs: [{name: nobody, port: 443}]}]
";

/// A TLS server of its own: proves a name, says it once the client has spoken, and closes.
struct Server {
    app: App,
    config: Arc<ServerConfig>,
    name: String,
}

impl Server {
    /// Listens in `pod`; what it proves is added to `trusted`.
    fn start(pod: &Pod, names: &[&str], trusted: &mut RootCertStore) -> anyhow::Result<Self> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let name = names.join(" ");
        let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
        trusted.add(cert.der().clone())?;
        let key = PrivateKeyDer::try_from(signing_key.serialize_der());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.map_err(anyhow::Error::msg)?)?;
        Ok(Self {
            app: App::listen(pod, 8443)?,
            config: Arc::new(config),
            name,
        })
    }

    fn serve_one(&self) -> anyhow::Result<()> {
        let session = ServerConnection::new(self.config.clone())?;
        let mut stream = StreamOwned::new(session, self.app.accept()?);
        stream.read_exact(&mut [0; 5])?;
        stream.write_all(self.name.as_bytes())?;
        stream.conn.send_close_notify();
        Ok(stream.flush()?)
    }
}

/// Who answers a client that asks for `name`, verified as any client would.
fn answered(stream: TcpStream, name: &str, trusted: &Arc<RootCertStore>) -> anyhow::Result<String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned())?;
    let session = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = StreamOwned::new(session, stream);
    stream.write_all(b"hello")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// A service in front of two TLS servers, each behind a service of its own, and the routes in force.
fn with_routes(
    bed: Bed,
    scenario: impl FnOnce(&Shop<'_>, [Server; 2], Arc<RootCertStore>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let other = shop.node.pod("other")?;
        let workload = Workload::new("shop", "other");
        shop.mesh.put_workload(&other, &workload)?;
        let _sidecar = shop.mesh.sidecar(&other, &workload)?;
        let mut trusted = RootCertStore::empty();
        let servers = [
            Server::start(&shop.server, &["one.example"], &mut trusted)?,
            Server::start(&other, &["two.example", "a.b.example"], &mut trusted)?,
        ];
        let server = Plan::default().server;
        shop.announce(&service("one", 41), &[(&server, &shop.server)])?;
        shop.announce(&service("two", 42), &[(&workload, &other)])?;
        shop.announce(&service("front", 40), &[(&server, &shop.server)])?;
        shop.mesh.put("routes", ROUTES)?;
        let accepted = || -> anyhow::Result<usize> {
            let page = shop.mesh.controller_page("/status")?;
            let status: serde_json::Value = serde_json::from_slice(&page.body)?;
            let routes = status["routes"].as_array().context("no routes")?;
            let condition = |route: &serde_json::Value| {
                route["parents"][0]["conditions"][0]["reason"] == "Accepted"
            };
            Ok(routes.iter().filter(|route| condition(route)).count())
        };
        wait::until(LIMIT, || accepted().is_ok_and(|count| count == 3))
            .context("the routes are not accepted")?;
        scenario(shop, servers, Arc::new(trusted))
    })
}

fn service(name: &str, last: u8) -> Service {
    Service {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        cluster_ips: vec![[10, 96, 0, last].into()],
        ports: vec![ServicePort {
            name: "https".to_owned(),
            port: 443,
            target: 8443,
            app_protocol: None,
        }],
    }
}

fn by_server_name(bed: Bed) -> anyhow::Result<()> {
    with_routes(bed, |shop, servers, trusted| {
        let rows = [
            ("one.example", &servers[0]),
            ("two.example", &servers[1]),
            ("a.b.example", &servers[1]),
        ];
        for (name, server) in rows {
            let said = thread::scope(|scope| {
                let served = scope.spawn(|| server.serve_one());
                let said = answered(dial(&shop.client, DIALLED)?, name, &trusted);
                let served = served.join().map_err(|_| anyhow::Error::msg("panicked"))?;
                said.and_then(|said| served.map(|()| said))
            })
            .with_context(|| name.to_owned())?;
            ensure!(said == server.name, "{name} is answered by {said}");
        }
        shop.assert_wire_unread()
    })
}

/// And its client is told so in TLS; what is no TLS is cut at once.
fn what_no_route_is_for_is_cut(bed: Bed) -> anyhow::Result<()> {
    with_routes(bed, |shop, _servers, trusted| {
        for (name, reason) in [("else.test", "no_route"), ("lost.test", "no_backend")] {
            let refused = answered(dial(&shop.client, DIALLED)?, name, &trusted);
            let error = refused.expect_err("nobody is there").to_string();
            ensure!(error.contains("UnrecognisedName"), "{name}: {error}");
            shop.wait_client_refusal(reason)?;
        }
        let mut plain = dial(&shop.client, DIALLED)?;
        plain.write_all(b"GET / HTTP/1.1\r\nhost: one.example\r\n\r\n")?;
        let (said, _) = read_rest(&mut plain);
        ensure!(said.is_empty(), "{said}");
        shop.wait_client_refusal("not_tls")?;
        // A client that names nobody.
        let mut nameless = dial(&shop.client, DIALLED)?;
        nameless.write_all(&NAMELESS_HELLO)?;
        let (said, _) = read_rest(&mut nameless);
        ensure!(said == UNRECOGNIZED_NAME, "{said:?}");
        Ok(())
    })
}

/// The least of a ClientHello: TLS 1.2, one cipher suite, no extensions.
const NAMELESS_HELLO: [u8; 5 + 45] = {
    let mut hello = [0; 50];
    (hello[0], hello[1], hello[2], hello[4]) = (22, 3, 1, 45);
    (hello[5], hello[8], hello[9], hello[10]) = (1, 41, 3, 3);
    (hello[45], hello[46], hello[47], hello[48]) = (2, 0xc0, 0x2b, 1);
    hello
};
