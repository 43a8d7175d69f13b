//! Who is asked where a policy asks somebody else, and how. Asked as Envoy's `ext_authz` asks: [`crate::ext_authz`].
//!
//! Limits: `TIMEOUT_MAX` for an answer, `BODY_BYTES_MAX` of a body that is told, `EXTENSIONS_MAX` words told with
//! each request, and `EXTERNALS_MAX` such policies for one workload.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use prost::Message;

use super::VALUES_MAX;
use super::wire::{at_most, header_name, short, unknown};
use crate::destination::{destination_name, parse_destination_name};
use crate::ext_authz::{CheckRequest, CheckResponse};
use crate::{Invalid, pb};

/// Policies for one workload that ask somebody else. What is beyond denies.
pub const EXTERNALS_MAX: usize = 8;
/// For an answer, where nobody says it.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_millis(200);
/// The longest there may be.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Of a body that is told: a proxy holds it all until there is an answer.
pub const BODY_BYTES_MAX: usize = 32 * 1024;
/// Words that are told with each request.
pub const EXTENSIONS_MAX: usize = 64;

/// The call that asks.
pub const CHECK_PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A question as it travels.
#[must_use]
pub fn question(asked: &CheckRequest) -> Vec<u8> {
    asked.encode_to_vec()
}

/// An answer that travelled; none where it is none.
#[must_use]
pub fn answer(bytes: &[u8]) -> Option<CheckResponse> {
    CheckResponse::decode(bytes).ok()
}

/// Somebody who may refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// `namespace/name:port`, for people.
    pub service: String,
    /// Where its clients dial it; none, where there is no such service.
    pub address: Option<SocketAddr>,
    /// For an answer.
    pub timeout: Duration,
    /// What becomes of requests without one.
    pub on_failure: OnFailure,
    /// Of a body that is told, all of it or none; 0: none.
    pub body_bytes_max: usize,
    /// Headers that are told, in lower case; all, if there are none.
    pub headers: Vec<String>,
    /// Told with each request.
    pub context_extensions: BTreeMap<String, String>,
}

/// What becomes of requests about which nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// They are refused.
    Deny,
    /// They go on.
    Allow,
}

impl TryFrom<pb::ExternalAuthorizer> for External {
    type Error = Invalid;

    fn try_from(wire: pb::ExternalAuthorizer) -> Result<Self, Invalid> {
        let on_failure = match wire.on_failure() {
            pb::FailureMode::Unspecified => return Err(unknown("on_failure")),
            pb::FailureMode::Deny => OnFailure::Deny,
            pb::FailureMode::Allow => OnFailure::Allow,
        };
        let timeout = Duration::from_millis(wire.timeout_ms);
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            return Err(Invalid::new("timeout", "is 0, or more than 10 s"));
        }
        let body_bytes_max = usize::try_from(wire.body_bytes_max).unwrap_or(usize::MAX);
        at_most("body_bytes_max", body_bytes_max, BODY_BYTES_MAX)?;
        at_most("headers", wire.headers.len(), VALUES_MAX)?;
        let extensions = wire.context_extensions;
        at_most("context_extensions", extensions.len(), EXTENSIONS_MAX)?;
        let extension = |(name, value)| {
            let field = "context_extensions";
            Ok((short(field, name)?, short(field, value)?))
        };
        let address = match wire.address.as_str() {
            "" => None,
            address => Some(parse_destination_name(address)?),
        };
        Ok(Self {
            service: short("service", wire.service)?,
            address,
            timeout,
            on_failure,
            body_bytes_max,
            headers: wire
                .headers
                .into_iter()
                .map(header_name)
                .collect::<Result<_, _>>()?,
            context_extensions: extensions
                .into_iter()
                .map(extension)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&External> for pb::ExternalAuthorizer {
    fn from(checked: &External) -> Self {
        let on_failure = match checked.on_failure {
            OnFailure::Deny => pb::FailureMode::Deny,
            OnFailure::Allow => pb::FailureMode::Allow,
        };
        Self {
            service: checked.service.clone(),
            address: checked.address.map(destination_name).unwrap_or_default(),
            timeout_ms: u64::try_from(checked.timeout.as_millis()).unwrap_or(u64::MAX),
            on_failure: on_failure.into(),
            body_bytes_max: u32::try_from(checked.body_bytes_max).unwrap_or(u32::MAX),
            headers: checked.headers.clone(),
            context_extensions: checked.context_extensions.clone().into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests;
