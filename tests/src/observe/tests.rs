//! What the chart has is what is made here, every name in it is one that a program of ours has, and rules do as they say.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use ringmail_proto::catalogue::Metric;

use super::board::{Board, Look};
use super::boards;
use super::files;
use super::rules::{self, Rule};
use super::tempo::Tempo;

/// What an expression names.
mod expression;

use expression::Named;

/// Labels that come with being scraped.
const SCRAPED: [&str; 4] = ["instance", "job", "pod", "namespace"];
/// What every series of a proxy has.
const OF_PROXIES: [&str; 2] = ["namespace", "workload"];

#[test]
fn the_chart_has_them() {
    for file in files() {
        let place = file.place();
        if std::env::var_os("RINGMAIL_WRITE_DASHBOARDS").is_some() {
            fs::create_dir_all(place.parent().expect("a folder")).expect("made");
            fs::write(&place, &file.text).expect("written");
        }
        let there = fs::read_to_string(&place).unwrap_or_default();
        assert!(
            there == file.text,
            "{} is not what is made here; RINGMAIL_WRITE_DASHBOARDS=1 writes it",
            file.path
        );
    }
    let known: BTreeSet<_> = files().iter().map(super::ChartFile::place).collect();
    for folder in ["dashboards", "rules"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../charts/ringmail/files/")
            .join(folder);
        for entry in fs::read_dir(&folder).expect("there") {
            let path = entry.expect("readable").path();
            let is_known = known
                .iter()
                .any(|one| one.ends_with(path.file_name().expect("named")));
            assert!(is_known, "{} is of nobody", path.display());
        }
    }
}

/// Every name that a query may have, and its labels.
struct Known(Vec<(String, BTreeSet<String>)>);

impl Known {
    fn new() -> Self {
        let owned = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
        let mut all: Vec<(String, BTreeSet<String>)> = Vec::new();
        let mut add = |metric: &Metric, constant: &[&str]| {
            for sample in metric.samples() {
                let mut labels: BTreeSet<String> = owned(metric.labels);
                labels.extend(owned(constant));
                labels.extend(owned(&SCRAPED));
                if sample.ends_with("_bucket") {
                    labels.insert("le".to_owned());
                }
                all.push((sample, labels));
            }
        };
        for metric in ringmail_proxy::catalogue::ALL {
            add(metric, &OF_PROXIES);
        }
        for metric in ringmail_controller::catalogue::ALL {
            add(metric, &[]);
        }
        for group in rules::recording(Tempo::Shipped) {
            for rule in group.rules {
                let Rule::Record { name, .. } = rule else {
                    continue;
                };
                let labels: &[&str] = match name.split(':').next() {
                    Some("workload") => &OF_PROXIES,
                    _ => &[],
                };
                all.push((name, owned(labels)));
            }
        }
        let alerts = ["alertname", "alertstate", "severity"];
        all.push(("ALERTS".to_owned(), owned(&alerts)));
        Self(all)
    }

    /// Its labels. A name that both programs have has those of either.
    fn labels(&self, name: &str) -> Option<BTreeSet<&str>> {
        let of = self.0.iter().filter(|(known, _)| known == name);
        let labels: BTreeSet<_> = of
            .flat_map(|(_, labels)| labels.iter().map(String::as_str))
            .collect();
        self.0
            .iter()
            .any(|(known, _)| known == name)
            .then_some(labels)
    }

    /// What is wrong with the names in an expression.
    fn problems(&self, text: &str) -> Vec<String> {
        let named = match Named::of(text) {
            Ok(named) => named,
            Err(problem) => return vec![problem],
        };
        let mut found = Vec::new();
        if named.selectors.is_empty() && text.contains("ringmail") {
            found.push("it selects nothing".to_owned());
        }
        for selector in &named.selectors {
            for name in &selector.names {
                let Some(labels) = self.labels(name) else {
                    found.push(format!("there is no {name}"));
                    continue;
                };
                let asked = selector.labels.iter().chain(&selector.grouped_by);
                let odd = asked.filter(|label| !labels.contains(label.as_str()));
                found.extend(odd.map(|label| format!("{name} has no {label}")));
            }
        }
        found
    }
}

