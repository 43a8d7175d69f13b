//! `/limits`: each rate limit with what is used of it, as this replica's ledger saw it within the last second. Values of
//! headers and claims may be secrets: in place of one there is a fingerprint, which nobody can make but this process.
//!
//! Limits: those of the ledger's surveys; [`VALUE_CHARS_MAX`].

use std::fmt::{self, Write};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use ringmail_proto::limit::ledger::KeyUse;
use ringmail_proto::limit::{
    Counts, Direction, KeyPart, Limit, Pace, Said, Scope, Terms, Unavailable,
};
use ringmail_proto::policy::Mode;
use serde::{Deserialize, Serialize};

use super::Pages;
use crate::ledger::shown::{State, Used};

/// Of one value of a key.
const VALUE_CHARS_MAX: usize = 200;
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 4;

/// The page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) ledger: LedgerState,
    pub(crate) limits: Vec<Row>,
}

/// How the ledger is, at one replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerState {
    pub(crate) home: LedgerHome,
    /// Whether it leases here, or only listens to what others remember; none if it is not here.
    pub(crate) leases: Option<bool>,
    /// Proxies that lease here.
    pub(crate) proxies: usize,
}

/// Where buckets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LedgerHome {
    /// In the memory of the replica that leads.
    Memory,
    Redis,
}

/// One limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `namespace/name` of the policy, a slash, and which of its limits.
    pub(crate) limit: String,
    pub(crate) rate: String,
    pub(crate) key: String,
    pub(crate) direction: String,
    pub(crate) scope: String,
    pub(crate) mode: String,
    pub(crate) on_unavailable: String,
    /// Why it refuses everything.
    pub(crate) problem: Option<String>,
    /// None where no ledger knows: of limits that each proxy keeps by itself, and while it is away.
    pub(crate) used: Option<Use>,
    /// Keys that proxies speak of.
    pub(crate) keys: Option<usize>,
    /// Those that use most.
    pub(crate) top: Vec<KeyRow>,
}

/// What is used of a limit, or of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Use {
    /// The part of what it lets through; of a limit, that of its busiest key.
    pub(crate) share: f64,
    /// Tokens spent in a second; of what is under way at once, tokens that proxies hold.
    pub(crate) tokens: f64,
    /// Requests refused in a second.
    pub(crate) refused: f64,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeyRow {
    pub(crate) key: String,
    pub(crate) used: Use,
}

/// What makes fingerprints of secrets: the same for the same value as long as this process lives.
pub(crate) struct Fingerprints(hmac::Key);

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprints")
    }
}

