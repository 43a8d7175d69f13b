//! What annotations ask of one sidecar: the pod's own over those of its namespace, over what the chart says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use ringmail_proto::Invalid;
use ringmail_proto::records::{AccessLog, Audit, HeaderNames, Share};

use super::Resources;
use crate::source::annotations::{
    ACCESS_LOG, ACCESS_LOG_HEADERS, ACCESS_LOG_SAMPLE, AUDIT, Annotations, CPU_LIMIT, CPU_REQUEST,
    LOG_LEVEL, MEMORY_LIMIT, MEMORY_REQUEST, SKIP_INBOUND_NETWORKS, SKIP_INBOUND_PORTS,
    SKIP_OUTBOUND_NETWORKS, SKIP_OUTBOUND_PORTS, TRACE_SAMPLE, port_list,
};

/// Networks in one list.
const NETWORKS_MAX: usize = 256;
/// Bytes of a quantity.
const QUANTITY_BYTES_MAX: usize = 32;
/// Levels of the proxy's log.
const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];
/// Units of quantities (Kubernetes, `resource.Quantity`), and their size in thousandths.
const UNITS: [(&str, f64); 12] = [
    ("", 1e3),
    ("m", 1.0),
    ("k", 1e6),
    ("M", 1e9),
    ("G", 1e12),
    ("T", 1e15),
    ("P", 1e18),
    ("Ki", 1024e3),
    ("Mi", 1_048_576e3),
    ("Gi", 1_073_741_824e3),
    ("Ti", 1_099_511_627_776e3),
    ("Pi", 1_125_899_906_842_624e3),
];
/// Workers of a sidecar whose CPU nobody limits: a thread for each of its node's would mostly wait.
const WORKERS_UNLIMITED: u32 = 2;
/// As many as a proxy takes.
const WORKERS_MAX: f64 = 256.0;

/// What a value has to be.
type Check = fn(&str) -> Result<(), String>;
/// What is said of records: the proxy takes the same words, and refuses the same.
const RECORDS: [(&str, &str, Check); 5] = [
    (ACCESS_LOG, "RINGMAIL_ACCESS_LOG", reads::<AccessLog>),
    (
        ACCESS_LOG_SAMPLE,
        "RINGMAIL_ACCESS_LOG_SAMPLE",
        reads::<Share>,
    ),
    (
        ACCESS_LOG_HEADERS,
        "RINGMAIL_ACCESS_LOG_HEADERS",
        reads::<HeaderNames>,
    ),
    (AUDIT, "RINGMAIL_AUDIT", reads::<Audit>),
    (TRACE_SAMPLE, "RINGMAIL_TRACE_SAMPLE", reads::<Share>),
];

/// What one sidecar is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Variables of the proxy, by name.
    pub(super) variables: Vec<(&'static str, String)>,
    pub(super) workers: u32,
    pub(super) resources: Resources,
}

impl Options {
    pub(super) fn read(
        own: &BTreeMap<String, String>,
        inherited: &BTreeMap<String, String>,
        defaults: &Resources,
    ) -> Result<Self, Invalid> {
        // What the controller reads later is refused now.
        Annotations::read(Some(own))?;
        let said = |key: &'static str| Some((key, own.get(key).or_else(|| inherited.get(key))?));
        let mut variables = Vec::new();
        for (key, variable) in [
            (SKIP_INBOUND_PORTS, "RINGMAIL_INBOUND_SKIP_PORTS"),
            (SKIP_OUTBOUND_PORTS, "RINGMAIL_OUTBOUND_SKIP_PORTS"),
        ] {
            if let Some((key, list)) = said(key) {
                let ports = port_list(key, list)?;
                let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
                variables.push((variable, ports.join(",")));
            }
        }
        for (key, variable) in [
            (SKIP_INBOUND_NETWORKS, "RINGMAIL_INBOUND_SKIP_NETWORKS"),
            (SKIP_OUTBOUND_NETWORKS, "RINGMAIL_OUTBOUND_SKIP_NETWORKS"),
        ] {
            if let Some((key, list)) = said(key) {
                variables.push((variable, networks(key, list)?));
            }
        }
        if let Some((key, level)) = said(LOG_LEVEL) {
            if !LOG_LEVELS.contains(&level.as_str()) {
                let problem = "is none of error, warn, info, debug and trace";
                return Err(Invalid::new(key, problem));
            }
            variables.push(("RINGMAIL_LOG", level.clone()));
        }
        for (key, variable, check) in RECORDS {
            if let Some((key, text)) = said(key) {
                check(text).map_err(|problem| Invalid::new(key, problem))?;
                variables.push((variable, text.clone()));
            }
        }
        let quantity = |key, default: &Option<String>| match said(key) {
            Some((key, text)) => thousandths(key, text).map(|_| Some(text.clone())),
            None => Ok(default.clone()),
        };
        let mut resources = Resources {
            cpu_request: quantity(CPU_REQUEST, &defaults.cpu_request)?,
            memory_request: quantity(MEMORY_REQUEST, &defaults.memory_request)?,
            cpu_limit: quantity(CPU_LIMIT, &defaults.cpu_limit)?,
            memory_limit: quantity(MEMORY_LIMIT, &defaults.memory_limit)?,
        };
        let Resources {
            cpu_request,
            memory_request,
            cpu_limit,
            memory_limit,
        } = &mut resources;
        for (key, request, limit) in [
            (CPU_REQUEST, cpu_request, cpu_limit),
            (MEMORY_REQUEST, memory_request, memory_limit),
        ] {
            if !exceeds(request.as_deref(), limit.as_deref()) {
                continue;
            }
            // A default gives way; what somebody asked for is not made less behind his back.
            match said(key) {
                Some(_) => return Err(Invalid::new(key, "is more than the limit")),
                None => request.clone_from(limit),
            }
        }
        Ok(Self {
            variables,
            workers: workers(&resources)?,
            resources,
        })
    }
}

