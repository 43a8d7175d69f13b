//! What a program counts, as a list: name, kind, labels, help. Each program registers its metrics from its own list, and
//! the dashboards, the alerts and the README are held against both.
//!
//! Names follow Prometheus' conventions: base units at the end (`_seconds`, `_bytes`), `_total` behind those of counters.
//! Pure.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Always 1; its labels are what it tells.
    Info,
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As queries have it; of a histogram, without `_bucket`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of the labels, in the order in which their values are given.
    pub labels: &'static [&'static str],
    /// One sentence, without the stop.
    pub help: &'static str,
}

/// What names of metrics may end in, before `_total`.
const UNITS: [&str; 2] = ["seconds", "bytes"];

impl Metric {
    /// A metric that is named as it should be.
    #[must_use]
    pub const fn new(
        kind: Kind,
        name: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            labels,
            help,
        }
    }

    /// The name without what the exposition adds, and the unit, which it adds as well.
    #[must_use]
    pub fn stem(&self) -> (&'static str, Option<&'static str>) {
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let name = self.name.strip_suffix(end).unwrap_or(self.name);
        let unit = |unit: &&str| name.strip_suffix(unit)?.strip_suffix('_').map(str::len);
        match UNITS.iter().find_map(|one| Some((unit(one)?, *one))) {
            Some((bytes, unit)) => (&name[..bytes], Some(unit)),
            None => (name, None),
        }
    }

    /// What a query may call it.
    #[must_use]
    pub fn samples(&self) -> Vec<String> {
        match self.kind {
            Kind::Counter | Kind::Gauge | Kind::Info => vec![self.name.to_owned()],
            Kind::Histogram => ["_bucket", "_sum", "_count"]
                .map(|end| format!("{}{end}", self.name))
                .to_vec(),
        }
    }
}

/// What is wrong with a catalogue, in words; empty if nothing is.
#[must_use]
pub fn problems(catalogue: &[&Metric]) -> Vec<String> {
    let mut found = Vec::new();
    for (n, metric) in catalogue.iter().enumerate() {
        let mut say = |problem: &str| found.push(format!("{}: {problem}", metric.name));
        let is_word = |text: &str| {
            let known =
                |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
            !text.is_empty() && text.bytes().all(known)
        };
        if !is_word(metric.name) || !metric.labels.iter().all(|label| is_word(label)) {
            say("names are lower case, digits and underscores");
        }
        if metric.name.ends_with("_total") != (metric.kind == Kind::Counter) {
            say("counters, and nothing else, end in _total");
        }
        if metric.name.ends_with("_info") != (metric.kind == Kind::Info) {
            say("info, and nothing else, ends in _info");
        }
        if metric.kind == Kind::Histogram && metric.stem().1.is_none() {
            say("a histogram has a unit");
        }
        if metric.help.is_empty() || metric.help.ends_with('.') {
            say("help is a sentence without a stop");
        }
        if ["le", "quantile"]
            .iter()
            .any(|own| metric.labels.contains(own))
        {
            say("has a label that histograms have");
        }
        if catalogue[..n].iter().any(|other| other.name == metric.name) {
            say("is there twice");
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_exposition_adds_is_taken_off() {
        let rows = [
            (Kind::Counter, "a_requests_total", "a_requests", None),
            (Kind::Counter, "a_sent_bytes_total", "a_sent", Some("bytes")),
            (Kind::Histogram, "a_wait_seconds", "a_wait", Some("seconds")),
            (Kind::Gauge, "a_open", "a_open", None),
            (Kind::Info, "a_build_info", "a_build", None),
        ];
        for (kind, name, stem, unit) in rows {
            assert_eq!(Metric::new(kind, name, &[], "A").stem(), (stem, unit));
        }
    }

    #[test]
    fn a_bad_name_is_found() {
        let good = Metric::new(Kind::Counter, "a_total", &["by"], "All of it");
        assert_eq!(problems(&[&good]), Vec::<String>::new());
        let bad = [
            Metric {
                name: "A_total",
                ..good
            },
            Metric {
                name: "a_count",
                ..good
            },
            Metric {
                kind: Kind::Gauge,
                ..good
            },
            Metric {
                kind: Kind::Histogram,
                name: "a",
                ..good
            },
            Metric {
                kind: Kind::Info,
                name: "a",
                ..good
            },
            Metric {
                help: "It.",
                ..good
            },
            Metric {
                labels: &["le"],
                ..good
            },
            Metric {
                labels: &["a-b"],
                ..good
            },
        ];
        for metric in bad {
            assert_eq!(problems(&[&metric]).len(), 1, "{metric:?}");
        }
        assert_eq!(problems(&[&good, &good]).len(), 1);
    }
}
