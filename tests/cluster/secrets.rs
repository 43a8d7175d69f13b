//! Roots and issuers in Secrets.

use anyhow::{Context, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use super::Test;
use super::caller::certify;
use super::control_plane::{ControlPlane, eventually};
use super::mesh::Mesh;

pub(crate) const TESTS: &[(&str, Test)] = &[
    (
        "secrets::replicas_that_start_at_once_agree_on_a_root",
        |plane| plane.runtime.block_on(agree(plane)),
    ),
    ("secrets::an_issuer_kept_by_others_is_followed", |plane| {
        plane.runtime.block_on(issuer(plane))
    }),
    ("secrets::the_bundle_is_where_pods_need_it", |plane| {
        plane.runtime.block_on(bundle(plane))
    }),
];

async fn agree(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replicas = ["controller-1", "controller-2", "controller-3"].map(|pod| mesh.launch(pod));
    let replicas = replicas.into_iter().collect::<Result<Vec<_>, _>>()?;
    for replica in &replicas {
        replica.ready().await?;
    }
    let root = mesh.root().await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    let pod = mesh
        .objects
        .pod(&shop, "cart-1", "default", "10.1.2.1")
        .await?;
    for replica in replicas {
        // Each proves itself under the one root, and signs with an issuer of its own.
        let token = mesh.objects.token(&pod, "ringmail").await?;
        let outcome = certify(&mesh, &replica, &root, (&shop, "cart-1"), &token).await?;
        ensure!(outcome.is_ok(), "{outcome:?}\n{}", replica.log());
        replica.terminate()?;
    }
    mesh.objects.delete_pod(&shop, "cart-1").await?;
    // A restart finds the same.
    let replica = mesh.start("controller-1").await?;
    ensure!(mesh.root().await? == root, "the root changed");
    replica.terminate()
}

/// An authority as cert-manager would keep one.
struct Kept {
    root: Issuer<'static, KeyPair>,
    root_pem: String,
}

impl Kept {
    fn new(name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let params = authority(name)?;
        let root_pem = params.self_signed(&key)?.pem();
        Ok(Self {
            root: Issuer::new(params, key),
            root_pem,
        })
    }

    fn secret(&self, name: &str) -> anyhow::Result<Value> {
        let key = KeyPair::generate()?;
        let issuer = authority(name)?.signed_by(&key, &self.root)?;
        let bytes = |text: String| json!(ByteString(text.into_bytes()));
        Ok(
            json!({"tls.crt": bytes(issuer.pem()), "tls.key": bytes(key.serialize_pem()),
            "ca.crt": bytes(self.root_pem.clone())}),
        )
    }
}

fn authority(name: &str) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.subject_alt_names = vec![SanType::URI("spiffe://mesh.local".try_into()?)];
    Ok(params)
}

async fn issuer(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::with(plane, &["controller.issuerSecret=ringmail-issuer"]).await?;
    let put = |data: Value| {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "ringmail-issuer", "namespace": mesh.namespace}, "data": data});
        let objects = &mesh.objects;
        async move { objects.apply(&secret).await }
    };
    let (first, second) = (Kept::new("first root")?, Kept::new("second root")?);
    put(first.secret("first issuer")?).await?;
    let replica = mesh.start("controller-1").await?;
    let shop = mesh.objects.own("shop");
    mesh.objects.namespace(&shop, &Value::Null).await?;
    let pod = mesh
        .objects
        .pod(&shop, "cart-1", "default", "10.1.3.1")
        .await?;
    let token = mesh.objects.token(&pod, "ringmail").await?;
    let ask = |root: String| {
        let (mesh, replica, shop, token) = (&mesh, &replica, shop.as_str(), token.as_str());
        async move { certify(mesh, replica, &root, (shop, "cart-1"), token).await }
    };
    let certified = ask(first.root_pem.clone()).await?;
    ensure!(
        certified.as_ref().is_ok_and(|one| one.roots == 1),
        "{certified:?}"
    );

    // A key of another: refused, and nothing changes.
    let mut mixed = first.secret("mixed issuer")?;
    mixed["tls.key"] = first.secret("another")?["tls.key"].clone();
    put(mixed).await?;
    replica.counts("issuer_refused", 1.0).await?;
    ensure!(ask(first.root_pem.clone()).await?.is_ok());
    eventually("there is an event", || async {
        let events = Api::<k8s_openapi::api::events::v1::Event>::namespaced(
            plane.client.clone(),
            &mesh.namespace,
        );
        let all = events.list(&ListParams::default()).await.ok()?;
        all.items
            .iter()
            .any(|one| one.reason.as_deref() == Some("IssuerRefused"))
            .then_some(())
    })
    .await
    .with_context(|| replica.log())?;

    // A new root: both are trusted, then the new issuer signs, our own certificate too.
    put(second.secret("second issuer")?).await?;
    eventually("both roots are told", || async {
        let certified = ask(first.root_pem.clone()).await.ok()?.ok()?;
        (certified.roots == 2).then_some(())
    })
    .await
    .with_context(|| replica.log())?;

    // One that starts later trusts the old root too: leaves under it live on.
    let bundles = Api::<ConfigMap>::namespaced(plane.client.clone(), &mesh.namespace);
    eventually("both roots are published", || async {
        let pem = bundles.get("ringmail-trust-bundle").await.ok()?.data?;
        (pem["root.pem"].matches("BEGIN").count() == 2).then_some(())
    })
    .await?;
    replica.terminate()?;
    let replica = mesh.start("controller-2").await?;
    let certified = certify(&mesh, &replica, &second.root_pem, (&shop, "cart-1"), &token).await?;
    ensure!(
        certified.as_ref().is_ok_and(|one| one.roots == 2),
        "after a restart: {certified:?}"
    );
    mesh.objects.delete_pod(&shop, "cart-1").await?;
    replica.terminate()
}