fn reads<T: FromStr<Err: ToString>>(text: &str) -> Result<(), String> {
    let read = text.parse::<T>();
    read.map(drop).map_err(|problem| problem.to_string())
}

/// As many as the CPU limit has room for.
fn workers(resources: &Resources) -> Result<u32, Invalid> {
    let Some(limit) = &resources.cpu_limit else {
        return Ok(WORKERS_UNLIMITED);
    };
    let cpus = (thousandths(CPU_LIMIT, limit)? / 1e3).ceil();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 256"
    )]
    Ok(cpus.clamp(1.0, WORKERS_MAX) as u32)
}

/// Whether a request is more than a limit, which Kubernetes refuses.
pub(super) fn exceeds(request: Option<&str>, limit: Option<&str>) -> bool {
    let amount = |text: Option<&str>| thousandths("", text?).ok();
    matches!((amount(request), amount(limit)), (Some(request), Some(limit)) if request > limit)
}

/// Whether it is a quantity of Kubernetes.
#[must_use]
pub fn is_quantity(text: &str) -> bool {
    thousandths("", text).is_ok()
}

/// A quantity of CPU or memory, in thousandths of its base unit.
fn thousandths(key: &str, text: &str) -> Result<f64, Invalid> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = UNITS
        .iter()
        .find(|(unit, _)| text[digits.len()..] == **unit);
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.len() <= QUANTITY_BYTES_MAX;
    let number = digits.parse::<f64>().ok().filter(|_| is_number);
    match (number, unit) {
        (Some(number), Some((_, size))) => Ok(number * size),
        _ => Err(Invalid::new(key, "is no quantity like 100m, 0.5 or 64Mi")),
    }
}

