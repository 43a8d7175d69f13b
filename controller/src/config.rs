//! Flags and environment, parsed once into one checked `Config`; nobody reads either later.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use ringmail_proto::identity::{SpiffeId, TrustDomain};

/// What can be said on the command line.
mod flags;

pub use flags::{Cli, Command, JoinTokenFlags, LogFormat, RunFlags};

/// The shortest life of a leaf: shorter would be renewed all the time.
pub const LEAF_LIFETIME_MIN: Duration = Duration::from_secs(10);
/// The longest life of a leaf (DESIGN section 4).
pub const LEAF_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest life of a join token.
pub const JOIN_TOKEN_TTL_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest drain.
pub const DRAIN_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

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