async fn bundle(plane: &ControlPlane) -> anyhow::Result<()> {
    let mesh = Mesh::new(plane).await?;
    let replica = mesh.start("controller-1").await?;
    let root = mesh.root().await?;
    let [labelled, with_pod, neither] =
        ["labelled", "with-pod", "neither"].map(|name| mesh.objects.own(name));
    for name in [&with_pod, &neither] {
        mesh.objects.namespace(name, &Value::Null).await?;
    }
    mesh.objects
        .namespace(&labelled, &json!({"ringmail.io/inject": "enabled"}))
        .await?;
    mesh.objects
        .pod(&with_pod, "cart-1", "default", "10.1.4.1")
        .await?;
    let read = |namespace: String| {
        let api = Api::<ConfigMap>::namespaced(plane.client.clone(), &namespace);
        async move {
            api.get_opt("ringmail-trust-bundle")
                .await
                .ok()?
                .and_then(|one| one.data?.remove("root.pem"))
        }
    };
    for namespace in [&mesh.namespace, &labelled, &with_pod] {
        let pem = eventually("the bundle is there", || read(namespace.clone())).await;
        ensure!(pem.with_context(|| replica.log())? == root, "{namespace}");
    }
    ensure!(
        read(neither).await.is_none(),
        "a namespace without the mesh has its bundle"
    );
    mesh.objects.delete_pod(&with_pod, "cart-1").await?;

    // One that is lost comes back as it was.
    let secrets = Api::<Secret>::namespaced(plane.client.clone(), &mesh.namespace);
    secrets.delete("ringmail-root", &Default::default()).await?;
    eventually("the root is made again", || async {
        mesh.root().await.ok()
    })
    .await
    .with_context(|| replica.log())?;
    ensure!(mesh.root().await? == root, "it is another");
    // Nor does a replaced one make two meshes.
    let key = KeyPair::generate()?;
    let pem = authority("other root")?.self_signed(&key)?.pem();
    let replaced = json!({"data": {
        "root.crt": ByteString(pem.into_bytes()),
        "root.key": ByteString(key.serialize_pem().into_bytes()),
    }});
    secrets
        .patch(
            "ringmail-root",
            &PatchParams::default(),
            &Patch::Merge(&replaced),
        )
        .await?;
    replica.counts("issuer_refused", 1.0).await?;
    eventually("both roots are published", || async {
        let all = read(mesh.namespace.clone()).await?;
        (all.contains(&root) && all.matches("BEGIN").count() == 2).then_some(())
    })
    .await
    .with_context(|| replica.log())?;

    // A Secret that is no root is never overwritten, and stops the start.
    replica.terminate()?;
    let broken = json!({"data": {"root.crt": ByteString(b"no PEM".to_vec())}});
    let patch = Patch::Merge(&broken);
    secrets
        .patch("ringmail-root", &PatchParams::default(), &patch)
        .await?;
    let replica = mesh.launch("controller-1")?;
    eventually("it says why", || async {
        replica.log().contains("ringmail-root").then_some(())
    })
    .await?;
    ensure!(mesh.root().await? == "no PEM");
    Ok(())
}
