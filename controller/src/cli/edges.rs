//! Who talks to whom, as the sidecars' metrics tell. Pure.
//!
//! An edge is told by the server's sidecar, which knows what became of each request; by the client's only where the
//! server has none, or was not asked.

use std::collections::{BTreeMap, BTreeSet};

use super::sample::Sample;

/// Whoever has no identity.
const NO_IDENTITY: &str = "none";
/// Outcomes that are no failure of the mesh or the app.
const FINE: [&str; 2] = ["success", "client_error"];

/// Two ends, and what protects what is between them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ends {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) is_mutual: bool,
}

/// What passed between them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Passed {
    pub(super) requests: f64,
    pub(super) failures: f64,
    pub(super) connections: f64,
    /// Responses that took at most so many seconds: the bound as it is written, so that it has an order.
    pub(super) buckets: Vec<(f64, f64)>,
}

/// Every edge.
pub(super) type Edges = BTreeMap<Ends, Passed>;

/// Reads whole pages of metrics.
pub(super) fn edges(pages: &[String]) -> Edges {
    let samples: Vec<Sample<'_>> = pages
        .iter()
        .flat_map(|page| page.lines().filter_map(Sample::parse))
        .collect();
    let names = names(&samples);
    let mut edges = Edges::new();
    for sample in &samples {
        if let Some(ends) = ends(sample, &names) {
            edges.entry(ends).or_default().add(sample);
        }
    }
    edges.retain(|_, passed| passed.requests > 0.0 || passed.connections > 0.0);
    edges
}

