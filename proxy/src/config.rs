//! Everything the proxy is told, read from the environment once into one checked type. A bad value is refused with the
//! name of its variable; nobody reads the environment later.

/// What is recorded of traffic.
mod records;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::admin::Probes;
use crate::capture::{Plan, Settings};
pub(crate) use records::{Destination, Records};
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};

/// Admin, on loopback.
pub(crate) const ADMIN_PORT: u16 = 15000;
/// Captured connections of our app.
pub const OUTBOUND_PORT: u16 = 15001;
/// Captured plaintext to our app.
pub const INBOUND_PORT: u16 = 15006;
/// Mutual TLS between proxies.
pub const PEER_PORT: u16 = 15008;
/// Metrics, readiness, liveness.
pub const STATUS_PORT: u16 = 15020;

/// Whether `port` is one of the proxy's, to which nothing is ever forwarded.
pub(crate) fn is_own_port(port: u16) -> bool {
    [
        ADMIN_PORT,
        OUTBOUND_PORT,
        INBOUND_PORT,
        PEER_PORT,
        STATUS_PORT,
    ]
    .contains(&port)
}

/// Namespace and service account of the controller, unless said otherwise.
const CONTROLLER: (&str, &str) = ("ringmail-system", "ringmail-controller");
/// Workers, at most.
const WORKERS_MAX: usize = 256;

/// What `run` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The pod this proxy serves.
    pub(crate) workload: WorkloadName,
    /// What the pod is one of, such as a Deployment: whose figures its metrics are. The pod itself if nobody says.
    pub(crate) owner: WorkloadName,
    /// Hosts and ports of the controller, in the order in which they are tried.
    pub(crate) controller_addresses: Vec<String>,
    /// Who answers there.
    pub(crate) controller_identity: SpiffeId,
    pub(crate) trust_domain: TrustDomain,
    /// PEM roots for the first connection to the controller; later ones are streamed.
    pub(crate) bootstrap_roots: PathBuf,
    pub(crate) credential: Credential,
    pub(crate) workers: NonZeroUsize,
    /// The only address to listen on; none: all, and loopback for admin.
    pub(crate) bind_address: Option<IpAddr>,
    /// Listeners that stand for addresses, where nothing is captured.
    pub(crate) explicit: Vec<Explicit>,
    /// What is captured, to see that it is; none with explicit listeners.
    pub(crate) capture: Option<Plan>,
    /// Put on our own sockets, so that they are not captured.
    pub(crate) socket_mark: Option<u32>,
    /// The kubelet's probes that we make for it.
    pub(crate) probes: Probes,
    /// Where the app listens, for those.
    pub(crate) pod_address: IpAddr,
    /// How long connections may take to finish after SIGTERM.
    pub(crate) drain_timeout: Duration,
    /// How long after SIGTERM we accept although nothing is under way: until others have learnt of it.
    pub(crate) drain_linger: Duration,
    /// What is recorded of traffic.
    pub(crate) records: Records,
}

/// What proves to the controller who we are, the first time.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A file with a one-time token.
    JoinToken(PathBuf),
    /// A file with a JWT, read anew each time.
    Jwt(PathBuf),
}

/// A listener that stands for an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Explicit {
    pub(crate) listen: SocketAddr,
    pub(crate) destination: SocketAddr,
}

/// A variable that is missing or wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct ConfigError {
    variable: &'static str,
    problem: String,
}

