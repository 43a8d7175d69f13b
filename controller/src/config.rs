//! Flags and environment, parsed once into one checked [`Config`]; nobody reads either later.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringmail_proto::identity::{SpiffeId, TrustDomain};
use url::Url;

/// The shortest life of a leaf: shorter would be renewed all the time.
pub const LEAF_LIFETIME_MIN: Duration = Duration::from_secs(10);
/// The longest life of a leaf (DESIGN section 4).
pub const LEAF_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest life of a join token.
pub const JOIN_TOKEN_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest drain.
pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

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

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run(RunFlags),
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
    pub source_dir: PathBuf,
    /// Directory for keys and tokens, made when missing (0700).
    #[arg(long, env = "RINGMAIL_STATE_DIR")]
    pub state_dir: PathBuf,
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
    /// How long open streams may finish after SIGTERM.
    #[arg(long, env = "RINGMAIL_DRAIN_TIMEOUT", default_value = "10s", value_parser = duration)]
    pub drain_timeout: Duration,
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
    /// Whose identity the token proves: <namespace>/<service-account>.
    #[arg(long, env = "RINGMAIL_SERVICE_ACCOUNT")]
    pub service_account: String,
    /// How long the token may be used: up to 168h.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub ttl: Duration,
}

/// Everything that `run` needs, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Trust domain of every identity issued here.
    pub trust_domain: TrustDomain,
    /// Directory of objects.
    pub source_dir: PathBuf,
    /// Directory of keys and tokens.
    pub state_dir: PathBuf,
    /// gRPC.
    pub listen: SocketAddr,
    /// Metrics and status.
    pub metrics_listen: SocketAddr,
    /// Life of a leaf.
    pub leaf_lifetime: Duration,
    /// An authority made elsewhere.
    pub given_authority: Option<GivenAuthority>,
    /// Whose JWTs prove identities.
    pub jwt: Option<JwtTrust>,
    /// How long open streams may finish.
    pub drain_timeout: Duration,
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
        url: Url,
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
        let jwt = match (flags.jwt_issuer, flags.jwks) {
            (Some(issuer), Some(jwks)) => Some(jwt_trust(
                issuer,
                flags.jwt_audience,
                &jwks,
                flags.jwks_root_cert,
            )?),
            (None, None) => None,
            (Some(_), None) => return Err(bad("jwks", "is missing beside --jwt-issuer")),
            (None, Some(_)) => return Err(bad("jwt-issuer", "is missing beside --jwks")),
        };
        let given_authority = match (flags.issuer_cert, flags.issuer_key, flags.root_cert) {
            (Some(issuer_cert), Some(issuer_key), Some(root_cert)) => Some(GivenAuthority {
                issuer_cert,
                issuer_key,
                root_cert,
            }),
            (None, None, None) => None,
            _ => {
                return Err(bad(
                    "issuer-cert",
                    "needs --issuer-key and --root-cert beside it",
                ));
            }
        };
        Ok(Self {
            trust_domain: flags.trust_domain,
            source_dir: flags.source_dir,
            state_dir: flags.state_dir,
            listen: flags.listen,
            metrics_listen: flags.metrics_listen,
            leaf_lifetime: flags.leaf_lifetime,
            given_authority,
            jwt,
            drain_timeout: flags.drain_timeout,
        })
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
        let url: Url = jwks.parse().map_err(|e| bad("jwks", e))?;
        let loopback = match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(_)) | None => false,
        };
        if !(url.scheme() == "https" || url.scheme() == "http" && loopback) {
            return Err(bad(
                "jwks",
                "is neither https nor http to a loopback address",
            ));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &[&str]) -> Result<Config, String> {
        let base = [
            "ringmail-controller",
            "run",
            "--trust-domain=mesh.local",
            "--source-dir=/src",
            "--state-dir=/state",
        ];
        let cli = Cli::try_parse_from(base.iter().chain(extra)).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Run(flags) => Config::try_from(flags).map_err(|e| e.to_string()),
            Command::JoinToken(_) => Err("not run".into()),
        }
    }

    #[test]
    fn refusals_name_the_flag() {
        let rows: &[(&[&str], Option<&str>)] = &[
            (&[], None),
            (&["--leaf-lifetime=10s"], None),
            (&["--leaf-lifetime=9s"], Some("--leaf-lifetime")),
            (&["--leaf-lifetime=25h"], Some("--leaf-lifetime")),
            (&["--leaf-lifetime=-1h"], Some("--leaf-lifetime")),
            (&["--leaf-lifetime=é"], Some("--leaf-lifetime")),
            (&["--leaf-lifetime="], Some("--leaf-lifetime")),
            (&["--trust-domain=Mesh"], Some("--trust-domain")),
            (&["--issuer-cert=a"], Some("--issuer-key")),
            (&["--jwt-issuer=a"], Some("--jwks")),
            (&["--jwks=a"], Some("--jwt-issuer")),
            (&["--jwt-issuer=a", "--jwks=keys.json"], None),
            (&["--jwt-issuer=a", "--jwks=https://a.b/keys"], None),
            (&["--jwt-issuer=a", "--jwks=http://127.0.0.1:1/keys"], None),
            (
                &["--jwt-issuer=a", "--jwks=http://a.b/keys"],
                Some("--jwks"),
            ),
            (&["--jwt-issuer=a", "--jwks=ftp://a.b/keys"], Some("--jwks")),
            (
                &["--jwt-issuer=a", "--jwks=k", "--jwt-audience="],
                Some("--jwt-audience"),
            ),
        ];
        for (flags, refused) in rows {
            match (parse(flags), refused) {
                (Ok(_), None) => {}
                (Err(text), Some(flag)) => assert!(text.contains(flag), "{flags:?}: {text}"),
                (other, _) => unreachable!("{flags:?}: {other:?}"),
            }
        }
    }
}
