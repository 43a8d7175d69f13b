//! Who else is asked, as it is written and as it is meant.

use std::collections::BTreeMap;

use kube::KubeSchema;
use ringmail_proto::policy::external::TIMEOUT_DEFAULT;
use ringmail_proto::{Invalid, pb};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::meaning::{Selected, Target};
use crate::source::duration::milliseconds;

/// Somebody who may refuse: asked as Envoy's `ext_authz` asks (gRPC, v3), with mutual TLS.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct External {
    /// Who is asked; its pods are in the mesh.
    pub service: AuthorizerRef,
    /// For an answer: 1ms to 10s; 200ms, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^([0-9]{1,5}(h|m|s|ms)){1,4}$"))]
    pub timeout: Option<String>,
    /// What becomes of a request about which nobody answers, or in time, or nothing that can be acted on.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Bodies are told as well; not, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_body: Option<IncludeBody>,
    /// Headers that are told; all of them, if absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 256)))]
    pub include_headers: Vec<String>,
    /// Told with each request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub context_extensions: BTreeMap<String, String>,
}

/// A port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizerRef {
    /// The policy's own, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The Service's; one with a cluster IP.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// As its clients dial it.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// What becomes of requests about which nobody answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "see External::on_failure")]
pub enum OnFailure {
    #[default]
    Deny,
    Allow,
}

/// How much of a body is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IncludeBody {
    /// A request with a larger body is refused: the rest could say something else.
    #[schemars(range(min = 1, max = 32768))]
    pub max_bytes: u32,
}

impl External {
    pub(super) fn wire(self, namespace: &str) -> Result<pb::ExternalAuthorizer, Invalid> {
        let timeout_ms = match &self.timeout {
            None => u64::try_from(TIMEOUT_DEFAULT.as_millis()).unwrap_or(u64::MAX),
            Some(text) => milliseconds(text).map_err(|e| e.inside("spec.external.timeout"))?,
        };
        let on_failure = match self.on_failure {
            OnFailure::Deny => pb::FailureMode::Deny,
            OnFailure::Allow => pb::FailureMode::Allow,
        };
        let mut headers = self.include_headers;
        headers
            .iter_mut()
            .for_each(|name| name.make_ascii_lowercase());
        let AuthorizerRef {
            namespace: own,
            name,
            port,
        } = self.service;
        let namespace = own.as_deref().unwrap_or(namespace);
        Ok(pb::ExternalAuthorizer {
            service: format!("{namespace}/{name}:{port}"),
            // Found where services are.
            address: String::new(),
            timeout_ms,
            on_failure: on_failure.into(),
            body_bytes_max: self.include_body.map_or(0, |body| body.max_bytes),
            headers,
            context_extensions: self.context_extensions.into_iter().collect(),
        })
    }

    /// Nobody would be asked whether somebody may be asked: the call of an authorizer is not asked about.
    pub(super) fn is_among(&self, targets: &[Target], namespace: &str) -> bool {
        let service = &self.service;
        let is_near = service
            .namespace
            .as_deref()
            .is_none_or(|own| own == namespace);
        let has = |target: &Target| match &target.pods {
            Selected::All => true,
            Selected::Service(name) => {
                let port = target.port.map(std::num::NonZeroU16::get);
                *name == service.name && port.is_none_or(|port| port == service.port)
            }
            // Known where pods are.
            Selected::Labels(_) => false,
        };
        is_near && targets.iter().any(has)
    }
}
