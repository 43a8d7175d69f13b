//! Objects as users and the rest of a cluster make them: there is no scheduler and no kubelet here, so a pod runs when
//! its status says so.

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, TypeMeta};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::control_plane::eventually;

/// Kinds that have no namespace.
const CLUSTER_WIDE: [&str; 7] = [
    "IdentityRevocation",
    "Namespace",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];

/// Makes objects, as the administrator.
pub(crate) struct Objects {
    pub(crate) client: Client,
    /// Put before the names of namespaces, so that tests do not meet.
    prefix: String,
}

impl Objects {
    pub(crate) fn new(client: Client, prefix: &str) -> Self {
        Self {
            client,
            prefix: prefix.into(),
        }
    }

    /// The namespace of that name of this test alone.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A namespace and its default service account, which a controller would make.
    pub(crate) async fn namespace(
        &self,
        name: &str,
        annotations: &Value,
    ) -> anyhow::Result<Namespace> {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "annotations": annotations}});
        self.apply(&namespace).await?;
        self.account(name, "default").await?;
        let api = Api::<Namespace>::all(self.client.clone());
        Ok(api.get(name).await?)
    }

    pub(crate) async fn account(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        self.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": name, "namespace": namespace}}))
            .await
    }

    /// A pod that runs at `address`, with a sidecar.
    pub(crate) async fn pod(
        &self,
        namespace: &str,
        name: &str,
        account: &str,
        address: &str,
    ) -> anyhow::Result<Pod> {
        let image = "registry.example/app";
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": account}},
            "spec": {"serviceAccountName": account, "nodeName": "node-1",
                "initContainers": [{"name": "ringmail-proxy", "image": image, "restartPolicy": "Always"}],
                "containers": [{"name": "app", "image": image, "ports": [{"containerPort": 8080}]}]}});
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        api.create(&PostParams::default(), &serde_json::from_value(pod)?)
            .await?;
        self.runs(namespace, name, address).await
    }

    /// A pod runs, as its kubelet says.
    pub(crate) async fn runs(
        &self,
        namespace: &str,
        name: &str,
        address: &str,
    ) -> anyhow::Result<Pod> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        let status = json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}]}});
        let patch = Patch::Strategic(&status);
        Ok(api
            .patch_status(name, &PatchParams::default(), &patch)
            .await?)
    }

    /// Deletes a pod at once, as a kubelet that is done with it.
    pub(crate) async fn delete_pod(&self, namespace: &str, name: &str) -> anyhow::Result<()> {
        let api = Api::<Pod>::namespaced(self.client.clone(), namespace);
        api.delete(name, &DeleteParams::default().grace_period(0))
            .await?;
        eventually("the pod is gone", || async {
            api.get_opt(name).await.ok()?.is_none().then_some(())
        })
        .await
    }

    /// A token of a service account, bound to a pod.
    pub(crate) async fn token(&self, pod: &Pod, audience: &str) -> anyhow::Result<String> {
        let namespace = pod.metadata.namespace.clone().context("a namespace")?;
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.clone());
        let bound = BoundObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
        };
        self.token_of(
            &namespace,
            &account.context("an account")?,
            audience,
            Some(bound),
        )
        .await
    }

    pub(crate) async fn token_of(
        &self,
        namespace: &str,
        account: &str,
        audience: &str,
        bound: Option<BoundObjectReference>,
    ) -> anyhow::Result<String> {
        let request: TokenRequest = serde_json::from_value(json!({"spec": {
            "audiences": [audience], "boundObjectRef": bound, "expirationSeconds": 3600}}))?;
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        let answer = api
            .create_token_request(account, &PostParams::default(), &request)
            .await?;
        answer
            .status
            .and_then(|status| status.token)
            .context("a token")
    }

    /// Every document of a YAML text.
    pub(crate) async fn apply_all(&self, text: &str) -> anyhow::Result<()> {
        for document in text.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(document)?;
            self.apply(&object).await?;
        }
        Ok(())
    }

    pub(crate) async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let api = self.api(object)?;
        let params = PatchParams::apply("test").force();
        let applied = api.patch(name, &params, &Patch::Apply(object)).await;
        applied.map(drop).with_context(|| format!("{object}"))
    }

    /// As it is in the cluster.
    pub(crate) async fn get(&self, object: &Value) -> anyhow::Result<DynamicObject> {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        Ok(self.api(object)?.get(name).await?)
    }

    fn api(&self, object: &Value) -> anyhow::Result<Api<DynamicObject>> {
        let types: TypeMeta = serde_json::from_value(object.clone())?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let client = self.client.clone();
        if CLUSTER_WIDE.contains(&resource.kind.as_str()) {
            return Ok(Api::all_with(client, &resource));
        }
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .context("a namespace")?;
        Ok(Api::namespaced_with(client, namespace, &resource))
    }
}

/// A pod as users write it.
pub(crate) fn plain_pod(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "app", "image": "registry.example/app",
            "ports": [{"containerPort": 8080}]}]}})
}

/// The environment of a container as a kubelet fills it in: what the pod's fields say, and `$(NAME)` of variables before.
pub(crate) fn variables(container: &Value, namespace: &str, pod: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for one in container["env"].as_array().into_iter().flatten() {
        let path = one.pointer("/valueFrom/fieldRef/fieldPath");
        let mut value = match path.and_then(Value::as_str) {
            Some("metadata.namespace") => namespace.to_owned(),
            Some("metadata.name") => pod.to_owned(),
            _ => one["value"].as_str().unwrap_or_default().to_owned(),
        };
        for (name, before) in &found {
            value = value.replace(&format!("$({name})"), before);
        }
        let name = one["name"].as_str().unwrap_or_default();
        found.push((name.to_owned(), value));
    }
    found
}
