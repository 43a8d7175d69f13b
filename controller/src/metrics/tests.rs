//! What is registered is what the catalogue lists, and what the README lists.

use std::collections::{BTreeMap, BTreeSet};

use ringmail_proto::catalogue::Kind;

use super::*;

/// One series of each family: one without any is not written.
fn with_series() -> Metrics {
    let metrics = Metrics::default();
    let certify = CertifyLabels {
        outcome: Certified::Issued,
        credential: Credential::None,
    };
    metrics.certify.get_or_create(&certify).inc();
    let outcome = HandshakeOutcome::Failed;
    let handshake = HandshakeLabels { outcome };
    metrics.handshakes.get_or_create(&handshake).inc();
    let reason = StreamEnd::Closed;
    metrics
        .stream_ends
        .get_or_create(&StreamLabels { reason })
        .inc();
    let cause = Cause::Asked;
    let response = ResponseLabels { cause };
    metrics.responses.get_or_create(&response).inc();
    let kind = "Pod".to_owned();
    metrics
        .watch_failures
        .get_or_create(&WatchLabels { kind })
        .inc();
    let write = WriteLabels {
        object: Written::Label,
        outcome: WriteOutcome::Done,
    };
    metrics.writes.get_or_create(&write).inc();
    let (webhook, outcome) = (Webhook::Pods, Reviewed::Allowed);
    let reviewed = WebhookLabels { webhook, outcome };
    metrics.webhooks.get_or_create(&reviewed).inc();
    let call = CallLabels { webhook };
    metrics.webhook_duration.get_or_create(&call).observe(0.1);
    let limit = "shop/calls/0".to_owned();
    let share = LimitLabels { limit };
    metrics.ledger_share_used.get_or_create(&share).set(0.0);
    let outcome = ExchangeOutcome::Done;
    let exchange = ExchangeLabels { outcome };
    metrics.ledger_exchanges.get_or_create(&exchange).inc();
    metrics
}

/// Name, then kind and labels.
type Families = BTreeMap<String, (&'static str, BTreeSet<String>)>;

fn listed() -> Families {
    let row = |row: &&Row| {
        let kind = match row.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        let labels = row.labels.iter().map(|label| (*label).to_owned());
        (row.name.to_owned(), (kind, labels.collect()))
    };
    catalogue::ALL.iter().map(row).collect()
}

/// What a scrape of `text` finds.
fn found(text: &str) -> Families {
    let mut all = Families::new();
    let mut current = None;
    for line in text.lines() {
        if let Some((stem, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|line| line.split_once(' '))
        {
            let (kind, end) = match kind {
                "counter" => ("counter", "_total"),
                "info" => ("info", "_info"),
                "histogram" => ("histogram", ""),
                _ => ("gauge", ""),
            };
            let name = format!("{stem}{end}");
            all.insert(name.clone(), (kind, BTreeSet::new()));
            current = Some(name);
        } else if !line.starts_with('#') {
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'));
            let names = labels.iter().flat_map(|(labels, _)| labels.split(','));
            let names = names.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            let of = current.as_ref().and_then(|name| all.get_mut(name));
            let (_, known) = of.expect("a sample comes after its type");
            known.extend(names.filter(|name| name != "le"));
        }
    }
    all
}

#[test]
fn what_is_registered_is_what_the_catalogue_lists() {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &with_series().registry())
        .expect("renders");
    assert_eq!(found(&text), listed(), "{text}");
}

#[test]
fn the_readme_lists_it_too() {
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` |")?;
        name.starts_with("ringmail_controller_").then_some(())?;
        let labels = rest.split_once('|')?.0.trim().trim_matches('`');
        let labels: BTreeSet<_> = labels.split_whitespace().map(str::to_owned).collect();
        Some((name.to_owned(), labels))
    };
    let readme = include_str!("../../../README.md").lines();
    let told: BTreeMap<_, _> = readme.filter_map(row).collect();
    let own = listed().into_iter();
    let own = own.filter(|(name, _)| name.starts_with("ringmail_controller_"));
    let own: BTreeMap<_, _> = own.map(|(name, (_, labels))| (name, labels)).collect();
    assert_eq!(told, own);
}