/// Variables by name.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads every variable of the table in the README.
    ///
    /// # Errors
    /// The first variable that is missing or wrong.
    pub fn from_variables(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let trust_domain: TrustDomain = required(lookup, "RINGMAIL_TRUST_DOMAIN")?;
        let controller_identity = match optional(lookup, "RINGMAIL_CONTROLLER_IDENTITY")? {
            Some(identity) => identity,
            None => SpiffeId::new(&trust_domain, CONTROLLER.0, CONTROLLER.1)
                .map_err(|error| refuse("RINGMAIL_CONTROLLER_IDENTITY", error))?,
        };
        let explicit: Vec<Explicit> = list(lookup, "RINGMAIL_OUTBOUND_LISTENERS")?;
        let workload: WorkloadName = required(lookup, "RINGMAIL_WORKLOAD")?;
        Ok(Self {
            owner: match optional::<String>(lookup, "RINGMAIL_OWNER")? {
                Some(owner) => WorkloadName::new(&workload.namespace, &owner)
                    .map_err(|error| refuse("RINGMAIL_OWNER", error))?,
                None => workload.clone(),
            },
            workload,
            controller_addresses: hosts_and_ports(lookup, "RINGMAIL_CONTROLLER_ADDRESS")?,
            controller_identity,
            trust_domain,
            bootstrap_roots: required(lookup, "RINGMAIL_BOOTSTRAP_ROOTS_FILE")?,
            credential: credential(lookup)?,
            workers: workers(lookup)?,
            bind_address: optional(lookup, "RINGMAIL_BIND_ADDRESS")?,
            capture: captures(lookup, &explicit)?
                .then(|| capture_plan(lookup))
                .transpose()?,
            explicit,
            socket_mark: optional(lookup, "RINGMAIL_SOCKET_MARK")?,
            probes: optional(lookup, "RINGMAIL_PROBES")?.unwrap_or_default(),
            pod_address: optional(lookup, "RINGMAIL_POD_ADDRESS")?
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            drain_timeout: seconds(lookup, "RINGMAIL_DRAIN_SECONDS", 30)?,
            drain_linger: seconds(lookup, "RINGMAIL_DRAIN_LINGER_SECONDS", 2)?,
            records: records::read(lookup)?,
        })
    }
}

fn seconds(
    lookup: Lookup<'_>,
    variable: &'static str,
    default: u64,
) -> Result<Duration, ConfigError> {
    Ok(Duration::from_secs(
        optional(lookup, variable)?.unwrap_or(default),
    ))
}

/// What `init`, `verify` and `run` are told of interception.
///
/// # Errors
/// The first variable that is missing or wrong.
pub fn capture_plan(lookup: Lookup<'_>) -> Result<Plan, ConfigError> {
    let settings = Settings {
        exempt_uid: optional(lookup, "RINGMAIL_PROXY_UID")?,
        exempt_mark: optional(lookup, "RINGMAIL_SOCKET_MARK")?,
        outbound_port: OUTBOUND_PORT,
        inbound_port: INBOUND_PORT,
        outbound_skip_ports: list(lookup, "RINGMAIL_OUTBOUND_SKIP_PORTS")?,
        outbound_skip_networks: list(lookup, "RINGMAIL_OUTBOUND_SKIP_NETWORKS")?,
        inbound_skip_ports: list(lookup, "RINGMAIL_INBOUND_SKIP_PORTS")?,
        inbound_skip_networks: list(lookup, "RINGMAIL_INBOUND_SKIP_NETWORKS")?,
    };
    Plan::new(settings).map_err(|invalid| {
        let variable = match invalid.field.split(['.', '[']).next() {
            Some("exempt_mark") => "RINGMAIL_SOCKET_MARK",
            Some("outbound_skip_ports") => "RINGMAIL_OUTBOUND_SKIP_PORTS",
            Some("outbound_skip_networks") => "RINGMAIL_OUTBOUND_SKIP_NETWORKS",
            Some("inbound_skip_ports") => "RINGMAIL_INBOUND_SKIP_PORTS",
            Some("inbound_skip_networks") => "RINGMAIL_INBOUND_SKIP_NETWORKS",
            _ => "RINGMAIL_PROXY_UID",
        };
        refuse(variable, invalid.problem)
    })
}

fn credential(lookup: Lookup<'_>) -> Result<Credential, ConfigError> {
    let token = optional(lookup, "RINGMAIL_JOIN_TOKEN_FILE")?;
    match (token, optional(lookup, "RINGMAIL_JWT_FILE")?) {
        (Some(token), None) => Ok(Credential::JoinToken(token)),
        (None, Some(jwt)) => Ok(Credential::Jwt(jwt)),
        _ => Err(refuse(
            "RINGMAIL_JOIN_TOKEN_FILE",
            "set either this or RINGMAIL_JWT_FILE",
        )),
    }
}

