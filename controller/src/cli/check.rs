//! `ringmail check`: everything that has to be right, each with what to do when it is not.

use anyhow::Context;
use serde::Serialize;

use super::report::{self, Format};
use crate::cluster::client;

/// What has to be right before the mesh is there.
mod before;

/// What has to be right once it is.
mod after;

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, and should be looked after.
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Finding {
    verdict: Verdict,
    check: &'static str,
    /// What was found.
    found: String,
    /// What to do about it; nothing when all is well.
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            check,
            found: found.into(),
            advice: String::new(),
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            check,
            found: found.into(),
            advice: advice.into(),
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warn,
            ..Self::fail(check, found, advice)
        }
    }
}

pub(super) async fn run(format: Format, system: &str, pre: bool) -> anyhow::Result<bool> {
    let client = client::infer().await.context("cannot use the cluster")?;
    let mut findings = before::look(&client).await;
    if pre {
        findings.extend(before::rights(&client).await);
    } else {
        findings.extend(after::look(&client, system).await);
    }
    report::print(
        format,
        &findings,
        &["verdict", "check", "found", "advice"],
        "",
    )?;
    Ok(findings.iter().all(|one| one.verdict != Verdict::Fail))
}
