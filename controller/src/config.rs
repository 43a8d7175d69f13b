//! Flags and environment, parsed once into one checked `Config`; nobody reads either later.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::inject;
use http::Uri;
use ipnet::IpNet;
use ringmail_proto::Invalid;
use ringmail_proto::identity::{SpiffeId, TrustDomain};
use ringmail_proto::policy::Posture;
use ringmail_proto::records::Share;

/// What can be said on the command line.
mod flags;

/// The home of the ledger of rate limits.
mod limits;

pub use flags::{Cli, Command, JoinTokenFlags, LogFormat, PolicyFlags, RunFlags, SidecarFlags};
pub use limits::LimitsRedis;

/// The shortest life of a leaf: shorter would be renewed all the time.
pub const LEAF_LIFETIME_MIN: Duration = Duration::from_secs(10);
/// The longest life of a leaf (DESIGN section 4).
pub const LEAF_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest life of a join token.
pub const JOIN_TOKEN_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest drain.
pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// The namespace of the controller's identity outside a cluster.
pub const CONTROLLER_NAMESPACE: &str = "ringmail-system";
/// The service account of the controller's identity.
pub const CONTROLLER_ACCOUNT: &str = "ringmail-controller";

/// Everything that `run` needs, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Trust domain of every identity issued here.
    pub trust_domain: TrustDomain,
    /// For callers that no policy speaks of.
    pub default_policy: Posture,
    /// What "cluster" means where a default policy says it.
    pub cluster_networks: Vec<IpNet>,
    /// Where objects come from, where keys are kept, and what proves an identity.
    pub home: Home,
    /// gRPC.
    pub listen: SocketAddr,
    /// Metrics and status.
    pub metrics_listen: SocketAddr,
    /// Life of a leaf.
    pub leaf_lifetime: Duration,
    /// How long open streams may finish.
    pub drain_timeout: Duration,
    /// How the keys are fetched that objects name.
    pub jwks: JwksFetching,
    /// Where rate limits are counted; none for the memory of whoever leads.
    pub limits_redis: Option<LimitsRedis>,
}

/// How the keys are fetched that objects name.
#[derive(Debug, Clone, Default)]
pub struct JwksFetching {
    /// Who may vouch for a server.
    pub root_cert: PathBuf,
    /// Whether addresses of this machine and its link are dialled.
    pub allow_local: bool,
    /// Whether http is spoken, which anybody on the way can change.
    pub allow_http: bool,
}

/// Where the controller is at home.
#[derive(Debug, Clone)]
pub enum Home {
    /// Directories of its own.
    Directory(DirectoryHome),
    /// A Kubernetes cluster.
    Cluster(ClusterHome),
}

/// Objects and keys in directories.
#[derive(Debug, Clone)]
pub struct DirectoryHome {
    /// Directory of objects.
    pub source_dir: PathBuf,
    /// Directory of keys and tokens.
    pub state_dir: PathBuf,
    /// An authority made elsewhere.
    pub given_authority: Option<GivenAuthority>,
    /// Whose JWTs prove identities.
    pub jwt: Option<JwtTrust>,
}

/// Objects of a cluster, keys in its Secrets.
#[derive(Debug, Clone)]
pub struct ClusterHome {
    /// Ours.
    pub namespace: String,
    /// Our pod.
    pub pod: String,
    /// Where the API server calls.
    pub webhook_listen: SocketAddr,
    /// The Secret of an authority made elsewhere.
    pub issuer_secret: Option<String>,
    /// Namespaces whose pods no webhook is called for.
    pub excluded: Vec<String>,
    /// Whether running pods that should have a sidecar and have none are evicted.
    pub evict: bool,
    /// What pods are given.
    pub sidecar: inject::Settings,
}

impl Config {
    /// Under which identity proxies know the controller.
    ///
    /// # Errors
    /// When the namespace is none that an identity may name.
    pub fn identity(&self) -> Result<SpiffeId, Invalid> {
        let namespace = match &self.home {
            Home::Directory(_) => CONTROLLER_NAMESPACE,
            Home::Cluster(cluster) => &cluster.namespace,
        };
        SpiffeId::new(&self.trust_domain, namespace, CONTROLLER_ACCOUNT)
    }
}

/// PEM files of an authority made elsewhere.
#[derive(Debug, Clone)]
pub struct GivenAuthority {
    /// Issuer and intermediates.
    pub issuer_cert: PathBuf,
    /// The issuer's private key.
    pub issuer_key: PathBuf,
    /// Roots.
    pub root_cert: PathBuf,
}

/// Whose JWTs prove identities.
#[derive(Debug, Clone)]
pub struct JwtTrust {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// The issuer's keys.
    pub jwks: JwksLocation,
}

