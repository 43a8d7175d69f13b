//! One-time tokens. Only their SHA-256 is kept: one file of 0600 each in `join-tokens/` of the state directory, named by
//! the digest, so that using a token is removing a file, which succeeds once whoever asks and survives a restart. They
//! are made by another process while the controller runs. At most `TOKENS_MAX` are open at once.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use aws_lc_rs::digest::{SHA256, digest};
use ringmail_proto::identity::SpiffeId;
use rustls::pki_types::UnixTime;
use serde::{Deserialize, Serialize};

use super::Denied;
use crate::files::{self, Readers};

/// Tokens that are not used yet.
pub const TOKENS_MAX: usize = 10_000;
/// Bytes of one record.
const RECORD_BYTES_MAX: u64 = 8 * 1024;
/// So that a token is recognised for what it is, by people and by secret scanners.
const PREFIX: &str = "ringmail-join-";
/// Random bytes of a token.
const SECRET_BYTES: usize = 32;

/// The open tokens of a state directory.
#[derive(Debug)]
pub struct JoinTokens {
    dir: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    spiffe_id: String,
    /// Seconds since the Unix epoch.
    expires: u64,
}

/// A token that was shown and is good; not used up yet.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    identity: SpiffeId,
}

impl JoinTokens {
    /// Opens the tokens of a state directory.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        files::private_dir(state_dir)?;
        let dir = state_dir.join("join-tokens");
        files::private_dir(&dir)?;
        Ok(Self { dir })
    }

    /// A fresh token that proves `identity` once within `ttl`.
    ///
    /// # Errors
    /// When it cannot be kept, or too many are open.
    pub fn make(&self, identity: &SpiffeId, ttl: Duration, now: UnixTime) -> io::Result<String> {
        if self.sweep(now)? >= TOKENS_MAX {
            return Err(io::Error::other("10000 join tokens are open already"));
        }
        let token = format!("{PREFIX}{}", files::random_hex::<SECRET_BYTES>()?);
        let record = Record {
            spiffe_id: identity.to_string(),
            expires: now.as_secs() + ttl.as_secs(),
        };
        let record = serde_json::to_vec(&record)?;
        files::replace(&self.path(&token), &record, Readers::Ourselves)?;
        Ok(token)
    }

    /// Whom `token` proves.
    pub(crate) fn check(&self, token: &str, now: UnixTime) -> Result<Claim, Denied> {
        if token.len() != PREFIX.len() + 2 * SECRET_BYTES {
            return Err(Denied::JoinToken);
        }
        let path = self.path(token);
        let record = match read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Denied::JoinToken),
            other => other.map_err(Denied::State)?,
        };
        if record.expires <= now.as_secs() {
            return Err(Denied::JoinToken);
        }
        let identity = record.spiffe_id.parse().map_err(|_| Denied::JoinToken)?;
        Ok(Claim { path, identity })
    }

    /// Removes what is expired; how many are left.
    fn sweep(&self, now: UnixTime) -> io::Result<usize> {
        let mut left = 0;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            match read(&path) {
                Ok(record) if record.expires <= now.as_secs() => {
                    // Another process may have been faster.
                    let _ = files::remove(&path);
                }
                Ok(_) | Err(_) => left += 1,
            }
        }
        Ok(left)
    }

    fn path(&self, token: &str) -> PathBuf {
        let hash = digest(&SHA256, token.as_bytes());
        self.dir.join(files::hex(hash.as_ref()))
    }
}

impl Claim {
    pub(crate) fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// Uses the token up.
    pub(crate) fn redeem(self) -> Result<(), Denied> {
        match files::remove(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Denied::JoinToken),
            other => other.map_err(Denied::State),
        }
    }
}

fn read(path: &Path) -> io::Result<Record> {
    Ok(serde_json::from_slice(&files::read(
        path,
        RECORD_BYTES_MAX,
    )?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000 + seconds))
    }

    fn cart() -> SpiffeId {
        "spiffe://mesh.local/ns/shop/sa/cart"
            .parse()
            .expect("valid")
    }

    #[test]
    fn once_and_in_time() {
        let dir = tempfile::tempdir().expect("dir");
        let tokens = JoinTokens::open(dir.path()).expect("opened");
        let token = tokens.make(&cart(), TTL, at(0)).expect("made");
        assert!(tokens.check(&token, at(60)).is_err(), "expired");
        assert!(tokens.check(&token[1..], at(0)).is_err());
        assert!(tokens.check(&token.replace("join", "tram"), at(0)).is_err());
        let again = JoinTokens::open(dir.path()).expect("opened");
        let claims = [&tokens, &again].map(|one| one.check(&token, at(59)).expect("good"));
        assert_eq!(*claims[0].identity(), cart());
        let redeemed = claims.map(|claim| claim.redeem().is_ok());
        assert_eq!(redeemed, [true, false], "two that race: one wins");
        assert!(tokens.check(&token, at(0)).is_err(), "used");
    }

    #[test]
    fn the_token_itself_is_not_kept_and_expired_ones_go() {
        let dir = tempfile::tempdir().expect("dir");
        let tokens = JoinTokens::open(dir.path()).expect("opened");
        let token = tokens.make(&cart(), TTL, at(0)).expect("made");
        let secret = &token[PREFIX.len()..];
        for entry in fs::read_dir(dir.path().join("join-tokens")).expect("listed") {
            let path = entry.expect("entry").path();
            assert!(!path.display().to_string().contains(secret));
            let text = fs::read_to_string(path).expect("read");
            assert!(!text.contains(secret));
        }
        tokens.make(&cart(), TTL, at(61)).expect("made");
        assert_eq!(tokens.sweep(at(61)).expect("swept"), 1);
    }
}
