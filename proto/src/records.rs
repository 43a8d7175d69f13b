//! What may be said of the records a proxy keeps of its traffic, by annotations of a pod and by variables of its proxy: the
//! same words, refused for the same reasons.
//!
//! Limits: `HEADERS_MAX` of `HEADER_NAME_BYTES_MAX` each. A header that may hold a credential is never recorded,
//! whoever asks for it: `is_secret` says which.

use std::fmt;
use std::str::FromStr;

/// Points in time, as they are written.
mod timestamp;

pub use timestamp::{ApacheTime, Timestamp};

/// Headers that one workload may have recorded.
pub const HEADERS_MAX: usize = 16;
/// Bytes of the name of one.
pub const HEADER_NAME_BYTES_MAX: usize = 64;

/// What the name of a header contains that may hold a credential.
const SECRETS: [&str; 12] = [
    "auth",
    "cookie",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "session",
    "signature",
    "api-key",
    "apikey",
    "subscription-key",
];

/// The access log of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// There is none.
    #[default]
    Off,
    /// One JSON object a line, by OpenTelemetry's names.
    Json,
    /// As web servers have it: the combined log format.
    Text,
}

impl FromStr for AccessLog {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("is none of off, json and text"),
        }
    }
}

/// What the audit of a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Audit {
    /// Nothing.
    Off,
    /// Who was refused.
    #[default]
    Refusals,
    /// And who used what a policy protects.
    All,
}

impl FromStr for Audit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            "refusals" => Ok(Self::Refusals),
            "all" => Ok(Self::All),
            _ => Err("is none of refusals, all and off"),
        }
    }
}

/// A part of all requests, from none to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Of 2³² equally likely numbers, those below this.
    below: u64,
}

impl Share {
    /// Every request.
    pub const ALL: Self = Self { below: 1 << 32 };
    /// No request.
    pub const NONE: Self = Self { below: 0 };

    /// Whether a request is of that part, by a number that is evenly spread.
    #[must_use]
    pub fn takes(self, random: u32) -> bool {
        u64::from(random) < self.below
    }
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let part: Option<f64> = text.parse().ok().filter(|_| is_plain);
        let part = part.filter(|part| (0.0..=1.0).contains(part));
        let part = part.ok_or("is no number from 0 to 1, such as 0.01")?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and 2³²"
        )]
        let below = (part * Self::ALL.below as f64).ceil() as u64;
        Ok(Self { below })
    }
}

/// Headers that are recorded, by their names in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderNames(Vec<String>);

impl HeaderNames {
    /// In the order in which they were listed.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for HeaderNames {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut names: Vec<String> = Vec::new();
        let members = list.split(',').map(str::trim);
        for name in members.filter(|name| !name.is_empty()) {
            let name = name.to_ascii_lowercase();
            let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.len() > HEADER_NAME_BYTES_MAX || !name.bytes().all(is_token) {
                return Err(format!("{name:?} is no name of a header"));
            }
            if is_secret(&name) {
                return Err(format!(
                    "{name} may hold a credential, and is never recorded"
                ));
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
        match names.len() {
            ..=HEADERS_MAX => Ok(Self(names)),
            _ => Err(format!("lists more than {HEADERS_MAX} headers")),
        }
    }
}

impl fmt::Display for HeaderNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Who collects traces: host and port of a collector that takes OTLP over gRPC, in plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector(String);

impl Collector {
    /// Host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.0
    }
}

impl FromStr for Collector {
    type Err = &'static str;

    /// `http://host:4317`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "is not http://host:port, in plaintext";
        let rest = text.strip_prefix("http://").ok_or(wrong)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or(wrong)?;
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        let is_host = |b: u8| b.is_ascii_alphanumeric() || b".-_[]:".contains(&b);
        match is_port && !host.is_empty() && host.bytes().all(is_host) {
            true => Ok(Self(rest.to_owned())),
            false => Err(wrong),
        }
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// Whether a header of that name, in lower case, may hold a credential.
#[must_use]
pub fn is_secret(name: &str) -> bool {
    SECRETS.iter().any(|secret| name.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_with_credentials_are_never_listed() {
        let good = "User-Agent, x-tenant,,x-tenant";
        let names: HeaderNames = good.parse().expect("valid");
        assert_eq!(names.names(), ["user-agent", "x-tenant"]);
        assert_eq!(names.to_string().parse(), Ok(names));
        let rows = [
            "authorization",
            "Cookie",
            "x-tenant,set-cookie",
            "proxy-authorization",
            "X-Api-Key",
            "x-amz-security-token",
            "x-session-id",
            "a b",
            "ä",
            &"a".repeat(65),
            &(0..17).map(|n| format!("h{n},")).collect::<String>(),
        ];
        for list in rows {
            assert!(list.parse::<HeaderNames>().is_err(), "{list}");
        }
    }

    #[test]
    fn a_collector_is_host_and_port() {
        let rows = [
            ("http://otel.system.svc:4317", true),
            ("http://[fd00::1]:4317/", true),
            ("https://otel:4317", false),
            ("http://otel", false),
            ("http://otel:0", false),
            ("http://:4317", false),
            ("http://a@otel:4317", false),
            ("http://otel/v1:4317", false),
        ];
        for (text, good) in rows {
            assert_eq!(text.parse::<Collector>().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_share_takes_its_part() {
        let rows = [
            ("0", Some((false, false))),
            ("1", Some((true, true))),
            ("1.0", Some((true, true))),
            ("0.5", Some((true, false))),
            ("0.0000000001", Some((true, false))),
            ("1.1", None),
            ("-1", None),
            ("1e-2", None),
            ("nan", None),
            ("", None),
        ];
        for (text, expected) in rows {
            let share: Option<Share> = text.parse().ok();
            let found = share.map(|share| (share.takes(0), share.takes(u32::MAX)));
            assert_eq!(found, expected, "{text}");
        }
    }
}