/// Where the keys of an issuer are.
#[derive(Debug, Clone)]
pub enum JwksLocation {
    /// A file, read again when it changes.
    File(PathBuf),
    /// A URL, fetched again from time to time.
    Url {
        /// https, or http to a loopback address.
        url: Uri,
        /// Who may vouch for the server.
        root_cert: PathBuf,
    },
}

/// A setting that cannot be, by its flag.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {problem}")]
pub struct BadSetting {
    flag: &'static str,
    problem: String,
}

fn bad(flag: &'static str, problem: impl ToString) -> BadSetting {
    BadSetting {
        flag,
        problem: problem.to_string(),
    }
}

impl TryFrom<RunFlags> for Config {
    type Error = BadSetting;

    fn try_from(flags: RunFlags) -> Result<Self, BadSetting> {
        if !(LEAF_LIFETIME_MIN..=LEAF_LIFETIME_MAX).contains(&flags.leaf_lifetime) {
            return Err(bad("leaf-lifetime", "is not between 10s and 24h"));
        }
        if flags.drain_timeout > DRAIN_TIMEOUT_MAX {
            return Err(bad("drain-timeout", "is longer than 1h"));
        }
        let limits_redis = limits::limits_redis(&flags)?;
        let home = match flags.kubernetes {
            true => Home::Cluster(cluster_home(&flags)?),
            false => Home::Directory(directory_home(&flags)?),
        };
        let config = Self {
            trust_domain: flags.trust_domain,
            default_policy: flags.policy.default_policy,
            cluster_networks: flags.policy.cluster_networks,
            home,
            listen: flags.listen,
            metrics_listen: flags.metrics_listen,
            leaf_lifetime: flags.leaf_lifetime,
            drain_timeout: flags.drain_timeout,
            jwks: JwksFetching {
                root_cert: flags.jwks_root_cert,
                allow_local: flags.jwks_allow_local,
                allow_http: flags.jwks_allow_http,
            },
            limits_redis,
        };
        config.identity().map_err(|e| bad("namespace", e))?;
        Ok(config)
    }
}

fn directory_home(flags: &RunFlags) -> Result<DirectoryHome, BadSetting> {
    for (flag, is_said) in [
        ("namespace", flags.namespace.is_some()),
        ("pod", flags.pod.is_some()),
        ("issuer-secret", flags.issuer_secret.is_some()),
    ] {
        if is_said {
            return Err(bad(flag, "needs --kubernetes beside it"));
        }
    }
    let needed = |flag, path: &Option<PathBuf>| {
        let missing = || bad(flag, "is missing; so is --kubernetes, which needs none");
        path.clone().ok_or_else(missing)
    };
    let given_authority = match (&flags.issuer_cert, &flags.issuer_key, &flags.root_cert) {
        (Some(issuer_cert), Some(issuer_key), Some(root_cert)) => Some(GivenAuthority {
            issuer_cert: issuer_cert.clone(),
            issuer_key: issuer_key.clone(),
            root_cert: root_cert.clone(),
        }),
        (None, None, None) => None,
        _ => {
            return Err(bad(
                "issuer-cert",
                "needs --issuer-key and --root-cert beside it",
            ));
        }
    };
    Ok(DirectoryHome {
        source_dir: needed("source-dir", &flags.source_dir)?,
        state_dir: needed("state-dir", &flags.state_dir)?,
        given_authority,
        jwt: jwt_of(flags)?,
    })
}

fn cluster_home(flags: &RunFlags) -> Result<ClusterHome, BadSetting> {
    for (flag, is_said) in [
        ("source-dir", flags.source_dir.is_some()),
        ("state-dir", flags.state_dir.is_some()),
        ("issuer-cert", flags.issuer_cert.is_some()),
        ("jwt-issuer", flags.jwt_issuer.is_some()),
        ("jwks", flags.jwks.is_some()),
    ] {
        if is_said {
            return Err(bad(flag, "cannot be beside --kubernetes"));
        }
    }
    let needed = |flag, name: &Option<String>| match name.as_deref() {
        None | Some("") => Err(bad(flag, "is missing beside --kubernetes")),
        Some(name) => Ok(name.to_owned()),
    };
    Ok(ClusterHome {
        namespace: needed("namespace", &flags.namespace)?,
        pod: needed("pod", &flags.pod)?,
        webhook_listen: flags.webhook_listen,
        // A chart that has no value says it empty.
        issuer_secret: flags.issuer_secret.clone().filter(|name| !name.is_empty()),
        excluded: flags
            .excluded_namespaces
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect(),
        evict: flags.evict,
        sidecar: sidecar(
            &flags.sidecar,
            &flags.trust_domain,
            &needed("namespace", &flags.namespace)?,
        )?,
    })
}

