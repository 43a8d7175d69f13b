//! Where a self-made authority is kept. Layout of the state directory (0700):
//!
//! - `root.pem` (0644): the root certificates, for proxies to begin with.
//! - `authority/root.pem`, `authority/issuer.pem` (0600): certificate and key together in one file, so that replacing
//!   a pair is one rename and a crash never leaves a key without its certificate.
//! - `authority/lock`: held while the pairs are read or made, so that two controllers never make two roots.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringmail_proto::identity::TrustDomain;
use rustix::fs::{FlockOperation, flock};
use rustls::pki_types::{CertificateDer, UnixTime};

use super::AuthorityError;
use super::signing::{NewAuthority, Pair, Signing, to_pem};
use crate::files::{self, Readers};

/// Life of a self-made root: ten years.
pub(super) const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Life of a self-made issuer: one year; it is made anew at half of it.
pub(super) const ISSUER_LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// A self-made authority on disk.
pub(super) struct Store {
    dir: PathBuf,
    trust_domain: TrustDomain,
    root: Pair,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Store {
    pub(super) fn open(
        state_dir: &Path,
        trust_domain: &TrustDomain,
        now: UnixTime,
    ) -> Result<Self, AuthorityError> {
        let dir = state_dir.join("authority");
        for one in [state_dir, &dir] {
            files::private_dir(one).map_err(|e| failed(one, e))?;
        }
        let _lock = lock(&dir)?;
        let path = dir.join("root.pem");
        let root = if path.exists() {
            Pair::read(&path)?
        } else {
            let root = new_root(trust_domain, now)?;
            keep(&path, &root)?;
            root
        };
        publish_roots(state_dir, &root.certificates)?;
        Ok(Self {
            dir,
            trust_domain: trust_domain.clone(),
            root,
        })
    }

    pub(super) fn root_certificate(&self) -> CertificateDer<'static> {
        self.root.certificates[0].clone()
    }

    /// The issuer that is to sign at `now`: the one on disk, or a new one when that is past half of its life.
    pub(super) fn issuer(&self, now: UnixTime) -> Result<Signing, AuthorityError> {
        let _lock = lock(&self.dir)?;
        let path = self.dir.join("issuer.pem");
        let kept = if path.exists() {
            Some(Pair::read(&path)?)
        } else {
            None
        };
        let fresh = match kept {
            Some(pair) if !past_half(pair.validity()?, now) => pair,
            Some(_) | None => {
                let pair = new_issuer(&self.root, &self.trust_domain, now)?;
                keep(&path, &pair)?;
                pair
            }
        };
        signing(fresh, &self.root)
    }
}

/// A root that signs itself.
pub(super) fn new_root(trust_domain: &TrustDomain, now: UnixTime) -> Result<Pair, AuthorityError> {
    let root = NewAuthority {
        title: "Ringmail root",
        trust_domain,
        path_length: 1,
        now,
        lifetime: ROOT_LIFETIME,
        not_after_max: u64::MAX,
    };
    root.self_signed()
}

/// An issuer of that root, which it does not outlive.
pub(super) fn new_issuer(
    root: &Pair,
    trust_domain: &TrustDomain,
    now: UnixTime,
) -> Result<Pair, AuthorityError> {
    let issuer = NewAuthority {
        title: "Ringmail issuer",
        trust_domain,
        path_length: 0,
        now,
        lifetime: ISSUER_LIFETIME,
        not_after_max: root.validity()?.1,
    };
    issuer.signed_by(&root.issuer()?)
}

/// What signs with an issuer of that root.
pub(super) fn signing(issuer: Pair, root: &Pair) -> Result<Signing, AuthorityError> {
    Ok(Signing {
        issuer: issuer.issuer()?,
        not_after: issuer.validity()?.1.min(root.validity()?.1),
        chain: issuer.certificates,
    })
}

/// Writes `root.pem`, with which proxies begin.
pub(super) fn publish_roots(
    state_dir: &Path,
    roots: &[CertificateDer<'_>],
) -> Result<(), AuthorityError> {
    files::private_dir(state_dir).map_err(|e| failed(state_dir, e))?;
    let path = state_dir.join("root.pem");
    files::replace(&path, to_pem(roots).as_bytes(), Readers::Everyone).map_err(|e| failed(&path, e))
}

pub(super) fn past_half((start, end): (u64, u64), now: UnixTime) -> bool {
    now.as_secs() >= start + end.saturating_sub(start) / 2
}

fn keep(path: &Path, pair: &Pair) -> Result<(), AuthorityError> {
    files::replace(path, pair.to_pem().as_bytes(), Readers::Ourselves).map_err(|e| failed(path, e))
}

/// The lock lasts until the file is dropped.
fn lock(dir: &Path) -> Result<File, AuthorityError> {
    let path = dir.join("lock");
    let take = || -> io::Result<File> {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    };
    take().map_err(|e| failed(&path, e))
}

fn failed(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::File {
        path: path.display().to_string(),
        source,
    }
}