/// Whether connections come to us by capture: unless listeners stand in for it, or it is said otherwise.
fn captures(lookup: Lookup<'_>, explicit: &[Explicit]) -> Result<bool, ConfigError> {
    let name = "RINGMAIL_CAPTURE";
    match optional::<String>(lookup, name)?.as_deref() {
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(_) => Err(refuse(name, "is neither on nor off")),
        None => Ok(explicit.is_empty()),
    }
}

/// As many as the cgroup grants CPUs, unless said otherwise.
fn workers(lookup: Lookup<'_>) -> Result<NonZeroUsize, ConfigError> {
    let name = "RINGMAIL_WORKERS";
    match optional::<NonZeroUsize>(lookup, name)? {
        Some(n) if n.get() > WORKERS_MAX => Err(refuse(name, "is more than 256")),
        Some(n) => Ok(n),
        None => Ok(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)),
    }
}

fn hosts_and_ports(lookup: Lookup<'_>, name: &'static str) -> Result<Vec<String>, ConfigError> {
    let value: String = required(lookup, name)?;
    let all = value.split(',').map(str::trim).map(|one| {
        let (host, port) = one.rsplit_once(':')?;
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        (!host.is_empty() && is_port).then(|| one.to_owned())
    });
    let all: Option<Vec<_>> = all.collect();
    all.ok_or_else(|| refuse(name, "is not host:port, or a list of them"))
}

impl FromStr for Explicit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (listen, destination) = text
            .split_once('=')
            .ok_or("is not a list of listen-address=destination")?;
        let address = |text: &str| {
            text.parse::<SocketAddr>()
                .map_err(|_| format!("{text} is not address:port"))
        };
        Ok(Self {
            listen: address(listen)?,
            destination: address(destination)?,
        })
    }
}

/// A variable that must be set.
pub(crate) fn required<T: FromStr<Err: ToString>>(
    lookup: Lookup<'_>,
    name: &'static str,
) -> Result<T, ConfigError> {
    optional(lookup, name)?.ok_or_else(|| refuse(name, "is not set"))
}

/// A variable that may be absent; empty is absent.
pub(crate) fn optional<T: FromStr<Err: ToString>>(
    lookup: Lookup<'_>,
    name: &'static str,
) -> Result<Option<T>, ConfigError> {
    let value = lookup(name).filter(|value| !value.is_empty());
    value
        .map(|value| value.parse().map_err(|error: T::Err| refuse(name, error)))
        .transpose()
}

/// A comma-separated variable; absent is empty.
pub(crate) fn list<T: FromStr<Err: ToString>>(
    lookup: Lookup<'_>,
    name: &'static str,
) -> Result<Vec<T>, ConfigError> {
    let value = lookup(name).unwrap_or_default();
    let members = value
        .split(',')
        .map(str::trim)
        .filter(|member| !member.is_empty());
    members
        .map(|member| member.parse().map_err(|error: T::Err| refuse(name, error)))
        .collect()
}

