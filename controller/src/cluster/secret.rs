//! The root and the issuer, in Secrets of the controller's own namespace.
//!
//! `ringmail-root` is made by whichever replica is first: a create that finds one already there takes that one, so all
//! agree. It is never overwritten; one that cannot be read stops the start. One that is lost while a replica runs is made
//! again from what that has in memory, loudly; one that is another is trusted beside ours until the replica starts again.
//!
//! An issuer that somebody else keeps (a Secret of type kubernetes.io/tls) is followed: a good one takes over, a bad one is
//! refused and the one in force stays. Roots of formerly are in our own ConfigMap: they are trusted for another leaf's life.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use ringmail_proto::identity::TrustDomain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_stream::StreamExt;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use super::bundle::{BUNDLE, KEY as BUNDLE_KEY};
use crate::authority::{Authority, IssuerPem, RootPem};
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::stop::Stop;

/// Where the self-made root is.
pub(crate) const ROOT_SECRET: &str = "ringmail-root";
const ROOT_CERT: &str = "root.crt";
const ROOT_KEY: &str = "root.key";

/// After a watch that broke.
const RETRY: Duration = Duration::from_secs(5);
/// Seconds after which a watch is begun anew with a fresh look.
const WATCH_SECONDS: u32 = 240;
/// From a new root in the bundle to the first leaf under it: proxies must have heard of the root by then.
const SPREAD: Duration = Duration::from_secs(10);

/// The root that all replicas share, made when there is none.
pub(crate) async fn root(
    client: &Client,
    namespace: &str,
    trust_domain: &TrustDomain,
) -> anyhow::Result<RootPem> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    if let Some(secret) = api.get_opt(ROOT_SECRET).await? {
        return read_root(&secret);
    }
    let root = RootPem::make(trust_domain, UnixTime::now())?;
    match create_root(&api, &root).await {
        Ok(()) => {
            info!("made a new root, kept in Secret {namespace}/{ROOT_SECRET}");
            Ok(root)
        }
        // Another replica was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            read_root(&api.get(ROOT_SECRET).await?)
        }
        Err(e) => Err(e).context("cannot keep a new root"),
    }
}

async fn create_root(api: &Api<Secret>, root: &RootPem) -> Result<(), kube::Error> {
    let data = BTreeMap::from([
        (ROOT_CERT.into(), ByteString(root.cert.clone().into_bytes())),
        (ROOT_KEY.into(), ByteString(root.key.as_bytes().to_vec())),
    ]);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(ROOT_SECRET.into()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some("Opaque".into()),
        ..Secret::default()
    };
    let created = api.create(&PostParams::default(), &secret).await;
    created.map(drop)
}

/// The roots that were trusted last, as our own ConfigMap has them: none at the very first start. What cannot be read
/// keeps nobody from starting.
pub(crate) async fn former_roots(client: &Client, namespace: &str) -> Vec<CertificateDer<'static>> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let pem = match api.get_opt(BUNDLE).await {
        Ok(found) => found.and_then(|one| one.data?.remove(BUNDLE_KEY)),
        Err(e) => {
            warn!("cannot read ConfigMap {BUNDLE}, roots of formerly are not trusted: {e}");
            None
        }
    };
    let pem = pem.unwrap_or_default();
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    roots.unwrap_or_else(|e| {
        warn!("ConfigMap {BUNDLE} is no PEM, roots of formerly are not trusted: {e}");
        Vec::new()
    })
}

fn read_root(secret: &Secret) -> anyhow::Result<RootPem> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.with_context(|| format!("Secret {ROOT_SECRET} has no {key}"))?;
        String::from_utf8(bytes.0.clone())
            .ok()
            .with_context(|| format!("Secret {ROOT_SECRET}: {key} is not PEM"))
    };
    Ok(RootPem {
        cert: text(ROOT_CERT)?,
        key: Zeroizing::new(text(ROOT_KEY)?),
    })
}

/// The issuer that somebody else keeps.
pub(crate) async fn issuer(
    client: &Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<IssuerPem> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    read_issuer(&api.get(name).await?)
}

fn read_issuer(secret: &Secret) -> anyhow::Result<IssuerPem> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let entry = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let bytes = bytes.with_context(|| format!("Secret {name} has no {key}"))?;
        anyhow::Ok((format!("Secret {name}: {key}"), bytes.0.clone()))
    };
    let (key_name, key) = entry("tls.key")?;
    Ok(IssuerPem {
        issuer_cert: entry("tls.crt")?,
        issuer_key: (key_name, Zeroizing::new(key)),
        root_cert: entry("ca.crt")?,
    })
}