/// Workloads by the identity that their sidecars have.
fn names<'a>(samples: &'a [Sample<'_>]) -> BTreeMap<&'a str, BTreeSet<String>> {
    let mut names = BTreeMap::<_, BTreeSet<_>>::new();
    for sample in samples.iter().filter(|one| one.name == "ringmail_identity") {
        if let (Some(identity), Some(own)) = (sample.label("identity"), own(sample)) {
            names.entry(identity).or_default().insert(own);
        }
    }
    names
}

/// Whose sidecar tells it.
fn own(sample: &Sample<'_>) -> Option<String> {
    let (namespace, workload) = (sample.label("namespace")?, sample.label("workload")?);
    Some(format!("{namespace}/{workload}"))
}

fn ends(sample: &Sample<'_>, names: &BTreeMap<&str, BTreeSet<String>>) -> Option<Ends> {
    let peer = sample.label("peer")?;
    let own = own(sample)?;
    let is_mutual = sample.label("tls")? == "mutual";
    let known = names.get(peer);
    let other = || match known {
        Some(workloads) if workloads.len() == 1 => workloads.iter().next().cloned(),
        Some(_) | None => account(peer),
    };
    match sample.label("direction")? {
        "inbound" => Some(Ends {
            from: other().unwrap_or_else(|| "(no identity)".to_owned()),
            to: own,
            is_mutual,
        }),
        _ if known.is_some() => None,
        _ => {
            let service = sample.label("service").filter(|name| *name != NO_IDENTITY);
            let outside = || "(outside)".to_owned();
            Some(Ends {
                from: own,
                to: service
                    .map(str::to_owned)
                    .or_else(other)
                    .unwrap_or_else(outside),
                is_mutual,
            })
        }
    }
}

/// `namespace/service account` of an identity, where several workloads have it or none told.
fn account(identity: &str) -> Option<String> {
    let (_, rest) = identity.split_once("/ns/")?;
    let (namespace, account) = rest.split_once("/sa/")?;
    Some(format!("{namespace}/{account} (account)"))
}

impl Passed {
    fn add(&mut self, sample: &Sample<'_>) {
        match sample.name {
            "ringmail_requests_total" => {
                self.requests += sample.value;
                if !sample
                    .label("outcome")
                    .is_some_and(|one| FINE.contains(&one))
                {
                    self.failures += sample.value;
                }
            }
            "ringmail_connections_total" => self.connections += sample.value,
            "ringmail_request_duration_seconds_bucket" => {
                let Some(bound) = sample.label("le").and_then(|le| le.parse::<f64>().ok()) else {
                    return;
                };
                match self.buckets.iter_mut().find(|(known, _)| *known == bound) {
                    Some((_, count)) => *count += sample.value,
                    None => self.buckets.push((bound, sample.value)),
                }
            }
            _ => {}
        }
    }

    /// What passed since `before`; all of it if sidecars began anew.
    pub(super) fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else {
            return self.clone();
        };
        let less = |now: f64, before: f64| if now < before { now } else { now - before };
        let count = |bound: f64| before.buckets.iter().find(|(known, _)| *known == bound);
        Self {
            requests: less(self.requests, before.requests),
            failures: less(self.failures, before.failures),
            connections: less(self.connections, before.connections),
            buckets: self
                .buckets
                .iter()
                .map(|(bound, now)| (*bound, less(*now, count(*bound).map_or(0.0, |one| one.1))))
                .collect(),
        }
    }

    /// The part that did not fail, in percent; none of no request.
    pub(super) fn success(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| 100.0 * (1.0 - self.failures / self.requests))
    }

    /// The latency in seconds below which this part of the responses began; a bound at most `1/3` too high.
    pub(super) fn quantile(&self, part: f64) -> Option<f64> {
        let mut buckets = self.buckets.clone();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let all = buckets.last()?.1;
        let wanted = all * part;
        let at = buckets
            .iter()
            .position(|(_, count)| *count >= wanted && *count > 0.0)?;
        let (low, below) = match at.checked_sub(1) {
            Some(before) => buckets[before],
            None => (0.0, 0.0),
        };
        let (high, upto) = buckets[at];
        if high.is_infinite() {
            return Some(low);
        }
        Some(low + (high - low) * (wanted - below) / (upto - below).max(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONT: &str = r#"
ringmail_identity{namespace="shop",workload="front",identity="spiffe://m/ns/shop/sa/front"} 1
ringmail_requests_total{namespace="shop",workload="front",direction="outbound",peer="spiffe://m/ns/shop/sa/cart",service="shop/cart",tls="mutual",outcome="success"} 10
ringmail_requests_total{namespace="shop",workload="front",direction="outbound",peer="none",service="old/db",tls="none",outcome="success"} 2
ringmail_connections_total{namespace="shop",workload="front",direction="outbound",peer="none",service="none",tls="none",outcome="success"} 1
"#;
    const CART: &str = r#"
ringmail_identity{namespace="shop",workload="cart",identity="spiffe://m/ns/shop/sa/cart"} 1
ringmail_requests_total{namespace="shop",workload="cart",direction="inbound",peer="spiffe://m/ns/shop/sa/front",service="none",tls="mutual",outcome="success"} 9
ringmail_requests_total{namespace="shop",workload="cart",direction="inbound",peer="spiffe://m/ns/shop/sa/front",service="none",tls="mutual",outcome="refused"} 1
ringmail_request_duration_seconds_bucket{namespace="shop",workload="cart",direction="inbound",peer="spiffe://m/ns/shop/sa/front",tls="mutual",le="0.001"} 5
ringmail_request_duration_seconds_bucket{namespace="shop",workload="cart",direction="inbound",peer="spiffe://m/ns/shop/sa/front",tls="mutual",le="0.01"} 10
ringmail_request_duration_seconds_bucket{namespace="shop",workload="cart",direction="inbound",peer="spiffe://m/ns/shop/sa/front",tls="mutual",le="+Inf"} 10
ringmail_connections_total{namespace="shop",workload="cart",direction="inbound",peer="none",tls="none",outcome="refused"} 4
"#;

    #[test]
    fn each_edge_is_told_once() {
        let both = edges(&[FRONT.to_owned(), CART.to_owned()]);
        let drawn: Vec<_> = both
            .iter()
            .map(|(ends, passed)| {
                let Ends {
                    from,
                    to,
                    is_mutual,
                } = ends;
                (
                    from.as_str(),
                    to.as_str(),
                    *is_mutual,
                    passed.requests,
                    passed.connections,
                )
            })
            .collect();
        let expected = [
            ("(no identity)", "shop/cart", false, 0.0, 4.0),
            ("shop/front", "(outside)", false, 0.0, 1.0),
            ("shop/front", "old/db", false, 2.0, 0.0),
            ("shop/front", "shop/cart", true, 10.0, 0.0),
        ];
        assert_eq!(drawn, expected);
        let alone = edges(&[FRONT.to_owned()]);
        assert_eq!(
            alone.len(),
            3,
            "the client tells it where the server does not"
        );
        let alone = edges(&[CART.to_owned()]);
        let from: Vec<_> = alone.keys().map(|ends| ends.from.as_str()).collect();
        assert_eq!(from, ["(no identity)", "shop/front (account)"]);
    }

    #[test]
    fn figures_of_an_edge() {
        let both = edges(&[FRONT.to_owned(), CART.to_owned()]);
        let passed = both
            .values()
            .find(|one| one.requests == 10.0)
            .expect("there");
        assert_eq!(passed.success(), Some(90.0));
        assert_eq!(passed.quantile(0.5), Some(0.001));
        let p90 = passed.quantile(0.9).expect("there");
        assert!((p90 - 0.0082).abs() < 1e-9, "{p90}");
        assert_eq!(passed.since(Some(passed)).requests, 0.0);
        assert_eq!(passed.since(Some(passed)).success(), None);
        assert_eq!(passed.since(Some(passed)).quantile(0.5), None);
        let more = Passed {
            requests: 20.0,
            ..passed.clone()
        };
        assert_eq!(passed.since(Some(&more)).requests, 10.0, "it began anew");
    }
}
