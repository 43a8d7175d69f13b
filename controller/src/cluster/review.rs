//! Whom the API server takes a token for: TokenReview with our audience, and no fallback.
//!
//! A token counts when the API server says that it is good, for our audience, of a service account, and bound to a pod,
//! whose name and UID it names; all else proves nothing. Limits: `TOKEN_BYTES_MAX`, `REVIEWS_MAX` at a time of
//! `REVIEW_TIMEOUT` each.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use ringmail_proto::identity::{SpiffeId, TrustDomain, WorkloadName};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

/// The audience of the tokens that sidecars are given.
pub(crate) const AUDIENCE: &str = "ringmail";
/// Bytes of a token.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Reviews at a time; further callers wait, as long as a review may take.
const REVIEWS_MAX: usize = 64;
/// One review, waiting included.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// User name of a service account.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// What the API server says about the pod of a bound token.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Whom a good token proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) identity: SpiffeId,
    pub(crate) pod: WorkloadName,
    pub(crate) uid: String,
}

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReviewError {
    #[error("{0}")]
    Refused(String),
    #[error("the API server cannot be asked about tokens")]
    Unavailable,
}

/// Asks the API server.
pub(crate) struct Reviewer {
    api: Api<TokenReview>,
    trust_domain: TrustDomain,
    places: Semaphore,
}

impl std::fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reviewer").finish_non_exhaustive()
    }
}

impl Reviewer {
    pub(crate) fn new(client: Client, trust_domain: TrustDomain) -> Self {
        Self {
            api: Api::all(client),
            trust_domain,
            places: Semaphore::new(REVIEWS_MAX),
        }
    }

    pub(crate) async fn review(&self, token: String) -> Result<Bound, ReviewError> {
        if token.len() > TOKEN_BYTES_MAX {
            let problem = "is larger than 16384 bytes";
            return Err(ReviewError::Refused(problem.into()));
        }
        let asked = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.into()]),
                token,
            },
            ..TokenReview::default()
        };
        let ask = async {
            // The semaphore is never closed.
            let _place = self.places.acquire().await;
            self.api.create(&PostParams::default(), &asked).await
        };
        match timeout(REVIEW_TIMEOUT, ask).await {
            Ok(Ok(answer)) => {
                let status = answer.status.unwrap_or_default();
                whose(status, &self.trust_domain).map_err(ReviewError::Refused)
            }
            Ok(Err(e)) => {
                warn!("no token review: {e}");
                Err(ReviewError::Unavailable)
            }
            Err(_) => {
                warn!("no token review within {REVIEW_TIMEOUT:?}");
                Err(ReviewError::Unavailable)
            }
        }
    }
}

/// What the answer proves.
fn whose(status: TokenReviewStatus, trust_domain: &TrustDomain) -> Result<Bound, String> {
    if status.authenticated != Some(true) {
        return Err("is refused by the API server".into());
    }
    // An API server that knows no audiences answers without any.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|one| one == AUDIENCE) {
        return Err(format!("is not for the audience {AUDIENCE}"));
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix(SERVICE_ACCOUNT);
    let (namespace, account) = account
        .and_then(|account| account.split_once(':'))
        .ok_or("is of no service account")?;
    let extra = user.extra.unwrap_or_default();
    let (Some(pod), Some(uid)) = (only(&extra, POD_NAME), only(&extra, POD_UID)) else {
        return Err("is bound to no pod".into());
    };
    Ok(Bound {
        identity: SpiffeId::new(trust_domain, namespace, account).map_err(|e| e.to_string())?,
        pod: WorkloadName::new(namespace, pod).map_err(|e| e.to_string())?,
        uid: uid.into(),
    })
}

/// The one value of that key.
fn only<'a>(extra: &'a BTreeMap<String, Vec<String>>, key: &str) -> Option<&'a str> {
    match extra.get(key).map(Vec::as_slice) {
        Some([one]) if !one.is_empty() => Some(one),
        Some(_) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn status(
        authenticated: bool,
        audiences: &[&str],
        user: &str,
        extra: &[(&str, &[&str])],
    ) -> TokenReviewStatus {
        let texts = |texts: &[&str]| texts.iter().map(|one| (*one).to_owned()).collect();
        let extra = extra
            .iter()
            .map(|(key, values)| ((*key).to_owned(), texts(values)));
        TokenReviewStatus {
            authenticated: Some(authenticated),
            audiences: Some(texts(audiences)),
            error: None,
            user: Some(UserInfo {
                username: Some(user.into()),
                extra: Some(extra.collect()),
                ..UserInfo::default()
            }),
        }
    }

    #[test]
    fn only_a_token_of_ours_bound_to_a_pod_proves_anything() {
        let good: &[(&str, &[&str])] = &[(POD_NAME, &["cart-1"]), (POD_UID, &["u1"])];
        let cart = "system:serviceaccount:shop:cart";
        let rows: &[(TokenReviewStatus, Result<(), &str>)] = &[
            (status(true, &["ringmail"], cart, good), Ok(())),
            (status(true, &["other", "ringmail"], cart, good), Ok(())),
            (status(false, &["ringmail"], cart, good), Err("refused")),
            (status(true, &[], cart, good), Err("audience")),
            (status(true, &["ringmail2"], cart, good), Err("audience")),
            (status(true, &["ringmail"], "admin", good), Err("account")),
            (
                status(true, &["ringmail"], "system:serviceaccount:shop", good),
                Err("account"),
            ),
            (
                status(true, &["ringmail"], "system:serviceaccount:a/b:c", good),
                Err("namespace"),
            ),
            (status(true, &["ringmail"], cart, &[]), Err("no pod")),
            (status(true, &["ringmail"], cart, &good[..1]), Err("no pod")),
            (status(true, &["ringmail"], cart, &good[1..]), Err("no pod")),
            (
                status(
                    true,
                    &["ringmail"],
                    cart,
                    &[(POD_NAME, &["a", "b"]), (POD_UID, &["u"])],
                ),
                Err("no pod"),
            ),
            (TokenReviewStatus::default(), Err("refused")),
        ];
        let domain: TrustDomain = "mesh.local".parse().expect("domain");
        for (row, (status, wanted)) in rows.iter().enumerate() {
            match (whose(status.clone(), &domain), wanted) {
                (Ok(bound), Ok(())) => {
                    let id = "spiffe://mesh.local/ns/shop/sa/cart";
                    assert_eq!(bound.identity.as_str(), id, "row {row}");
                    assert_eq!(bound.pod.to_string(), "shop/cart-1");
                    assert_eq!(bound.uid, "u1");
                }
                (Err(problem), Err(part)) => {
                    assert!(problem.contains(part), "row {row}: {problem}");
                }
                (found, _) => unreachable!("row {row}: {found:?}"),
            }
        }
    }
}
