//! Who gets a certificate: TokenReview by the API server itself, bound to the pod.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Test;
use super::caller::{Shown, certify, certify_by};
use super::control_plane::ControlPlane;
use super::mesh::Mesh;

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "attestation::a_bound_token_of_ours_and_nothing_else",
        |plane| plane.runtime.block_on(tokens(plane)),
    ),
    (
        "attestation::a_certificate_is_renewed_by_its_own_pod_alone",
        |plane| plane.runtime.block_on(renewals(plane)),
    ),
    ("attestation::bad_tokens_are_paced", |plane| {
        plane.runtime.block_on(paced(plane))
    }),
];

async fn tokens(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    let root = mesh.root().await?;
    let objects = &mesh.objects;
    let shop = objects.own("shop");
    let namespace = shop.as_str();
    objects.namespace(namespace, &Value::Null).await?;
    for account in ["cart", "pay"] {
        objects.account(namespace, account).await?;
    }
    // Asked for at once: the watch may not have told of the pod yet.
    let cart = objects.pod(namespace, "cart-1", "cart", "10.1.1.1").await?;
    let good = objects.token(&cart, "ringmail").await?;
    let ask = |pod: &'static str, token: String| {
        let (mesh, replica, root) = (&mesh, &replica, root.as_str());
        async move { certify(mesh, replica, root, (namespace, pod), &token).await }
    };
    let certified = ask("cart-1", good.clone()).await?;
    let identity = certified
        .map_err(|refused| anyhow::anyhow!("{refused}\n{}", replica.log()))?
        .identity;
    ensure!(
        identity == format!("spiffe://mesh.local/ns/{shop}/sa/cart"),
        "{identity}"
    );

    let pay = objects.pod(namespace, "pay-1", "pay", "10.1.1.2").await?;
    let second = objects.pod(namespace, "cart-2", "cart", "10.1.1.3").await?;
    let rows = [
        (
            "of another audience",
            "cart-1",
            objects
                .token(&cart, "https://kubernetes.default.svc")
                .await?,
            "Unauthenticated",
        ),
        (
            "bound to no pod",
            "cart-1",
            objects
                .token_of(namespace, "cart", "ringmail", None)
                .await?,
            "Unauthenticated",
        ),
        (
            "of another pod and account",
            "cart-1",
            objects.token(&pay, "ringmail").await?,
            "PermissionDenied",
        ),
        (
            "of another pod of its account",
            "cart-1",
            objects.token(&second, "ringmail").await?,
            "PermissionDenied",
        ),
        (
            "no token at all",
            "cart-1",
            "e30.e30.e30".into(),
            "Unauthenticated",
        ),
        (
            "of a pod that is not there",
            "gone",
            good.clone(),
            "PermissionDenied",
        ),
    ];
    for (what, pod, token, wanted) in rows {
        let refused = ask(pod, token).await?.err();
        let refused = refused.ok_or_else(|| anyhow::anyhow!("a token {what} proves {pod}"))?;
        ensure!(refused.starts_with(wanted), "{what}: {refused}");
    }

    // The pod goes, its token with it, although the API server believes a token for some seconds more; a pod of the same
    // name later is another.
    let known = replica.status().await?["workloads"].as_u64();
    objects.delete_pod(namespace, "cart-1").await?;
    replica
        .shows("the pod is gone", |status| {
            status["workloads"].as_u64() < known
        })
        .await?;
    let refused = ask("cart-1", good.clone()).await?.err();
    ensure!(refused.is_some(), "a deleted pod's token proves it");
    let again = objects.pod(namespace, "cart-1", "cart", "10.1.1.4").await?;
    let refused = ask("cart-1", good).await?.err();
    ensure!(
        refused.is_some(),
        "the token of an older pod proves a newer"
    );
    let token = objects.token(&again, "ringmail").await?;
    ensure!(ask("cart-1", token).await?.is_ok(), "{}", replica.log());
    for pod in ["cart-1", "cart-2", "pay-1"] {
        objects.delete_pod(namespace, pod).await?;
    }
    replica.terminate()
}

/// With the key of a pod that is gone, and other pods of its account running.
async fn renewals(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    let root = mesh.root().await?;
    let objects = &mesh.objects;
    let shop = objects.own("shop");
    let namespace = shop.as_str();
    objects.namespace(namespace, &Value::Null).await?;
    for account in ["cart", "pay"] {
        objects.account(namespace, account).await?;
    }
    let first = objects.pod(namespace, "cart-1", "cart", "10.1.1.1").await?;
    let second = objects.pod(namespace, "cart-2", "cart", "10.1.1.2").await?;
    let pay = objects.pod(namespace, "pay-1", "pay", "10.1.1.3").await?;
    let ask = |pod: &'static str, certificate: Option<_>, token: Option<&str>| {
        let (mesh, replica, root) = (&mesh, &replica, root.as_str());
        let token = token.map(str::to_owned);
        let shown = Shown { certificate, token };
        async move { certify_by(mesh, replica, root, (namespace, pod), shown).await }
    };
    let token = objects.token(&first, "ringmail").await?;
    let certified = ask("cart-1", None, Some(&token)).await?;
    let certified = certified.map_err(anyhow::Error::msg)?;
    let certificate = || Some(certified.certificate.clone());
    let renewed = ask("cart-1", certificate(), Some(&token)).await?;
    ensure!(renewed.is_ok(), "{:?}", renewed.err());
    let others = objects.token(&pay, "ringmail").await?;
    let seconds = objects.token(&second, "ringmail").await?;
    let rows = [
        ("cart-1", None, "Unauthenticated"),
        ("cart-2", None, "Unauthenticated"),
        ("cart-2", Some(&token), "PermissionDenied"),
        ("cart-1", Some(&seconds), "PermissionDenied"),
        ("pay-1", Some(&others), "PermissionDenied"),
    ];
    for (pod, token, wanted) in rows {
        let refused = ask(pod, certificate(), token.map(String::as_str)).await?;
        let refused = refused.err().context("renewed")?;
        ensure!(refused.starts_with(wanted), "{pod}: {refused}");
    }

    let known = replica.status().await?["workloads"].as_u64();
    objects.delete_pod(namespace, "cart-1").await?;
    replica
        .shows("the pod is gone", |status| {
            status["workloads"].as_u64() < known
        })
        .await?;
    for (pod, token) in [("cart-1", Some(&token)), ("cart-1", None), ("cart-2", None)] {
        let refused = ask(pod, certificate(), token.map(String::as_str)).await?;
        ensure!(
            refused.is_err(),
            "the key of a deleted pod is renewed as {pod}"
        );
    }
    for pod in ["cart-2", "pay-1"] {
        objects.delete_pod(namespace, pod).await?;
    }
    replica.terminate()
}

async fn paced(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    let root = mesh.root().await?;
    let mut refused = String::new();
    for _ in 0..40 {
        let outcome = certify(&mesh, &replica, &root, ("shop", "cart-1"), "e30.e30.e30").await?;
        refused = outcome.err().unwrap_or_default();
        if refused.starts_with("ResourceExhausted") {
            break;
        }
    }
    ensure!(refused.starts_with("ResourceExhausted"), "{refused}");
    replica.terminate()
}
