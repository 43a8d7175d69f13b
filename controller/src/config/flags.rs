//! What can be said on the command line or in the environment, as said; checked by [`super::Config`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use ringmail_proto::identity::TrustDomain;
use ringmail_proto::policy::Posture;
use secrecy::SecretString;

/// Ringmail's control plane: certificate authority and discovery for its proxies.
#[derive(Debug, Parser)]
#[command(name = "ringmail-controller", version)]
pub struct Cli {
    /// How log lines look.
    #[arg(
        long,
        global = true,
        env = "RINGMAIL_LOG_FORMAT",
        default_value = "text"
    )]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// What holds where no object says otherwise.
#[derive(Debug, Clone, Args)]
pub struct PolicyFlags {
    /// What becomes of callers that no policy speaks of, where neither namespace nor pod says it by
    /// `ringmail.io/default-policy`: deny, mesh (whoever has an identity may), cluster (so may who comes from the cluster's
    /// networks) or open.
    #[arg(long, env = "RINGMAIL_DEFAULT_POLICY", default_value = "mesh", value_parser = posture)]
    pub default_policy: Posture,
    /// What `cluster` means by the cluster: networks in CIDR notation.
    #[arg(
        long,
        env = "RINGMAIL_CLUSTER_NETWORKS",
        value_delimiter = ',',
        default_value = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8"
    )]
    pub cluster_networks: Vec<IpNet>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run(Box<RunFlags>),
    /// Print a fresh one-time token with which one proxy gets its first certificate.
    JoinToken(JoinTokenFlags),
}

/// Flags of `run`, as said.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// The trust domain of every identity issued here.
    #[arg(long, env = "RINGMAIL_TRUST_DOMAIN")]
    pub trust_domain: TrustDomain,
    /// Directory of Kubernetes objects (*.yaml, *.yml), followed while running.
    #[arg(long, env = "RINGMAIL_SOURCE_DIR")]
    pub source_dir: Option<PathBuf>,
    /// Directory for keys and tokens, made when missing (0700).
    #[arg(long, env = "RINGMAIL_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// The objects are a cluster's, in place of a directory's; keys are in its Secrets, pods prove themselves to it.
    #[arg(long, env = "RINGMAIL_KUBERNETES", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        default_value = "false", default_missing_value = "true")]
    pub kubernetes: bool,
    /// With --kubernetes: the namespace this controller runs in.
    #[arg(long, env = "RINGMAIL_NAMESPACE")]
    pub namespace: Option<String>,
    /// With --kubernetes: the pod this controller is, by which its replicas know it.
    #[arg(long, env = "RINGMAIL_POD")]
    pub pod: Option<String>,
    /// With --kubernetes: where the API server calls.
    #[arg(long, env = "RINGMAIL_WEBHOOK_LISTEN", default_value = "0.0.0.0:15017")]
    pub webhook_listen: SocketAddr,
    /// With --kubernetes: a Secret of type kubernetes.io/tls that somebody else keeps (tls.crt, tls.key, ca.crt), in place
    /// of a self-made root.
    #[arg(long, env = "RINGMAIL_ISSUER_SECRET")]
    pub issuer_secret: Option<String>,
    /// With --kubernetes: namespaces that the webhook configurations exclude, besides our own and the cluster's.
    #[arg(long, env = "RINGMAIL_EXCLUDED_NAMESPACES", value_delimiter = ',')]
    pub excluded_namespaces: Vec<String>,
    /// With --kubernetes: evict running pods that should have a sidecar and have none, one by one.
    #[arg(long, env = "RINGMAIL_EVICT", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        default_value = "false", default_missing_value = "true")]
    pub evict: bool,
    /// With --kubernetes: what pods are given.
    #[command(flatten)]
    pub sidecar: SidecarFlags,
    /// What holds where no object says otherwise.
    #[command(flatten)]
    pub policy: PolicyFlags,
    /// Where proxies call.
    #[arg(long, env = "RINGMAIL_LISTEN", default_value = "0.0.0.0:15012")]
    pub listen: SocketAddr,
    /// Where /metrics, /ready, /live and /status are.
    #[arg(
        long,
        env = "RINGMAIL_METRICS_LISTEN",
        default_value = "127.0.0.1:15014"
    )]
    pub metrics_listen: SocketAddr,
    /// How long a leaf certificate is valid: 10s to 24h.
    #[arg(long, env = "RINGMAIL_LEAF_LIFETIME", default_value = "24h", value_parser = duration)]
    pub leaf_lifetime: Duration,
    /// Issuer certificate (PEM, with intermediates) instead of a self-made authority.
    #[arg(long, env = "RINGMAIL_ISSUER_CERT", requires_all = ["issuer_key", "root_cert"])]
    pub issuer_cert: Option<PathBuf>,
    /// Private key of the issuer (PEM).
    #[arg(long, env = "RINGMAIL_ISSUER_KEY", requires_all = ["issuer_cert", "root_cert"])]
    pub issuer_key: Option<PathBuf>,
    /// Root certificates (PEM) that proxies shall trust.
    #[arg(long, env = "RINGMAIL_ROOT_CERT", requires_all = ["issuer_cert", "issuer_key"])]
    pub root_cert: Option<PathBuf>,
    /// Issuer (`iss`) whose JWTs prove identities.
    #[arg(long, env = "RINGMAIL_JWT_ISSUER", requires = "jwks")]
    pub jwt_issuer: Option<String>,
    /// Audience that JWTs must name.
    #[arg(long, env = "RINGMAIL_JWT_AUDIENCE", default_value = "ringmail")]
    pub jwt_audience: String,
    /// The issuer's keys: a file, or an https URL (http only to a loopback address).
    #[arg(long, env = "RINGMAIL_JWKS", requires = "jwt_issuer")]
    pub jwks: Option<String>,
    /// Roots (PEM) that may vouch for the JWKS server.
    #[arg(
        long,
        env = "RINGMAIL_JWKS_ROOT_CERT",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    pub jwks_root_cert: PathBuf,
    /// Fetch keys that a RequestAuthentication names from loopback and link-local addresses, too: whoever may write one can
    /// then have the controller dial what only its machine reaches.
    #[arg(long, env = "RINGMAIL_JWKS_ALLOW_LOCAL", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        default_value = "false", default_missing_value = "true")]
    pub jwks_allow_local: bool,
    /// Fetch keys that a RequestAuthentication names by http, too: whoever is on the way can then replace them.
    #[arg(long, env = "RINGMAIL_JWKS_ALLOW_HTTP", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        default_value = "false", default_missing_value = "true")]
    pub jwks_allow_http: bool,
    /// A Redis or Valkey that keeps the ledger of rate limits, so that every replica leases from it, in place of the
    /// leader's memory: redis://, or rediss:// for TLS, then USER:PASSWORD@HOST:PORT/DATABASE, of which only the host is a
    /// must. The environment is the better place for a password.
    #[arg(long, env = "RINGMAIL_LIMITS_REDIS", hide_env_values = true, value_parser = secret)]
    pub limits_redis: Option<SecretString>,
    /// With --limits-redis: what its keys begin with, before the trust domain. Two meshes of one trust domain differ in it.
    #[arg(long, env = "RINGMAIL_LIMITS_REDIS_PREFIX", default_value = "ringmail")]
    pub limits_redis_prefix: String,
    /// Roots (PEM) that may vouch for a rediss:// server.
    #[arg(
        long,
        env = "RINGMAIL_LIMITS_REDIS_ROOT_CERT",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    pub limits_redis_root_cert: PathBuf,
    /// How long open streams may finish after SIGTERM.
    #[arg(long, env = "RINGMAIL_DRAIN_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub drain_timeout: Duration,
}