pub(crate) fn refuse(variable: &'static str, problem: impl ToString) -> ConfigError {
    ConfigError {
        variable,
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[(&str, &str)] = &[
        ("RINGMAIL_TRUST_DOMAIN", "mesh.local"),
        ("RINGMAIL_CONTROLLER_ADDRESS", "controller:15012"),
        ("RINGMAIL_BOOTSTRAP_ROOTS_FILE", "/etc/root.pem"),
        ("RINGMAIL_WORKLOAD", "shop/cart-0"),
        ("RINGMAIL_JOIN_TOKEN_FILE", "/run/token"),
        ("RINGMAIL_WORKERS", "2"),
        ("RINGMAIL_PROXY_UID", "1337"),
    ];

    fn with(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let find = |rows: &[(&str, &str)], name: &str| {
            rows.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Config::from_variables(&|name| find(changes, name).or_else(|| find(GOOD, name)))
    }

    #[test]
    fn defaults() {
        let config = with(&[]).expect("valid");
        assert_eq!(
            config.controller_identity.as_str(),
            "spiffe://mesh.local/ns/ringmail-system/sa/ringmail-controller"
        );
        assert_eq!(
            (config.workers.get(), config.drain_timeout),
            (2, Duration::from_secs(30))
        );
    }

    #[test]
    fn the_readme_lists_every_variable() {
        let sources = [include_str!("config.rs"), include_str!("config/records.rs")];
        let code = sources.map(|source| source.split("#[cfg(test)]").next().unwrap_or_default());
        let quoted = code.iter().flat_map(|code| code.split('"'));
        let read = quoted.filter(|text| text.starts_with("RINGMAIL_") && !text.contains(' '));
        let readme = include_str!("../../README.md");
        for variable in read {
            let row = format!("\n| `{variable}` |");
            assert!(readme.contains(&row), "{variable} is not in the README");
        }
    }

    #[test]
    fn a_controller_may_have_several_addresses() {
        let list = "10.96.0.7:15012, [fd00::7]:15012,controller.system.svc:15012";
        let config = with(&[("RINGMAIL_CONTROLLER_ADDRESS", list)]).expect("valid");
        assert_eq!(
            config.controller_addresses,
            [
                "10.96.0.7:15012",
                "[fd00::7]:15012",
                "controller.system.svc:15012"
            ]
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_its_name() {
        let rows = [
            ("RINGMAIL_TRUST_DOMAIN", ""),
            ("RINGMAIL_TRUST_DOMAIN", "Mesh"),
            ("RINGMAIL_WORKLOAD", "cart-0"),
            ("RINGMAIL_OWNER", "shop/cart"),
            ("RINGMAIL_CONTROLLER_ADDRESS", "controller"),
            ("RINGMAIL_CONTROLLER_ADDRESS", "controller:1,"),
            ("RINGMAIL_CONTROLLER_IDENTITY", "controller"),
            ("RINGMAIL_WORKERS", "0"),
            ("RINGMAIL_WORKERS", "1000"),
            ("RINGMAIL_BIND_ADDRESS", "localhost"),
            ("RINGMAIL_OUTBOUND_LISTENERS", "127.0.0.1:80"),
            ("RINGMAIL_SOCKET_MARK", "-1"),
            ("RINGMAIL_CAPTURE", "yes"),
            ("RINGMAIL_PROXY_UID", ""),
            ("RINGMAIL_PROXY_UID", "0"),
            ("RINGMAIL_OUTBOUND_SKIP_PORTS", "22,x"),
            ("RINGMAIL_INBOUND_SKIP_NETWORKS", "10.0.0.0/33"),
            ("RINGMAIL_DRAIN_SECONDS", "1s"),
            ("RINGMAIL_DRAIN_LINGER_SECONDS", "-1"),
            ("RINGMAIL_PROBES", "[{}]"),
            ("RINGMAIL_POD_ADDRESS", "localhost"),
            ("RINGMAIL_ACCESS_LOG", "yes"),
            ("RINGMAIL_ACCESS_LOG_SAMPLE", "1 %"),
            ("RINGMAIL_ACCESS_LOG_HEADERS", "user-agent,cookie"),
            ("RINGMAIL_AUDIT", "on"),
            ("RINGMAIL_AUDIT_OTLP", "on"),
            ("RINGMAIL_TRACE_SAMPLE", "2"),
            ("RINGMAIL_OTLP_ENDPOINT", "https://collector:4317"),
            ("RINGMAIL_OTLP_ENDPOINT", "http://collector"),
        ];
        for (name, value) in rows {
            assert_eq!(
                with(&[(name, value)]).expect_err("refused").variable,
                name,
                "{value:?}"
            );
        }
        let both = with(&[("RINGMAIL_JWT_FILE", "/run/jwt")]).expect_err("refused");
        assert_eq!(both.variable, "RINGMAIL_JOIN_TOKEN_FILE");
    }
}