/// What every pod is given by a controller in `namespace`.
///
/// # Errors
/// The flag that is no quantity.
pub fn sidecar(
    flags: &SidecarFlags,
    trust_domain: &TrustDomain,
    namespace: &str,
) -> Result<inject::Settings, BadSetting> {
    let quantity = |flag, text: &str| match text {
        "" => Ok(None),
        text if inject::is_quantity(text) => Ok(Some(text.to_owned())),
        _ => Err(bad(flag, "is no quantity like 100m, 0.5 or 64Mi")),
    };
    Ok(inject::Settings {
        image: flags.proxy_image.clone(),
        pull_policy: flags.proxy_image_pull_policy.clone(),
        trust_domain: trust_domain.clone(),
        namespace: namespace.to_owned(),
        resources: inject::Resources {
            cpu_request: quantity("proxy-cpu-request", &flags.proxy_cpu_request)?,
            memory_request: quantity("proxy-memory-request", &flags.proxy_memory_request)?,
            cpu_limit: quantity("proxy-cpu-limit", &flags.proxy_cpu_limit)?,
            memory_limit: quantity("proxy-memory-limit", &flags.proxy_memory_limit)?,
        },
        telemetry: telemetry(flags)?,
    })
}

fn telemetry(flags: &SidecarFlags) -> Result<inject::Telemetry, BadSetting> {
    let SidecarFlags {
        proxy_otlp_endpoint: endpoint,
        proxy_audit_otlp: audit,
        proxy_trace_sample: sample,
        ..
    } = flags;
    let collector = match endpoint.as_str() {
        "" if *audit => return Err(bad("proxy-audit-otlp", "needs --proxy-otlp-endpoint")),
        "" => None,
        text => {
            let parsed = text.parse();
            Some(parsed.map_err(|problem: &str| bad("proxy-otlp-endpoint", problem))?)
        }
    };
    let share = sample.parse::<Share>();
    share.map_err(|problem| bad("proxy-trace-sample", problem))?;
    Ok(inject::Telemetry {
        collector,
        audit: *audit,
        trace_sample: sample.clone(),
    })
}

fn jwt_of(flags: &RunFlags) -> Result<Option<JwtTrust>, BadSetting> {
    match (&flags.jwt_issuer, &flags.jwks) {
        (Some(issuer), Some(jwks)) => {
            let (audience, root_cert) = (flags.jwt_audience.clone(), flags.jwks_root_cert.clone());
            jwt_trust(issuer.clone(), audience, jwks, root_cert).map(Some)
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(bad("jwks", "is missing beside --jwt-issuer")),
        (None, Some(_)) => Err(bad("jwt-issuer", "is missing beside --jwks")),
    }
}

fn jwt_trust(
    issuer: String,
    audience: String,
    jwks: &str,
    root_cert: PathBuf,
) -> Result<JwtTrust, BadSetting> {
    if issuer.is_empty() {
        return Err(bad("jwt-issuer", "is empty"));
    }
    if audience.is_empty() {
        return Err(bad("jwt-audience", "is empty"));
    }
    let jwks = if jwks.contains("://") {
        let url: Uri = jwks.parse().map_err(|e| bad("jwks", e))?;
        let host = url.host().unwrap_or_default();
        let bare = host.trim_matches(['[', ']']);
        let loopback = bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        match url.scheme_str() {
            Some("https") if !host.is_empty() => {}
            Some("http") if loopback => {}
            Some(_) | None => {
                return Err(bad(
                    "jwks",
                    "is neither https nor http to a loopback address",
                ));
            }
        }
        JwksLocation::Url { url, root_cert }
    } else {
        JwksLocation::File(jwks.into())
    };
    Ok(JwtTrust {
        issuer,
        audience,
        jwks,
    })
}

/// What `join-token` needs, checked.
#[derive(Debug, Clone)]
pub struct JoinTokenConfig {
    /// The controller's state directory.
    pub state_dir: PathBuf,
    /// Whom the token proves.
    pub identity: SpiffeId,
    /// How long.
    pub ttl: Duration,
}

impl TryFrom<JoinTokenFlags> for JoinTokenConfig {
    type Error = BadSetting;

    fn try_from(flags: JoinTokenFlags) -> Result<Self, BadSetting> {
        if flags.ttl.is_zero() || flags.ttl > JOIN_TOKEN_TTL_MAX {
            return Err(bad("ttl", "is not between 1s and 168h"));
        }
        let (namespace, account) = flags
            .service_account
            .split_once('/')
            .ok_or_else(|| bad("service-account", "is not <namespace>/<service-account>"))?;
        Ok(Self {
            state_dir: flags.state_dir,
            identity: SpiffeId::new(&flags.trust_domain, namespace, account)
                .map_err(|e| bad("service-account", e))?,
            ttl: flags.ttl,
        })
    }
}

#[cfg(test)]
mod tests;