/// What every injected pod is given, unless its annotations say otherwise.
#[derive(Debug, Clone, Args)]
pub struct SidecarFlags {
    /// The proxy's image.
    #[arg(long, env = "RINGMAIL_PROXY_IMAGE", default_value = concat!("ghcr.io/ringmail/proxy:", env!("CARGO_PKG_VERSION")))]
    pub proxy_image: String,
    /// When a node pulls it: Always, IfNotPresent or Never.
    #[arg(long, env = "RINGMAIL_PROXY_IMAGE_PULL_POLICY", default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"])]
    pub proxy_image_pull_policy: String,
    /// CPU that a sidecar asks for; empty for none.
    #[arg(long, env = "RINGMAIL_PROXY_CPU_REQUEST", default_value = "10m")]
    pub proxy_cpu_request: String,
    /// Memory that a sidecar asks for; empty for none.
    #[arg(long, env = "RINGMAIL_PROXY_MEMORY_REQUEST", default_value = "24Mi")]
    pub proxy_memory_request: String,
    /// CPU that a sidecar may use at most; empty for any.
    #[arg(long, env = "RINGMAIL_PROXY_CPU_LIMIT", default_value = "")]
    pub proxy_cpu_limit: String,
    /// Memory that a sidecar may use at most; empty for any.
    #[arg(long, env = "RINGMAIL_PROXY_MEMORY_LIMIT", default_value = "")]
    pub proxy_memory_limit: String,
    /// Who collects the traces of sidecars: http://HOST:PORT, OTLP over gRPC; empty for nobody.
    #[arg(long, env = "RINGMAIL_PROXY_OTLP_ENDPOINT", default_value = "")]
    pub proxy_otlp_endpoint: String,
    /// Whether it has their audit as well.
    #[arg(long, env = "RINGMAIL_PROXY_AUDIT_OTLP", value_parser = BoolishValueParser::new(), num_args = 0..=1,
        default_value = "false", default_missing_value = "true")]
    pub proxy_audit_otlp: bool,
    /// Of requests without a trace, the part that begins one.
    #[arg(long, env = "RINGMAIL_PROXY_TRACE_SAMPLE", default_value = "0")]
    pub proxy_trace_sample: String,
}

/// Flags of `join-token`, as said.
#[derive(Debug, Args)]
pub struct JoinTokenFlags {
    /// The state directory of the controller.
    #[arg(long, env = "RINGMAIL_STATE_DIR")]
    pub state_dir: PathBuf,
    /// The trust domain.
    #[arg(long, env = "RINGMAIL_TRUST_DOMAIN")]
    pub trust_domain: TrustDomain,
    /// Whose identity the token proves: namespace and service account, as `shop/cart`.
    #[arg(long, env = "RINGMAIL_SERVICE_ACCOUNT")]
    pub service_account: String,
    /// How long the token may be used: up to 168h.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub ttl: Duration,
}

fn posture(text: &str) -> Result<Posture, String> {
    crate::source::annotations::posture("default-policy", text).map_err(|e| e.problem)
}

/// Whatever is wrong with it is said where its text is not.
fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

/// `90s`, `15m`, `24h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || "is not a whole number with s, m, h or d".to_owned();
    let unit = match text.chars().next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some(_) | None => return Err(refuse()),
    };
    let digits = &text[..text.len() - 1];
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    let count: u64 = digits.parse().map_err(|_| refuse())?;
    count
        .checked_mul(unit)
        .map(Duration::from_secs)
        .ok_or_else(refuse)
}
