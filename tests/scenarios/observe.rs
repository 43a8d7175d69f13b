//! Dashboards and alerts before a real Prometheus: it scrapes a mesh under load and faults, with our rules at the pace of a
//! drill. What panels ask has an answer, and the right one where the load is known; every alert fires when it should, and
//! is over when its reason is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ringmail_tests::bed::Bed;
use ringmail_tests::mesh::{CONTROLLER_METRICS, PROXY_ADMIN_PORT, Settings};
use ringmail_tests::netns::Pod;
use ringmail_tests::observe::board::Needs;
use ringmail_tests::observe::boards;
use ringmail_tests::prometheus::{self, Prometheus};
use ringmail_tests::wait;

use crate::outage::JwtIssuer;
use crate::shop::{LIMIT, Plan, Shop, play};
use crate::suites::tools;

/// Who plays.
mod stage;

/// A load that is known, and what is to be seen of it.
mod figures;

/// What goes wrong, and comes right again.
mod drills;

use stage::Stage;

/// How long certificates are valid here: a renewal that fails is to be seen soon.
const LIFE: Duration = Duration::from_secs(30);

/// Alerts that take an API server: tests/cluster drills them.
const OF_CLUSTERS: [&str; 2] = ["RingmailInjectionFailing", "RingmailPodsUncovered"];

pub(crate) fn proof(bed: Bed) -> anyhow::Result<()> {
    let begun = Instant::now();
    let issuer = JwtIssuer::new()?;
    let default = Plan::default();
    let plan = Plan {
        settings: Settings {
            leaf_lifetime: LIFE,
            controller_flags: issuer.flags(),
        },
        client: issuer.vouch(default.client)?,
        server: issuer.vouch(default.server)?,
    };
    play(bed, &plan, |shop| {
        let stage = Stage::set(shop, &issuer)?;
        let mut prometheus = start(shop, &stage.pods())?;
        let tell = |what: &str| eprintln!("observe: {:?}: {what}", begun.elapsed());
        tell("calm");
        prometheus.calm()?;
        tell("known load");
        figures::known_load(shop, &stage, &mut prometheus)?;
        tell("faults of proxies");
        drills::quiet(shop, &stage)?;
        drills::proxies(shop, &stage, &mut prometheus)?;
        tell("no controller");
        drills::controller(shop, &mut prometheus)?;
        tell("panels");
        panels(&prometheus, begun)?;
        let all = prometheus::alerts();
        let here = all
            .iter()
            .filter(|name| !OF_CLUSTERS.contains(&name.as_str()));
        let never: Vec<_> = here
            .filter(|name| !prometheus.drilled().contains(*name))
            .collect();
        ensure!(never.is_empty(), "never fired, or not over: {never:?}");
        tell("done");
        Ok(())
    })
}

/// On the node, and scrapes everybody.
fn start<'node>(shop: &Shop<'node>, others: &[&Pod]) -> anyhow::Result<Prometheus<'node>> {
    let pods = [&shop.client, &shop.server].into_iter();
    let pods = pods.chain(others.iter().copied());
    let proxy = |pod: &Pod| {
        (
            pod.name.clone(),
            SocketAddr::new(pod.v4.into(), PROXY_ADMIN_PORT),
        )
    };
    let controller = ("controller".to_owned(), CONTROLLER_METRICS);
    let targets: Vec<_> = pods.map(proxy).chain([controller]).collect();
    let (node, log) = (&shop.node.namespace, shop.mesh.log("prometheus"));
    Prometheus::start(
        tools::command("prometheus")?,
        &targets,
        |command| node.start(command, 0, &log),
        Box::new(|address, path| node.run(|| prometheus::page(address, path))?),
    )
}

/// Panels that take more than a mesh show something of what goes on; nothing is asked where there is no Prometheus.
pub(crate) fn shown(
    shop: &Shop<'_>,
    needs: Needs,
    mut goes_on: impl FnMut() -> bool,
) -> anyhow::Result<()> {
    if tools::command("prometheus").is_err() {
        eprintln!("TIER SKIPPED: panels of {needs:?}: no prometheus; install by .ci/tools");
        return Ok(());
    }
    let prometheus = start(shop, &[])?;
    let boards = boards::all();
    let panels = boards.iter().flat_map(|board| board.panels());
    let panels: Vec<_> = panels.filter(|panel| panel.needs == needs).collect();
    ensure!(!panels.is_empty(), "no panel takes {needs:?}");
    let shows = |expression: &str| {
        let found = prometheus.panel(expression, &[], "10s");
        found.is_ok_and(|found| found.iter().any(|sample| sample.value.is_finite()))
    };
    let all = || {
        let mut queries = panels.iter().flat_map(|panel| &panel.queries);
        queries.all(|query| shows(&query.expression))
    };
    wait::until(LIMIT, || goes_on() && all())
        .with_context(|| format!("a panel of {needs:?} has nothing to show"))
}

/// Every panel has something to show of what went on.
fn panels(prometheus: &Prometheus<'_>, begun: Instant) -> anyhow::Result<()> {
    let range = format!("{}s", begun.elapsed().as_secs());
    let (mut shown, mut left_out, mut empty) = (0, Vec::new(), Vec::new());
    for board in boards::all() {
        for variable in &board.variables {
            let values = prometheus.values(&variable.series(), variable.name)?;
            ensure!(!values.is_empty(), "{}: no {}", board.name, variable.name);
        }
        for panel in board.panels() {
            let name = format!("{}, {}", board.name, panel.title);
            if panel.needs != Needs::Mesh {
                left_out.push(format!("{name} ({:?})", panel.needs));
                continue;
            }
            for query in &panel.queries {
                let found = prometheus.panel(&query.expression, &[], &range);
                let found = found.with_context(|| name.clone())?;
                shown += 1;
                if !found.iter().any(|sample| sample.value.is_finite()) {
                    empty.push(format!(
                        "{name}: {} ({} samples)",
                        query.expression,
                        found.len()
                    ));
                }
            }
        }
    }
    eprintln!("observe: {shown} expressions of panels have data; left out: {left_out:?}");
    ensure!(empty.is_empty(), "nothing to show: {empty:#?}");
    Ok(())
}
