//! h2spec's cases of RFC 7540 and RFC 7541, strict ones included. A module registry has version 2.2.1: 146 cases for a
//! server, the outbound proxy, and 57 for a client, the inbound proxy.

use anyhow::{Context, ensure};
use ringmail_tests::apps;
use ringmail_tests::bed::Bed;

use super::desk::{Desk, shown};
use super::{announce, play_at_desk, tools};
use crate::shop::{Plan, play};

/// The version's cases for servers, and for clients: all of them have to be seen.
const SERVER_CASES: usize = 146;
const CLIENT_CASES: usize = 57;

/// The server case that may fail where HTTP/2 is not declared: bytes that are no preface of HTTP/2 are then no error. Where
/// HTTP/1 is declared they are answered in it, with 400, and the connection ends; where nothing is, they are the app's.
const PREFACE: (&str, &str) = ("3.5/2", "a client need not speak HTTP/2 here");

/// The app answers once it has read the request's body: an answer that overtakes h2spec's next frame is no failure, but
/// h2spec would take it for one.
const PATH: &str = "/asked";
/// Where the permissive workload's app listens.
const PERMISSIVE_PORT: u16 = 9104;

/// What h2spec found out.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    /// Failed cases as section and number.
    failed: Vec<String>,
    tests: usize,
    skipped: usize,
}

impl Report {
    /// From what it prints: a title for each section, a line for each case, and a sum.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (mut section, mut failed, mut sum) = ("", Vec::new(), None);
        for line in text.lines() {
            // A case is written over its announcement.
            let line = line.rsplit('\r').next().unwrap_or_default().trim();
            if let Some(case) = line.strip_prefix("× ") {
                let number = case.split(':').next().unwrap_or_default();
                failed.push(format!("{section}/{number}"));
            } else if let Some((title, _)) = line.split_once(". ")
                && title.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            {
                section = title;
            } else if line.contains(" tests, ") {
                sum = Some(line);
            }
        }
        let sum = sum.with_context(|| format!("no sum in:\n{}", shown(text)))?;
        let number = |what: &str| {
            let part = sum.split(", ").find_map(|part| part.strip_suffix(what));
            part.and_then(|n| n.trim().parse::<usize>().ok())
                .with_context(|| format!("no{what} in {sum:?}"))
        };
        // Failures are told twice, the second time with details.
        failed.sort();
        failed.dedup();
        Ok(Self {
            failed,
            tests: number(" tests")?,
            skipped: number(" skipped")?,
        })
    }
}

/// The outbound proxy as a server, whatever the port is said to speak.
pub(super) fn outbound(bed: Bed) -> anyhow::Result<()> {
    play_at_desk(bed, |shop, desk| {
        let rows = [
            (None, 9101, &[PREFACE][..]),
            (Some("kubernetes.io/h2c"), 9102, &[]),
            (Some("http"), 9103, &[PREFACE]),
        ];
        for ((protocol, target, may_fail), number) in rows.into_iter().zip(101..) {
            apps::serve_web(&shop.server.namespace, "spec", target)?;
            let to = announce(shop, number, 80, target, protocol)?;
            let mut command = tools::command("h2spec")?;
            command.args(["--strict", "--path", PATH, "--host"]);
            command.args([&to.ip().to_string(), "--port", "80"]);
            judge(
                &desk.run(&shop.client, &command)?.text,
                SERVER_CASES,
                may_fail,
            )
            .with_context(|| format!("declared {protocol:?}"))?;
        }
        Ok(())
    })
}

/// The inbound proxy as a server of plaintext clients: those of a permissive workload.
pub(super) fn permissive(bed: Bed) -> anyhow::Result<()> {
    let mut plan = Plan::default();
    plan.server = plan.server.annotated("ringmail.io/inbound", "permissive");
    play(bed, &plan, |shop| {
        let desk = Desk::new(bed)?;
        let stranger = shop.node.pod("stranger")?;
        apps::serve_web(&shop.server.namespace, "spec", PERMISSIVE_PORT)?;
        let mut command = tools::command("h2spec")?;
        command.args(["--strict", "--path", PATH, "--host"]);
        command.arg(shop.server.v4.to_string());
        command.args(["--port", &PERMISSIVE_PORT.to_string()]);
        let text = desk.run(&stranger, &command)?.text;
        judge(&text, SERVER_CASES, &[PREFACE])
    })
}

/// All cases were played, and none failed but these.
fn judge(text: &str, cases: usize, may_fail: &[(&str, &str)]) -> anyhow::Result<()> {
    let report = Report::parse(text)?;
    let failed = report.failed.iter().filter(|failed| {
        let known = may_fail.iter().any(|(known, _)| known == failed);
        !known
    });
    let failed: Vec<_> = failed.collect();
    ensure!(
        failed.is_empty() && report.skipped == 0 && report.tests == cases,
        "{failed:?} of {report:?}; may fail: {may_fail:?}\n{}",
        shown(text)
    );
    Ok(())
}

/// The inbound proxy as a client of an app that misbehaves: h2specd listens on a port for each case and calls a script,
/// which makes a request in the client's pod.
pub(super) fn client(bed: Bed) -> anyhow::Result<()> {
    play_at_desk(bed, |shop, desk| {
        let mut command = tools::command("h2specd")?;
        command
            .args(["--strict", "--from-port", "30000", "--host"])
            .arg(shop.server.v4.to_string())
            .arg("--exec")
            .arg(tools::ours("ask.sh"))
            .env("CURL", tools::find("curl")?)
            // Any process of the client's pod.
            .env("CLIENT", shop.client_sidecar.process.id().to_string());
        let text = desk.run(&shop.server, &command)?.text;
        // It tells of each listener that it closes, over and over.
        let told: Vec<_> = text
            .lines()
            .filter(|line| !line.ends_with("use of closed network connection"))
            .collect();
        judge(&told.join("\n"), CLIENT_CASES, &[])
    })
}
