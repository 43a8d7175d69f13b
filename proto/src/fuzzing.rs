//! Doors for fuzzers (`tests/fuzz`): bytes in, and a panic if what must always hold does not. Not part of the contract.

use prost::Message;

use crate::bundle::TrustBundle;
use crate::destination::Destination;
use crate::identity::{SpiffeId, WorkloadName};
use crate::policy::{Authorization, Authorizer};
use crate::revocation::Revocations;
use crate::workload::Workload;
use crate::{Invalid, pb};

/// An identity is its text, and its parts make it again.
pub fn spiffe_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.as_str(), text);
        let again = SpiffeId::new(&id.trust_domain(), id.namespace(), id.service_account());
        assert_eq!(again, Ok(id), "other parts");
    }
    if let Ok(name) = text.parse::<WorkloadName>() {
        assert_eq!(name.to_string(), text);
    }
}

/// What a proxy takes of a controller's response says the same when it is sent again.
pub fn control(bytes: &[u8]) {
    use pb::resource::Resource;
    let Ok(response) = pb::WatchResponse::decode(bytes) else {
        return;
    };
    for resource in response.resources {
        match resource.resource {
            Some(Resource::TrustBundle(wire)) => survives::<_, TrustBundle>(wire),
            Some(Resource::Workload(wire)) => survives::<_, Workload>(wire),
            Some(Resource::Destination(wire)) => survives::<_, Destination>(wire),
            Some(Resource::Revocations(wire)) => survives::<_, Revocations>(wire),
            Some(Resource::Authorization(wire)) => authorization(wire),
            None => {}
        }
    }
}

/// What could not be understood is denied, and not sent on as it was.
fn authorization(wire: pb::Authorization) {
    let understood = Authorization::try_from(wire.clone()).is_ok_and(|checked| {
        let limits = checked.limits.iter().all(|limit| limit.terms.is_ok());
        limits && checked.policies.iter().all(|policy| policy.rules.is_ok())
    });
    if understood {
        survives::<_, Authorization>(wire.clone());
    }
    if let Ok(checked) = Authorization::try_from(wire) {
        let _ = Authorizer::new(checked);
    }
}

fn survives<Wire, Checked>(wire: Wire)
where
    Wire: for<'a> From<&'a Checked>,
    Checked: TryFrom<Wire, Error = Invalid> + PartialEq + std::fmt::Debug,
{
    let Ok(checked) = Checked::try_from(wire) else {
        return;
    };
    let again = Checked::try_from(Wire::from(&checked));
    assert_eq!(again, Ok(checked), "it says something else");
}

#[cfg(test)]
mod tests;
