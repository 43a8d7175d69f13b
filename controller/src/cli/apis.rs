//! `ringmail apis`: what each workload's API is seen to be, and what about it wants attention. What the sidecars of one
//! workload saw is put together.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::asked::{self, Which};
use super::report::{self, Format, now, span};

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Question {
    #[command(flatten)]
    which: Which,
    /// Only routes that no policy speaks of, or whose callers show a credential that never changes.
    #[arg(long)]
    flagged: bool,
}

/// What one sidecar saw.
#[derive(Debug, Deserialize)]
struct Page {
    /// `namespace/name`.
    workload: String,
    routes: Vec<Route>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Route {
    #[serde(default)]
    workload: String,
    port: u16,
    method: String,
    route: String,
    #[serde(flatten)]
    tally: Tally,
    covered: bool,
    authentication: BTreeSet<String>,
    callers: Vec<Caller>,
}

/// Who calls it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Caller {
    identity: String,
    #[serde(flatten)]
    tally: Tally,
    credentials: Vec<Credential>,
}

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Tally {
    requests: u64,
    per_second: f64,
    errors: u64,
    refused: u64,
    /// Seconds since the Unix epoch.
    last_seen: u64,
}

/// What a caller shows beside its certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Credential {
    kind: String,
    different: u64,
    same_for_seconds: u64,
    #[serde(rename = "static")]
    is_static: bool,
}

/// A route, for people.
#[derive(Debug, PartialEq, Serialize)]
struct Line {
    workload: String,
    port: u16,
    method: String,
    route: String,
    per_second: String,
    errors: String,
    callers: String,
    authentication: String,
    last_seen: String,
    attention: String,
}

pub(super) async fn run(format: Format, question: &Question) -> anyhow::Result<bool> {
    let (told, silent) = asked::answered(question.which.pages("apis").await?);
    let pages = told.iter().map(|page| serde_json::from_str(page));
    let pages: Vec<Page> = pages
        .collect::<Result<_, _>>()
        .context("the answer is none of a sidecar")?;
    let mut routes = together(pages);
    if question.flagged {
        routes.retain(|route| !route.attention().is_empty());
    }
    let nothing = "no requests were seen";
    match format {
        Format::Json => report::print(format, &routes, &[], nothing)?,
        Format::Table => {
            let lines: Vec<Line> = routes.iter().map(Route::line).collect();
            let columns = [
                "workload",
                "port",
                "method",
                "route",
                "per_second",
                "errors",
                "callers",
                "authentication",
                "last_seen",
                "attention",
            ];
            report::print(format, &lines, &columns, nothing)?;
        }
    }
    report::warn(&silent)?;
    Ok(silent.is_empty())
}

/// Routes of workloads, whichever of their pods saw them.
fn together(pages: Vec<Page>) -> Vec<Route> {
    let mut routes = BTreeMap::<_, Route>::new();
    for page in pages {
        for route in page.routes {
            let route = Route {
                workload: page.workload.clone(),
                ..route
            };
            let key = (
                route.workload.clone(),
                route.port,
                route.route.clone(),
                route.method.clone(),
            );
            match routes.get_mut(&key) {
                Some(known) => known.add(route),
                None => drop(routes.insert(key, route)),
            }
        }
    }
    routes.into_values().collect()
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.per_second += other.per_second;
        self.errors += other.errors;
        self.refused += other.refused;
        self.last_seen = self.last_seen.max(other.last_seen);
    }
}

impl Route {
    fn add(&mut self, other: Self) {
        self.tally.add(&other.tally);
        self.covered &= other.covered;
        self.authentication.extend(other.authentication);
        for caller in other.callers {
            let mut known = self.callers.iter_mut();
            match known.find(|known| known.identity == caller.identity) {
                Some(known) => known.add(caller),
                None => self.callers.push(caller),
            }
        }
    }

    /// What somebody should look at.
    fn attention(&self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.covered {
            found.push("no policy".to_owned());
        }
        for caller in &self.callers {
            let shown = caller.credentials.iter().filter(|one| one.is_static);
            found.extend(shown.map(|one| {
                format!(
                    "static {} from {}",
                    one.kind.replace('_', " "),
                    caller.name()
                )
            }));
        }
        found
    }

    fn line(&self) -> Line {
        #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
        let part = self.tally.errors as f64 / self.tally.requests.max(1) as f64;
        let callers: Vec<String> = self.callers.iter().map(Caller::name).collect();
        let authentication: Vec<&str> = self.authentication.iter().map(String::as_str).collect();
        let age = now().saturating_sub_unsigned(self.tally.last_seen);
        Line {
            workload: self.workload.clone(),
            port: self.port,
            method: self.method.clone(),
            route: self.route.clone(),
            per_second: format!("{:.2}", self.tally.per_second),
            errors: format!("{:.2} %", 100.0 * part),
            callers: callers.join(", "),
            authentication: match authentication.is_empty() {
                true => "none".to_owned(),
                false => authentication.join("+"),
            },
            last_seen: format!("{} ago", span(age)),
            attention: self.attention().join("; "),
        }
    }
}

impl Caller {
    fn add(&mut self, other: Self) {
        self.tally.add(&other.tally);
        for credential in other.credentials {
            let mut known = self.credentials.iter_mut();
            match known.find(|known| known.kind == credential.kind) {
                Some(known) => {
                    known.different = known.different.max(credential.different);
                    known.same_for_seconds =
                        known.same_for_seconds.max(credential.same_for_seconds);
                    known.is_static |= credential.is_static;
                }
                None => self.credentials.push(credential),
            }
        }
    }

    /// `namespace/service account`, or as the sidecar has it.
    fn name(&self) -> String {
        let parts = self.identity.split_once("/ns/");
        let parts = parts.and_then(|(_, rest)| rest.split_once("/sa/"));
        parts.map_or_else(
            || self.identity.clone(),
            |(namespace, account)| format!("{namespace}/{account}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(identity: &str, covered: bool, is_static: bool) -> Page {
        let text = format!(
            r#"{{"workload": "shop/cart", "unmatched": 0, "routes": [{{
                "port": 8080, "method": "GET", "route": "/orders/{{}}", "covered": {covered},
                "requests": 10, "per_second": 0.5, "errors": 1, "refused": 0, "last_seen": 100,
                "authentication": ["bearer", "mtls"],
                "callers": [{{"identity": "{identity}", "requests": 10, "per_second": 0.5, "errors": 1,
                    "refused": 0, "last_seen": 100, "credentials": [
                    {{"kind": "bearer", "different": 1, "same_for_seconds": 9000, "static": {is_static}}}]}}]}}]}}"#
        );
        serde_json::from_str(&text).expect("a page")
    }

    #[test]
    fn what_pods_saw_is_one_api() {
        let front = "spiffe://m/ns/shop/sa/front";
        let routes = together(vec![
            page(front, true, false),
            page(front, false, true),
            page("none", true, false),
        ]);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].tally.requests, 30);
        let line = routes[0].line();
        assert_eq!(line.callers, "shop/front, none");
        assert_eq!(line.errors, "10.00 %");
        assert_eq!(line.attention, "no policy; static bearer from shop/front");
        assert_eq!(
            together(vec![page(front, true, false)])[0].attention(),
            Vec::<String>::new()
        );
    }
}