impl Fingerprints {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| anyhow::anyhow!("the system has no random numbers"))?;
        Ok(Self(key))
    }

    fn of(&self, secret: &[u8]) -> String {
        let tag = hmac::sign(&self.0, secret);
        let mut text = "#".to_owned();
        for byte in tag.as_ref().iter().take(FINGERPRINT_BYTES) {
            // A string takes everything.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// A key as it is shown; without `parts` nothing of it is.
    fn key(&self, terms: &Terms, parts: Option<&[KeyPart]>, key: &[u8]) -> String {
        let values = match terms.read_key(key) {
            Said::TooMany => return "(all others)".to_owned(),
            Said::TooLong => return "(all that are too long)".to_owned(),
            Said::Values(values) if values.is_empty() => return "(all)".to_owned(),
            Said::Values(values) if parts == Some(terms.key.as_slice()) => values,
            Said::Values(_) | Said::Unknown => return self.of(key),
        };
        let value = |(part, value): (&KeyPart, &[u8])| match part.is_secret() {
            _ if value.is_empty() => "-".to_owned(),
            true => self.of(value),
            false => {
                let text = String::from_utf8_lossy(value);
                text.chars().take(VALUE_CHARS_MAX).collect()
            }
        };
        let values: Vec<_> = terms.key.iter().zip(values).map(value).collect();
        values.join(" ")
    }
}

pub(super) fn page(pages: &Pages) -> Page {
    let shown = pages.ledger.borrow().clone();
    let mesh = pages.snapshots.borrow().mesh.clone();
    let is_away = shown.state == State::Away;
    let row = |limit: &Limit| {
        let unused = Used::default();
        let used = shown.limits.get(&limit.name).unwrap_or(&unused);
        row(limit, (!is_away).then_some(used), &pages.fingerprints)
    };
    Page {
        ledger: LedgerState {
            home: pages.ledger_home,
            leases: (!is_away).then_some(shown.state == State::Leasing),
            proxies: shown.sessions,
        },
        limits: mesh.limits().values().map(row).collect(),
    }
}

fn row(limit: &Limit, used: Option<&Used>, fingerprints: &Fingerprints) -> Row {
    let named = Row {
        limit: limit.name.to_string(),
        direction: match limit.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
        .to_owned(),
        mode: match limit.mode {
            Mode::Enforce => "enforce",
            Mode::Shadow => "shadow",
        }
        .to_owned(),
        ..Row::default()
    };
    let terms = match &limit.terms {
        Ok(terms) => terms,
        Err(invalid) => {
            return Row {
                problem: Some(invalid.to_string()),
                ..named
            };
        }
    };
    let used = used.filter(|_| terms.scope == Scope::Global);
    let key = |one: &KeyUse, parts| KeyRow {
        key: fingerprints.key(terms, parts, &one.key),
        used: Use {
            share: one.share,
            tokens: one.used,
            refused: one.refused,
        },
    };
    let top = used.map(|used| {
        let keys = used.of.top.iter();
        keys.map(|one| key(one, used.key.as_deref())).collect()
    });
    Row {
        rate: rate(terms),
        key: terms.key.iter().map(part).collect::<Vec<_>>().join(" "),
        scope: match terms.scope {
            Scope::Global => "global",
            Scope::Local => "local",
        }
        .to_owned(),
        on_unavailable: match terms.unavailable {
            Unavailable::LocalShare => "localShare",
            Unavailable::Allow => "allow",
            Unavailable::Deny => "deny",
        }
        .to_owned(),
        used: used.map(|Used { of, .. }| Use {
            share: of.share,
            tokens: of.used,
            refused: of.refused,
        }),
        keys: used.map(|used| used.of.keys),
        top: top.unwrap_or_default(),
        ..named
    }
}

/// As an object's author says it.
fn rate(terms: &Terms) -> String {
    let Pace {
        tokens,
        period,
        burst,
    } = terms.pace;
    let of = match terms.counts {
        Counts::Requests => "",
        Counts::Connections => " connections",
    };
    if terms.pace.is_at_once() {
        return format!("{burst}{of} at once");
    }
    let per = match period.as_secs() {
        1 => "second",
        60 => "minute",
        3600 => "hour",
        _ => "day",
    };
    match burst == tokens {
        true => format!("{tokens}{of}/{per}"),
        false => format!("{tokens}{of}/{per} burst {burst}"),
    }
}

fn part(part: &KeyPart) -> String {
    match part {
        KeyPart::Identity => "Identity".to_owned(),
        KeyPart::Namespace => "Namespace".to_owned(),
        KeyPart::ServiceAccount => "ServiceAccount".to_owned(),
        KeyPart::Network { .. } => "Network".to_owned(),
        KeyPart::Method => "Method".to_owned(),
        KeyPart::Host => "Host".to_owned(),
        KeyPart::Paths(_) => "Path".to_owned(),
        KeyPart::Header(name) => format!("Header:{name}"),
        KeyPart::Claim(name) => format!("Claim:{}", name.join(".")),
        KeyPart::Route => "Route".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringmail_proto::limit::OVERFLOW;

    use super::*;

    fn terms(key: Vec<KeyPart>) -> Terms {
        Terms {
            counts: Counts::Requests,
            matches: Vec::new(),
            pace: Pace {
                tokens: 10,
                period: Duration::from_secs(60),
                burst: 3,
            },
            key,
            cost: 1,
            cost_header: None,
            scope: Scope::Global,
            unavailable: Unavailable::Deny,
            proxies: 2,
        }
    }

    fn limit(terms: Terms) -> Limit {
        Limit {
            name: "shop/calls/0".into(),
            mode: Mode::Shadow,
            direction: Direction::Inbound,
            ports: Vec::new(),
            terms: Ok(terms),
        }
    }

    #[test]
    fn secrets_are_fingerprints_and_all_else_is_as_it_is() {
        let fingerprints = Fingerprints::new().expect("random numbers");
        let by_user = [
            KeyPart::ServiceAccount,
            KeyPart::Header("x-user".to_owned()),
            KeyPart::Claim(vec!["sub".to_owned()]),
        ];
        let terms = terms(by_user.to_vec());
        let shown = |key: &[u8]| fingerprints.key(&terms, Some(&by_user), key);
        let ada = shown(b"shop/cart\0ada\0ada");
        let words: Vec<_> = ada.split(' ').collect();
        assert_eq!(words[0], "shop/cart");
        assert_eq!(words[1], words[2], "the same value is known again");
        assert_eq!(words[1].len(), 1 + 2 * FINGERPRINT_BYTES);
        let bob = shown(b"shop/cart\0bob\0");
        assert!(
            bob.starts_with("shop/cart #") && bob.ends_with(" -"),
            "{bob}"
        );
        assert_ne!(bob.split(' ').nth(1), ada.split(' ').nth(1));

        let other = Fingerprints::new().expect("random numbers");
        let theirs = other.key(&terms, Some(&by_user), b"shop/cart\0ada\0ada");
        assert_ne!(theirs, ada, "of another process");

        let rows: [(&[u8], &str); 2] = [
            (OVERFLOW, "(all others)"),
            (b"\0\0", "(all that are too long)"),
        ];
        for (key, expected) in rows {
            assert_eq!(shown(key), expected);
        }
        let is_hidden = |parts: Option<&[KeyPart]>, key: &[u8]| {
            let shown = fingerprints.key(&terms, parts, key);
            shown.starts_with('#') && shown.len() == 1 + 2 * FINGERPRINT_BYTES
        };
        let key = b"shop/cart\0ada\0ada";
        assert!(is_hidden(Some(&by_user), b"shop/cart\0ada"), "other parts");
        assert!(is_hidden(None, key), "nobody knows what it was made of");
        assert!(is_hidden(Some(&by_user[..1]), key), "of an older version");
    }

    #[test]
    fn a_row_says_what_the_author_said_and_what_is_used() {
        let fingerprints = Fingerprints::new().expect("random numbers");
        let mut used = Used::default();
        used.of.keys = 1;
        used.of.refused = 2.5;
        used.of.top = vec![KeyUse {
            key: b"".as_slice().into(),
            share: 0.5,
            used: 5.0,
            refused: 2.5,
        }];
        let global = row(&limit(terms(Vec::new())), Some(&used), &fingerprints);
        assert_eq!(global.rate, "10/minute burst 3");
        assert_eq!((global.mode.as_str(), global.keys), ("shadow", Some(1)));
        assert_eq!(global.top[0].key, "(all)");
        assert!(global.used.is_some_and(|used| used.refused > 2.0));

        let local = Terms {
            scope: Scope::Local,
            pace: Pace::at_once(7),
            counts: Counts::Connections,
            ..terms(Vec::new())
        };
        let local = row(&limit(local), Some(&used), &fingerprints);
        assert_eq!((local.scope.as_str(), local.used), ("local", None));
        assert_eq!(local.rate, "7 connections at once");
        let away = row(&limit(terms(Vec::new())), None, &fingerprints);
        assert_eq!((away.used, away.keys), (None, None));
    }
}
