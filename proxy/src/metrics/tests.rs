//! What is counted is shown, stays within its budget, and goes.

use super::*;
use crate::error::Reason;
use family::IDLE;
use ringmail_proto::catalogue::{Kind, Metric};
use std::collections::BTreeSet;

fn metrics(workers: usize) -> Metrics {
    with_series(SERIES_MAX, workers)
}

fn with_series(max: usize, workers: usize) -> Metrics {
    let of = WorkloadName::new("shop", "cart").expect("valid");
    Metrics::with_series(max, workers, &of)
}

fn from<'a>(peer: &'a str) -> Between<'a> {
    Between {
        direction: Direction::Inbound,
        peer,
        service: "",
        route: "",
        tls: Tls::Mutual,
        protocol: Protocol::Http1,
    }
}

const OK: Answer = Answer {
    status: Some(200),
    grpc_status: None,
};

#[test]
fn renders_what_was_counted_with_labels_escaped() {
    let metrics = metrics(2);
    let traffic = metrics.traffic(&from("a\"b\\c\nd"));
    traffic.request(Outcome::Success, OK);
    enter_shard(1);
    traffic.request(Outcome::Success, OK);
    traffic.answered(Duration::from_millis(3));
    let text = metrics.render().expect("renders");
    let row = r#"ringmail_requests_total{namespace="shop",workload="cart",direction="inbound",peer="a\"b\\c\nd",service="none",route="none",protocol="http1",tls="mutual",outcome="success"} 2"#;
    assert!(text.contains(row), "{text}");
    assert!(
        text.contains("ringmail_request_duration_seconds_sum{"),
        "{text}"
    );
    assert!(text.contains(r#",le="+Inf","#), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

/// What a page has of each family: its name as queries have it, its kind and the names of labels.
fn shown(text: &str) -> BTreeSet<(String, String)> {
    let kind = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        let end = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        Some((format!("{name}{end}"), kind.to_owned()))
    };
    text.lines().filter_map(kind).collect()
}

#[test]
fn the_catalogue_lists_what_there_is() {
    let kind = |metric: &&Metric| {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        (metric.name.to_owned(), kind.to_owned())
    };
    let listed: BTreeSet<_> = catalogue::ALL.iter().map(kind).collect();
    assert_eq!(shown(&metrics(1).render().expect("renders")), listed);
}

#[test]
fn the_readme_lists_what_there_is() {
    let readme = include_str!("../../../README.md").lines();
    let listed = readme.filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').to_owned();
        let is_ours = name.starts_with("ringmail_") && !name.starts_with("ringmail_controller_");
        let labels = cells.next()?.trim_matches('`').to_owned();
        (is_ours || name.starts_with("process_")).then_some((name, labels))
    });
    let listed: BTreeSet<_> = listed.collect();
    let there = catalogue::ALL.iter();
    let there: BTreeSet<_> = there
        .map(|metric| (metric.name.to_owned(), metric.labels.join(" ")))
        .collect();
    assert_eq!(listed, there);
}

/// A page with the series of one metric alone.
fn series(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = metrics.render().expect("renders");
    let own = text.lines().filter(|line| line.starts_with(name));
    own.map(str::to_owned).collect()
}

#[test]
fn names_have_a_budget_and_what_is_beyond_is_counted_together() {
    let metrics = with_series(300, 1);
    for n in 0..10_000 {
        let peer = format!("spiffe://mesh.local/ns/shop/sa/{n}");
        metrics.traffic(&from(&peer)).request(Outcome::Success, OK);
        metrics.denied(&peer, None, Reason::PolicyDenied);
    }
    let total = |name| {
        let values = series(&metrics, name);
        let value = |line: &String| line.rsplit(' ').next()?.parse::<u64>().ok();
        values.iter().filter_map(value).sum::<u64>()
    };
    let all = metrics.render().expect("renders").lines().count();
    assert!(all < 600, "{all}");
    assert_eq!(total("ringmail_requests_total{"), 10_000, "none is lost");
    assert_eq!(total("ringmail_denials_total{"), 10_000);
    assert!(total("ringmail_metrics_overflow_total") > 10_000);
    assert!(metrics.room.used() <= 300);
    let overflow = series(&metrics, "ringmail_denials_total{");
    let overflow = overflow
        .iter()
        .find(|line| line.contains(r#"peer="overflow""#));
    assert!(overflow.is_some_and(|line| line.contains(r#"reason="policy_denied""#)));
}

#[test]
fn clients_have_fewer_still() {
    let metrics = metrics(1);
    for n in 0..1000_u32 {
        metrics.came_in_plaintext(std::net::Ipv4Addr::from(n).into());
    }
    assert_eq!(series(&metrics, "ringmail_plaintext_total{").len(), 65);
}

#[test]
fn series_of_peers_that_are_gone_go() {
    let metrics = metrics(1);
    let used = || metrics.room.used();
    let (held, dropped) = (
        metrics.traffic(&from("held")),
        metrics.traffic(&from("gone")),
    );
    dropped.request(Outcome::Success, OK);
    drop(dropped);
    let (all, begun) = (used(), Instant::now());
    metrics.sweep(begun);
    metrics.sweep(begun + IDLE / 2);
    assert_eq!(used(), all, "not so soon");
    metrics.traffic(&from("gone")).answered(Duration::ZERO);
    metrics.sweep(begun + IDLE / 2);
    metrics.sweep(begun + IDLE);
    assert!(used() < all, "but what changed");
    let page = || metrics.render().expect("renders");
    assert!(page().contains(r#"peer="gone""#));
    metrics.sweep(begun + IDLE * 3 / 2);
    assert!(!page().contains(r#"peer="gone""#));
    assert!(page().contains(r#"peer="held""#));
    assert!(page().contains(r#"direction="inbound",code="200""#));
    drop(held);
    metrics.sweep(begun + IDLE * 3);
    assert!(!page().contains(r#"peer="held""#));
    // The status code's.
    assert_eq!(used(), 1);
}
