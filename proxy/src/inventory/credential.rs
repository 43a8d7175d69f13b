//! What a request shows to say who it is, and whether that looks like a secret that somebody pasted somewhere. Pure.
//!
//! No credential is kept: a salted hash of one tells only whether it is the same again.

use std::hash::{BuildHasher, RandomState};

use crate::http::neutral::Fields;

/// Fields that carry API keys.
const KEY_FIELDS: [&str; 5] = [
    "x-api-key",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-access-token",
];
/// Parameters of a query that carry keys.
const KEY_PARAMETERS: [&str; 8] = [
    "api_key",
    "apikey",
    "api-key",
    "key",
    "token",
    "access_token",
    "auth_token",
    "secret",
];

/// A kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `Authorization: Bearer`, or another scheme that is not told apart.
    Bearer,
    /// `Authorization: Basic`.
    Basic,
    /// A field of its own.
    ApiKeyHeader,
    /// In the query.
    ApiKeyQuery,
    /// A session.
    Cookie,
}

impl Kind {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Basic => "basic",
            Self::ApiKeyHeader => "api_key_header",
            Self::ApiKeyQuery => "api_key_query",
            Self::Cookie => "cookie",
        }
    }

    /// Whether one of this kind stays the same by its nature.
    pub(super) fn is_static(self) -> bool {
        matches!(self, Self::Basic | Self::ApiKeyHeader | Self::ApiKeyQuery)
    }

    /// Whether it can be told from another.
    pub(super) fn is_followed(self) -> bool {
        self != Self::Cookie
    }
}

/// One that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) kind: Kind,
    pub(super) fingerprint: u64,
}

/// What a request shows.
pub(super) fn shown(target: &str, fields: Fields<'_>, salt: &RandomState) -> Vec<Credential> {
    let mut found = Vec::new();
    let mut put = |kind, value: &[u8]| {
        let fingerprint = salt.hash_one(value);
        found.push(Credential { kind, fingerprint });
    };
    for (name, value) in fields {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("authorization") {
            let is_basic = value
                .get(..6)
                .is_some_and(|begin| begin.eq_ignore_ascii_case(b"basic "));
            put(if is_basic { Kind::Basic } else { Kind::Bearer }, value);
        } else if KEY_FIELDS.iter().any(|known| is(known)) {
            put(Kind::ApiKeyHeader, value);
        } else if is("cookie") {
            put(Kind::Cookie, value);
        }
    }
    let query = target.split_once('?').map_or("", |(_, query)| query);
    for (name, value) in query.split('&').filter_map(|one| one.split_once('=')) {
        let is_key = KEY_PARAMETERS
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known));
        if is_key && !value.is_empty() {
            put(Kind::ApiKeyQuery, value.as_bytes());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::neutral::put_field;

    #[test]
    fn credentials_are_seen_and_not_kept() {
        let salt = RandomState::new();
        let see = |target: &str, fields: &[(&str, &str)]| {
            let mut head = Vec::new();
            for (name, value) in fields {
                put_field(&mut head, name.as_bytes(), value.as_bytes());
            }
            shown(target, Fields::check(&head).expect("valid"), &salt)
        };
        let kinds = |found: Vec<Credential>| found.iter().map(|one| one.kind).collect::<Vec<_>>();
        assert_eq!(kinds(see("/", &[("host", "a")])), []);
        let rows = [
            ("/", ("Authorization", "Bearer abc"), Kind::Bearer),
            ("/", ("authorization", "basic abc"), Kind::Basic),
            ("/", ("X-API-Key", "abc"), Kind::ApiKeyHeader),
            ("/", ("cookie", "a=b"), Kind::Cookie),
            ("/?a=b&api_key=abc", ("a", "b"), Kind::ApiKeyQuery),
        ];
        for (target, field, kind) in rows {
            assert_eq!(kinds(see(target, &[field])), [kind], "{target} {field:?}");
        }
        let with = |value| see("/", &[("authorization", value)]);
        assert_eq!(with("Bearer a"), with("Bearer a"));
        assert_ne!(with("Bearer a"), with("Bearer b"));
        assert_eq!(kinds(see("/?key=&token", &[])), []);
    }
}
