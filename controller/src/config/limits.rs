//! Where the ledger of rate limits is at home, if that is not our memory: a URL as Redis' own tools take it. Its password is
//! in no error.

use std::fmt;
use std::path::PathBuf;

use http::Uri;
use secrecy::{ExposeSecret, SecretString};

use super::{BadSetting, RunFlags, bad};

/// Where Redis listens if nobody says otherwise.
const PORT: u16 = 6379;
/// Characters of a prefix.
const PREFIX_MAX: usize = 64;

/// A Redis or Valkey that all controllers of a mesh share.
#[derive(Clone)]
pub struct LimitsRedis {
    /// A name or an address.
    pub host: String,
    /// TCP.
    pub port: u16,
    /// Who may vouch for it, where it speaks TLS.
    pub root_cert: Option<PathBuf>,
    /// None: the default user's.
    pub username: Option<String>,
    /// None: it asks for none.
    pub password: Option<SecretString>,
    /// By number.
    pub database: i64,
    /// What keys begin with, before the trust domain.
    pub prefix: String,
}

impl fmt::Debug for LimitsRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LimitsRedis({}:{})", self.host, self.port)
    }
}

const FLAG: &str = "limits-redis";

pub(super) fn limits_redis(flags: &RunFlags) -> Result<Option<LimitsRedis>, BadSetting> {
    let prefix = &flags.limits_redis_prefix;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.chars().all(is_plain) {
        return Err(bad(
            "limits-redis-prefix",
            "is not 1 to 64 letters, digits, -, _, . and :",
        ));
    }
    // A chart that has no value says it empty.
    let url = flags.limits_redis.as_ref().map(ExposeSecret::expose_secret);
    let Some(url) = url.filter(|url| !url.is_empty()) else {
        return Ok(None);
    };
    // What the parser says may quote a part of the password.
    let url: Uri = url.parse().map_err(|_| bad(FLAG, "is no URL"))?;
    let is_tls = match url.scheme_str() {
        Some("redis" | "valkey") => false,
        Some("rediss" | "valkeys") => true,
        Some(_) | None => return Err(bad(FLAG, "is neither redis:// nor rediss://")),
    };
    let host = url.host().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| bad(FLAG, "names no host"))?;
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    let (username, password) = user.split_once(':').unwrap_or((user, ""));
    let decode =
        |text: &str| decoded(text).ok_or_else(|| bad(FLAG, "has a % that stands for no text"));
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let database = match url.path().trim_matches('/') {
        "" => 0,
        number => number
            .parse::<u16>()
            .map_err(|_| bad(FLAG, "ends in something else than a database's number"))?,
    };
    if url.query().is_some() {
        return Err(bad(FLAG, "has a query, which nothing reads"));
    }
    Ok(Some(LimitsRedis {
        host: host.to_owned(),
        port: url.port_u16().unwrap_or(PORT),
        root_cert: is_tls.then(|| flags.limits_redis_root_cert.clone()),
        username: said(decode(username)?),
        password: said(decode(password)?).map(SecretString::from),
        database: database.into(),
        prefix: prefix.clone(),
    }))
}

/// Text in which `%3A` stands for a colon, and so on.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        let is_hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(
            u8::from_str_radix(digits, 16)
                .ok()
                .filter(|_| is_hexadecimal)?,
        );
        rest = after;
    }
    String::from_utf8(bytes).ok()
}