/// Every expression there is, and where.
fn expressions() -> Vec<(String, String)> {
    let of_board = |board: Board| {
        let place = board.name;
        let queries = board
            .panels()
            .flat_map(|panel| {
                let title = panel.title;
                panel
                    .queries
                    .iter()
                    .map(move |query| (format!("{place}, {title}"), query.expression.clone()))
            })
            .collect::<Vec<_>>();
        let variables = board
            .variables
            .iter()
            .map(|one| (format!("{place}, ${}", one.name), one.series()));
        queries.into_iter().chain(variables).collect::<Vec<_>>()
    };
    let boards = boards::all().into_iter().flat_map(of_board);
    let groups = [
        rules::recording(Tempo::Shipped),
        rules::alerts(Tempo::Shipped),
    ];
    let rules = groups.concat().into_iter().flat_map(|group| {
        let place = group.name;
        let of = move |rule: Rule| (place.to_owned(), rule.expression().to_owned());
        group.rules.into_iter().map(of)
    });
    boards.chain(rules).collect()
}

#[test]
fn every_name_is_in_a_catalogue() {
    let known = Known::new();
    let mut count = 0;
    for (place, text) in expressions() {
        assert_eq!(
            known.problems(&text),
            Vec::<String>::new(),
            "{place}: {text}"
        );
        count += 1;
    }
    assert!(count > 100, "{count}");
}

#[test]
fn a_name_that_is_in_none_is_found() {
    let known = Known::new();
    let rows = [
        (
            "sum(ringmail_nothing_total)",
            "there is no ringmail_nothing_total",
        ),
        (
            "rate(ringmail_requests_total{colour='x'}[5m])",
            "ringmail_requests_total has no colour",
        ),
        (
            "sum by (le) (ringmail_connections_open)",
            "ringmail_connections_open has no le",
        ),
        (
            "ringmail_connections_open * on (colour) ringmail_build_info",
            "ringmail_connections_open has no colour",
        ),
        (
            "sum by (workload) (ringmail_controller_leader)",
            "ringmail_controller_leader has no workload",
        ),
        (
            "{__name__=~'ringmail_build_info|ringmail_gone'}",
            "there is no ringmail_gone",
        ),
    ];
    for (text, problem) in rows {
        let found = known.problems(text);
        assert!(found.iter().any(|one| one == problem), "{text}: {found:?}");
    }
}

#[test]
fn boards_explain_themselves() {
    let known = Known::new();
    let all = boards::all();
    for board in &all {
        let names: BTreeSet<_> = board.panels().map(|panel| panel.title).collect();
        assert_eq!(names.len(), board.panels().count(), "{}: twice", board.name);
        for variable in &board.variables {
            let named = Named::of(&variable.series()).expect("read");
            let of = |name: &String| {
                known
                    .labels(name)
                    .is_some_and(|all| all.contains(variable.name))
            };
            let mut selected = named.selectors.iter().flat_map(|one| &one.names);
            assert!(selected.all(of), "{}: {}", board.name, variable.name);
        }
        for panel in board.panels() {
            let place = format!("{}, {}", board.name, panel.title);
            assert!(
                panel.description.len() > 5 && panel.description.ends_with('.'),
                "{place}"
            );
            assert!(
                !panel.empty.is_empty() && !panel.queries.is_empty(),
                "{place}"
            );
            let own: BTreeSet<_> = board.variables.iter().map(|one| one.name).collect();
            for query in &panel.queries {
                let named = Named::of(&query.expression).expect("read");
                assert!(
                    named.variables.iter().all(|one| own.contains(one.as_str())),
                    "{place}: {:?}",
                    named.variables
                );
                for label in between(query.legend, "{{", "}}") {
                    let selectors = &named.selectors;
                    let grouped = selectors.iter().any(|one| one.grouped_by.contains(label));
                    let labels =
                        |name: &String| known.labels(name).is_some_and(|all| all.contains(label));
                    let raw = selectors
                        .iter()
                        .any(|one| one.grouped_by.is_empty() && one.names.iter().all(labels));
                    assert!(grouped || raw, "{place}: {{{{{label}}}}}");
                }
            }
            if let Some(link) = panel.link {
                let to = all
                    .iter()
                    .find(|one| one.name == link.board)
                    .expect("a board");
                assert_eq!(panel.look, Look::Table, "{place}");
                for (label, variable) in link.hands_on {
                    assert!(
                        to.variables.iter().any(|one| one.name == *variable),
                        "{place}: {variable}"
                    );
                    let named = Named::of(&panel.queries[0].expression).expect("read");
                    assert!(
                        named
                            .selectors
                            .iter()
                            .any(|one| one.grouped_by.contains(*label)),
                        "{place}: {label}"
                    );
                }
            }
        }
    }
}