/// `10.0.0.0/8, fd00::/8`; a lone address is a network of one.
fn networks(key: &str, list: &str) -> Result<String, Invalid> {
    let mut found = Vec::new();
    for text in list
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
    {
        let (address, prefix) = text.split_once('/').unzip();
        let address = address.unwrap_or(text).parse::<IpAddr>().ok();
        let longest = address.map(|ip| if ip.is_ipv4() { 32 } else { 128 });
        let prefix = prefix.map_or(Ok(0), str::parse::<u8>).ok();
        if longest
            .zip(prefix)
            .is_none_or(|(longest, prefix)| prefix > longest)
        {
            return Err(Invalid::new(
                key,
                format!("{text} is no network like 10.0.0.0/8"),
            ));
        }
        found.push(text.to_owned());
    }
    if found.len() > NETWORKS_MAX {
        return Err(Invalid::new(key, "lists more than 256 networks"));
    }
    Ok(found.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(own: &[(&str, &str)], inherited: &[(&str, &str)]) -> Result<Options, Invalid> {
        let map = |all: &[(&str, &str)]| {
            let owned = all
                .iter()
                .map(|(key, value)| ((*key).into(), (*value).into()));
            owned.collect()
        };
        let defaults = Resources {
            cpu_request: Some("10m".into()),
            ..Resources::default()
        };
        Options::read(&map(own), &map(inherited), &defaults)
    }

    fn variable(options: &Options, name: &str) -> Option<String> {
        let mut all = options.variables.iter();
        all.find(|(own, _)| *own == name)
            .map(|(_, value)| value.clone())
    }

    #[test]
    fn the_pod_says_it_before_its_namespace_and_that_before_the_chart() {
        let options = read(
            &[(SKIP_OUTBOUND_PORTS, "3306, 5432"), (CPU_LIMIT, "1500m")],
            &[
                (SKIP_OUTBOUND_PORTS, "1"),
                (LOG_LEVEL, "debug"),
                (MEMORY_LIMIT, "64Mi"),
            ],
        )
        .expect("valid");
        let found = variable(&options, "RINGMAIL_OUTBOUND_SKIP_PORTS");
        assert_eq!(found.as_deref(), Some("3306,5432"));
        assert_eq!(variable(&options, "RINGMAIL_LOG").as_deref(), Some("debug"));
        assert_eq!(options.workers, 2);
        assert_eq!(options.resources.cpu_request.as_deref(), Some("10m"));
        assert_eq!(options.resources.memory_limit.as_deref(), Some("64Mi"));
    }

    #[test]
    fn what_means_nothing_is_refused_by_its_key() {
        let rows = [
            (SKIP_INBOUND_PORTS, "0", false),
            (SKIP_INBOUND_PORTS, "80,443", true),
            (
                SKIP_OUTBOUND_NETWORKS,
                "10.0.0.0/8, fd00::/8, 1.2.3.4",
                true,
            ),
            (SKIP_OUTBOUND_NETWORKS, "10.0.0.0/33", false),
            (SKIP_OUTBOUND_NETWORKS, "ten", false),
            (LOG_LEVEL, "loud", false),
            (ACCESS_LOG, "json", true),
            (ACCESS_LOG, "yes", false),
            (ACCESS_LOG_SAMPLE, "0.01", true),
            (ACCESS_LOG_SAMPLE, "1%", false),
            (ACCESS_LOG_HEADERS, "user-agent, x-tenant", true),
            (ACCESS_LOG_HEADERS, "user-agent,authorization", false),
            (ACCESS_LOG_HEADERS, "X-API-Key", false),
            (AUDIT, "all", true),
            (AUDIT, "none", false),
            (TRACE_SAMPLE, "0.5", true),
            (TRACE_SAMPLE, "2", false),
            (CPU_REQUEST, "100m", true),
            (CPU_REQUEST, "1.5", true),
            (CPU_REQUEST, "-1", false),
            (CPU_REQUEST, "", false),
            (MEMORY_REQUEST, "64Mi", true),
            (MEMORY_REQUEST, "64 MiB", false),
            ("ringmail.io/inbound", "open", false),
        ];
        for (key, value, good) in rows {
            let found = read(&[(key, value)], &[]);
            assert_eq!(found.is_ok(), good, "{key}: {value}");
            if let Err(refused) = found {
                assert_eq!(refused.field, key);
            }
        }
    }

    #[test]
    fn the_readme_lists_what_may_be_said_of_records() {
        let readme = include_str!("../../../README.md");
        for (key, variable, _) in RECORDS {
            assert!(readme.contains(&format!("\n| `{key}` |")), "{key}");
            assert!(
                readme.contains(&format!("\n| `{variable}` |")),
                "{variable}"
            );
        }
    }

    #[test]
    fn a_default_request_gives_way_to_a_limit() {
        let rows = [
            (&[(CPU_LIMIT, "5m")][..], Ok("5m")),
            (&[(CPU_LIMIT, "0.01")], Ok("10m")),
            (&[(CPU_LIMIT, "1")], Ok("10m")),
            (&[(CPU_REQUEST, "2"), (CPU_LIMIT, "1")], Err(CPU_REQUEST)),
            (&[(CPU_REQUEST, "1"), (CPU_LIMIT, "1000m")], Ok("1")),
        ];
        for (own, wanted) in rows {
            let found = read(own, &[]).map(|options| options.resources.cpu_request);
            let wanted = wanted.map(|request| Some(request.to_owned()));
            assert_eq!(
                found.map_err(|e| e.field),
                wanted.map_err(str::to_owned),
                "{own:?}"
            );
        }
    }

    #[test]
    fn workers_are_as_many_as_there_is_cpu_for() {
        for (limit, expected) in [("1m", 1), ("1", 1), ("1001m", 2), ("4", 4), ("9k", 256)] {
            let resources = Resources {
                cpu_limit: Some(limit.into()),
                ..Resources::default()
            };
            assert_eq!(workers(&resources), Ok(expected), "{limit}");
        }
        assert_eq!(workers(&Resources::default()), Ok(WORKERS_UNLIMITED));
    }
}
