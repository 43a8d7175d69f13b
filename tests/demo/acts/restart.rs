//! The controller dies as in a crash. What the proxies have learnt stays in force; when it is back they go on.

use std::time::{Duration, Instant};

use anyhow::Context;

use super::rotation::watch_rotations;
use crate::figures::sum;
use crate::stage::Stage;
use crate::traffic::Traffic;

/// For a proxy to notice.
const NOTICE_LIMIT: Duration = Duration::from_secs(5);
/// How long it stays away: less than what is left of any certificate.
const AWAY: Duration = Duration::from_secs(2);

pub(super) fn under_load(stage: &mut Stage<'_>) -> anyhow::Result<String> {
    let traffic = Traffic::start(stage);
    let restarted = restart(stage);
    let totals = traffic.finish(stage)?;
    let away = restarted?;
    Ok(format!(
        "away {:.1} s, then every proxy renewed; {totals}",
        away.as_secs_f64()
    ))
}

/// How long it was away.
fn restart(stage: &mut Stage<'_>) -> anyhow::Result<Duration> {
    stage.mesh.kill_controller();
    let killed = Instant::now();
    stage
        .interrupt
        .until(NOTICE_LIMIT, || connected(stage) == Some(0))
        .context("the proxies did not notice")?;
    stage
        .teller
        .say("controller killed; no proxy has a control stream, all go on");
    stage.interrupt.pause(AWAY)?;
    stage.mesh.start_controller()?;
    let away = killed.elapsed();
    let process = stage.mesh.controller().map_or(0, |process| process.id());
    stage
        .teller
        .say(format_args!("controller back (process {process})"));
    watch_rotations(stage, 1)?;
    stage
        .interrupt
        .until(NOTICE_LIMIT, || connected(stage) == Some(3))
        .context("not every proxy has a control stream again")?;
    Ok(away)
}

/// Proxies that reach the controller; `None` if one does not say.
fn connected(stage: &Stage<'_>) -> Option<u64> {
    let count = |metrics: String| sum(&metrics, "ringmail_control_connected", &[]);
    let members = stage.members().into_iter();
    members
        .map(|member| member.sidecar.metrics(stage.node).ok().map(count))
        .sum()
}