#[test]
fn alerts_explain_themselves() {
    for group in rules::alerts(Tempo::Shipped) {
        for rule in group.rules {
            let Rule::Alert(alert) = rule else { continue };
            let known: BTreeSet<_> = Known::new()
                .0
                .into_iter()
                .flat_map(|(_, labels)| labels)
                .collect();
            for (_, said) in alert.annotations() {
                assert!(!said.is_empty());
                for label in between(said, "$labels.", " ") {
                    assert!(known.contains(label), "{}: {label}", alert.name);
                }
            }
        }
    }
}

/// What stands between each pair of marks.
fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(open)
        .skip(1)
        .filter_map(move |rest| rest.split(close).next())
}

/// Runs promtool in the folder of its tests; none where there is none.
fn promtool(arguments: &[&str]) -> Option<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/observe");
    let run = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .output();
    let Ok(output) = run else {
        // Not by a macro: of a test that passes nobody would see it.
        let mut said = std::io::stderr().lock();
        writeln!(
            said,
            "TIER SKIPPED: promtool {arguments:?}: there is none; install by .ci/tools"
        )
        .expect("said");
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    Some(said)
}

/// As Grafana would write it, of all there is.
fn filled_in(text: &str) -> String {
    let variables = Named::of(text).expect("read").variables;
    let text = text.replace("$__rate_interval", "5m");
    variables
        .iter()
        .fold(text, |text, name| text.replace(&format!("${name}"), ".*"))
}

#[test]
fn prometheus_reads_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("panels.yaml");
    let queries = boards::all();
    let queries = queries
        .iter()
        .flat_map(Board::panels)
        .flat_map(|panel| &panel.queries);
    let rules: Vec<_> = queries
        .enumerate()
        .map(|(number, query)| serde_json::json!({ "record": format!("panel:{number}"), "expr": filled_in(&query.expression) }))
        .collect();
    let all = serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] });
    fs::write(&file, all.to_string()).expect("written");
    promtool(&["check", "rules", file.to_str().expect("text")]);
    for file in ["recording", "alerts"] {
        let path = format!("../../charts/ringmail/files/rules/{file}.yaml");
        promtool(&["check", "rules", "--lint=all", "--lint-fatal", &path]);
    }
}

#[test]
fn rules_do_as_they_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/observe");
    let mut tested = String::new();
    for entry in fs::read_dir(folder).expect("there") {
        let path = entry.expect("readable").path();
        let text = fs::read_to_string(&path).expect("text");
        tested += &text;
        promtool(&["test", "rules", path.to_str().expect("text")]);
    }
    for group in rules::alerts(Tempo::Shipped) {
        for rule in group.rules {
            let Rule::Alert(alert) = rule else { continue };
            let (name, severity) = (alert.name, alert.severity.label());
            let window = alert.window.map(|window| format!(", window=\"{window}\""));
            let window = window.unwrap_or_default();
            let fires = format!(
                "ALERTS{{alertname=\"{name}\", severity=\"{severity}\", alertstate=\"firing\"{window}}})"
            );
            assert!(
                tested.contains(&fires),
                "{name} ({severity}) fires in no test"
            );
            let never = format!("# {name}: not");
            assert!(tested.contains(&never), "{name} is silent in no test");
        }
    }
}
