//! What the controller is told while it runs, and how soon proxies act on it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;
use ringmail_tests::load::Client;
use ringmail_tests::mesh::Workload;
use ringmail_tests::wait;

use crate::Scenario;
use crate::shop::{LIMIT, Plan, WEB, play, refusal, service};

pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    (
        "configuration::endpoints_come_and_go",
        endpoints_come_and_go,
    ),
    (
        "configuration::a_bad_file_changes_nothing",
        a_bad_file_changes_nothing,
    ),
];

/// From a file's change to the first request that follows it.
const SOON: Duration = Duration::from_secs(1);

fn endpoints_come_and_go(bed: Bed) -> anyhow::Result<()> {
    play(bed, &Plan::default(), |shop| {
        let first = &Plan::default().server;
        let second_pod = shop.node.pod("second")?;
        let second = Workload::new("shop", "second");
        apps::serve_web(&second_pod.namespace, "second", 8080)?;
        shop.mesh.put_workload(&second_pod, &second)?;
        let _sidecar = shop.mesh.sidecar(&second_pod, &second)?;
        ensure!(shop.get(WEB, "/")?.headers["x-app"] == "shop");
        let load = shop.load(Client::Http1(WEB, "/".to_owned()), 2)?;

        let asked = || -> anyhow::Result<String> {
            let reply = shop.get(WEB, "/")?;
            let app = reply.headers.get("x-app");
            Ok(app.context("no app answered")?.to_str()?.to_owned())
        };
        let follow = |wanted: &str| -> anyhow::Result<()> {
            let begun = Instant::now();
            wait::until(LIMIT, || asked().is_ok_and(|app| app == wanted))
                .context(wanted.to_owned())?;
            ensure!(
                begun.elapsed() < SOON,
                "{wanted} after {:?}",
                begun.elapsed()
            );
            Ok(())
        };
        shop.mesh
            .put_service(&service(), &[(first, &shop.server), (&second, &second_pod)])?;
        follow("second")?;
        follow("shop")?;
        shop.mesh
            .put_service(&service(), &[(&second, &second_pod)])?;
        follow("second")?;
        wait::until(SOON, || {
            (0..4).all(|_| asked().is_ok_and(|app| app == "second"))
        })
        .context("an endpoint that is gone is still asked")?;
        shop.assert_unhurt(load)?;

        shop.mesh.put_service(&service(), &[])?;
        wait::until(SOON, || {
            let reply = shop.get(WEB, "/");
            reply.is_ok_and(|reply| reply.status == 503 && refusal(&reply) == Some("no_endpoints"))
        })
        .context("a service without endpoints")?;
        shop.mesh
            .put_service(&service(), &[(first, &shop.server)])?;
        follow("shop")?;
        shop.assert_wire_unread()
    })
}

fn a_bad_file_changes_nothing(bed: Bed) -> anyhow::Result<()> {
    /// Announced by the file that is bad, together with what is good in it.
    const NEW: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 50)), 80);
    play(bed, &Plan::default(), |shop| {
        ensure!(shop.get(WEB, "/")?.status == 200);
        let load = shop.load(Client::Http1(WEB, "/".to_owned()), 2)?;
        let bad = [
            "kind: Service\nmetadata: {name: [}\n",
            "apiVersion: v1\nkind: Service\nmetadata: {name: server, namespace: shop}\nspec: {ports: [{port: eighty}]}\n",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: server, namespace: shop, annotations: {ringmail.io/inbound: open}}\n",
        ];
        let refused = || -> anyhow::Result<Vec<String>> {
            let page = shop.mesh.controller_page("/status")?;
            let status: serde_json::Value = serde_json::from_slice(&page.body)?;
            let files = status["files"].as_array().context("no files")?;
            let refused = files.iter().filter(|file| !file["refused"].is_null());
            Ok(refused.map(ToString::to_string).collect())
        };
        for text in bad {
            for name in ["service-shop-server", "pod-shop-server"] {
                shop.mesh.put(name, text)?;
                let says = |file: &String| file.contains(&format!("{name}.yaml"));
                wait::until(LIMIT, || {
                    refused().is_ok_and(|files| files.iter().any(says))
                })
                .with_context(|| format!("nobody says that {text:?} is bad"))?;
            }
            let reply = shop.get(WEB, "/")?;
            ensure!(reply.status == 200, "{text:?}: {reply:?}");
            ensure!(
                shop.get(shop.server_at(8080), "/")?.status == 200,
                "{text:?}"
            );
        }
        // And it recovers: what is put right is followed.
        let server = Plan::default().server;
        let mut good = service();
        good.cluster_ips.push(NEW.ip());
        shop.mesh.put_workload(&shop.server, &server)?;
        shop.mesh.put_service(&good, &[(&server, &shop.server)])?;
        wait::until(LIMIT, || {
            shop.get(NEW, "/").is_ok_and(|reply| reply.status == 200)
        })
        .context("a good file is not followed")?;
        wait::until(LIMIT, || refused().is_ok_and(|files| files.is_empty()))
            .with_context(|| format!("still refused: {:?}", refused()))?;
        shop.assert_unhurt(load)?;
        Ok(())
    })
}