/// What a Secret is to us.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Somebody else's issuer, whose successors take over.
    Issuer,
    /// The root of which this replica has its issuers.
    Root(RootPem),
}

/// Follows the Secret.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) kept: Kept,
    pub(crate) authority: Arc<Authority>,
    pub(crate) publisher: Publisher,
    /// Why what is there is refused.
    pub(crate) trouble: watch::Sender<Option<String>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Following {
    /// Until told to stop. Gets and watches that one Secret; a list it may not have.
    pub(crate) async fn run(self, client: Client, namespace: String, name: String, mut stop: Stop) {
        let api = Api::<Secret>::namespaced(client, &namespace);
        let follow = async {
            loop {
                if let Err(e) = self.watch(&api, &name).await {
                    warn!("cannot watch Secret {name}, its last issuer stays in force: {e}");
                    sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = stop.stopped() => {}
            () = follow => {}
        }
    }

    async fn watch(&self, api: &Api<Secret>, name: &str) -> Result<(), kube::Error> {
        let Some(now) = api.get_opt(name).await? else {
            return self.restore(api, name).await;
        };
        let version = now.metadata.resource_version.clone().unwrap_or_default();
        self.take(&now).await;
        if self.authority.forget(UnixTime::now()) {
            self.publisher.bundle(self.authority.bundle());
            info!("a root of formerly is not trusted any more: the last leaf under it is over");
        }
        let which = WatchParams::default()
            .fields(&format!("metadata.name={name}"))
            .timeout(WATCH_SECONDS);
        let mut events = pin!(api.watch(&which, &version).await?);
        // The server ends a watch by itself; one that does not is not there any more.
        let limit = Duration::from_secs(u64::from(2 * WATCH_SECONDS));
        let deadline = Instant::now() + limit;
        while let Ok(event) = timeout_at(deadline, events.try_next()).await {
            let Some(event) = event? else {
                break;
            };
            match event {
                WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                    self.take(&secret).await;
                }
                WatchEvent::Deleted(_) => self.restore(api, name).await?,
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(e) => return Err(kube::Error::Api(e)),
            }
        }
        Ok(())
    }

    /// Whichever replica is first makes it again; the others find it there.
    async fn restore(&self, api: &Api<Secret>, name: &str) -> Result<(), kube::Error> {
        let Kept::Root(root) = &self.kept else {
            error!("Secret {name} is gone, its last issuer stays in force");
            sleep(RETRY).await;
            return Ok(());
        };
        error!("Secret {name} is gone; making it again from what this replica has in memory");
        match create_root(api, root).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            made => made,
        }
    }

    async fn take(&self, secret: &Secret) {
        let taken = match &self.kept {
            Kept::Issuer => match read_issuer(secret) {
                Ok(given) => self.succeed(&given).await,
                Err(e) => Err(e),
            },
            Kept::Root(root) => self.compare(root, secret),
        };
        if let Err(e) = &taken {
            error!("the Secret is refused, what was before stays in force: {e:#}");
        }
        self.metrics.issuer_refused.set(taken.is_err().into());
        let trouble = taken.err().map(|e| format!("{e:#}"));
        self.trouble.send_if_modified(|before| {
            let changed = *before != trouble;
            *before = trouble;
            changed
        });
    }

    /// Somebody replaced the root: replicas that start from now on sign under the other one.
    fn compare(&self, root: &RootPem, secret: &Secret) -> anyhow::Result<()> {
        let there = read_root(secret)?;
        if there.cert == root.cert {
            return Ok(());
        }
        if self.authority.trust_also(&there)? {
            self.publisher.bundle(self.authority.bundle());
        }
        anyhow::bail!(
            "Secret {ROOT_SECRET} holds another root than this replica signs under; both are trusted until the controllers \
             are restarted, which makes them all sign under the one there"
        )
    }

    /// First the new root is trusted, everywhere; then it is used.
    async fn succeed(&self, given: &IssuerPem) -> anyhow::Result<()> {
        let Some(successor) = self.authority.consider(given, UnixTime::now())? else {
            return Ok(());
        };
        if self.authority.trust(&successor)? {
            self.publisher.bundle(self.authority.bundle());
            info!("the issuer's Secret brings a new root; it is used in {SPREAD:?}");
            sleep(SPREAD).await;
        }
        self.authority.succeed(successor, UnixTime::now());
        self.metrics
            .issuer_expiry
            .set(self.authority.issuer_not_after());
        info!("signing with a new issuer");
        Ok(())
    }
}
